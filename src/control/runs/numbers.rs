//! A run's numbers, read from what is stored and nothing else (promise 44): live for the judge, whole for the verdict.

use crate::ingest::Ingest;
use crate::store::rows::{PartOf, SlicePart};
use crate::store::{Results, StoreError};
use muster_core::lifecycle::event::Event;
use muster_core::lifecycle::state::RunState;
use muster_core::measure::judge::{Finding, FindingKind, Judge};
use muster_core::measure::slice::{GeneratorStat, Stats};
use muster_core::measure::view::{CATCH_UP_S, RunView};
use muster_core::model::id::RunId;
use muster_core::model::run::{AbortedReason, Ending, EndingKind, InvalidReason};
use muster_core::model::threshold::RuleAction;
use std::time::Duration;

use super::pinned::Pinned;

/// Parts read at a time: with few series that is minutes of a run, and never more than the view may take in before it is judged.
const BATCH: u32 = 512;
/// A read that takes longer is tried again in the next second.
const DEADLINE: Duration = Duration::from_secs(5);
/// The cap on requests per second is a mean over [`muster_core::measure::view::LIVE_WINDOW_S`] seconds; workers keep to it by themselves
/// within a few percent, so more than this share above it means that they do not.
const LIMIT_TOLERANCE: f64 = 1.05;

/// What is known of a run's numbers, and its judge.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub view: RunView,
    pub judge: Judge,
    cursor: u64,
}

impl Numbers {
    pub fn new(pinned: &Pinned) -> Self {
        Self {
            view: RunView::new(&pinned.plan, pinned.workers),
            judge: Judge::new(&pinned.plan),
            cursor: 0,
        }
    }

    /// Takes in everything stored since the last call. Returns what the judge saw, and whether there was anything new.
    ///
    /// # Errors
    /// When the store does not answer; what was read so far is kept.
    pub async fn read(&mut self, results: &dyn Results, run: RunId) -> Result<(Vec<Finding>, bool), StoreError> {
        let (mut findings, mut any) = (Vec::new(), false);
        loop {
            let slow = |_| StoreError::Unavailable("no answer in 5s".to_owned());
            let parts = tokio::time::timeout(DEADLINE, results.parts(run, self.cursor, BATCH))
                .await
                .map_err(slow)??;
            let last = parts.len() < BATCH as usize;
            any |= !parts.is_empty();
            let mut first_second = None;
            for (cursor, part) in parts {
                let first = *first_second.get_or_insert(part.second);
                self.apply(run, &part)?;
                self.cursor = cursor;
                if part.second.saturating_sub(first) >= CATCH_UP_S / 2 {
                    findings.extend(self.judge.advance(&mut self.view));
                    first_second = Some(part.second);
                }
            }
            findings.extend(self.judge.advance(&mut self.view));
            if last {
                return Ok((findings, any));
            }
        }
    }

    /// Whether nothing was read yet.
    pub fn is_new(&self) -> bool {
        self.cursor == 0
    }

    /// What the judge sees with parts that came but cannot be stored: the database is away. They are read anew once they are stored.
    pub fn look_ahead(&self, ingest: &Ingest, run: RunId) -> Result<(Self, Vec<Finding>), StoreError> {
        let mut ahead = self.clone();
        for part in ingest.held(run) {
            ahead.apply(run, &part)?;
        }
        let findings = ahead.judge.advance(&mut ahead.view);
        Ok((ahead, findings))
    }

    fn apply(&mut self, run: RunId, part: &SlicePart) -> Result<(), StoreError> {
        let corrupt = |error: muster_core::measure::WireError| StoreError::Corrupt {
            table: "slice_part",
            row: format!("{run}/{}", part.second),
            reason: error.to_string(),
        };
        match &part.what {
            PartOf::Series(key) => self
                .view
                .apply(part.second, key, &Stats::decode(&part.data).map_err(corrupt)?),
            PartOf::Worker(worker) => {
                let stat = GeneratorStat::decode(&part.data).map_err(corrupt)?;
                self.view.apply_worker(part.second, *worker, &stat);
            }
        }
        Ok(())
    }

    /// More requests than the strictest limit allows (promise 36, Limit).
    pub fn over_limit(&self, limit: Option<u64>) -> Option<Event> {
        let per_s = self.view.live().requests_per_s;
        let limit = limit? as f64;
        (per_s > limit * LIMIT_TOLERANCE).then(|| {
            Event::Breached(Ending {
                kind: EndingKind::Aborted(AbortedReason::Limit),
                detail: format!("{per_s:.0} requests/s; the limit is {limit:.0}"),
            })
        })
    }
}

/// Findings that were acted on before what they stand on was stored: each look ahead finds them again, and so does the read that
/// comes upon them once the database is back.
#[derive(Debug, Default)]
pub(super) struct ActedOn(Vec<(u32, FindingKind)>);

impl ActedOn {
    /// Of findings in parts that are not stored, those that are new.
    pub fn ahead(&mut self, mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.retain(|finding| {
            let key = (finding.second, finding.kind.clone());
            let is_new = !self.0.contains(&key);
            if is_new {
                self.0.push(key);
            }
            is_new
        });
        findings
    }

    /// Of findings in stored parts, those that were not acted on yet. None of them comes again.
    pub fn stored(&mut self, mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.retain(|finding| {
            let known = |(second, kind): &(u32, FindingKind)| *second == finding.second && *kind == finding.kind;
            let place = self.0.iter().position(known);
            place.map(|place| self.0.swap_remove(place)).is_none()
        });
        findings
    }
}

/// Whether a daemon that takes over finds what its predecessor acted on: a rule that paused the run before it last went on must not
/// pause it again.
pub(super) fn is_past(finding: &Finding, state: &RunState) -> bool {
    let pauses = matches!(
        finding.kind,
        FindingKind::Rule {
            action: RuleAction::Pause,
            ..
        }
    );
    let end = Duration::from_secs(u64::from(finding.second) + 1);
    let at = state.start_at.and_then(|start| start.checked_add(end).ok());
    pauses && at.is_some_and(|at| at <= state.since)
}

/// What a finding means for the run; `None`: it is only to be told.
pub(super) fn event_of(finding: &Finding) -> Option<Event> {
    let ending = |kind| Ending {
        kind,
        detail: finding.detail.clone(),
    };
    let aborted = |reason| Some(Event::Breached(ending(EndingKind::Aborted(reason))));
    match &finding.kind {
        FindingKind::Threshold => aborted(AbortedReason::Threshold),
        FindingKind::AutoStop => aborted(AbortedReason::AutoStop),
        FindingKind::Rule { name, action } => match action {
            RuleAction::Abort => aborted(AbortedReason::Rule),
            RuleAction::Invalidate => Some(Event::Spoiled(ending(EndingKind::Invalid(InvalidReason::Rule)))),
            RuleAction::Pause => Some(Event::Pause {
                who: format!("rule {name}"),
            }),
            RuleAction::Notify => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{ActedOn, is_past};
    use jiff::{SignedDuration, Timestamp};
    use muster_core::lifecycle::state::RunState;
    use muster_core::measure::judge::{Finding, FindingKind};
    use muster_core::model::threshold::RuleAction;

    fn rule(second: u32, action: RuleAction) -> Finding {
        Finding {
            second,
            kind: FindingKind::Rule {
                name: "slow".to_owned(),
                action,
            },
            detail: String::new(),
        }
    }

    #[test]
    fn s44_a_finding_is_acted_on_once_however_often_it_is_found() {
        let (early, late) = (rule(3, RuleAction::Pause), rule(9, RuleAction::Pause));
        let mut acted = ActedOn::default();
        assert_eq!(acted.ahead(vec![early.clone()]), std::slice::from_ref(&early));
        assert_eq!(
            acted.ahead(vec![early.clone(), late.clone()]),
            std::slice::from_ref(&late)
        );
        assert_eq!(acted.ahead(vec![early.clone(), late.clone()]), []);
        let next = rule(12, RuleAction::Pause);
        assert_eq!(acted.stored(vec![early, late, next.clone()]), [next]);
        assert!(acted.0.is_empty());
    }

    #[test]
    fn s42_a_pause_that_was_resumed_is_not_repeated_by_the_next_daemon() {
        let start = Timestamp::UNIX_EPOCH;
        let mut state = RunState::new(start);
        state.start_at = Some(start);
        state.since = start + SignedDuration::from_secs(10);
        assert!(is_past(&rule(4, RuleAction::Pause), &state));
        assert!(!is_past(&rule(10, RuleAction::Pause), &state));
        assert!(
            !is_past(&rule(4, RuleAction::Abort), &state),
            "what ends a run must not be lost"
        );
    }
}
