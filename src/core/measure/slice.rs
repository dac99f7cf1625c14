//! What is measured of one series: counts, sums, histograms, errors by kind. Slices merge in any order.

use super::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

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
    /// Not the target's: an iteration was not begun because every row of its data was used once.
    DataUsedUp,
}

impl ErrorKind {
    /// All kinds. The position is the kind's number in stored bytes: append only.
    pub const ALL: [Self; 20] = [
        Self::Dns,
        Self::TargetDenied,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Write,
        Self::Read,
        Self::ClosedEarly,
        Self::Timeout,
        Self::HeadersTooLarge,
        Self::BadResponse,
        Self::BadChunk,
        Self::BodyTooLarge,
        Self::TooManyRedirects,
        Self::BadRedirect,
        Self::CaptureMissing,
        Self::BadRequest,
        Self::Status,
        Self::Synthetic,
        Self::DataUsedUp,
    ];

    /// The word of reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::TargetDenied => "targetDenied",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connectTimeout",
            Self::Tls => "tls",
            Self::Write => "write",
            Self::Read => "read",
            Self::ClosedEarly => "closedEarly",
            Self::Timeout => "timeout",
            Self::HeadersTooLarge => "headersTooLarge",
            Self::BadResponse => "badResponse",
            Self::BadChunk => "badChunk",
            Self::BodyTooLarge => "bodyTooLarge",
            Self::TooManyRedirects => "tooManyRedirects",
            Self::BadRedirect => "badRedirect",
            Self::CaptureMissing => "captureMissing",
            Self::BadRequest => "badRequest",
            Self::Status => "status",
            Self::Synthetic => "synthetic",
            Self::DataUsedUp => "dataUsedUp",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How often an error of one kind happened, and one text of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// The first in byte order of those that say something (so that merging is commutative); at most [`ErrorCount::SAMPLE_MAX`] bytes.
    pub sample: String,
}

impl ErrorCount {
    /// Longest sample kept.
    pub const SAMPLE_MAX: usize = 200;

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.offer(&other.sample);
    }

    fn offer(&mut self, sample: &str) {
        if !sample.is_empty() && (self.sample.is_empty() || sample < self.sample.as_str()) {
            sample.clone_into(&mut self.sample);
        }
    }
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

/// Counts the statuses that found no room.
pub const OTHER_STATUS: u16 = u16::MAX;
/// Counts the checks that found no room.
pub const OTHER_CHECK: &str = "(other)";

impl Stats {
    /// Different statuses kept: the lowest. A target that invents statuses costs no more memory than a sane one.
    pub const STATUSES_MAX: usize = 64;
    /// Different checks kept: the first in byte order. Plans have a handful.
    pub const CHECKS_MAX: usize = 256;

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.counters() == [0; 7]
            && self
                .histograms()
                .iter()
                .all(|one| one.as_ref().is_none_or(Histogram::is_empty))
            && self.statuses.is_empty()
            && self.errors.is_empty()
            && self.checks.is_empty()
    }

    /// Counts a response's status.
    pub fn add_status(&mut self, status: u16, count: u64) {
        add(self.statuses.entry(status).or_default(), count);
        if self.statuses.len() > Self::STATUSES_MAX {
            self.bound_statuses();
        }
    }

    /// Counts an error; the sample is cut to [`ErrorCount::SAMPLE_MAX`] bytes.
    pub fn add_error(&mut self, kind: ErrorKind, sample: &str) {
        let sample = &sample[..sample.floor_char_boundary(ErrorCount::SAMPLE_MAX)];
        match self.errors.get_mut(&kind) {
            Some(error) => {
                error.count += 1;
                error.offer(sample);
            }
            None => {
                let sample = sample.to_owned();
                self.errors.insert(kind, ErrorCount { count: 1, sample });
            }
        }
    }

    /// Counts a check.
    pub fn add_check(&mut self, name: &str, passes: u64, fails: u64) {
        match self.checks.get_mut(name) {
            Some(check) => add_pair(check, (passes, fails)),
            None => {
                self.checks.insert(name.to_owned(), (passes, fails));
                self.bound_checks();
            }
        }
    }

    /// Keeping the lowest keys, and not the most frequent, makes the bound commute with merging: a key that is among the lowest of
    /// all is among the lowest of every part, so it was never moved to "other".
    fn bound_statuses(&mut self) {
        let mut rest = self.statuses.remove(&OTHER_STATUS).unwrap_or(0);
        while self.statuses.len() > Self::STATUSES_MAX {
            add(&mut rest, self.statuses.pop_last().map_or(0, |(_, count)| count));
        }
        if rest > 0 {
            self.statuses.insert(OTHER_STATUS, rest);
        }
    }

    fn bound_checks(&mut self) {
        if self.checks.len() <= Self::CHECKS_MAX {
            return;
        }
        let mut rest = self.checks.remove(OTHER_CHECK).unwrap_or_default();
        while self.checks.len() > Self::CHECKS_MAX {
            add_pair(
                &mut rest,
                self.checks.pop_last().map(|(_, counts)| counts).unwrap_or_default(),
            );
        }
        if rest != (0, 0) {
            self.checks.insert(OTHER_CHECK.to_owned(), rest);
        }
    }

    /// Adds another. Associative and commutative, with the empty one as identity.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.counters_mut().into_iter().zip(other.counters()) {
            add(ours, theirs);
        }
        for (ours, theirs) in self.histograms_mut().into_iter().zip(other.histograms()) {
            if let Some(theirs) = theirs {
                ours.get_or_insert_with(|| Histogram::new(theirs.precision()))
                    .merge(theirs);
            }
        }
        for (status, count) in &other.statuses {
            add(self.statuses.entry(*status).or_default(), *count);
        }
        self.bound_statuses();
        for (kind, theirs) in &other.errors {
            match self.errors.get_mut(kind) {
                Some(ours) => ours.merge(theirs),
                None => {
                    self.errors.insert(*kind, theirs.clone());
                }
            }
        }
        for (name, counts) in &other.checks {
            match self.checks.get_mut(name) {
                Some(check) => add_pair(check, *counts),
                None => {
                    self.checks.insert(name.clone(), *counts);
                }
            }
        }
        self.bound_checks();
    }

    pub(super) fn counters(&self) -> [u64; 7] {
        [
            self.requests,
            self.failed,
            self.overflow,
            self.iterations,
            self.interrupted,
            self.data_sent,
            self.data_received,
        ]
    }

    pub(super) fn counters_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.requests,
            &mut self.failed,
            &mut self.overflow,
            &mut self.iterations,
            &mut self.interrupted,
            &mut self.data_sent,
            &mut self.data_received,
        ]
    }

    /// The histograms in stored order.
    pub(super) fn histograms(&self) -> [&Option<Histogram>; 9] {
        [
            &self.duration,
            &self.service_time,
            &self.blocked,
            &self.connecting,
            &self.tls_handshaking,
            &self.sending,
            &self.waiting,
            &self.receiving,
            &self.iteration_duration,
        ]
    }

    pub(super) fn histograms_mut(&mut self) -> [&mut Option<Histogram>; 9] {
        [
            &mut self.duration,
            &mut self.service_time,
            &mut self.blocked,
            &mut self.connecting,
            &mut self.tls_handshaking,
            &mut self.sending,
            &mut self.waiting,
            &mut self.receiving,
            &mut self.iteration_duration,
        ]
    }
}

// Saturating, as these also add what came over the wire: no bytes may panic, and adding stays associative.
fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}

fn add_pair(sum: &mut (u64, u64), counts: (u64, u64)) {
    add(&mut sum.0, counts.0);
    add(&mut sum.1, counts.1);
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
    /// Arrivals by phase: iterations due, or, where users decide, begun; 0 where users are at work and none began another.
    pub arrivals: BTreeMap<String, u64>,
    /// Arrivals dropped, and requests that failed, for the generator's own reasons (no user free while its lag was large; no open
    /// file or local port left for a connection), by phase.
    pub own_drops: BTreeMap<String, u64>,
}

impl GeneratorStat {
    /// Phases a plan may have, and so entries of `arrivals` and `own_drops`.
    pub const PHASES_MAX: usize = 1_000;
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

#[cfg(test)]
mod tests {
    use super::{ErrorCount, ErrorKind, GeneratorStat, OTHER_CHECK, OTHER_STATUS, Stats};
    use crate::measure::testing::{mangled, second, stats};
    use proptest::prelude::*;

    fn merged(left: &Stats, right: &Stats) -> Stats {
        let mut sum = left.clone();
        sum.merge(right);
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn s48_merging_is_associative_and_commutative(a in stats(), b in stats(), c in stats()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &Stats::default()), merged(&Stats::default(), &a));
        }

        #[test]
        fn what_is_encoded_decodes(stats in stats(), second in second()) {
            prop_assert_eq!(Stats::decode(&stats.encode()), Ok(stats));
            prop_assert_eq!(GeneratorStat::decode(&second.generator.encode()), Ok(second.generator));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), stats in stats(), mangle in mangled()) {
            let _ = Stats::decode(&bytes);
            let _ = GeneratorStat::decode(&bytes);
            if let Ok(mut decoded) = Stats::decode(&mangle.apply(stats.encode())) {
                decoded.merge(&stats);
            }
        }

        #[test]
        fn a_bound_keeps_every_count(statuses in prop::collection::vec(0_u16..2_000, 0..300)) {
            let mut stats = Stats::default();
            for status in &statuses {
                stats.add_status(*status, 1);
            }
            prop_assert!(stats.statuses.len() <= Stats::STATUSES_MAX + 1);
            prop_assert_eq!(stats.statuses.values().sum::<u64>(), statuses.len() as u64);
        }
    }

    #[test]
    fn error_kinds_have_their_number_and_their_own_word() {
        let mut words = std::collections::BTreeSet::new();
        for (number, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert!(words.insert(kind.as_str()));
        }
    }

    #[test]
    fn samples_are_cut_at_a_character_and_the_first_in_order_stays() {
        let mut stats = Stats::default();
        stats.add_error(ErrorKind::Read, &"ü".repeat(150));
        assert_eq!(stats.errors[&ErrorKind::Read].sample.len(), ErrorCount::SAMPLE_MAX);
        stats.add_error(ErrorKind::Read, "b");
        stats.add_error(ErrorKind::Read, "c");
        assert_eq!(stats.errors[&ErrorKind::Read].sample, "b");
        assert_eq!(stats.errors[&ErrorKind::Read].count, 3);
    }

    #[test]
    fn more_kinds_than_there_is_room_for_are_counted_together() {
        let mut stats = Stats::default();
        for number in 0..Stats::CHECKS_MAX + 10 {
            stats.add_check(&format!("{number:04}"), 2, 1);
        }
        assert_eq!(stats.checks.len(), Stats::CHECKS_MAX + 1);
        assert_eq!(stats.checks[OTHER_CHECK], (20, 10));
        for status in 200..300 {
            stats.add_status(status, 1);
        }
        assert_eq!(stats.statuses[&OTHER_STATUS], 36);
        assert_eq!(Stats::decode(&stats.encode()), Ok(stats));
    }

    #[test]
    fn empty_is_what_nothing_was_added_to() {
        let mut stats = Stats::default();
        assert!(stats.is_empty());
        stats.add_check("a", 0, 1);
        assert!(!stats.is_empty());
    }
}
