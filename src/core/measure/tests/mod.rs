//! Tests of the view, the judge and the verdict together: seconds go in, numbers and endings come out.

mod endings;
mod judging;
mod numbers;

use super::judge::{Finding, Judge};
use super::query::Over;
use super::slice::Stats;
use super::testing::{at_ease, key};
use super::threshold::parse_key;
use super::view::RunView;
use crate::model::plan::TestPlan;
use crate::model::threshold::Statistic;

/// One worker at ease, and in each second what `of` says, in phase `load`.
fn run(plan: &TestPlan, seconds: u32, of: impl Fn(u32) -> Stats) -> (RunView, Judge, Vec<Finding>) {
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
