//! Tests of the view, the judge and the verdict together: seconds go in, numbers and endings come out.

use super::judge::{FindingKind, Judge, Outcome};
use super::query::Over;
use super::slice::{GeneratorStat, Stats};
use super::testing::{at_ease, key, plan, requests, rule, stats, threshold};
use super::threshold::parse_key;
use super::validity::{Completeness, CompletenessKind, Gap, SessionState, completeness, saturation};
use super::verdict::{Circumstances, verdict};
use super::view::{LATE_S, RunView};
use crate::model::plan::{AutoStop, TestPlan};
use crate::model::run::{AbortedReason, Ending, EndingKind, ErrorReason};
use crate::model::threshold::{Metric, RuleAction, Statistic, Tags};
use proptest::prelude::*;
use std::time::Duration;

/// One worker at ease, and in each second what `of` says, in phase `load`.
fn run(plan: &TestPlan, seconds: u32, of: impl Fn(u32) -> Stats) -> (RunView, Judge, Vec<super::judge::Finding>) {
    let mut view = RunView::new(plan, 1);
    let mut judge = Judge::new(plan);
    let mut findings = Vec::new();
    for second in 0..seconds {
        let stats = of(second);
        view.apply(second, &key("load", "home"), &stats);
        view.apply_worker(second, 0, &at_ease("load", stats.requests.max(1)));
        findings.extend(judge.advance(&mut view));
    }
    (view, judge, findings)
}

fn whole(view: &RunView, text: &str, statistic: Statistic) -> Option<f64> {
    let (metric, tags) = parse_key(text).unwrap();
    view.value(metric, &tags, statistic, Over::Whole)
}

fn all_arrived() -> Completeness {
    completeness(&[], 0, 0)
}

fn ending(view: &RunView, outcome: &Outcome, circumstances: &Circumstances) -> String {
    let complete = Completeness {
        kind: CompletenessKind::Complete,
        percent: 100.0,
        gaps: Vec::new(),
    };
    verdict(view, outcome, &complete, circumstances).kind.to_string()
}

#[test]
fn s44_percentiles_are_of_all_workers_together_and_no_mean() {
    let plan = plan(&["load"]);
    let mut view = RunView::new(&plan, 2);
    // Nine fast requests at one worker, one slow at the other: the mean of their medians would be half a second.
    view.apply(0, &key("load", "home"), &requests(&[10; 9], 0));
    view.apply(0, &key("load", "home"), &requests(&[1_000], 1));
    assert!((whole(&view, "http_req_duration", Statistic::Med).unwrap() - 10.0).abs() < 0.01);
    assert_eq!(whole(&view, "http_req_duration", Statistic::Max), Some(1_000.0));
    assert_eq!(whole(&view, "http_req_duration", Statistic::Avg), Some(109.0));
    assert_eq!(whole(&view, "http_req_failed", Statistic::Rate), Some(0.1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn s48_parts_may_come_in_any_order(parts in prop::collection::vec((0_u32..20, 0_usize..3, stats()), 1..8), swap in any::<prop::sample::Index>()) {
        let plan = plan(&["load"]);
        let names = ["", "home", "order"];
        let (mut forth, mut back) = (RunView::new(&plan, 1), RunView::new(&plan, 1));
        let mut turned = parts.clone();
        turned.rotate_left(swap.index(parts.len()));
        for (second, name, stats) in &parts {
            forth.apply(*second, &key("load", names[*name]), stats);
        }
        for (second, name, stats) in turned.iter().rev() {
            back.apply(*second, &key("load", names[*name]), stats);
        }
        for metric in Metric::ALL {
            for statistic in [Statistic::Avg, Statistic::Percentile(95.0), Statistic::Max, Statistic::Count, Statistic::Rate] {
                for over in [Over::Whole, Over::Range(3, 9)] {
                    let value = |view: &RunView| view.value(metric, &Tags::default(), statistic, over);
                    prop_assert_eq!(value(&forth), value(&back));
                }
            }
        }
    }
}

#[test]
fn tags_pick_series() {
    let plan = plan(&["a", "b"]);
    let mut view = RunView::new(&plan, 1);
    view.apply(0, &key("a", "home"), &requests(&[10; 10], 0));
    view.apply(0, &key("a", "order"), &requests(&[20; 10], 5));
    view.apply(1, &key("b", "home"), &requests(&[30; 10], 10));
    for (text, statistic, value) in [
        ("http_reqs", Statistic::Count, 30.0),
        ("http_reqs{phase:a}", Statistic::Count, 20.0),
        ("http_req_failed{phase:a,name:order}", Statistic::Rate, 0.5),
        ("http_req_duration{name:home}", Statistic::Avg, 20.0),
        ("http_req_duration{scenario:default}", Statistic::Count, 30.0),
        // One second of each phase.
        ("http_reqs{phase:b}", Statistic::Rate, 10.0),
        ("http_reqs", Statistic::Rate, 15.0),
        ("dropped_iterations", Statistic::Count, 0.0),
    ] {
        assert_eq!(whole(&view, text, statistic), Some(value), "{text}");
    }
    for text in [
        "http_reqs{phase:c}",
        "http_req_duration{name:nobody}",
        "checks",
        "iteration_duration",
    ] {
        let statistic = if text == "checks" {
            Statistic::Rate
        } else {
            Statistic::Count
        };
        assert_eq!(whole(&view, text, statistic), None, "{text}");
    }
}

#[test]
fn rates_are_per_second_of_load_not_of_pauses_and_tails() {
    let plan = plan(&["a", "b"]);
    let mut view = RunView::new(&plan, 1);
    for second in (0..10).chain(100..110) {
        let phase = if second < 10 { "a" } else { "b" };
        view.apply(second, &key(phase, "home"), &requests(&[10; 5], 0));
        view.apply_worker(second, 0, &at_ease(phase, 5));
    }
    // A slow answer long after the last arrival.
    view.apply(120, &key("b", "home"), &requests(&[10_000], 0));
    assert_eq!(view.load_seconds(None), 20.0);
    assert_eq!(whole(&view, "http_reqs{phase:a}", Statistic::Rate), Some(5.0));
    view.set_phase_span("a", Duration::from_millis(12_500));
    assert_eq!(whole(&view, "http_reqs{phase:a}", Statistic::Rate), Some(4.0));
}

#[test]
fn s59_dropped_arrivals_rank_above_everything_in_whatever_is_judged() {
    let mut plan = plan(&["load"]);
    plan.thresholds = vec![
        threshold("http_req_duration", "p(90)<50ms"),
        threshold("http_req_duration", "p(95)<10m"),
        threshold("http_req_duration", "max<10m"),
        threshold("http_req_service_time", "p(99)<50ms"),
        threshold("dropped_iterations", "count<100"),
    ];
    let (view, mut judge, _) = run(&plan, 10, |_| Stats {
        overflow: 1,
        service_time: requests(&[10; 9], 0).duration,
        ..requests(&[10; 9], 0)
    });
    let results = judge.finish(&view).thresholds;
    let passed: Vec<bool> = results.iter().map(|result| result.passed).collect();
    assert_eq!(passed, [true, false, false, true, true]);
    assert!(results[1].above_all && !results[1].no_samples && results[1].value.is_none());
    assert_eq!(results[4].value, Some(10.0));
}

#[test]
fn s59_if_every_arrival_was_dropped_it_failed_and_is_not_without_samples() {
    let mut plan = plan(&["load"]);
    plan.thresholds = vec![threshold("http_req_duration", "avg<300ms")];
    let (view, mut judge, _) = run(&plan, 3, |_| Stats {
        overflow: 5,
        ..Stats::default()
    });
    let outcome = judge.finish(&view);
    assert_eq!(ending(&view, &outcome, &Circumstances::default()), "Failed(thresholds)");
}

#[test]
fn s45_a_threshold_without_samples_is_invalid_and_never_failed() {
    let mut plan = plan(&["load"]);
    plan.thresholds = vec![
        threshold("http_req_duration{name:nobody}", "p(95)<300ms"),
        threshold("http_req_duration", "p(95)<1ms"),
    ];
    let (view, mut judge, _) = run(&plan, 3, |_| requests(&[10], 0));
    let outcome = judge.finish(&view);
    assert_eq!(ending(&view, &outcome, &Circumstances::default()), "Invalid(noSamples)");
    let smoke = Circumstances {
        smoke: true,
        ..Circumstances::default()
    };
    assert_eq!(ending(&view, &outcome, &smoke), "Passed");
}

#[test]
fn s45_saturated_generators_make_a_run_invalid() {
    let bad: [fn(&mut GeneratorStat); 4] = [
        |stat| stat.cpu = 0.9,
        |stat| stat.steal = 0.05,
        |stat| stat.lag_p99_ns = 10_000_001,
        |stat| stat.own_drops = [("load".to_owned(), 1)].into(),
    ];
    for (which, spoil) in bad.into_iter().enumerate() {
        for (seconds, saturated) in [(1, false), (2, true)] {
            let plan = plan(&["load"]);
            let mut view = RunView::new(&plan, 1);
            for second in 0..100 {
                let mut stat = at_ease("load", 100);
                if second < seconds {
                    spoil(&mut stat);
                }
                view.apply(second, &key("load", "home"), &requests(&[10; 10], 0));
                view.apply_worker(second, 0, &stat);
            }
            assert_eq!(
                saturation(&view).is_some(),
                saturated,
                "reason {which}, {seconds} of 100 seconds"
            );
            let expected = if saturated { "Invalid(saturated)" } else { "Passed" };
            assert_eq!(ending(&view, &Outcome::default(), &Circumstances::default()), expected);
        }
    }
}

#[test]
fn s45_each_phase_counts_by_itself() {
    let plan = plan(&["long", "short"]);
    let mut view = RunView::new(&plan, 1);
    for second in 0..1_000 {
        view.apply_worker(second, 0, &at_ease("long", 100));
    }
    let stat = GeneratorStat {
        cpu: 0.95,
        ..at_ease("short", 100)
    };
    view.apply_worker(1_000, 0, &stat);
    let reason = saturation(&view).unwrap();
    assert!(reason.contains("100% of the arrivals of phase short"), "{reason}");
    assert!(reason.contains("CPU 95%"), "{reason}");
}

#[test]
fn s45_where_no_arrivals_were_counted_requests_stand_for_them() {
    let plan = plan(&["load"]);
    let mut view = RunView::new(&plan, 1);
    for second in 0..100 {
        let cpu = if second < 2 { 0.99 } else { 0.2 };
        view.apply(second, &key("load", "home"), &requests(&[10; 10], 0));
        view.apply_worker(
            second,
            0,
            &GeneratorStat {
                cpu,
                ..GeneratorStat::default()
            },
        );
    }
    assert!((view.bad_share("load") - 0.02).abs() < 1e-9);
    assert!(saturation(&view).is_some());
}

#[test]
fn s36_s45_users_exhausted_while_the_generator_is_on_time_is_the_targets_doing() {
    let mut plan = plan(&["load"]);
    plan.thresholds = vec![threshold("http_req_duration", "p(95)<300ms")];
    let (view, mut judge, _) = run(&plan, 20, |_| Stats {
        overflow: 50,
        ..requests(&[100; 50], 0)
    });
    let outcome = judge.finish(&view);
    assert_eq!(saturation(&view), None);
    assert_eq!(ending(&view, &outcome, &Circumstances::default()), "Failed(thresholds)");
}

#[test]
fn s36_where_several_endings_hold_the_first_of_the_order_wins() {
    let mut plan = plan(&["load"]);
    plan.thresholds = vec![threshold("http_req_failed", "rate<1%")];
    plan.validity.max_lost_workers = 1;
    let (view, mut judge, _) = run(&plan, 3, |_| requests(&[10], 1));
    let outcome = judge.finish(&view);
    let partial = completeness(&[], 1, 3);
    let event = |kind| Ending {
        kind,
        detail: "detail".to_owned(),
    };
    let stopped = event(EndingKind::Stopped);
    let aborted = event(EndingKind::Aborted(AbortedReason::Limit));
    let broke = event(EndingKind::Error(ErrorReason::Hook));
    let table = [
        (vec![broke.clone(), aborted.clone(), stopped], 5, "Stopped"),
        (vec![broke.clone(), aborted], 5, "Aborted(limit)"),
        (vec![broke], 5, "Error(hook)"),
        (vec![], 2, "Invalid(workers)"),
        (vec![], 1, "Invalid(incomplete)"),
    ];
    for (events, lost_workers, expected) in table {
        let circumstances = Circumstances {
            events,
            lost_workers,
            failed_verifications: vec!["orders".to_owned()],
            smoke: false,
        };
        assert_eq!(
            verdict(&view, &outcome, &partial, &circumstances).kind.to_string(),
            expected
        );
    }
    let circumstances = Circumstances {
        failed_verifications: vec!["orders".to_owned()],
        ..Circumstances::default()
    };
    assert_eq!(ending(&view, &outcome, &circumstances), "Failed(thresholds)");
    assert_eq!(ending(&view, &Outcome::default(), &circumstances), "Failed(verify)");
    let fine = ending(&view, &Outcome::default(), &Circumstances::default());
    assert_eq!(fine, "Passed");
}

#[test]
fn a_window_fails_once_any_has_broken_it_for_long_enough() {
    let windowed = |persists_for| {
        let mut plan = plan(&["load"]);
        let mut one = threshold("http_req_failed", "rate<50%");
        one.window = Some(Duration::from_secs(5));
        one.persists_for = Duration::from_secs(persists_for);
        one.abort_on_fail = true;
        plan.thresholds = vec![one];
        plan
    };
    // Ten bad seconds: windows [18,22] to [29,33] hold at least three of them.
    let bad = |second| requests(&[10], u64::from((20..30).contains(&second)));
    let (view, mut judge, findings) = run(&windowed(0), 60, bad);
    let result = judge.finish(&view).thresholds.remove(0);
    assert_eq!(
        (result.passed, result.failed_at, result.value),
        (false, Some(22), Some(1.0))
    );
    assert_eq!(findings.len(), 1, "it is found once: {findings:?}");
    assert_eq!((findings[0].second, &findings[0].kind), (22, &FindingKind::Threshold));
    for (persists_for, failed_at) in [(9, Some(31)), (12, None)] {
        let (view, mut judge, _) = run(&windowed(persists_for), 60, bad);
        let result = judge.finish(&view).thresholds.remove(0);
        assert_eq!(result.failed_at, failed_at, "for {persists_for}s");
        assert_eq!(result.passed, failed_at.is_none());
    }
}

#[test]
fn windows_are_full_delayed_and_within_load() {
    let mut plan = plan(&["load"]);
    let mut one = threshold("http_reqs", "rate>=5");
    one.window = Some(Duration::from_secs(5));
    one.delay_abort_eval = Duration::from_secs(20);
    plan.thresholds = vec![one.clone()];
    // Slow to begin with, which the delay forgives, and nothing after the last arrival, which is no load.
    let of = |second| requests(&vec![10; if second < 12 { 1 } else { 10 }], 0);
    let (mut view, mut judge, _) = run(&plan, 40, of);
    for second in 40..60 {
        view.apply_worker(second, 0, &GeneratorStat::default());
        judge.advance(&mut view);
    }
    let result = judge.finish(&view).thresholds.remove(0);
    assert!(result.passed, "{result:?}");
    one.delay_abort_eval = Duration::ZERO;
    plan.thresholds = vec![one.clone()];
    let (view, mut judge, _) = run(&plan, 40, of);
    assert_eq!(judge.finish(&view).thresholds[0].failed_at, Some(4));
    // A run shorter than the window is judged as a whole.
    one.window = Some(Duration::from_secs(90));
    plan.thresholds = vec![one];
    let (view, mut judge, _) = run(&plan, 10, |_| requests(&[10; 10], 0));
    let result = judge.finish(&view).thresholds.remove(0);
    assert_eq!((result.passed, result.value), (true, Some(10.0)));
}

#[test]
fn a_threshold_over_the_whole_aborts_while_the_run_goes_on() {
    let mut plan = plan(&["load"]);
    let mut one = threshold("http_req_failed", "rate<10%");
    one.abort_on_fail = true;
    one.delay_abort_eval = Duration::from_secs(10);
    one.persists_for = Duration::from_secs(3);
    plan.thresholds = vec![one];
    let (_, _, findings) = run(&plan, 30, |_| requests(&[10], 1));
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].second, &findings[0].kind), (12, &FindingKind::Threshold));
    assert_eq!(findings[0].detail, "http_req_failed: rate<10% (was 100%)");
    let (view, mut judge, findings) = run(&plan, 30, |second| requests(&[10; 10], u64::from(second == 0)));
    assert!(findings.is_empty() && judge.finish(&view).thresholds[0].passed);
}

#[test]
fn rules_act_when_they_have_been_true_for_long_enough() {
    let table = [
        ("worker_cpu", "value>90%", 3, RuleAction::Invalidate, Some(13)),
        ("worker_cpu", "value>90%", 11, RuleAction::Invalidate, None),
        ("worker_steal", "value>=4%", 0, RuleAction::Abort, Some(10)),
        ("worker_lag", "value>50ms", 0, RuleAction::Notify, Some(10)),
        ("http_req_duration", "value>99ms", 2, RuleAction::Pause, Some(12)),
        ("http_reqs", "value<1", 0, RuleAction::Abort, None),
    ];
    for (metric, when, persists_for, action, fired_at) in table {
        let mut plan = plan(&["load"]);
        plan.abort_rules = vec![rule(metric, when, persists_for, action)];
        let mut view = RunView::new(&plan, 1);
        let mut judge = Judge::new(&plan);
        let mut findings = Vec::new();
        for second in 0..30 {
            let busy = (10..20).contains(&second);
            view.apply(
                second,
                &key("load", "home"),
                &requests(&[if busy { 100 } else { 10 }; 5], 0),
            );
            let mut stat = at_ease("load", 5);
            if busy {
                (stat.cpu, stat.steal, stat.lag_p99_ns) = (0.95, 0.04, 60_000_000);
            }
            view.apply_worker(second, 0, &stat);
            findings.extend(judge.advance(&mut view));
        }
        assert_eq!(
            findings.first().map(|finding| finding.second),
            fired_at,
            "{metric} {when}"
        );
        let outcome = judge.finish(&view);
        assert_eq!(outcome.rules[0].fired_at, fired_at);
        let spoiled = outcome.invalidated_by().count() == 1;
        assert_eq!(spoiled, fired_at.is_some() && action == RuleAction::Invalidate);
    }
}

#[test]
fn a_target_that_is_down_stops_the_run() {
    let mut plan = plan(&["load"]);
    plan.auto_stop = Some(AutoStop::default());
    let (_, _, findings) = run(&plan, 100, |second| {
        requests(&[10; 10], if second < 20 { 0 } else { 10 })
    });
    assert_eq!(findings.len(), 1);
    // 54 of 60 seconds are bad.
    assert_eq!((findings[0].second, &findings[0].kind), (73, &FindingKind::AutoStop));
    assert_eq!(findings[0].detail, "90% of the requests of the last 1m failed");
    let (_, _, findings) = run(&plan, 59, |_| requests(&[10], 1));
    assert!(findings.is_empty(), "no full window yet");
}

#[test]
fn a_second_is_judged_when_every_worker_has_reported_it() {
    let plan = plan(&["load"]);
    let mut view = RunView::new(&plan, 2);
    assert_eq!(view.settled(), None);
    for second in 0..5 {
        view.apply_worker(second, 0, &at_ease("load", 1));
    }
    assert_eq!(view.settled(), None, "the other has not said a word");
    view.apply_worker(1, 1, &at_ease("load", 1));
    assert_eq!(view.settled(), Some(1));
    for second in 5..30 {
        view.apply_worker(second, 0, &at_ease("load", 1));
    }
    assert_eq!(
        view.settled(),
        Some(29 - LATE_S),
        "one that is far behind is not waited for"
    );
}

#[test]
fn seconds_that_no_window_needs_are_forgotten_and_the_rest_is_told_after_a_restart() {
    let mut plan = plan(&["load"]);
    let mut one = threshold("http_req_duration", "p(95)<50ms");
    one.window = Some(Duration::from_secs(30));
    plan.thresholds = vec![one];
    let of = |second| requests(&[if (100..140).contains(&second) { 100 } else { 10 }; 3], 0);
    let (view, mut judge, _) = run(&plan, 600, of);
    assert!(view.recent.len() <= 31, "{}", view.recent.len());
    let live = judge.finish(&view).thresholds;
    // The next daemon reads all parts in one go, and then looks.
    let mut again = RunView::new(&plan, 1);
    for second in 0..600 {
        again.apply(second, &key("load", "home"), &of(second));
        again.apply_worker(second, 0, &at_ease("load", 3));
    }
    let mut judge = Judge::new(&plan);
    judge.advance(&mut again);
    assert_eq!(judge.finish(&again).thresholds, live);
    assert!(!live[0].passed);
}

#[test]
fn live_numbers_follow_the_last_seconds() {
    let plan = plan(&["load"]);
    let (view, _, _) = run(&plan, 60, |second| {
        requests(
            &vec![if second < 50 { 10 } else { 200 }; if second < 50 { 10 } else { 20 }],
            2,
        )
    });
    let live = view.live();
    assert_eq!((live.second, live.vus, live.requests, live.failed), (60, 5, 700, 120));
    assert_eq!((live.requests_per_s, live.failed_share), (20.0, Some(0.1)));
    assert!((live.p95_ms.unwrap() - 200.0).abs() < 0.2);
    assert_eq!(RunView::new(&plan, 1).live(), super::query::Live::default());
}

#[test]
fn s48_completeness_counts_what_the_sessions_lack() {
    let session = |worker, watermark, end, dropped: &[(u64, u64)]| SessionState {
        worker,
        watermark,
        end,
        dropped: dropped.to_vec(),
    };
    let gap = |worker, from, to| Gap { worker, from, to };
    let table = [
        (
            vec![session(0, 100, Some(100), &[]), session(1, 100, Some(100), &[])],
            true,
            100.0,
            vec![],
        ),
        (
            vec![session(0, 100, Some(100), &[(11, 20)]), session(1, 100, Some(100), &[])],
            false,
            95.0,
            vec![gap(0, 11, 20)],
        ),
        (
            vec![session(0, 100, Some(100), &[]), session(1, 60, None, &[])],
            false,
            80.0,
            vec![gap(1, 61, 100)],
        ),
        (vec![session(0, 100, Some(100), &[])], false, 50.0, vec![gap(1, 1, 100)]),
        (
            vec![session(0, 100, Some(100), &[]), session(1, 50, Some(100), &[(41, 60)])],
            false,
            70.0,
            vec![gap(1, 41, 50), gap(1, 51, 100)],
        ),
        (
            vec![session(0, 100, Some(100), &[]), session(1, 100, None, &[])],
            false,
            100.0,
            vec![],
        ),
    ];
    for (sessions, complete, percent, gaps) in table {
        let found = completeness(&sessions, 2, 100);
        assert_eq!(found.kind == CompletenessKind::Complete, complete, "{sessions:?}");
        assert_eq!((found.percent, &found.gaps), (percent, &gaps), "{sessions:?}");
        assert_eq!(found.objection().is_some(), percent < 99.0);
    }
    assert_eq!(all_arrived().percent, 100.0);
    assert!(
        completeness(&[], 1, 0).objection().is_some(),
        "a run of which nothing came"
    );
}
