//! Numbers out of a view.

use super::{run, whole};
use crate::measure::histogram::{Histogram, Precision};
use crate::measure::query::{Live, Over};
use crate::measure::slice::{GeneratorStat, Stats};
use crate::measure::summary::{metrics, trend_numbers};
use crate::measure::testing::{at_ease, key, plan, requests, stats, threshold};
use crate::measure::view::{LATE_S, RunView};
use crate::model::threshold::{Metric, RuleMetric, Statistic, Tags};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

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
    #![proptest_config(ProptestConfig::with_cases(20))]

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
fn the_summary_has_the_shapes_of_k6() {
    let mut view = RunView::new(&plan(&["load"]), 1);
    view.apply(0, &key("load", "home"), &requests(&[10; 8], 2));
    view.apply(0, &key("load", "order"), &requests(&[30; 2], 0));
    let thresholds = [
        threshold("http_req_duration{name:home}", "p(95)<1"),
        threshold("http_reqs", "count>1"),
    ];
    let all = metrics(&view, thresholds.iter());
    let parts: Vec<&String> = all.keys().filter(|key| key.contains('{')).collect();
    assert_eq!(
        parts,
        ["http_req_duration{name:home}"],
        "what a threshold is about, and nothing twice"
    );
    assert!(!all.contains_key("checks"), "no samples, no metric");
    assert_eq!(all["http_req_failed"], json!({"value": 0.2, "passes": 2, "fails": 8}));
    assert_eq!(all["http_reqs"], json!({"count": 10, "rate": 10.0}));
    assert_eq!(all["http_req_duration"]["max"], json!(30.0));
    assert_eq!(all["http_req_duration{name:home}"]["max"], json!(10.0));

    let none = Histogram::new(Precision::Fine);
    assert_eq!(trend_numbers(&none, 0), None);
    let dropped = trend_numbers(&none, 3).expect("dropped arrivals are samples");
    assert_eq!((&dropped["dropped"], &dropped["p(95)"]), (&json!(3), &Value::Null));
    let answered = trend_numbers(&requests(&[10], 0).duration.expect("there"), 0).expect("a sample");
    assert!(!answered.contains_key("dropped"), "{answered:?}");
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
    view.set_phase_span("a", Duration::ZERO);
    assert_eq!(
        whole(&view, "http_reqs{phase:a}", Statistic::Rate),
        None,
        "no time, no rate"
    );
    let over = |from, to| {
        view.value(
            Metric::HttpReqs,
            &Tags::default(),
            Statistic::Rate,
            Over::Range(from, to),
        )
    };
    assert_eq!((over(0, 9), over(5, 14), over(9, 9)), (Some(5.0), Some(2.5), Some(5.0)));
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
    assert_eq!(RunView::new(&plan, 1).live(), Live::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn s44_merged_on_the_way_or_not_the_numbers_are_the_same(parts in prop::collection::vec((0_u32..10, stats()), 1..8)) {
        let mut plan = plan(&["load"]);
        let mut windowed = threshold("http_req_waiting", "p(95)<1s");
        windowed.window = Some(Duration::from_secs(5));
        plan.thresholds = vec![windowed];
        let (mut single, mut merged) = (RunView::new(&plan, 1), RunView::new(&plan, 1));
        let mut seconds = BTreeMap::<u32, Stats>::new();
        for (second, stats) in &parts {
            single.apply(*second, &key("load", "home"), stats);
            seconds.entry(*second).or_default().merge(stats);
        }
        for (second, stats) in &seconds {
            merged.apply(*second, &key("load", "home"), stats);
        }
        for metric in Metric::ALL {
            for statistic in [Statistic::Avg, Statistic::Percentile(95.0), Statistic::Count, Statistic::Rate] {
                for over in [Over::Whole, Over::Range(2, 6)] {
                    let value = |view: &RunView| view.value(metric, &Tags::default(), statistic, over);
                    prop_assert_eq!(value(&single), value(&merged), "{}", metric);
                }
            }
        }
    }
}

#[test]
fn every_kind_of_metric_has_its_numbers() {
    let plan = plan(&["load"]);
    let mut view = RunView::new(&plan, 1);
    assert_eq!(whole(&view, "vus", Statistic::Value), None);
    for (second, vus, cpu) in [(0, 2, 0.25), (1, 9, 0.5), (2, 4, 0.75), (3, 3, 0.5)] {
        let mut stats = requests(&[10; 5], 0);
        (stats.data_sent, stats.data_received) = (100, 1_000);
        stats.add_check("status", 3, 1);
        view.apply(second, &key("load", "home"), &stats);
        let stat = GeneratorStat {
            vus,
            vus_max: vus + 1,
            cpu,
            ..at_ease("load", 5)
        };
        view.apply_worker(second, 0, &stat);
    }
    for (text, statistic, value) in [
        ("data_sent", Statistic::Count, 400.0),
        ("data_received", Statistic::Count, 4_000.0),
        ("data_received", Statistic::Rate, 1_000.0),
        ("checks", Statistic::Rate, 0.75),
        ("vus", Statistic::Value, 3.0),
        ("vus", Statistic::Min, 2.0),
        ("vus", Statistic::Max, 9.0),
        ("vus_max", Statistic::Max, 10.0),
    ] {
        assert_eq!(whole(&view, text, statistic), Some(value), "{text} {statistic:?}");
    }
    assert_eq!(view.rule_value(&RuleMetric::WorkerCpu, Over::Range(0, 3)), Some(0.5));
    assert_eq!(view.rule_value(&RuleMetric::WorkerCpu, Over::Range(1, 2)), Some(0.625));
}

#[test]
fn each_workers_own_numbers_are_those_of_its_last_seconds() {
    let mut view = RunView::new(&plan(&["a"]), 2);
    for second in 0..20 {
        view.apply_worker(second, 0, &at_ease("a", 10));
        // The second worker's rate doubles, and it stops reporting.
        if second < 15 {
            view.apply_worker(second, 1, &at_ease("a", if second < 10 { 10 } else { 20 }));
        }
    }
    // A part that comes late is not taken for the newest.
    let mut late = at_ease("a", 0);
    late.vus = 99;
    view.apply_worker(3, 0, &late);
    let workers = view.live_workers();
    let shown = workers
        .iter()
        .map(|worker| (worker.index, worker.second, worker.iterations_per_s));
    assert_eq!(shown.collect::<Vec<_>>(), [(0, 19, 10.0), (1, 14, 20.0)]);
    assert!(workers.iter().all(|worker| worker.vus != 99 && worker.bad_seconds == 0));
}
