//! One run's numbers, built up from stored parts: totals per series, the last seconds in detail, and how workers were doing.
//!
//! Parts may come in any order and late; each is applied once. Memory is bounded for long runs: whole histograms are kept per series
//! only as totals; of single seconds only those are kept, packed, that a window of the plan still looks at, and a few dozen numbers each.

use super::histogram::Histogram;
use super::slice::{GeneratorStat, SeriesKey, Stats};
use crate::model::plan::{TestPlan, Validity};
use crate::model::threshold::{Metric, MetricType, RuleMetric, Tags};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Seconds the live numbers look back: long enough to be calm, short enough to follow a ramp.
pub const LIVE_WINDOW_S: u32 = 5;
/// How long a second waits for a worker that is behind before it is judged without it: twice the heartbeat's patience.
pub const LATE_S: u32 = 10;
/// Seconds beyond the longest window that may be applied before [`super::judge::Judge::advance`] must have looked at them: after a
/// restart, parts are read again in batches.
pub const CATCH_UP_S: u32 = 900;

/// Plain sums of one series over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// `http_reqs`.
    pub requests: u64,
    /// `http_req_failed`.
    pub failed: u64,
    /// `dropped_iterations`.
    pub overflow: u64,
    /// `iterations`.
    pub iterations: u64,
    /// Iterations cut off.
    pub interrupted: u64,
    /// `data_sent`, bytes.
    pub data_sent: u64,
    /// `data_received`, bytes.
    pub data_received: u64,
    /// Checks that held.
    pub check_passes: u64,
    /// Checks that did not.
    pub check_fails: u64,
}

impl Counters {
    /// The sums of a slice.
    pub fn of(stats: &Stats) -> Self {
        let (check_passes, check_fails) = stats.checks.values().fold((0_u64, 0_u64), |sum, one| {
            (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1))
        });
        Self {
            requests: stats.requests,
            failed: stats.failed,
            overflow: stats.overflow,
            iterations: stats.iterations,
            interrupted: stats.interrupted,
            data_sent: stats.data_sent,
            data_received: stats.data_received,
            check_passes,
            check_fails,
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.failed, other.failed),
            (&mut self.overflow, other.overflow),
            (&mut self.iterations, other.iterations),
            (&mut self.interrupted, other.interrupted),
            (&mut self.data_sent, other.data_sent),
            (&mut self.data_received, other.data_received),
            (&mut self.check_passes, other.check_passes),
            (&mut self.check_fails, other.check_fails),
        ];
        for (sum, count) in pairs {
            *sum = sum.saturating_add(count);
        }
    }
}

/// One series in one recent second.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    pub(super) counters: Counters,
    /// Encoded histograms of the trends that windows look at, one per part applied.
    pub(super) trends: Vec<(Metric, Box<[u8]>)>,
}

/// One run second of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Sums over all series.
    pub counters: Counters,
    /// Active users of the workers that reported.
    pub vus: u64,
    /// Users made by the workers that reported.
    pub vus_max: u64,
    /// Workers that reported the second.
    pub workers: u32,
    /// Those of them whose second does not count (promise 45).
    pub bad_workers: u32,
    /// Highest CPU share of any worker, 0 to 1.
    pub cpu: f64,
    /// Highest steal share of any worker, 0 to 1.
    pub steal: f64,
    /// Highest p99 of any worker's own lag, in milliseconds.
    pub lag_ms: f64,
}

/// How one worker did over the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerView {
    /// Newest second it reported.
    pub newest: u32,
    /// Seconds it reported.
    pub seconds: u64,
    /// Those in which its own numbers do not count (promise 45).
    pub bad_seconds: u64,
    /// Arrivals of all phases.
    pub arrivals: u64,
    /// Arrivals dropped for its own reasons.
    pub own_drops: u64,
    /// Highest CPU share, 0 to 1.
    pub cpu_max: f64,
    /// Sum of CPU shares; over `seconds` the mean.
    pub cpu_sum: f64,
    /// Highest steal share, 0 to 1.
    pub steal_max: f64,
    /// Highest p99 of its own lag, in milliseconds.
    pub lag_max_ms: f64,
    /// Most resident memory, bytes.
    pub memory_max: u64,
    /// Most users made.
    pub vus_max: u64,
    /// Active users in its newest second.
    pub vus: u64,
    /// p99 of its own lag in its newest second, in milliseconds.
    pub lag_ms: f64,
    /// Arrivals in each of its last [`LIVE_WINDOW_S`] seconds.
    recent: BTreeMap<u32, u64>,
}

impl WorkerView {
    /// Arrivals per second over its last seconds.
    pub fn arrivals_per_s(&self) -> f64 {
        let arrivals: u64 = self.recent.values().sum();
        arrivals as f64 / self.recent.len().max(1) as f64
    }

    /// Takes in how busy its users were in a second.
    fn note(&mut self, second: u32, stat: &GeneratorStat, lag_ms: f64) {
        if second >= self.newest {
            (self.newest, self.vus, self.lag_ms) = (second, stat.vus, lag_ms);
        }
        *self.recent.entry(second).or_default() += stat.arrivals.values().sum::<u64>();
        while self.recent.len() > LIVE_WINDOW_S as usize {
            self.recent.pop_first();
        }
    }
}

/// How one phase did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PhaseView {
    /// First and last second with arrivals.
    pub arrivals_between: Option<(u32, u32)>,
    /// First and last second with anything measured.
    pub samples_between: Option<(u32, u32)>,
    /// Arrivals of all workers.
    pub arrivals: u64,
    /// Arrivals in bad worker-seconds.
    pub bad_arrivals: u64,
    /// Bad worker-seconds with arrivals.
    pub bad_seconds: u64,
    /// Arrivals dropped for the generators' own reasons.
    pub own_drops: u64,
    /// How long it really lasted, where the owner said so.
    pub span: Option<Duration>,
}

/// All numbers of a run as far as they were applied.
#[derive(Debug, Clone)]
pub struct RunView {
    workers_expected: u32,
    validity: Validity,
    horizon_s: u32,
    window_trends: BTreeSet<Metric>,
    ids: BTreeMap<SeriesKey, usize>,
    pub(super) totals: Vec<(SeriesKey, Stats)>,
    pub(super) recent: BTreeMap<u32, BTreeMap<usize, Recent>>,
    pub(super) timeline: BTreeMap<u32, Point>,
    pub(super) workers: BTreeMap<u32, WorkerView>,
    pub(super) phases: BTreeMap<String, PhaseView>,
}

impl RunView {
    /// An empty one for a run of this plan with so many workers.
    pub fn new(plan: &TestPlan, workers: u32) -> Self {
        let mut horizon_s = LIVE_WINDOW_S;
        let mut window_trends = BTreeSet::from([Metric::HttpReqDuration]);
        let mut look = |metric: Option<Metric>, window: Duration| {
            horizon_s = horizon_s.max(whole_seconds(window));
            window_trends.extend(metric.filter(|metric| metric.kind() == MetricType::Trend));
        };
        for threshold in &plan.thresholds {
            if let Some(window) = threshold.window {
                look(Some(threshold.metric), window);
            }
        }
        for rule in &plan.abort_rules {
            match &rule.metric {
                RuleMetric::Measured { metric, .. } => look(Some(*metric), rule.interval),
                _ => look(None, rule.interval),
            }
        }
        if let Some(auto_stop) = &plan.auto_stop {
            look(None, auto_stop.window);
        }
        Self {
            workers_expected: workers,
            validity: plan.validity.clone(),
            horizon_s,
            window_trends,
            ids: BTreeMap::new(),
            totals: Vec::new(),
            recent: BTreeMap::new(),
            timeline: BTreeMap::new(),
            workers: BTreeMap::new(),
            phases: BTreeMap::new(),
        }
    }

    /// Adds a part of one second of one series.
    pub fn apply(&mut self, second: u32, key: &SeriesKey, stats: &Stats) {
        let counters = Counters::of(stats);
        self.timeline.entry(second).or_default().counters.add(&counters);
        let phase = match self.phases.get_mut(&key.phase) {
            Some(phase) => phase,
            None => self.phases.entry(key.phase.clone()).or_default(),
        };
        widen(&mut phase.samples_between, second);
        let id = match self.ids.get(key) {
            Some(id) => *id,
            None => {
                self.ids.insert(key.clone(), self.totals.len());
                self.totals.push((key.clone(), Stats::default()));
                self.totals.len() - 1
            }
        };
        self.totals[id].1.merge(stats);
        let recent = self.recent.entry(second).or_default().entry(id).or_default();
        recent.counters.add(&counters);
        for metric in &self.window_trends {
            if let Some(histogram) = trend(stats, *metric).filter(|one| !one.is_empty()) {
                let mut bytes = Vec::new();
                histogram.encode(&mut bytes);
                recent.trends.push((*metric, bytes.into_boxed_slice()));
            }
        }
        while self.recent.len() > (self.horizon_s + CATCH_UP_S) as usize {
            self.recent.pop_first();
        }
    }

    /// Adds one second of one worker.
    pub fn apply_worker(&mut self, second: u32, worker: u32, stat: &GeneratorStat) {
        let lag_ms = stat.lag_p99_ns as f64 / 1e6;
        let bad = self.is_bad(stat);
        let point = self.timeline.entry(second).or_default();
        point.vus = point.vus.saturating_add(stat.vus);
        point.vus_max = point.vus_max.saturating_add(stat.vus_max);
        point.workers += 1;
        point.bad_workers += u32::from(bad);
        point.cpu = point.cpu.max(stat.cpu);
        point.steal = point.steal.max(stat.steal);
        point.lag_ms = point.lag_ms.max(lag_ms);

        let view = self.workers.entry(worker).or_default();
        view.note(second, stat, lag_ms);
        view.seconds += 1;
        view.bad_seconds += u64::from(bad);
        view.cpu_max = view.cpu_max.max(stat.cpu);
        view.cpu_sum += stat.cpu;
        view.steal_max = view.steal_max.max(stat.steal);
        view.lag_max_ms = view.lag_max_ms.max(lag_ms);
        view.memory_max = view.memory_max.max(stat.memory_bytes);
        view.vus_max = view.vus_max.max(stat.vus_max);
        for (name, arrivals) in &stat.arrivals {
            view.arrivals = view.arrivals.saturating_add(*arrivals);
            let phase = self.phases.entry(name.clone()).or_default();
            widen(&mut phase.arrivals_between, second);
            phase.arrivals = phase.arrivals.saturating_add(*arrivals);
            if bad {
                phase.bad_arrivals = phase.bad_arrivals.saturating_add(*arrivals);
                phase.bad_seconds += 1;
            }
        }
        for (name, drops) in &stat.own_drops {
            view.own_drops = view.own_drops.saturating_add(*drops);
            let phase = self.phases.entry(name.clone()).or_default();
            phase.own_drops = phase.own_drops.saturating_add(*drops);
        }
    }

    /// Whether what a worker measured in this second does not count (promise 45).
    fn is_bad(&self, stat: &GeneratorStat) -> bool {
        stat.cpu >= self.validity.max_generator_cpu
            || stat.steal >= super::validity::MAX_STEAL
            || Duration::from_nanos(stat.lag_p99_ns) > self.validity.max_generator_lag
            || stat.own_drops.values().any(|drops| *drops > 0)
    }

    /// Share of a phase's arrivals that fell into bad worker-seconds (promise 45). Where no worker counted arrivals, its requests stand
    /// for them, by the second.
    pub fn bad_share(&self, phase: &str) -> f64 {
        let Some(view) = self.phases.get(phase) else { return 0.0 };
        if view.arrivals > 0 {
            return view.bad_arrivals as f64 / view.arrivals as f64;
        }
        let Some((first, last)) = view.samples_between else {
            return 0.0;
        };
        let (mut bad, mut all) = (0.0, 0.0);
        for point in self
            .timeline
            .range(first..=last)
            .map(|(_, point)| point)
            .filter(|point| point.workers > 0)
        {
            let requests = point.counters.requests as f64;
            bad += requests * f64::from(point.bad_workers) / f64::from(point.workers);
            all += requests;
        }
        if all > 0.0 { bad / all } else { 0.0 }
    }

    /// Says how long a phase really lasted, the denominator of its rates. Without it: from its first to its last second with arrivals.
    pub fn set_phase_span(&mut self, phase: &str, span: Duration) {
        self.phases.entry(phase.to_owned()).or_default().span = Some(span);
    }

    /// The newest second anything was applied of.
    pub fn newest(&self) -> Option<u32> {
        self.timeline.last_key_value().map(|(second, _)| *second)
    }

    /// The newest second that every worker has reported; one that is more than [`LATE_S`] behind is not waited for.
    pub fn settled(&self) -> Option<u32> {
        let newest = self.newest()?;
        let slowest = self.workers.values().map(|worker| worker.newest).min();
        let all = slowest.filter(|_| self.workers.len() >= self.workers_expected as usize);
        match (all, newest.checked_sub(LATE_S)) {
            (None, patience) => patience,
            (Some(all), patience) => Some(all.max(patience.unwrap_or(0))),
        }
    }

    /// Forgets the details of seconds that no window ending after `second` looks at.
    pub(super) fn forget_before_windows_after(&mut self, second: u32) {
        let keep = (second + 1).saturating_sub(self.horizon_s);
        self.recent = self.recent.split_off(&keep);
    }

    /// Totals per series.
    pub fn series(&self) -> impl Iterator<Item = (&SeriesKey, &Stats)> {
        self.totals.iter().map(|(key, stats)| (key, stats))
    }

    /// Every second so far, of all workers.
    pub fn timeline(&self) -> &BTreeMap<u32, Point> {
        &self.timeline
    }

    /// The phases anything was measured in.
    pub fn phases(&self) -> &BTreeMap<String, PhaseView> {
        &self.phases
    }

    /// The workers that reported, by index.
    pub fn workers(&self) -> &BTreeMap<u32, WorkerView> {
        &self.workers
    }

    /// When the numbers do not count.
    pub fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Seconds of load, of one phase or of all: what rates over the whole run are divided by. At least one, where there was any.
    pub fn load_seconds(&self, phase: Option<&str>) -> f64 {
        let seconds = |view: &PhaseView| match (view.span, view.arrivals_between.or(view.samples_between)) {
            (Some(span), _) => span.as_secs_f64(),
            (None, Some((first, last))) => f64::from(last - first + 1),
            (None, None) => 0.0,
        };
        match phase {
            Some(name) => self.phases.get(name).map_or(0.0, seconds),
            None => self.phases.values().map(seconds).sum(),
        }
    }

    /// Whether load was made in each of these seconds: by that phase, or by any.
    pub(super) fn is_loaded(&self, phase: Option<&str>, from: u32, to: u32) -> bool {
        let spans: Vec<(u32, u32)> = self
            .phases
            .iter()
            .filter(|(name, _)| phase.is_none_or(|phase| phase == name.as_str()))
            .filter_map(|(_, view)| view.arrivals_between.or(view.samples_between))
            .collect();
        (from..=to).all(|second| spans.iter().any(|(first, last)| (*first..=*last).contains(&second)))
    }
}

/// Whether a series carries all these tags.
pub fn matches(tags: &Tags, key: &SeriesKey) -> bool {
    let fits = |tag: &Option<String>, value: &str| tag.as_ref().is_none_or(|tag| tag == value);
    fits(&tags.phase, &key.phase) && fits(&tags.scenario, &key.scenario) && fits(&tags.name, &key.name)
}

/// The histogram of a trend.
pub fn trend(stats: &Stats, metric: Metric) -> Option<&Histogram> {
    let histogram = match metric {
        Metric::HttpReqDuration => &stats.duration,
        Metric::HttpReqServiceTime => &stats.service_time,
        Metric::HttpReqBlocked => &stats.blocked,
        Metric::HttpReqConnecting => &stats.connecting,
        Metric::HttpReqTlsHandshaking => &stats.tls_handshaking,
        Metric::HttpReqSending => &stats.sending,
        Metric::HttpReqWaiting => &stats.waiting,
        Metric::HttpReqReceiving => &stats.receiving,
        Metric::IterationDuration => &stats.iteration_duration,
        _ => return None,
    };
    histogram.as_ref()
}

/// A window in whole seconds, the grain of everything measured; at least one.
pub(super) fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1_000))
        .unwrap_or(u32::MAX / 2)
        .max(1)
}

fn widen(between: &mut Option<(u32, u32)>, second: u32) {
    *between = Some(match *between {
        None => (second, second),
        Some((first, last)) => (first.min(second), last.max(second)),
    });
}
