//! Thresholds, rules and autoStop, second by second.

use super::run;
use crate::measure::judge::{FindingKind, Judge};
use crate::measure::slice::{GeneratorStat, Stats};
use crate::measure::testing::{at_ease, key, plan, requests, rule, threshold};
use crate::measure::view::RunView;
use crate::model::plan::AutoStop;
use crate::model::threshold::RuleAction;
use std::time::Duration;

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
