//! What is measured of one series: counts, sums, histograms, errors by kind. Slices merge in any order.

use super::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which series: phase, scenario and request. The iterations of a scenario are the series with an empty `name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The phase's name.
    pub phase: String,
    /// The scenario's name.
    pub scenario: String,
    /// The request's name; empty for the scenario's iterations.
    pub name: String,
}

/// Why a request broke: one closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ErrorKind {
    Dns,
    TargetDenied,
    Connect,
    ConnectTimeout,
    Tls,
    Write,
    Read,
    ClosedEarly,
    Timeout,
    HeadersTooLarge,
    BadResponse,
    BadChunk,
    BodyTooLarge,
    TooManyRedirects,
    BadRedirect,
    CaptureMissing,
    BadRequest,
    Status,
    Synthetic,
}

/// How often an error of one kind happened, and one text of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// The text seen first in byte order (so that merging is commutative); at most [`ErrorCount::SAMPLE_MAX`] bytes.
    pub sample: String,
}

impl ErrorCount {
    /// Longest sample kept.
    pub const SAMPLE_MAX: usize = 200;
}

/// Everything measured of one series over some time: one second of one worker, or any sum of those.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Requests that got a response or broke; `http_reqs`.
    pub requests: u64,
    /// Those that failed; `http_req_failed`.
    pub failed: u64,
    /// Dropped arrivals of this (scenario, first request): ranked as slower than everything (promise 59).
    pub overflow: u64,
    /// Iterations that ended by themselves; only in the scenario's own series.
    pub iterations: u64,
    /// Iterations cut off by a stop or the end of a graceful stop.
    pub interrupted: u64,
    /// Bytes sent.
    pub data_sent: u64,
    /// Bytes received.
    pub data_received: u64,
    /// `http_req_duration`: of an iteration's first request in open executors, from the intended instant.
    pub duration: Option<Histogram>,
    /// `http_req_service_time`: k6's own definition of duration, sending + waiting + receiving.
    pub service_time: Option<Histogram>,
    /// `http_req_blocked`: waiting for a connection.
    pub blocked: Option<Histogram>,
    /// `http_req_connecting`: TCP.
    pub connecting: Option<Histogram>,
    /// `http_req_tls_handshaking`.
    pub tls_handshaking: Option<Histogram>,
    /// `http_req_sending`.
    pub sending: Option<Histogram>,
    /// `http_req_waiting`: to the first byte.
    pub waiting: Option<Histogram>,
    /// `http_req_receiving`.
    pub receiving: Option<Histogram>,
    /// `iteration_duration`; only in the scenario's own series.
    pub iteration_duration: Option<Histogram>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Errors by kind.
    pub errors: BTreeMap<ErrorKind, ErrorCount>,
    /// Checks by name: passes and fails.
    pub checks: BTreeMap<String, (u64, u64)>,
}

/// How one worker itself was doing in one second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorStat {
    /// Virtual users active at the second's end.
    pub vus: u64,
    /// Virtual users made so far in the phase.
    pub vus_max: u64,
    /// CPU share of its cgroup or host, the higher, 0 to 1.
    pub cpu: f64,
    /// Steal share of the host, 0 to 1.
    pub steal: f64,
    /// p99 of the generator's own lag: how late its timers and queues were, not the target, in nanoseconds.
    pub lag_p99_ns: u64,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// Arrivals (iterations due) by phase.
    pub arrivals: BTreeMap<String, u64>,
    /// Arrivals dropped for the generator's own reasons (no user free while its lag was large), by phase.
    pub own_drops: BTreeMap<String, u64>,
}

/// Everything one worker measured in one run second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Run second, counted from the agreed start on the worker's monotonic clock.
    pub second: u32,
    /// Entries, one per series.
    pub entries: BTreeMap<SeriesKey, Stats>,
    /// How the worker was doing.
    pub generator: GeneratorStat,
}
