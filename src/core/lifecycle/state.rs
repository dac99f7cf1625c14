//! The state of a run: what the ledger keeps and any daemon can go on from.

use super::event::{StopMode, Word};
use super::plan::RunPlan;
use crate::model::id::WorkerId;
use crate::model::run::{Ending, EndingKind, Stage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where a run is, finer than [`Stage`]: each position waits for one thing and has one deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// Waits for somebody to drive it.
    Pending,
    /// Waits for enough idle workers.
    Provisioning,
    /// Waits for Prepared from each worker of the exact set.
    PreparingWorkers,
    /// Waits for PreRun hooks, one after another.
    PreRun,
    /// All is ready; waits for the slot's instant to come near.
    Holding,
    /// Waits for Armed from all.
    Arming,
    /// Waits for Started from all.
    Committed,
    /// Waits for the workers' phases to go by.
    Running {
        /// The phase begun last.
        phase: u32,
    },
    /// A pause phase: waits for Resume or its timeout.
    PausePhase {
        /// Its index.
        phase: u32,
    },
    /// Paused by hand or by a rule: waits for Resume.
    HandPause {
        /// The phase that is frozen.
        phase: u32,
    },
    /// Waits for load to end.
    Stopping(StopMode),
    /// Waits for what was measured to be stored.
    Delivering,
    /// Waits for the seal.
    Sealing,
    /// Waits for Verify hooks, one after another.
    VerifyHooks,
    /// Waits for the verdict.
    Judging,
    /// Waits for PostRun hooks, one after another.
    PostRun,
    /// Waits for workers to be free.
    Releasing,
    /// Waits for the report to be kept.
    Reporting,
    /// Over.
    Finished,
}

/// Everything `step` remembers of a run. Serialises to the ledger's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Of this layout: [`RunState::FORMAT`].
    pub format: u32,
    /// Where it is.
    pub position: Position,
    /// Since when.
    pub since: Timestamp,
    /// When the position must have been left (promise 35); once Finished, when that was.
    pub deadline: Timestamp,
    /// The strongest ending that holds so far; final once Finished.
    pub ending: Option<Ending>,
    /// The exact set, in the order of indices.
    pub workers: Vec<WorkerId>,
    /// Those that hold everything.
    pub prepared: BTreeSet<WorkerId>,
    /// Those that answered the current attempt to arm.
    pub armed: BTreeSet<WorkerId>,
    /// Those that made load.
    pub started: BTreeSet<WorkerId>,
    /// Those whose load is over.
    pub ended: BTreeSet<WorkerId>,
    /// Those that are gone, and why.
    pub lost: BTreeMap<WorkerId, String>,
    /// When each of them was found to be gone.
    #[serde(default)]
    pub lost_at: BTreeMap<WorkerId, Timestamp>,
    /// Those that wait for a word before `waiting_for`.
    pub waiting: BTreeSet<WorkerId>,
    /// The phase they wait for.
    pub waiting_for: Option<u32>,
    /// Hooks that ended, by index into the plan's hooks.
    pub hooks: BTreeMap<u32, HookOutcome>,
    /// The attempt to arm, from 1; 0: none yet.
    pub attempt: u32,
    /// The agreed start of load.
    pub start_at: Option<Timestamp>,
    /// A daemon took over after the decision to commit: nobody knows whether a worker heard of it.
    pub commit_unsure: bool,
    /// When phases began and ended, by index.
    pub phases: BTreeMap<u32, PhaseTimes>,
    /// It was paused by hand, so phases lasted longer than planned.
    pub was_paused: bool,
    /// When load was over.
    pub load_ended_at: Option<Timestamp>,
    /// How many words were told to workers.
    pub words: u32,
    /// The last Advance, with its number.
    #[serde(default)]
    pub advance: Option<(u32, Word)>,
    /// The last Pause or Resume, with its number. It stands beside the Advance: neither takes the other back.
    #[serde(default)]
    pub freeze: Option<(u32, Word)>,
    /// A commit edited or deleted the plan while it ran, and `onChange: Finish` let it go on.
    pub plan_changed: bool,
}

/// When a phase ran, by its first worker's begin and its last worker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// When it began.
    pub began_at: Timestamp,
    /// When its last iteration so far was started.
    pub ended_at: Option<Timestamp>,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutcome {
    /// How often it was started.
    pub attempts: u32,
    /// Whether another attempt is due.
    pub again: bool,
    /// Success, or why not.
    pub result: Result<(), String>,
}

impl RunState {
    /// The layout this build writes and reads.
    pub const FORMAT: u32 = 1;

    /// A run whose row was just written.
    pub fn new(now: Timestamp) -> Self {
        Self {
            format: Self::FORMAT,
            position: Position::Pending,
            since: now,
            deadline: later(now, super::deadline::PENDING),
            ending: None,
            workers: Vec::new(),
            prepared: BTreeSet::new(),
            armed: BTreeSet::new(),
            started: BTreeSet::new(),
            ended: BTreeSet::new(),
            lost: BTreeMap::new(),
            lost_at: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_for: None,
            hooks: BTreeMap::new(),
            attempt: 0,
            start_at: None,
            commit_unsure: false,
            phases: BTreeMap::new(),
            was_paused: false,
            load_ended_at: None,
            words: 0,
            advance: None,
            freeze: None,
            plan_changed: false,
        }
    }

    /// The stage people see.
    pub fn stage(&self) -> Stage {
        match self.position {
            Position::Pending => Stage::Pending,
            Position::Provisioning => Stage::Provisioning,
            Position::PreparingWorkers | Position::PreRun => Stage::Preparing,
            Position::Holding | Position::Arming | Position::Committed => Stage::Ready,
            Position::Running { phase } => Stage::Running { phase },
            Position::PausePhase { phase } | Position::HandPause { phase } => Stage::Paused { phase },
            Position::Stopping(_) | Position::Delivering | Position::Sealing => Stage::Draining,
            Position::VerifyHooks | Position::Judging => Stage::Verifying,
            Position::PostRun | Position::Releasing | Position::Reporting => Stage::CleaningUp,
            Position::Finished => Stage::Finished,
        }
    }

    /// Whether it is over.
    pub fn is_finished(&self) -> bool {
        self.position == Position::Finished
    }

    /// The ending, once it is final.
    pub fn final_ending(&self) -> Option<&Ending> {
        self.ending.as_ref().filter(|_| self.is_finished())
    }

    /// How many workers the pool should hold for this run now.
    pub fn demand(&self, plan: &RunPlan) -> u32 {
        match self.position {
            Position::Pending | Position::Reporting | Position::Finished => 0,
            _ => plan.workers,
        }
    }

    /// Whether load could have begun: Commit may have reached a worker.
    pub fn could_have_begun(&self) -> bool {
        !matches!(
            self.position,
            Position::Pending
                | Position::Provisioning
                | Position::PreparingWorkers
                | Position::PreRun
                | Position::Holding
                | Position::Arming
        )
    }

    /// Workers of the set that are neither lost nor done.
    pub fn working(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers
            .iter()
            .filter(|worker| !self.lost.contains_key(worker) && !self.ended.contains(worker))
    }

    /// Whether every worker of the set is in `those` or lost.
    pub(super) fn all(&self, those: &BTreeSet<WorkerId>) -> bool {
        self.workers
            .iter()
            .all(|worker| those.contains(worker) || self.lost.contains_key(worker))
    }

    /// Keeps the stronger of the ending so far and this one (promise 36); the first of equals.
    pub(super) fn hold(&mut self, kind: EndingKind, detail: impl Into<String>) {
        let stronger = self.ending.as_ref().is_none_or(|old| kind.rank() < old.kind.rank());
        if stronger {
            self.ending = Some(Ending {
                kind,
                detail: detail.into(),
            });
        }
    }
}

/// An instant so much later; the end of time where there is none.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
