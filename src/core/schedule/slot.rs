//! What becomes of each slot: started, recorded, or waited for (promises 26 to 29 and 32).
//!
//! A slot is decided once, in order, and its row is written together with the cursor, so the cursor alone says what is still to
//! be decided. Whoever asks writes what it is told, moves the cursor to the last slot it wrote, and asks again.

use super::fires::{between, next};
use super::window::{check, earlier, later};
use crate::model::plan::TestPlan;
use crate::model::run::EndingKind;
use crate::model::schedule::{BlockReason, ConcurrencyPolicy, Schedule, SkipReason, SlotOutcome, Timing};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Rows of one answer at most: one transaction's worth. After a year without a daemon, a plan of each minute takes 526 rounds.
pub const DECISIONS_MAX: usize = 1_000;

/// Wall clock and monotonic clock further apart than this freeze the scheduler (promise 29).
pub const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// How far a plan's slots are decided; stored with the plan, written in the transaction of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The schedule it counts the slots of.
    pub schedule: Schedule,
    /// Every slot up to and including this instant is decided.
    pub at: Timestamp,
}

/// Everything about a plan that decides a slot.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// What the plan says.
    pub timing: &'a Timing,
    /// How long a run lasts at most: all of it must fit the windows.
    pub duration: Duration,
    /// Provisioning starts so long before a slot, so that load starts at its instant.
    pub lead_time: Duration,
    /// How far slots are decided.
    pub cursor: &'a Cursor,
    /// Holds for every slot before its end, also while it is looked at later.
    pub suspended: Option<&'a Suspension>,
    /// Whether a run of the plan, however started, is not Finished.
    pub active: bool,
    /// Whose leave is there.
    pub approved: &'a Approved,
    /// Runs of the plan that failed in a row since its schedule was armed; see [`failures_in_a_row`].
    pub failures: u32,
    /// What the last answer said of a slot that waits; `None` after a restart.
    pub waiting: Option<&'a Waiting>,
}

/// A plan is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Slots before it are skipped; `None`: all.
    pub until: Option<Timestamp>,
    /// Who and why, for the rows.
    pub detail: String,
}

impl Suspension {
    /// Somebody holds a plan back.
    pub fn by(who: &str, reason: &str, until: Option<Timestamp>) -> Self {
        Self {
            until,
            detail: format!("suspended by {who}: {reason}"),
        }
    }

    /// What holds a plan back: git's `suspend`, or what stands beside it, whichever lasts longer.
    pub fn of(plan: &TestPlan, beside: Option<&Self>) -> Option<Self> {
        let by_git = plan.suspend.as_ref();
        let by_git = by_git.map(|suspend| Self::by(&suspend.by(), &suspend.reason, suspend.until));
        let lasts = |suspension: &Self| suspension.until.unwrap_or(Timestamp::MAX);
        by_git.into_iter().chain(beside.cloned()).max_by_key(lasts)
    }
}

/// For which slots the leave that a plan needs is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approved {
    /// For all: none is needed, or one that is not bound to a slot was given.
    All,
    /// For these only.
    Slots(BTreeSet<Timestamp>),
}

impl Approved {
    fn holds(&self, slot: Timestamp) -> bool {
        match self {
            Self::All => true,
            Self::Slots(slots) => slots.contains(&slot),
        }
    }
}

/// What to do about a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write its row as Started together with a new run, then start that. At most one in an answer, the last.
    Start {
        /// The slot.
        slot: Timestamp,
        /// When load can begin: at the slot's instant, or as soon as workers are there.
        load_at: Timestamp,
    },
    /// Write its row.
    Record {
        /// The slot.
        slot: Timestamp,
        /// Its outcome.
        outcome: SlotOutcome,
        /// Why, for people; empty where the outcome says it all.
        detail: String,
    },
    /// Write nothing, ask again: the last of an answer.
    Wait(Waiting),
}

/// A slot that cannot start yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The slot.
    pub slot: Timestamp,
    /// What it becomes if nothing changes. `Blocked(Overlap)`: the plan's active run is to be stopped.
    pub becomes: SlotOutcome,
    /// Why, for people.
    pub detail: String,
    /// Until when.
    pub until: Timestamp,
}

impl Cursor {
    /// The cursor of a plan seen for the first time: nothing of the past is its slot.
    pub fn new(schedule: Schedule, now: Timestamp) -> Self {
        Self { schedule, at: now }
    }

    /// When [`decide`] has something to say about the next slot.
    pub fn due(&self, lead_time: Duration) -> Option<Timestamp> {
        next(&self.schedule, self.at).map(|fire| earlier(fire.at, lead_time))
    }

    /// Follows an edited schedule: what the old one had until now gets its rows, and no slot of the past is ever fired (promise 29).
    ///
    /// Where more than [`DECISIONS_MAX`] rows are due the schedule is still the old one; write them and ask again.
    pub fn follow(&self, edited: &Schedule, waiting: Option<&Waiting>, now: Timestamp) -> (Self, Vec<Decision>) {
        if self.schedule == *edited {
            return (self.clone(), Vec::new());
        }
        let rows: Vec<Decision> = between(&self.schedule, self.at, now)
            .take(DECISIONS_MAX)
            .map(|fire| passed(fire.at, waiting))
            .collect();
        let mut cursor = self.clone();
        if rows.len() == DECISIONS_MAX {
            cursor.at = rows.last().map_or(self.at, Decision::slot);
        } else {
            cursor = Self {
                schedule: edited.clone(),
                at: self.at.max(now),
            };
        }
        (cursor, rows)
    }
}

impl Decision {
    /// The slot it is about.
    pub fn slot(&self) -> Timestamp {
        match self {
            Self::Start { slot, .. } | Self::Record { slot, .. } => *slot,
            Self::Wait(waiting) => waiting.slot,
        }
    }

    fn skip(slot: Timestamp, reason: SkipReason, detail: impl Into<String>) -> Self {
        Self::Record {
            slot,
            outcome: SlotOutcome::Skipped(reason),
            detail: detail.into(),
        }
    }
}

/// What becomes of the slots that are due, oldest first; empty when none is.
///
/// Only the newest of them can start, and only within the plan's starting deadline, counted to the start of load.
pub fn decide(situation: &Situation<'_>, now: Timestamp) -> Vec<Decision> {
    let due: Vec<Timestamp> = between(
        &situation.cursor.schedule,
        situation.cursor.at,
        later(now, situation.lead_time),
    )
    .take(DECISIONS_MAX + 1)
    .map(|fire| fire.at)
    .collect();
    let newest = match due.len() {
        0 => return Vec::new(),
        count if count > DECISIONS_MAX => DECISIONS_MAX,
        count => count - 1,
    };
    let mut decisions: Vec<Decision> = due[..newest].iter().map(|slot| situation.older(*slot)).collect();
    if due.len() <= DECISIONS_MAX {
        decisions.push(situation.newest(due[newest], now));
    }
    decisions
}

impl Situation<'_> {
    /// A slot after which another one is due already.
    fn older(&self, slot: Timestamp) -> Decision {
        self.stopped(slot).unwrap_or_else(|| passed(slot, self.waiting))
    }

    /// What holds whenever the slot is looked at.
    fn stopped(&self, slot: Timestamp) -> Option<Decision> {
        if let Some(suspension) = self.suspended
            && suspension.until.is_none_or(|until| slot < until)
        {
            return Some(Decision::skip(slot, SkipReason::Suspended, &suspension.detail));
        }
        let budget = self.timing.failure_budget?.consecutive_failures;
        (self.failures >= budget).then(|| {
            let detail = format!("{} runs failed in a row: the schedule is stopped", self.failures);
            Decision::skip(slot, SkipReason::Budget, detail)
        })
    }

    fn newest(&self, slot: Timestamp, now: Timestamp) -> Decision {
        if let Some(stopped) = self.stopped(slot) {
            return stopped;
        }
        let until = self.decided_by(slot);
        if now > until {
            return passed(slot, self.waiting);
        }
        let load_at = later(now, self.lead_time).max(slot);
        if let Err(refusal) = check(&self.timing.windows, load_at, self.duration) {
            return Decision::skip(slot, SkipReason::OutsideWindow, refusal.to_string());
        }
        let wait = |becomes, detail: &str, until| {
            Decision::Wait(Waiting {
                slot,
                becomes,
                detail: detail.to_owned(),
                until,
            })
        };
        if !self.approved.holds(slot) {
            let becomes = SlotOutcome::Skipped(SkipReason::NotApproved);
            return wait(becomes, "approvals are missing", until);
        }
        match self.timing.concurrency_policy {
            _ if !self.active => Decision::Start { slot, load_at },
            ConcurrencyPolicy::Allow => Decision::Start { slot, load_at },
            ConcurrencyPolicy::Replace => {
                let becomes = SlotOutcome::Blocked(BlockReason::Overlap);
                wait(becomes, "the run before is being stopped", until)
            }
            // The run before may be over by the slot's instant.
            ConcurrencyPolicy::Forbid if now < slot.min(until) => {
                let becomes = SlotOutcome::Skipped(SkipReason::Overlap);
                wait(becomes, "the run before is not over", slot.min(until))
            }
            ConcurrencyPolicy::Forbid => Decision::skip(slot, SkipReason::Overlap, "the run before was not over"),
        }
    }

    /// Decided later, load would begin after the starting deadline. Load on time is never too late.
    fn decided_by(&self, slot: Timestamp) -> Timestamp {
        let deadline = self.timing.starting_deadline.max(SlotOutcome::LATE_AFTER);
        earlier(later(slot, deadline), self.lead_time)
    }

    /// What to do with a slot that [`decide`] would start and admission refuses: wait until its deadline, unless waiting cannot help.
    pub fn refused(&self, slot: Timestamp, becomes: SlotOutcome, detail: &str, now: Timestamp) -> Decision {
        let until = self.decided_by(slot);
        let waiting = Waiting {
            slot,
            becomes,
            detail: detail.to_owned(),
            until,
        };
        match becomes {
            SlotOutcome::Blocked(_) if now < until => Decision::Wait(waiting),
            _ => passed(slot, Some(&waiting)),
        }
    }
}

/// A slot whose time is over: what it waited for, or nobody looked.
fn passed(slot: Timestamp, waiting: Option<&Waiting>) -> Decision {
    match waiting.filter(|waiting| waiting.slot == slot) {
        Some(waiting) => Decision::Record {
            slot,
            outcome: waiting.becomes,
            detail: waiting.detail.clone(),
        },
        None => Decision::Record {
            slot,
            outcome: SlotOutcome::Missed,
            detail: String::new(),
        },
    }
}

/// The outcome of a slot whose run's load has begun (promise 26).
pub fn began(slot: Timestamp, load_began: Timestamp) -> SlotOutcome {
    if load_began > later(slot, SlotOutcome::LATE_AFTER) {
        SlotOutcome::Late
    } else {
        SlotOutcome::Started
    }
}

/// How many runs failed in a row, newest first: Failed, Aborted, Error and Invalid count, Passed ends the row, and a run that a
/// person stopped says nothing.
pub fn failures_in_a_row(endings: impl IntoIterator<Item = EndingKind>) -> u32 {
    let failed = endings
        .into_iter()
        .filter(|ending| *ending != EndingKind::Stopped)
        .take_while(|ending| *ending != EndingKind::Passed)
        .count();
    u32::try_from(failed).unwrap_or(u32::MAX)
}

/// Whether two clocks have moved alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    /// They have.
    Agree,
    /// The wall clock was set: nothing is fired or missed until they agree again.
    Apart {
        /// How far the wall clock is ahead.
        ahead: SignedDuration,
    },
}

/// Compares how far the wall clock and a clock that nobody sets have moved since the same moment.
pub fn clocks(wall: SignedDuration, monotonic: SignedDuration) -> Clocks {
    let ahead = wall.saturating_sub(monotonic);
    if ahead.unsigned_abs() > CLOCKS_APART_MAX {
        Clocks::Apart { ahead }
    } else {
        Clocks::Agree
    }
}
