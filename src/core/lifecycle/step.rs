//! The state machine of a run: (state, event, now) to the next state and what it newly wants done. Total, and Finished is final.

use super::deadline;
use super::effects::{effects_of, next_hook};
use super::event::{Effect, Event, StopMode, Word};
use super::plan::{PhasePlan, RunPlan};
use super::state::{HookOutcome, PhaseTimes, Position, RunState, later};
use crate::model::id::WorkerId;
use crate::model::plan::{FailurePolicy, HookWhen, OnChange};
use crate::model::run::{AbortedReason, Ending, EndingKind, ErrorReason, FailedReason, InvalidReason};
use jiff::Timestamp;

/// What a run does about an event. Every (state, event) has an answer; many are to do nothing.
///
/// The effects returned are those of the new state that the old one did not want. A driver that keeps to
/// [`effects_of`] of the newest state needs no others.
pub fn step(state: &RunState, plan: &RunPlan, event: &Event, now: Timestamp) -> (RunState, Vec<Effect>) {
    let mut next = state.clone();
    if !state.is_finished() {
        let mut run = Run {
            state: &mut next,
            plan,
            now,
        };
        run.handle(event);
    }
    let before = effects_of(state, plan);
    let mut effects = effects_of(&next, plan);
    effects.retain(|effect| !before.contains(effect));
    (next, effects)
}

/// One step being made.
pub(super) struct Run<'a> {
    pub(super) state: &'a mut RunState,
    pub(super) plan: &'a RunPlan,
    pub(super) now: Timestamp,
}

impl Run<'_> {
    fn handle(&mut self, event: &Event) {
        match event {
            Event::Begin => {
                if self.state.position == Position::Pending {
                    self.enter(Position::Provisioning);
                }
            }
            Event::Tick => {
                if self.now >= self.state.deadline {
                    self.expire();
                }
            }
            Event::Adopted => self.adopted(),
            Event::Claimed(workers) => self.claimed(workers),
            Event::NoWorkers(reason) => {
                if self.state.position == Position::Provisioning {
                    self.end(EndingKind::Error(ErrorReason::Infrastructure), reason, StopMode::Abort);
                }
            }
            Event::HookEnded { hook, attempt, result } => self.hook_ended(*hook, *attempt, result),
            Event::Stop { who } => self.stop(&format!("stopped by {who}"), StopMode::Graceful),
            Event::Abort { who } => self.stop(&format!("stopped at once by {who}"), StopMode::Abort),
            Event::Pause { .. } => self.pause(),
            Event::Resume { .. } => self.resume(),
            Event::Breached(ending) => {
                if self.makes_load() {
                    self.end(ending.kind, &ending.detail, StopMode::Graceful);
                }
            }
            Event::Spoiled(ending) => {
                if self.makes_load() {
                    self.state.hold(ending.kind, ending.detail.clone());
                }
            }
            Event::PlanChanged => self.plan_changed(),
            Event::Blind => {
                if self.makes_load() {
                    let detail = "no numbers arrived for 60s";
                    self.end(EndingKind::Error(ErrorReason::Blind), detail, StopMode::Graceful);
                }
            }
            Event::Delivered => self.advance_from(Position::Delivering, Position::Sealing),
            Event::Sealed => {
                if self.state.position == Position::Sealing {
                    self.verify();
                }
            }
            Event::Judged(endings) => self.judged(endings),
            Event::Released => self.advance_from(Position::Releasing, Position::Reporting),
            Event::Reported => self.advance_from(Position::Reporting, Position::Finished),
            Event::Prepared(worker)
            | Event::Refused(worker, _)
            | Event::Armed { worker, .. }
            | Event::Started(worker)
            | Event::PhaseStarted { worker, .. }
            | Event::PhaseEnded { worker, .. }
            | Event::Waiting { worker, .. }
            | Event::Ended(worker)
            | Event::Lost(worker, _) => {
                if self.state.workers.contains(worker) {
                    self.worker_event(*worker, event);
                }
            }
        }
    }

    fn worker_event(&mut self, worker: WorkerId, event: &Event) {
        match event {
            Event::Prepared(_) => {
                self.state.prepared.insert(worker);
                if self.state.position == Position::PreparingWorkers && self.state.all(&self.state.prepared) {
                    self.hooks_or(Position::PreRun, HookWhen::PreRun);
                }
            }
            Event::Refused(_, reason) => {
                if self.makes_load() {
                    self.mark_lost(worker, reason);
                }
                if self.makes_load() || !self.state.could_have_begun() {
                    self.end(EndingKind::Error(ErrorReason::Engine), reason, StopMode::Graceful);
                    self.check_load();
                }
            }
            Event::Armed { attempt, .. } => self.armed(worker, *attempt),
            Event::Started(_) => {
                self.state.started.insert(worker);
                self.check_load();
            }
            Event::PhaseStarted { phase, .. } => self.phase_started(worker, *phase),
            Event::PhaseEnded { phase, .. } => {
                if let Some(times) = self.state.phases.get_mut(phase) {
                    times.ended_at = Some(self.now);
                }
            }
            Event::Waiting { phase, .. } => {
                if self.state.waiting_for.is_none_or(|old| old < *phase) {
                    self.state.waiting.clear();
                    self.state.waiting_for = Some(*phase);
                }
                if self.state.waiting_for == Some(*phase) {
                    self.state.waiting.insert(worker);
                }
                self.state.started.insert(worker);
                self.check_load();
            }
            Event::Ended(_) => {
                self.state.started.insert(worker);
                self.state.ended.insert(worker);
                self.check_load();
            }
            Event::Lost(_, reason) => self.lost(worker, reason),
            _ => {}
        }
    }

    /// Goes to a position and sets its deadline.
    pub(super) fn enter(&mut self, position: Position) {
        if position == Position::Reporting {
            self.state.hold(EndingKind::Passed, "");
        }
        if matches!(position, Position::Delivering) && self.state.load_ended_at.is_none() {
            self.state.load_ended_at = Some(self.now);
        }
        self.state.position = position;
        self.state.since = self.now;
        self.state.deadline = match (position, self.state.start_at) {
            (Position::Holding, _) => {
                let at = self.plan.not_before.unwrap_or(self.now);
                at.checked_sub(deadline::HOLD_MARGIN).unwrap_or(at)
            }
            (Position::Arming, Some(at)) => at.checked_sub(deadline::COMMIT_MARGIN).unwrap_or(at),
            (Position::Committed, Some(at)) => later(at, deadline::BARRIER),
            _ => later(self.now, deadline::lasts(position, self.plan)),
        };
    }

    fn advance_from(&mut self, from: Position, to: Position) {
        if self.state.position == from {
            self.enter(to);
        }
    }

    /// Notes an ending and brings load to its end, or cleans up where there was none.
    pub(super) fn end(&mut self, kind: EndingKind, detail: &str, mode: StopMode) {
        self.state.hold(kind, detail);
        match self.state.position {
            Position::Committed
            | Position::Running { .. }
            | Position::PausePhase { .. }
            | Position::HandPause { .. } => {
                self.enter(Position::Stopping(mode));
            }
            Position::Stopping(StopMode::Graceful) if mode == StopMode::Abort => {
                self.enter(Position::Stopping(mode));
            }
            Position::Pending
            | Position::Provisioning
            | Position::PreparingWorkers
            | Position::PreRun
            | Position::Holding
            | Position::Arming => self.clean_up(),
            _ => {}
        }
    }

    /// A person's stop: of load, of waiting for its results, of Verify hooks. Cleaning up is never cut short.
    fn stop(&mut self, detail: &str, mode: StopMode) {
        match self.state.position {
            Position::Judging | Position::PostRun | Position::Releasing | Position::Reporting | Position::Finished => {}
            Position::Delivering if mode == StopMode::Abort => {
                self.state.hold(EndingKind::Stopped, detail);
                self.enter(Position::Sealing);
            }
            Position::VerifyHooks => {
                self.state.hold(EndingKind::Stopped, detail);
                self.enter(Position::Judging);
            }
            _ => self.end(EndingKind::Stopped, detail, mode),
        }
    }

    pub(super) fn makes_load(&self) -> bool {
        matches!(
            self.state.position,
            Position::Committed
                | Position::Running { .. }
                | Position::PausePhase { .. }
                | Position::HandPause { .. }
                | Position::Stopping(_)
        )
    }

    fn claimed(&mut self, workers: &[WorkerId]) {
        let wanted = usize::try_from(self.plan.workers).unwrap_or(usize::MAX);
        if self.state.position == Position::Provisioning && workers.len() == wanted {
            self.state.workers = workers.to_vec();
            self.enter(Position::PreparingWorkers);
        }
    }

    /// Enters a position that waits for hooks, or goes past it where there are none.
    fn hooks_or(&mut self, position: Position, when: HookWhen) {
        self.enter(position);
        if next_hook(self.state, self.plan, when).is_none() {
            self.hooks_done(when);
        }
    }

    fn hooks_done(&mut self, when: HookWhen) {
        match when {
            HookWhen::PreRun => self.hold(),
            HookWhen::Verify => self.enter(Position::Judging),
            HookWhen::PostRun => self.enter(Position::Releasing),
        }
    }

    fn hook_ended(&mut self, index: u32, attempt: u32, result: &Result<(), String>) {
        let when = match self.state.position {
            Position::PreRun => HookWhen::PreRun,
            Position::VerifyHooks => HookWhen::Verify,
            Position::PostRun => HookWhen::PostRun,
            _ => return,
        };
        let due = next_hook(self.state, self.plan, when) == Some((index, attempt));
        let Some((_, hook)) = self.plan.hooks_at(when).find(|(at, _)| *at == index && due) else {
            return;
        };
        let retries = when == HookWhen::PostRun && hook.idempotent && attempt < deadline::CLEANUP_ATTEMPTS;
        let outcome = HookOutcome {
            attempts: attempt,
            again: result.is_err() && retries,
            result: result.clone(),
        };
        let failed = result
            .as_ref()
            .err()
            .filter(|_| !outcome.again && hook.policy == FailurePolicy::Fail);
        self.state.hooks.insert(index, outcome);
        if let Some(reason) = failed {
            let detail = format!("hook {}: {reason}", hook.name);
            match when {
                HookWhen::PreRun => return self.end(EndingKind::Error(ErrorReason::Hook), &detail, StopMode::Abort),
                HookWhen::Verify => self.state.hold(EndingKind::Failed(FailedReason::Verify), detail),
                HookWhen::PostRun => self.state.hold(EndingKind::Error(ErrorReason::Hook), detail),
            }
        }
        if next_hook(self.state, self.plan, when).is_none() {
            self.hooks_done(when);
        }
    }

    /// Waits for the slot's instant where there is one and it is not near yet.
    fn hold(&mut self) {
        match self.plan.not_before {
            Some(at) if later(self.now, deadline::HOLD_MARGIN) < at => self.enter(Position::Holding),
            _ => self.arm(),
        }
    }

    pub(super) fn arm(&mut self) {
        self.state.armed.clear();
        self.state.commit_unsure = false;
        let lead = deadline::ARM_LEAD.saturating_mul(1 << self.state.attempt.min(deadline::ARM_ATTEMPTS));
        self.state.attempt += 1;
        let soonest = later(self.now, lead);
        self.state.start_at = Some(self.plan.not_before.map_or(soonest, |at| at.max(soonest)));
        self.enter(Position::Arming);
    }

    /// All armed, and in time: it holds. No Commit, no start (promise 38).
    fn armed(&mut self, worker: WorkerId, attempt: u32) {
        if self.state.position == Position::Arming && attempt == self.state.attempt {
            self.state.armed.insert(worker);
            if self.state.all(&self.state.armed) && self.now < self.state.deadline {
                self.enter(Position::Committed);
            }
        }
    }

    fn phase_started(&mut self, worker: WorkerId, phase: u32) {
        self.state.started.insert(worker);
        if self.plan.phase(phase).is_some() {
            let times = PhaseTimes {
                began_at: self.now,
                ended_at: None,
            };
            self.state.phases.entry(phase).or_insert(times);
        }
        match self.state.position {
            Position::Running { phase: old } if phase > old => self.enter(Position::Running { phase }),
            Position::HandPause { phase: old } if phase > old => self.state.position = Position::HandPause { phase },
            _ => {}
        }
        self.check_load();
    }

    /// Looks whether all have started, wait for the same word, or are done.
    fn check_load(&mut self) {
        if self.state.position == Position::Committed && self.state.all(&self.state.started) {
            self.enter(Position::Running { phase: 0 });
        }
        let over = self.state.all(&self.state.ended);
        match self.state.position {
            Position::Running { .. }
            | Position::PausePhase { .. }
            | Position::HandPause { .. }
            | Position::Stopping(_)
                if over =>
            {
                self.enter(Position::Delivering);
            }
            Position::Running { .. } => {
                let Some(phase) = self.state.waiting_for else { return };
                if self.state.working().all(|worker| self.state.waiting.contains(worker)) {
                    self.go_on(phase);
                }
            }
            _ => {}
        }
    }

    /// Workers wait for `phase`: a pause is entered, anything else gets its word.
    pub(super) fn go_on(&mut self, phase: u32) {
        if let Some(PhasePlan::Pause { .. }) = self.plan.phase(phase) {
            return self.enter(Position::PausePhase { phase });
        }
        self.state.waiting.clear();
        self.state.waiting_for = None;
        self.tell(Word::Advance { phase });
        let last = u32::try_from(self.plan.phases.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(1);
        self.enter(Position::Running { phase: phase.min(last) });
    }

    fn tell(&mut self, word: Word) {
        self.state.words += 1;
        let last = match word {
            Word::Advance { .. } => &mut self.state.advance,
            Word::Pause | Word::Resume => &mut self.state.freeze,
        };
        *last = Some((self.state.words, word));
    }

    fn pause(&mut self) {
        if let Position::Running { phase } = self.state.position {
            self.tell(Word::Pause);
            self.state.was_paused = true;
            self.enter(Position::HandPause { phase });
        }
    }

    fn resume(&mut self) {
        match self.state.position {
            Position::PausePhase { phase } => self.go_on(phase + 1),
            Position::HandPause { phase } => {
                self.tell(Word::Resume);
                self.enter(Position::Running { phase });
                self.check_load();
            }
            _ => {}
        }
    }

    fn mark_lost(&mut self, worker: WorkerId, reason: &str) {
        self.state.lost.insert(worker, reason.to_owned());
        self.state.lost_at.entry(worker).or_insert(self.now);
    }

    fn lost(&mut self, worker: WorkerId, reason: &str) {
        if self.state.lost.contains_key(&worker) || self.state.load_ended_at.is_some() {
            if self.state.position == Position::Delivering {
                self.mark_lost(worker, reason);
            }
            return;
        }
        self.mark_lost(worker, reason);
        if !self.state.could_have_begun() {
            let detail = format!("worker {worker} was lost before load began: {reason}");
            return self.end(EndingKind::Error(ErrorReason::Infrastructure), &detail, StopMode::Abort);
        }
        let unfinished = self
            .state
            .lost
            .keys()
            .filter(|lost| !self.state.ended.contains(lost))
            .count();
        let most = usize::try_from(self.plan.max_lost_workers).unwrap_or(usize::MAX);
        if unfinished > most || unfinished == self.state.workers.len() {
            let detail = format!(
                "{unfinished} of {} workers were lost: {reason}",
                self.state.workers.len()
            );
            self.end(EndingKind::Invalid(InvalidReason::Workers), &detail, StopMode::Graceful);
        }
        self.check_load();
    }

    fn plan_changed(&mut self) {
        if self.plan.on_change == OnChange::Finish {
            self.state.plan_changed = true;
        } else if self.makes_load() || !self.state.could_have_begun() {
            let detail = "a commit changed the plan";
            self.end(EndingKind::Aborted(AbortedReason::Change), detail, StopMode::Graceful);
        }
    }

    /// Verify hooks look at what a whole run left behind; one that was cut short has nothing to verify.
    fn verify(&mut self) {
        if self.state.ending.is_some() {
            self.enter(Position::Judging);
        } else {
            self.hooks_or(Position::VerifyHooks, HookWhen::Verify);
        }
    }

    fn judged(&mut self, endings: &[Ending]) {
        if self.state.position == Position::Judging {
            for ending in endings {
                self.state.hold(ending.kind, ending.detail.clone());
            }
            self.clean_up();
        }
    }

    pub(super) fn clean_up(&mut self) {
        self.hooks_or(Position::PostRun, HookWhen::PostRun);
    }
}
