//! How long each position may last. Whatever dies, a run comes to its end by these alone (promise 35).

use super::event::StopMode;
use super::plan::{PhasePlan, RunPlan};
use super::state::Position;
use crate::model::plan::HookWhen;
use std::time::Duration;

/// A row that nobody drives.
pub const PENDING: Duration = Duration::from_secs(60);
/// For workers to fetch files, resolve names and set up TLS.
pub const PREPARE: Duration = Duration::from_secs(60);
/// From Arm to the start, first attempt: a command's way to each worker and back, with room for a busy host. Doubles with each attempt.
pub const ARM_LEAD: Duration = Duration::from_secs(1);
/// Workers that are ready before a slot's instant are armed so long ahead of it, so that the first attempt can hold that instant.
pub const HOLD_MARGIN: Duration = Duration::from_secs(2);
/// Commit must leave the owner so long before the start.
pub const COMMIT_MARGIN: Duration = Duration::from_millis(200);
/// Attempts to arm before the run is Invalid(barrier): 1 + 2 + 4 + 8 s.
pub const ARM_ATTEMPTS: u32 = 4;
/// A worker that has not said Started so long after the start (promise 38).
pub const BARRIER: Duration = Duration::from_secs(2);
/// Beyond what phases may take: reports under way, a busy host.
pub const SLACK: Duration = Duration::from_secs(30);
/// A pause by hand (promise 36).
pub const HAND_PAUSE: Duration = Duration::from_secs(30 * 60);
/// For load to end once told to at once.
pub const ABORT: Duration = Duration::from_secs(10);
/// For the database to come back before a finished run's numbers are given up.
pub const STORE: Duration = Duration::from_secs(10 * 60);
/// For workers to be told that they are free.
pub const RELEASE: Duration = Duration::from_secs(60);
/// After a daemon took over: for workers to dial in again.
pub const ADOPT: Duration = Duration::from_secs(30);
/// How often an idempotent PostRun hook is tried (promise 43).
pub const CLEANUP_ATTEMPTS: u32 = 3;
/// From the word to the begin of the next phase, so that all workers begin it together.
pub const ADVANCE_LEAD: Duration = Duration::from_millis(250);

/// How long a position may last from when it is entered. Holding, Arming and Committed count from the agreed start instead.
pub fn lasts(position: Position, plan: &RunPlan) -> Duration {
    match position {
        Position::Pending => PENDING,
        Position::Provisioning => plan.ready_timeout,
        Position::PreparingWorkers => PREPARE,
        Position::PreRun => hooks(plan, HookWhen::PreRun, 1),
        Position::Holding | Position::Arming => ARM_LEAD.saturating_sub(COMMIT_MARGIN),
        Position::Committed => COMMIT_MARGIN + BARRIER,
        Position::Running { phase } => plan.longest_from(phase).saturating_add(SLACK),
        Position::PausePhase { phase } => match plan.phase(phase) {
            Some(PhasePlan::Pause { timeout, .. }) => *timeout,
            _ => Duration::ZERO,
        },
        Position::HandPause { .. } => HAND_PAUSE,
        Position::Stopping(StopMode::Graceful) => plan.longest_grace().saturating_add(ABORT),
        Position::Stopping(StopMode::Abort) => ABORT,
        Position::Delivering => plan.orphan_timeout.saturating_add(SLACK),
        Position::Sealing | Position::Judging | Position::Reporting => STORE,
        Position::VerifyHooks => hooks(plan, HookWhen::Verify, 1),
        Position::PostRun => hooks(plan, HookWhen::PostRun, CLEANUP_ATTEMPTS),
        Position::Releasing => RELEASE,
        Position::Finished => Duration::ZERO,
    }
}

/// Hooks have deadlines of their own; this one catches a daemon that lost track of them.
fn hooks(plan: &RunPlan, when: HookWhen, attempts: u32) -> Duration {
    let once: Duration = plan.hooks_at(when).fold(SLACK, |sum, (_, hook)| {
        sum.saturating_add(hook.timeout).saturating_add(SLACK)
    });
    once.saturating_mul(attempts)
}
