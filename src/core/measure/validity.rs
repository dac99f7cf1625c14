//! Whether a run's numbers count: saturated generators and missing seconds (promises 45, 50).

use super::view::RunView;
use crate::base::humane::{milliseconds, percent};
use serde::{Deserialize, Serialize};

/// Steal share of a host from which a worker's second is bad.
pub const MAX_STEAL: f64 = 0.05;
/// Share of worker-seconds below which a run is Invalid(incomplete).
pub const MIN_COMPLETENESS: f64 = 0.99;
/// Gaps kept of a session; more are joined into the last.
pub(super) const GAPS_MAX: usize = 100;

/// Looks for a phase of which more arrivals than allowed fell into bad worker-seconds; says which and why. Users exhausted while the
/// generator itself was on time are the target's doing and no reason (promise 45).
pub fn saturation(view: &RunView) -> Option<String> {
    let limit = view.validity().max_bad_share;
    let (name, share) = view
        .phases()
        .keys()
        .map(|name| (name, view.bad_share(name)))
        .filter(|(_, share)| *share > limit)
        .max_by(|left, right| left.1.total_cmp(&right.1))?;
    let (seconds, own_drops) = view.workers().values().fold((0, 0), |sum, worker| {
        (sum.0 + worker.bad_seconds, sum.1 + worker.own_drops)
    });
    let (cpu, steal, lag_ms) = view
        .workers()
        .values()
        .fold((0.0_f64, 0.0_f64, 0.0_f64), |worst, worker| {
            (
                worst.0.max(worker.cpu_max),
                worst.1.max(worker.steal_max),
                worst.2.max(worker.lag_max_ms),
            )
        });
    Some(format!(
        "{} of the arrivals of phase {name} fell into worker-seconds that do not count; allowed are {}. {seconds} worker-seconds \
         of the run do not count; at worst: CPU {}, steal {}, lag {}, {own_drops} dropped by the generator itself",
        percent(share),
        percent(limit),
        percent(cpu),
        percent(steal),
        milliseconds(lag_ms),
    ))
}

/// What is stored of one worker's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// The worker's index.
    pub worker: u32,
    /// Highest sequence stored.
    pub watermark: u64,
    /// Its last sequence, once its end came.
    pub end: Option<u64>,
    /// Ranges its spool dropped, inclusive.
    pub dropped: Vec<(u64, u64)>,
}

/// Whether all that was measured is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completeness {
    /// Whether nothing is missing.
    pub kind: CompletenessKind,
    /// Stored of expected worker-seconds, in percent.
    pub percent: f64,
    /// What is missing.
    pub gaps: Vec<Gap>,
}

/// Whether nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum CompletenessKind {
    Complete,
    Partial,
}

/// Sequences of one worker that are missing; sequence n is its n-th second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The worker's index.
    pub worker: u32,
    /// First missing sequence.
    pub from: u64,
    /// Last missing sequence.
    pub to: u64,
}

/// Compares what is stored of each session with what it must hold (promise 50): its end's sequence, or, where no end came, the run's
/// seconds. `workers`: how many sessions there must be, by index from 0; one of which nothing is known is missing whole.
pub fn completeness(sessions: &[SessionState], workers: u32, run_seconds: u32) -> Completeness {
    let mut gaps: Vec<Gap> = Vec::new();
    let (mut expected, mut missing) = (0_u64, 0_u64);
    let mut ended = true;
    let absent = (0..workers)
        .filter(|index| sessions.iter().all(|session| session.worker != *index))
        .map(|worker| SessionState {
            worker,
            watermark: 0,
            end: None,
            dropped: Vec::new(),
        });
    for session in sessions.iter().cloned().chain(absent) {
        let last = session
            .end
            .unwrap_or_else(|| session.watermark.max(u64::from(run_seconds)));
        ended &= session.end.is_some();
        expected = expected.saturating_add(last);
        let tail = (session.watermark < last).then(|| (session.watermark + 1, last));
        let mut ranges: Vec<(u64, u64)> = session
            .dropped
            .iter()
            .map(|(from, to)| (*from, (*to).min(session.watermark)))
            .filter(|(from, to)| from <= to)
            .chain(tail)
            .collect();
        ranges.sort_unstable();
        let before = gaps.len();
        for (from, to) in ranges {
            missing = missing.saturating_add(to - from + 1);
            let full = gaps.len() - before >= GAPS_MAX;
            match gaps.last_mut().filter(|_| full) {
                Some(last) => last.to = to,
                None => gaps.push(Gap {
                    worker: session.worker,
                    from,
                    to,
                }),
            }
        }
    }
    let whole = ended && missing == 0;
    let share = if expected == 0 {
        if whole { 1.0 } else { 0.0 }
    } else {
        expected.saturating_sub(missing) as f64 / expected as f64
    };
    Completeness {
        kind: if whole {
            CompletenessKind::Complete
        } else {
            CompletenessKind::Partial
        },
        percent: share * 100.0,
        gaps,
    }
}

impl Completeness {
    /// Why the run is Invalid(incomplete), if it is.
    pub fn objection(&self) -> Option<String> {
        (self.percent < MIN_COMPLETENESS * 100.0)
            .then(|| format!("only {} of the worker-seconds arrived", percent(self.percent / 100.0)))
    }
}
