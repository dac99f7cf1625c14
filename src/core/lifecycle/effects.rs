//! Which effects a state wants: a function of the state alone, so that a daemon that takes over wants the same (promise 42).

use super::event::{Effect, Word};
use super::plan::RunPlan;
use super::state::{Position, RunState};
use crate::model::plan::HookWhen;

/// Everything that must be going on in this state, in a fixed order. What is not in it any more must be given up.
pub fn effects_of(state: &RunState, plan: &RunPlan) -> Vec<Effect> {
    match state.position {
        Position::Pending | Position::Holding | Position::Finished => Vec::new(),
        Position::Provisioning => vec![Effect::Claim { workers: plan.workers }],
        Position::PreparingWorkers => vec![Effect::Prepare],
        Position::PreRun => hook(state, plan, HookWhen::PreRun),
        Position::Arming => {
            let attempt = state.attempt;
            let arm = state.start_at.map(|at| Effect::Arm { attempt, at });
            arm.into_iter().collect()
        }
        Position::Committed if state.commit_unsure => Vec::new(),
        Position::Committed => vec![Effect::Commit { attempt: state.attempt }],
        Position::Running { .. } | Position::PausePhase { .. } | Position::HandPause { .. } => {
            let mut words: Vec<(u32, Word)> = state.advance.into_iter().chain(state.freeze).collect();
            words.sort_unstable();
            let words = words.into_iter().map(|(number, word)| Effect::Tell { number, word });
            std::iter::once(Effect::Watch).chain(words).collect()
        }
        Position::Stopping(mode) => vec![Effect::Watch, Effect::Stop(mode)],
        Position::Delivering => vec![Effect::AwaitDelivery],
        Position::Sealing => vec![Effect::Seal],
        Position::VerifyHooks => hook(state, plan, HookWhen::Verify),
        Position::Judging => vec![Effect::Judge],
        Position::PostRun => hook(state, plan, HookWhen::PostRun),
        Position::Releasing => vec![Effect::Release],
        Position::Reporting => vec![Effect::Report],
    }
}

fn hook(state: &RunState, plan: &RunPlan, when: HookWhen) -> Vec<Effect> {
    let next = next_hook(state, plan, when).map(|(hook, attempt)| Effect::RunHook { hook, attempt });
    next.into_iter().collect()
}

/// The hook that is due now, and which attempt it is.
pub(super) fn next_hook(state: &RunState, plan: &RunPlan, when: HookWhen) -> Option<(u32, u32)> {
    plan.hooks_at(when)
        .find_map(|(index, _)| match state.hooks.get(&index) {
            None => Some((index, 1)),
            Some(outcome) if outcome.again => Some((index, outcome.attempts + 1)),
            Some(_) => None,
        })
}
