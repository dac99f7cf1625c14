//! What one thread measured in the second that runs. No lock: each thread has its own; seconds are merged after they are over.

use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::{ErrorKind, Second, SeriesKey, Stats};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lag beyond which the generator, not the target, is at fault (promise 45).
const LAG_LIMIT: Duration = Duration::from_millis(10);

/// The series of a run: for each phase, each scenario's iterations and then its requests.
pub(crate) struct Series {
    pub(crate) keys: Vec<SeriesKey>,
    pub(crate) phases: Vec<String>,
    /// Series of one phase.
    pub(crate) per_phase: usize,
}

/// One second of one thread.
pub(crate) struct LaneSecond {
    pub(crate) second: Second,
    pub(crate) lag: Histogram,
}

/// One request, as it ended.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) duration: Duration,
    pub(crate) timings: Timings,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// 0: no response.
    pub(crate) status: u16,
    pub(crate) failed: bool,
}

/// The parts of a request, as k6 tells them apart.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timings {
    pub(crate) blocked: Duration,
    pub(crate) connecting: Duration,
    pub(crate) tls: Duration,
    pub(crate) sending: Duration,
    pub(crate) waiting: Duration,
    pub(crate) receiving: Duration,
}

impl Timings {
    /// k6's `http_req_duration`.
    pub(crate) fn service(&self) -> Duration {
        self.sending + self.waiting + self.receiving
    }

    fn opened_nothing(&self) -> bool {
        self.blocked.is_zero() && self.connecting.is_zero() && self.tls.is_zero()
    }
}

/// One series in the second that runs. What nearly every request has in common is only counted, and becomes values when the second closes.
#[derive(Default)]
struct Live {
    stats: Stats,
    /// Durations of requests whose service time is the same.
    plain: Option<Histogram>,
    /// Requests on a connection that was open already: nothing blocked, no connecting, no handshake.
    reused: u64,
    /// Responses whose first piece was the whole.
    at_once: u64,
    /// The last status, and how often it came without another between.
    status: (u16, u64),
}

impl Live {
    #[inline]
    fn request(&mut self, sample: &Sample) {
        let (stats, timings) = (&mut self.stats, &sample.timings);
        stats.requests += 1;
        stats.failed += u64::from(sample.failed);
        stats.data_sent += sample.sent;
        stats.data_received += sample.received;
        let service = timings.service();
        if sample.duration == service {
            record(&mut self.plain, Precision::Fine, service);
        } else {
            record(&mut stats.duration, Precision::Fine, sample.duration);
            record(&mut stats.service_time, Precision::Fine, service);
        }
        if timings.opened_nothing() {
            self.reused += 1;
        } else {
            record(&mut stats.blocked, Precision::Coarse, timings.blocked);
            record(&mut stats.connecting, Precision::Coarse, timings.connecting);
            record(&mut stats.tls_handshaking, Precision::Coarse, timings.tls);
        }
        record(&mut stats.sending, Precision::Coarse, timings.sending);
        record(&mut stats.waiting, Precision::Coarse, timings.waiting);
        if timings.receiving.is_zero() {
            self.at_once += 1;
        } else {
            record(&mut stats.receiving, Precision::Coarse, timings.receiving);
        }
        if sample.status == self.status.0 {
            self.status.1 += 1;
        } else {
            self.flush_status();
            self.status = (sample.status, 1);
        }
    }

    #[cold]
    fn flush_status(&mut self) {
        let (status, count) = self.status;
        // 0: there was no response.
        if status != 0 {
            self.stats.add_status(status, count);
        }
    }

    fn close(mut self) -> Stats {
        self.flush_status();
        let stats = &mut self.stats;
        for (histogram, zeros) in [
            (&mut stats.blocked, self.reused),
            (&mut stats.connecting, self.reused),
            (&mut stats.tls_handshaking, self.reused),
            (&mut stats.receiving, self.at_once),
        ] {
            if zeros > 0 {
                let histogram = histogram.get_or_insert_with(|| Histogram::new(Precision::Coarse));
                histogram.record_many(0, zeros);
            }
        }
        if let Some(plain) = self.plain {
            for histogram in [&mut stats.duration, &mut stats.service_time] {
                match histogram {
                    Some(histogram) => histogram.merge(&plain),
                    None => *histogram = Some(plain.clone()),
                }
            }
        }
        self.stats
    }
}

/// Collects one thread's samples by run second.
pub(crate) struct Recorder {
    series: Arc<Series>,
    t0: Instant,
    second: u32,
    border: Instant,
    live: Vec<Option<Box<Live>>>,
    lag: Histogram,
    last_late: Option<Instant>,
    arrivals: Vec<u64>,
    /// Phases whose users decide when an iteration begins, while they last.
    closed: Vec<bool>,
    own_drops: Vec<u64>,
    users: (u64, u64),
    finished: VecDeque<LaneSecond>,
}

impl Recorder {
    pub(crate) fn new(series: Arc<Series>, t0: Instant) -> Self {
        let (count, phases) = (series.keys.len(), series.phases.len());
        Self {
            series,
            t0,
            second: 0,
            border: t0 + Duration::from_secs(1),
            live: (0..count).map(|_| None).collect(),
            lag: Histogram::new(Precision::Coarse),
            last_late: None,
            arrivals: vec![0; phases],
            closed: vec![false; phases],
            own_drops: vec![0; phases],
            users: (0, 0),
            finished: VecDeque::new(),
        }
    }

    /// The series of the second that `now` lies in. A request belongs to the second in which it ended.
    #[inline]
    fn live(&mut self, series: usize, now: Instant) -> &mut Live {
        if now >= self.border {
            self.rotate(now);
        }
        self.live[series].get_or_insert_with(Box::default)
    }

    fn at(&mut self, series: usize, now: Instant) -> &mut Stats {
        &mut self.live(series, now).stats
    }

    #[inline]
    pub(crate) fn request(&mut self, series: usize, now: Instant, sample: &Sample) {
        self.live(series, now).request(sample);
    }

    pub(crate) fn error(&mut self, series: usize, now: Instant, kind: ErrorKind, text: &str) {
        self.at(series, now).add_error(kind, text);
    }

    pub(crate) fn check(&mut self, series: usize, now: Instant, name: &str, passed: bool) {
        self.at(series, now)
            .add_check(name, u64::from(passed), u64::from(!passed));
    }

    pub(crate) fn iteration(&mut self, series: usize, now: Instant, duration: Duration) {
        let stats = self.at(series, now);
        stats.iterations += 1;
        record(&mut stats.iteration_duration, Precision::Fine, duration);
    }

    pub(crate) fn interrupted(&mut self, series: usize, now: Instant) {
        self.at(series, now).interrupted += 1;
    }

    /// An arrival that was never begun: slower than everything.
    pub(crate) fn dropped(&mut self, phase: usize, first_request: usize, now: Instant) {
        self.at(first_request, now).overflow += 1;
        let late = self
            .last_late
            .is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        self.own_drops[phase] += u64::from(late);
    }

    /// A request of this second that failed for what the generator lacks: its second does not count (promise 45).
    pub(crate) fn own_failure(&mut self, series: usize) {
        self.own_drops[series / self.series.per_phase] += 1;
    }

    pub(crate) fn arrivals(&mut self, phase: usize, now: Instant, count: u64) {
        if now >= self.border {
            self.rotate(now);
        }
        self.arrivals[phase] += count;
    }

    /// Whether users of a closed phase are at work.
    pub(crate) fn at_work(&mut self, phase: usize, at_work: bool) {
        self.closed[phase] = at_work;
    }

    /// How late the generator itself was.
    pub(crate) fn lag(&mut self, now: Instant, lag: Duration) {
        if now >= self.border {
            self.rotate(now);
        }
        if lag > LAG_LIMIT {
            self.last_late = Some(now);
        }
        self.lag.record(nanos(lag));
    }

    /// Users in an iteration, and users made in the phase.
    pub(crate) fn users(&mut self, active: u64, made: u64) {
        self.users = (active, made);
    }

    /// Closes every second that ended before `now`, also the empty ones.
    pub(crate) fn rotate(&mut self, now: Instant) {
        while now >= self.border {
            let finished = self.close();
            self.finished.push_back(finished);
        }
    }

    /// Closes also the second that runs, where something happened in it.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.rotate(now);
        if self.live.iter().any(Option::is_some) || self.arrivals.iter().any(|count| *count > 0) {
            let finished = self.close();
            self.finished.push_back(finished);
        }
    }

    pub(crate) fn take_finished(&mut self) -> Option<LaneSecond> {
        self.finished.pop_front()
    }

    pub(crate) fn next_border(&self) -> Instant {
        self.border
    }

    fn close(&mut self) -> LaneSecond {
        let mut second = Second {
            second: self.second,
            ..Second::default()
        };
        for (live, key) in self.live.iter_mut().zip(&self.series.keys) {
            if let Some(live) = live.take() {
                let stats = live.close();
                // Requests that share a name share a series.
                let entry = second.entries.entry(key.clone());
                entry.and_modify(|own| own.merge(&stats)).or_insert(stats);
            }
        }
        for (phase, name) in self.series.phases.iter().enumerate() {
            let (arrivals, drops) = (&mut self.arrivals[phase], &mut self.own_drops[phase]);
            if *arrivals > 0 || self.closed[phase] {
                second.generator.arrivals.insert(name.clone(), std::mem::take(arrivals));
            }
            if *drops > 0 {
                second.generator.own_drops.insert(name.clone(), std::mem::take(drops));
            }
        }
        (second.generator.vus, second.generator.vus_max) = self.users;
        self.second += 1;
        self.border = self.t0 + Duration::from_secs(u64::from(self.second) + 1);
        LaneSecond {
            second,
            lag: std::mem::replace(&mut self.lag, Histogram::new(Precision::Coarse)),
        }
    }
}

#[inline]
fn record(histogram: &mut Option<Histogram>, precision: Precision, value: Duration) {
    histogram
        .get_or_insert_with(|| Histogram::new(precision))
        .record(nanos(value));
}

#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    // A wait beyond 584 years does not fit, and does not happen.
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}
