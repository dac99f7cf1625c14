//! What can happen to a run, and what a run can want done.

use crate::model::id::WorkerId;
use crate::model::run::Ending;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that happened. Events of workers that are not in the run's exact set are ignored.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody drives the run.
    Begin,
    /// Time went by: the state's deadline may have passed.
    Tick,
    /// A daemon took over a run it did not start.
    Adopted,
    /// The exact set of workers, in the order of their indices.
    Claimed(Vec<WorkerId>),
    /// The pool cannot give what is needed, and waiting will not help.
    NoWorkers(String),
    /// A worker holds everything it needs.
    Prepared(WorkerId),
    /// A worker cannot make this load, or its generator broke.
    Refused(WorkerId, String),
    /// A worker will start at the agreed instant, once told so.
    Armed {
        /// Which.
        worker: WorkerId,
        /// The attempt it answers.
        attempt: u32,
    },
    /// A worker makes load.
    Started(WorkerId),
    /// A worker began a phase.
    PhaseStarted {
        /// Which.
        worker: WorkerId,
        /// The phase's index.
        phase: u32,
    },
    /// A worker has started the last iteration of a phase.
    PhaseEnded {
        /// Which.
        worker: WorkerId,
        /// The phase's index.
        phase: u32,
    },
    /// A worker needs a word before this phase.
    Waiting {
        /// Which.
        worker: WorkerId,
        /// The phase's index.
        phase: u32,
    },
    /// A worker's load is over; its numbers may still be under way.
    Ended(WorkerId),
    /// A worker is gone or broken.
    Lost(WorkerId, String),
    /// A hook ended.
    HookEnded {
        /// Index into the plan's hooks.
        hook: u32,
        /// The attempt, from 1.
        attempt: u32,
        /// Success, or why not.
        result: Result<(), String>,
    },
    /// A person ends the run: iterations in flight may finish.
    Stop {
        /// The token's name.
        who: String,
    },
    /// A person ends the run at once.
    Abort {
        /// The token's name.
        who: String,
    },
    /// A person, or a rule, pauses it.
    Pause {
        /// The token's or the rule's name.
        who: String,
    },
    /// A person lets it go on.
    Resume {
        /// The token's name.
        who: String,
    },
    /// A rule of the run itself ends it: a threshold, an abort rule, autoStop, a limit.
    Breached(Ending),
    /// A rule says that the numbers do not count; the run goes on.
    Spoiled(Ending),
    /// A commit edited or deleted the plan.
    PlanChanged,
    /// The judge saw no numbers at all for too long.
    Blind,
    /// Everything the workers still there measured is stored.
    Delivered,
    /// Results are closed for good.
    Sealed,
    /// Thresholds and validity are judged: the endings that hold, none if everything held.
    Judged(Vec<Ending>),
    /// Workers are free again.
    Released,
    /// The report is kept.
    Reported,
}

/// Something that must be done while a state lasts. Doing it again changes nothing, so another daemon may repeat all of a
/// state's effects (promise 42).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Find that many idle workers of the pool and answer Claimed.
    Claim {
        /// How many.
        workers: u32,
    },
    /// Give each worker of the set its share and the files.
    Prepare,
    /// Run a hook and answer HookEnded.
    RunHook {
        /// Index into the plan's hooks.
        hook: u32,
        /// From 1.
        attempt: u32,
    },
    /// Agree on the instant of the start.
    Arm {
        /// From 1.
        attempt: u32,
        /// The instant, by the owner's clock.
        at: Timestamp,
    },
    /// All are armed: it holds.
    Commit {
        /// Of this attempt.
        attempt: u32,
    },
    /// Watch the numbers: thresholds, rules, autoStop, limits.
    Watch,
    /// A word to all workers; each has its number.
    Tell {
        /// Counts the words of a run.
        number: u32,
        /// The word.
        word: Word,
    },
    /// End the load.
    Stop(StopMode),
    /// Wait until every session of workers still there is stored up to its end, and answer Delivered.
    AwaitDelivery,
    /// Close the results.
    Seal,
    /// Judge the sealed numbers.
    Judge,
    /// Free the workers.
    Release,
    /// Make and keep the report.
    Report,
}

/// A word to all workers in mid-run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Word {
    /// Start this phase; one past the last: there is none left.
    Advance {
        /// The phase's index.
        phase: u32,
    },
    /// Freeze.
    Pause,
    /// Go on.
    Resume,
}

/// How load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopMode {
    /// Iterations in flight get their graceful stop.
    Graceful,
    /// At once.
    Abort,
}
