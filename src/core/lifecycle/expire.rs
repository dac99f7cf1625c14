//! What happens when a position's deadline passes, or when a daemon takes over a run it did not start.

use super::deadline;
use super::event::StopMode;
use super::plan::PhasePlan;
use super::state::{Position, later};
use super::step::Run;
use crate::base::units::counted;
use crate::model::load::OnTimeout;
use crate::model::run::{AbortedReason, EndingKind, ErrorReason, InvalidReason};

impl Run<'_> {
    /// Too late, and load may have been left alone: the run ends. Else deadlines give workers the time to dial in again.
    pub(super) fn adopted(&mut self) {
        let too_late = self.now > later(self.state.deadline, self.plan.orphan_timeout);
        if too_late && (self.makes_load() || !self.state.could_have_begun()) {
            let detail = "no daemon drove the run within its deadline";
            self.end(EndingKind::Error(ErrorReason::LostOwner), detail, StopMode::Abort);
        } else if self.state.position == Position::Pending {
            self.enter(Position::Provisioning);
        } else if !matches!(self.state.position, Position::Holding | Position::Arming) {
            self.state.commit_unsure = self.state.position == Position::Committed;
            self.state.deadline = self.state.deadline.max(later(self.now, deadline::ADOPT));
        }
    }

    /// The deadline of the position passed: the forced exit (promise 35).
    pub(super) fn expire(&mut self) {
        use EndingKind::{Aborted, Error};
        match self.state.position {
            Position::Pending
            | Position::Provisioning
            | Position::PreparingWorkers
            | Position::PreRun
            | Position::Holding
            | Position::Arming
            | Position::Committed => self.expire_before_load(),
            Position::Running { .. } => {
                self.end(
                    Error(ErrorReason::Timeout),
                    "load did not end in time",
                    StopMode::Graceful,
                );
            }
            Position::PausePhase { phase } => match self.plan.phase(phase) {
                Some(PhasePlan::Pause {
                    on_timeout: OnTimeout::Continue,
                    ..
                }) => self.go_on(phase + 1),
                _ => {
                    let detail = "nobody resumed the pause phase in time";
                    self.end(Aborted(AbortedReason::PauseTimeout), detail, StopMode::Graceful);
                }
            },
            Position::HandPause { .. } => {
                let detail = "nobody resumed the run within 30 minutes";
                self.end(Aborted(AbortedReason::PauseTimeout), detail, StopMode::Graceful);
            }
            Position::Stopping(StopMode::Graceful) => self.enter(Position::Stopping(StopMode::Abort)),
            Position::Stopping(StopMode::Abort) => self.enter(Position::Delivering),
            Position::Delivering => self.enter(Position::Sealing),
            Position::Sealing | Position::Judging => {
                let detail = "results could not be read from the database in time";
                self.state.hold(Error(ErrorReason::Infrastructure), detail);
                self.clean_up();
            }
            Position::VerifyHooks => {
                self.state
                    .hold(Error(ErrorReason::Timeout), "Verify hooks did not end in time");
                self.enter(Position::Judging);
            }
            Position::PostRun => {
                self.state
                    .hold(Error(ErrorReason::Timeout), "PostRun hooks did not end in time");
                self.enter(Position::Releasing);
            }
            Position::Releasing => self.enter(Position::Reporting),
            Position::Reporting | Position::Finished => self.enter(Position::Finished),
        }
    }

    fn expire_before_load(&mut self) {
        use EndingKind::{Error, Invalid};
        match self.state.position {
            Position::Pending => self.end(Error(ErrorReason::LostOwner), "nobody drove the run", StopMode::Abort),
            Position::Provisioning => {
                let detail = format!("{} workers were not ready in time", self.plan.workers);
                self.end(Error(ErrorReason::Infrastructure), &detail, StopMode::Abort);
            }
            Position::PreparingWorkers => {
                self.end(
                    Error(ErrorReason::Timeout),
                    "workers were not prepared in time",
                    StopMode::Abort,
                );
            }
            Position::PreRun => {
                self.end(
                    Error(ErrorReason::Timeout),
                    "PreRun hooks did not end in time",
                    StopMode::Abort,
                );
            }
            Position::Holding => self.arm(),
            Position::Arming if self.state.attempt < deadline::ARM_ATTEMPTS => self.arm(),
            Position::Arming => {
                self.end(
                    Invalid(InvalidReason::Barrier),
                    "workers could not be armed in time",
                    StopMode::Abort,
                );
            }
            Position::Committed if self.state.commit_unsure && self.state.started.is_empty() => self.arm(),
            Position::Committed => {
                let late = self
                    .state
                    .workers
                    .iter()
                    .filter(|worker| !self.state.started.contains(worker));
                let late = counted(late.count(), "worker");
                let detail = format!("{late} did not start together with the others");
                self.end(Invalid(InvalidReason::Barrier), &detail, StopMode::Abort);
            }
            _ => {}
        }
    }
}
