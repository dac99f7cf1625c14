//! Runs: what started them, how far they are, how they ended.

use super::id::{Digest, Name, Revision, RunId};
use super::key::Key;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who or what started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The way.
    pub kind: TriggerKind,
    /// The token's name, `cli`, `local` or `schedule`.
    pub who: String,
    /// The slot it is the run of; `None` for other starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Timestamp>,
}

/// The ways a run starts in this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerKind {
    /// `muster start`.
    Manual,
    /// `muster run`.
    Foreground,
    /// `muster rerun`.
    Rerun,
    /// The plan's schedule.
    Schedule,
}

/// What never changes of a run (promise 34).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Its id.
    pub id: RunId,
    /// The plan.
    pub plan: Key,
    /// The commit.
    pub revision: Revision,
    /// Of the resolved plan with its scripts and data.
    pub digest: Digest,
    /// Who started it.
    pub trigger: Trigger,
    /// When the row was written.
    pub created_at: Timestamp,
}

/// Where a run is (promise 35).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The row is written.
    Pending,
    /// Workers are being started and dial in.
    Provisioning,
    /// Workers hold everything they need; PreRun hooks run.
    Preparing,
    /// All armed; load starts at the agreed instant.
    Ready,
    /// Load of one phase.
    Running {
        /// Index into the plan's phases.
        phase: u32,
    },
    /// A pause phase, or by hand.
    Paused {
        /// Index into the plan's phases.
        phase: u32,
    },
    /// No new iterations; those in flight finish; results arrive.
    Draining,
    /// Verify hooks run, thresholds are judged.
    Verifying,
    /// PostRun hooks run, workers are released.
    CleaningUp,
    /// Over; never left again.
    Finished,
}

impl Stage {
    /// One word for tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Provisioning => "Provisioning",
            Self::Preparing => "Preparing",
            Self::Ready => "Ready",
            Self::Running { .. } => "Running",
            Self::Paused { .. } => "Paused",
            Self::Draining => "Draining",
            Self::Verifying => "Verifying",
            Self::CleaningUp => "CleaningUp",
            Self::Finished => "Finished",
        }
    }
}

/// How a run ended: one closed set (promise 36).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Which.
    pub kind: EndingKind,
    /// What led to it, for people: the rule's name, the hook's, the person's.
    pub detail: String,
}

/// The closed set of endings with their reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndingKind {
    /// Everything held.
    Passed,
    /// Something that must hold did not.
    Failed(FailedReason),
    /// Ended early by a rule of its own.
    Aborted(AbortedReason),
    /// Ended early by a person.
    Stopped,
    /// The numbers do not count.
    Invalid(InvalidReason),
    /// Muster or what it stands on broke.
    Error(ErrorReason),
}

/// Why a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedReason {
    /// A threshold does not hold.
    Thresholds,
    /// A Verify hook said no.
    Verify,
}

/// Why a run was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortedReason {
    /// An abort rule fired.
    Rule,
    /// A threshold with `abortOnFail` did not hold.
    Threshold,
    /// Nearly everything failed.
    AutoStop,
    /// A commit changed the plan, which says `onChange: Abort`.
    Change,
    /// Nobody let a pause phase go on.
    PauseTimeout,
    /// It made more requests than a limit or cap allows.
    Limit,
}

/// Why a run's numbers do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvalidReason {
    /// The generator, not the target, was too slow.
    Saturated,
    /// More workers were lost than the plan takes.
    Workers,
    /// The workers did not start together.
    Barrier,
    /// A threshold looks at something that was never measured.
    NoSamples,
    /// Too much of the results did not arrive.
    Incomplete,
    /// A rule with `action: Invalidate` fired.
    Rule,
}

/// What broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorReason {
    /// Workers did not come up.
    Infrastructure,
    /// A worker refused the plan or its engine broke.
    Engine,
    /// A PreRun hook failed.
    Hook,
    /// A state was not left in time.
    Timeout,
    /// No daemon looked after the run until its deadline.
    LostOwner,
    /// The judge saw no numbers for a minute.
    Blind,
}

impl EndingKind {
    /// The kind's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Failed(_) => "Failed",
            Self::Aborted(_) => "Aborted",
            Self::Stopped => "Stopped",
            Self::Invalid(_) => "Invalid",
            Self::Error(_) => "Error",
        }
    }

    /// The reason's word, for the kinds that have one.
    pub fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Passed | Self::Stopped => return None,
            Self::Failed(FailedReason::Thresholds) => "thresholds",
            Self::Failed(FailedReason::Verify) => "verify",
            Self::Aborted(AbortedReason::Rule) | Self::Invalid(InvalidReason::Rule) => "rule",
            Self::Aborted(AbortedReason::Threshold) => "threshold",
            Self::Aborted(AbortedReason::AutoStop) => "autoStop",
            Self::Aborted(AbortedReason::Change) => "change",
            Self::Aborted(AbortedReason::PauseTimeout) => "pauseTimeout",
            Self::Aborted(AbortedReason::Limit) => "limit",
            Self::Invalid(InvalidReason::Saturated) => "saturated",
            Self::Invalid(InvalidReason::Workers) => "workers",
            Self::Invalid(InvalidReason::Barrier) => "barrier",
            Self::Invalid(InvalidReason::NoSamples) => "noSamples",
            Self::Invalid(InvalidReason::Incomplete) => "incomplete",
            Self::Error(ErrorReason::Infrastructure) => "infrastructure",
            Self::Error(ErrorReason::Engine) => "engine",
            Self::Error(ErrorReason::Hook) => "hook",
            Self::Error(ErrorReason::Timeout) => "timeout",
            Self::Error(ErrorReason::LostOwner) => "lostOwner",
            Self::Error(ErrorReason::Blind) => "blind",
        })
    }

    /// The exit code of `run` and `start --wait`, k6's numbers where k6 has the meaning (promise 55).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed(_) => 99,
            Self::Aborted(_) => 108,
            Self::Stopped => 103,
            Self::Error(_) => 97,
            Self::Invalid(_) => 96,
        }
    }

    /// Which ending wins where several hold: the lower (promise 36).
    pub fn rank(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Aborted(_) => 1,
            Self::Error(_) => 2,
            Self::Invalid(_) => 3,
            Self::Failed(_) => 4,
            Self::Passed => 5,
        }
    }
}

impl fmt::Display for EndingKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(formatter, "{}({reason})", self.as_str()),
            None => formatter.write_str(self.as_str()),
        }
    }
}

/// One line of the event log, for people and for `muster events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The project, where it is about one.
    pub project: Option<Name>,
    /// `project/Kind/name`, `run/ID`, `unit/NAME` or `source`.
    pub about: String,
    /// Whether it needs eyes.
    pub severity: Severity,
    /// One CamelCase word.
    pub reason: String,
    /// For people; no secret, no file content.
    pub message: String,
}

/// Whether an event needs eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// It goes as it should.
    Normal,
    /// It does not.
    Warning,
}

#[cfg(test)]
mod tests {
    use super::{AbortedReason, EndingKind, ErrorReason, FailedReason, InvalidReason};

    #[test]
    fn s55_exit_codes_are_a_function_of_the_ending() {
        let table = [
            (EndingKind::Passed, 0, "Passed"),
            (EndingKind::Failed(FailedReason::Thresholds), 99, "Failed(thresholds)"),
            (EndingKind::Aborted(AbortedReason::AutoStop), 108, "Aborted(autoStop)"),
            (EndingKind::Stopped, 103, "Stopped"),
            (EndingKind::Error(ErrorReason::Blind), 97, "Error(blind)"),
            (EndingKind::Invalid(InvalidReason::NoSamples), 96, "Invalid(noSamples)"),
        ];
        for (ending, code, text) in table {
            assert_eq!(ending.exit_code(), code, "{text}");
            assert_eq!(ending.to_string(), text);
        }
    }

    #[test]
    fn s36_where_several_endings_hold_stopped_and_aborted_come_first() {
        let order = [
            EndingKind::Stopped,
            EndingKind::Aborted(AbortedReason::Limit),
            EndingKind::Error(ErrorReason::Hook),
            EndingKind::Invalid(InvalidReason::Rule),
            EndingKind::Failed(FailedReason::Verify),
            EndingKind::Passed,
        ];
        assert!(order.windows(2).all(|pair| pair[0].rank() < pair[1].rank()));
    }
}
