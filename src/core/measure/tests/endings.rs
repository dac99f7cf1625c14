//! Validity, completeness and the verdict.

use super::run;
use crate::measure::judge::Outcome;
use crate::measure::slice::{GeneratorStat, Stats};
use crate::measure::testing::{at_ease, key, plan, requests, threshold};
use crate::measure::validity::{Completeness, CompletenessKind, GAPS_MAX, Gap, SessionState, completeness, saturation};
use crate::measure::verdict::{Circumstances, verdict};
use crate::measure::view::RunView;
use crate::model::run::{AbortedReason, Ending, EndingKind, ErrorReason};

fn ending(view: &RunView, outcome: &Outcome, circumstances: &Circumstances) -> String {
    let complete = Completeness {
        kind: CompletenessKind::Complete,
        percent: 100.0,
        gaps: Vec::new(),
    };
    verdict(view, outcome, &complete, circumstances).kind.to_string()
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
    let complete = completeness(&[], 0, 0);
    for (outcome, kind, detail) in [
        (&outcome, "Failed(thresholds)", "http_req_failed: rate<1% was 100%"),
        (&Outcome::default(), "Failed(verify)", "orders"),
    ] {
        let found = verdict(&view, outcome, &complete, &circumstances);
        assert_eq!((found.kind.to_string().as_str(), found.detail.as_str()), (kind, detail));
    }
    let fine = ending(&view, &Outcome::default(), &Circumstances::default());
    assert_eq!(fine, "Passed");
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
    let many: Vec<(u64, u64)> = (0..GAPS_MAX as u64 + 2)
        .map(|index| (4 * index + 1, 4 * index + 2))
        .collect();
    let found = completeness(
        &[session(0, 0, Some(1), &[]), session(1, 1_000, Some(1_000), &many)],
        2,
        100,
    );
    let gaps = &found.gaps;
    assert_eq!(gaps.len(), 1 + GAPS_MAX, "so many of each session are told one by one");
    assert_eq!(gaps[GAPS_MAX - 1], gap(1, 393, 394));
    assert_eq!(
        gaps[GAPS_MAX],
        gap(1, 397, 406),
        "and its last one reaches over the rest"
    );
    assert_eq!(completeness(&[], 0, 0).percent, 100.0);
    assert!(
        completeness(&[], 1, 0).objection().is_some(),
        "a run of which nothing came"
    );
}
