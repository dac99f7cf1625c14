//! A run's numbers, read from what is stored and nothing else (promise 44): live for the judge, whole for the verdict.

use crate::ingest::Ingest;
use crate::store::rows::{PartOf, SlicePart};
use crate::store::{Results, StoreError};
use muster_core::lifecycle::event::Event;
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
