//! The metrics of a run with the names, units and shapes of k6's `--summary-export`.

use super::histogram::Histogram;
use super::query::{Over, statistic_of};
use super::threshold::key_name;
use super::view::RunView;
use crate::model::threshold::{Metric, MetricType, Statistic, Tags, Threshold};
use serde_json::{Map, Number, Value};

/// The percentiles of every trend.
pub const PERCENTILES: [f64; 4] = [90.0, 95.0, 99.0, 99.9];

/// One metric's numbers by statistic: `avg`, `p(95)`, `count`, `rate` … Null: the number falls among dropped arrivals.
pub type Numbers = Map<String, Value>;

/// All metrics that have samples, by name; and those parts of them that thresholds are about, under the threshold's key.
pub fn metrics<'a>(view: &RunView, thresholds: impl Iterator<Item = &'a Threshold>) -> Map<String, Value> {
    let whole = Metric::ALL.into_iter().map(|metric| (metric, Tags::default()));
    let parts = thresholds
        .filter(|threshold| threshold.tags != Tags::default())
        .map(|threshold| (threshold.metric, threshold.tags.clone()));
    whole
        .chain(parts)
        .filter_map(|(metric, tags)| Some((key_name(metric, &tags), Value::Object(numbers(view, metric, &tags)?))))
        .collect()
}

/// The numbers of one metric, in k6's shape for its type. `None`: no samples.
pub fn numbers(view: &RunView, metric: Metric, tags: &Tags) -> Option<Numbers> {
    match metric.kind() {
        MetricType::Counter => {
            let count = view.value(metric, tags, Statistic::Count, Over::Whole)?;
            let rate = view.value(metric, tags, Statistic::Rate, Over::Whole);
            Some(map([
                ("count", whole(count as u64)),
                ("rate", real(rate.unwrap_or(0.0))),
            ]))
        }
        MetricType::Gauge => {
            let value = |statistic| view.value(metric, tags, statistic, Over::Whole);
            Some(map([
                ("value", whole(value(Statistic::Value)? as u64)),
                ("min", whole(value(Statistic::Min)? as u64)),
                ("max", whole(value(Statistic::Max)? as u64)),
            ]))
        }
        MetricType::Rate => {
            let value = view.value(metric, tags, Statistic::Rate, Over::Whole)?;
            let counters = view.counters(tags);
            // As in k6, `passes` counts the true samples: of http_req_failed those that failed.
            let (passes, fails) = if metric == Metric::HttpReqFailed {
                (counters.failed, counters.requests.saturating_sub(counters.failed))
            } else {
                (counters.check_passes, counters.check_fails)
            };
            Some(map([
                ("value", real(value)),
                ("passes", whole(passes)),
                ("fails", whole(fails)),
            ]))
        }
        MetricType::Trend => {
            let (histogram, overflow) = view.distribution(metric, tags);
            trend_numbers(&histogram, overflow)
        }
    }
}

/// A trend's numbers in milliseconds; `dropped` stands beside them where dropped arrivals rank above all (promise 59).
pub fn trend_numbers(histogram: &Histogram, overflow: u64) -> Option<Numbers> {
    if histogram.is_empty() && overflow == 0 {
        return None;
    }
    let value = |statistic| statistic_of(histogram, overflow, statistic).map_or(Value::Null, real);
    let mut numbers = map([
        ("avg", value(Statistic::Avg)),
        ("min", value(Statistic::Min)),
        ("med", value(Statistic::Med)),
        ("max", value(Statistic::Max)),
    ]);
    for percent in PERCENTILES {
        numbers.insert(format!("p({percent})"), value(Statistic::Percentile(percent)));
    }
    if overflow > 0 {
        numbers.insert("dropped".to_owned(), whole(overflow));
    }
    Some(numbers)
}

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Numbers {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn whole(value: u64) -> Value {
    Value::Number(Number::from(value))
}

/// Null for what JSON cannot say: infinite.
fn real(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
