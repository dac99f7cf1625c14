//! Single numbers out of a run: a statistic of a metric over the whole run or some seconds, and what a progress display shows.

use super::histogram::{Histogram, Precision, Quantile};
use super::view::{Counters, LIVE_WINDOW_S, RunView, matches, trend};
use crate::model::threshold::{Metric, MetricType, RuleMetric, Statistic, Tags};
use serde::{Deserialize, Serialize};

/// Which seconds a number is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// All.
    Whole,
    /// The newest so many that every worker has reported.
    Last(u32),
    /// From the first to the second, both included, as far as details are kept.
    Range(u32, u32),
}

/// What a progress display shows, over the last [`LIVE_WINDOW_S`] seconds where it is a rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Run seconds so far.
    pub second: u32,
    /// Users active now.
    pub vus: u64,
    /// Requests so far.
    pub requests: u64,
    /// Iterations so far.
    pub iterations: u64,
    /// Failed requests so far.
    pub failed: u64,
    /// Dropped arrivals so far.
    pub dropped: u64,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Iterations per second.
    pub iterations_per_s: f64,
    /// Share of failed requests, 0 to 1.
    pub failed_share: Option<f64>,
    /// p95 of `http_req_duration` in milliseconds; null as well when it falls among dropped arrivals.
    pub p95_ms: Option<f64>,
    /// Highest CPU share of any worker, 0 to 1.
    pub cpu: f64,
    /// Highest p99 of any worker's own lag, in milliseconds.
    pub lag_ms: f64,
}

/// One worker in a progress display.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveWorker {
    /// Its index.
    pub index: u32,
    /// The newest second it reported.
    pub second: u32,
    /// Users active in it.
    pub vus: u64,
    /// Iterations that were due at it, per second over the last [`LIVE_WINDOW_S`] seconds.
    pub iterations_per_s: f64,
    /// p99 of its own lag in that second, in milliseconds.
    pub lag_ms: f64,
    /// Seconds so far in which its numbers do not count (promise 45).
    pub bad_seconds: u64,
}

struct Picked {
    series: usize,
    counters: Counters,
    histogram: Histogram,
}

impl RunView {
    /// How each worker is doing that has reported, by index.
    pub fn live_workers(&self) -> Vec<LiveWorker> {
        let worker = |(index, view): (&u32, &super::view::WorkerView)| LiveWorker {
            index: *index,
            second: view.newest,
            vus: view.vus,
            iterations_per_s: view.arrivals_per_s(),
            lag_ms: view.lag_ms,
            bad_seconds: view.bad_seconds,
        };
        self.workers().iter().map(worker).collect()
    }

    /// A number in its base unit: milliseconds, a share of 0 to 1, bytes, a count, or per second; infinite where it falls among dropped
    /// arrivals (promise 59). `None`: there were no samples, or the statistic does not fit the metric.
    pub fn value(&self, metric: Metric, tags: &Tags, statistic: Statistic, over: Over) -> Option<f64> {
        let over = self.resolve(over)?;
        if metric.kind() == MetricType::Gauge {
            return self.gauge(metric, statistic, over);
        }
        let picked = self.pick(metric, tags, over);
        let counters = &picked.counters;
        let count = match metric {
            Metric::HttpReqs => counters.requests,
            Metric::Iterations => counters.iterations,
            Metric::DroppedIterations => counters.overflow,
            Metric::DataSent => counters.data_sent,
            Metric::DataReceived => counters.data_received,
            Metric::HttpReqFailed => return share(statistic, counters.failed, counters.requests),
            Metric::Checks => {
                let total = counters.check_passes.saturating_add(counters.check_fails);
                return share(statistic, counters.check_passes, total);
            }
            Metric::HttpReqDuration => return statistic_of(&picked.histogram, counters.overflow, statistic),
            _ => return statistic_of(&picked.histogram, 0, statistic),
        };
        if picked.series == 0 {
            return None;
        }
        match statistic {
            Statistic::Count => Some(count as f64),
            Statistic::Rate => {
                let seconds = match over {
                    Over::Range(from, to) => f64::from(to - from + 1),
                    _ => self.load_seconds(tags.phase.as_deref()),
                };
                (seconds > 0.0).then(|| count as f64 / seconds)
            }
            _ => None,
        }
    }

    /// What an abort rule looks at, over some seconds: of workers the mean of each second's highest.
    pub fn rule_value(&self, metric: &RuleMetric, over: Over) -> Option<f64> {
        let of_workers = |value: fn(&super::view::Point) -> f64| {
            let Over::Range(from, to) = self.resolve(over)? else {
                return None;
            };
            let points: Vec<f64> = self
                .timeline
                .range(from..=to)
                .filter(|(_, point)| point.workers > 0)
                .map(|(_, point)| value(point))
                .collect();
            (!points.is_empty()).then(|| points.iter().sum::<f64>() / points.len() as f64)
        };
        match metric {
            RuleMetric::WorkerCpu => of_workers(|point| point.cpu),
            RuleMetric::WorkerSteal => of_workers(|point| point.steal),
            RuleMetric::WorkerLag => of_workers(|point| point.lag_ms),
            RuleMetric::Measured { metric, tags } => {
                let statistic = match metric.kind() {
                    MetricType::Counter | MetricType::Rate => Statistic::Rate,
                    MetricType::Gauge => Statistic::Value,
                    MetricType::Trend => Statistic::Percentile(95.0),
                };
                self.value(*metric, tags, statistic, over)
            }
        }
    }

    /// Whether anything with these tags was measured in that second.
    pub(super) fn has_samples(&self, tags: &Tags, second: u32) -> bool {
        let series = self.recent.get(&second).into_iter().flatten();
        series.into_iter().any(|(id, _)| matches(tags, &self.totals[*id].0))
    }

    /// The merged histogram of a trend over all series with these tags, and how many dropped arrivals rank above it.
    pub fn distribution(&self, metric: Metric, tags: &Tags) -> (Histogram, u64) {
        let picked = self.pick(metric, tags, Over::Whole);
        let overflow = if metric == Metric::HttpReqDuration {
            picked.counters.overflow
        } else {
            0
        };
        (picked.histogram, overflow)
    }

    /// Sums over all series with these tags.
    pub fn counters(&self, tags: &Tags) -> Counters {
        self.pick(Metric::HttpReqs, tags, Over::Whole).counters
    }

    /// What a progress display shows now.
    pub fn live(&self) -> Live {
        let none = Tags::default();
        let totals = self.counters(&none);
        let last = Over::Last(LIVE_WINDOW_S);
        let point = self
            .settled()
            .and_then(|second| self.timeline.get(&second))
            .copied()
            .unwrap_or_default();
        let value = |metric, statistic| self.value(metric, &none, statistic, last);
        Live {
            second: self.newest().map_or(0, |second| second + 1),
            vus: point.vus,
            requests: totals.requests,
            iterations: totals.iterations,
            failed: totals.failed,
            dropped: totals.overflow,
            requests_per_s: value(Metric::HttpReqs, Statistic::Rate).unwrap_or(0.0),
            iterations_per_s: value(Metric::Iterations, Statistic::Rate).unwrap_or(0.0),
            failed_share: value(Metric::HttpReqFailed, Statistic::Rate),
            p95_ms: value(Metric::HttpReqDuration, Statistic::Percentile(95.0)).filter(|p95| p95.is_finite()),
            cpu: point.cpu,
            lag_ms: point.lag_ms,
        }
    }

    fn resolve(&self, over: Over) -> Option<Over> {
        match over {
            Over::Last(seconds) => {
                let to = self.settled()?;
                Some(Over::Range((to + 1).saturating_sub(seconds.max(1)), to))
            }
            Over::Range(from, to) if from > to => None,
            _ => Some(over),
        }
    }

    fn pick(&self, metric: Metric, tags: &Tags, over: Over) -> Picked {
        let mut picked = Picked {
            series: 0,
            counters: Counters::default(),
            histogram: Histogram::new(Precision::Fine),
        };
        for (id, (key, stats)) in self.totals.iter().enumerate() {
            if !matches(tags, key) {
                continue;
            }
            picked.series += 1;
            match over {
                Over::Range(from, to) => self.pick_seconds(&mut picked, metric, id, from, to),
                _ => {
                    picked.counters.add(&Counters::of(stats));
                    if let Some(histogram) = trend(stats, metric) {
                        picked.add(histogram);
                    }
                }
            }
        }
        picked
    }

    fn pick_seconds(&self, picked: &mut Picked, metric: Metric, id: usize, from: u32, to: u32) {
        for series in self.recent.range(from..=to).map(|(_, series)| series) {
            let Some(recent) = series.get(&id) else { continue };
            picked.counters.add(&recent.counters);
            for (_, bytes) in recent.trends.iter().filter(|(of, _)| *of == metric) {
                // The view encoded it itself; it could only fail for counts that had saturated.
                if let Ok(histogram) = Histogram::decode(bytes) {
                    picked.add(&histogram);
                }
            }
        }
    }

    fn gauge(&self, metric: Metric, statistic: Statistic, over: Over) -> Option<f64> {
        let (from, to) = match over {
            Over::Range(from, to) => (from, to),
            _ => (0, u32::MAX),
        };
        let mut values = self
            .timeline
            .range(from..=to)
            .filter(|(_, point)| point.workers > 0)
            .map(|(_, point)| if metric == Metric::Vus { point.vus } else { point.vus_max } as f64);
        match statistic {
            Statistic::Value => values.next_back(),
            Statistic::Min => values.reduce(f64::min),
            Statistic::Max => values.reduce(f64::max),
            _ => None,
        }
    }
}

impl Picked {
    fn add(&mut self, histogram: &Histogram) {
        if self.histogram.is_empty() {
            self.histogram = histogram.clone();
        } else {
            self.histogram.merge(histogram);
        }
    }
}

fn share(statistic: Statistic, part: u64, total: u64) -> Option<f64> {
    (statistic == Statistic::Rate && total > 0).then(|| part as f64 / total as f64)
}

/// A trend's statistic in milliseconds, with `overflow` values above all recorded ones (promise 59): they have a rank but no value, so
/// the mean is that of the others, unless there are none.
pub fn statistic_of(histogram: &Histogram, overflow: u64, statistic: Statistic) -> Option<f64> {
    if histogram.is_empty() && overflow > 0 && statistic != Statistic::Count {
        return Some(f64::INFINITY);
    }
    let quantile = |q| histogram.quantile_with_overflow(q, overflow).map(Quantile::as_ms);
    match statistic {
        Statistic::Avg => histogram.mean_ns().map(|mean| mean / 1e6),
        Statistic::Min => histogram.min_ns().map(|min| min as f64 / 1e6),
        Statistic::Med => quantile(0.5),
        Statistic::Max => quantile(1.0),
        Statistic::Percentile(percent) => quantile(percent / 100.0),
        Statistic::Count => (!histogram.is_empty()).then(|| histogram.count() as f64),
        Statistic::Rate | Statistic::Value => None,
    }
}
