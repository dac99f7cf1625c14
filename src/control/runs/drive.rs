//! Drives one run: takes in what happens, asks the state machine, has effects performed and the state saved.

use super::context::{Began, Context};
use super::perform::{adopt_fleet, perform};
use super::save::{Saved, save_newest};
use crate::control::fleet::{EndedWhy, FleetEvent, Progress};
use crate::control::sync::Published;
use crate::store::rows::RunRow;
use muster_core::base::units::counted;
use muster_core::lifecycle::effects::effects_of;
use muster_core::lifecycle::event::{Effect, Event};
use muster_core::lifecycle::state::{Position, RunState};
use muster_core::lifecycle::step::step;
use muster_core::model::id::WorkerId;
use muster_core::model::run::{Severity, Stage, TriggerKind};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

/// The wall clock may be set; a deadline is looked at anew at least this often.
const LOOK: Duration = Duration::from_secs(1);

/// The task of one run.
pub(super) struct Driver {
    context: Arc<Context>,
    row: RunRow,
    inbox: mpsc::Receiver<Event>,
    /// Told once the fleet knows the workers of a run of an earlier daemon; `None`: it is this daemon's own.
    adopted: Option<oneshot::Sender<()>>,
    /// Counts states; saving follows.
    generation: u64,
    saved: u64,
    effects: BTreeMap<Effect, AbortOnDropHandle<()>>,
}

impl Driver {
    pub fn new(
        context: Arc<Context>,
        row: RunRow,
        inbox: mpsc::Receiver<Event>,
        adopted: Option<oneshot::Sender<()>>,
    ) -> Self {
        Self {
            context,
            row,
            inbox,
            adopted,
            generation: 0,
            saved: 0,
            effects: BTreeMap::new(),
        }
    }

    /// Drives the run until it is finished and saved, or somebody else drives it.
    pub async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let mut fleet = context.shared.parts.fleet.subscribe();
        let mut desired = context.shared.parts.world.published();
        let (newest, to_save) = watch::channel((0, self.row.clone()));
        let (saved, mut saves) = watch::channel(Saved::UpTo(0));
        let parts = &context.shared.parts;
        let saver = save_newest(
            Arc::clone(&parts.stores.ledger),
            parts.clock.clone(),
            self.row.version,
            to_save,
            saved,
        );
        let _saver = AbortOnDropHandle::new(tokio::spawn(saver));
        if self.adopted.is_some()
            && let Err(reason) = context.shared.hooks.end_leftovers(&context.run().to_string()).await
        {
            let message = format!("of a hook that the last daemon had started: {reason}");
            context.log(Severity::Warning, "HookLeftovers", message).await;
        }
        let _adoption = self.begin(&newest);
        loop {
            if self.is_over() {
                return;
            }
            let due = self.due();
            tokio::select! {
                biased;
                event = self.inbox.recv() => match event {
                    Some(event) => self.on(&event, &newest),
                    None => return,
                },
                news = fleet.recv() => self.on_fleet(news, &newest),
                Ok(()) = saves.changed() => match *saves.borrow_and_update() {
                    Saved::UpTo(generation) => {
                        self.saved = generation;
                        self.follow_effects();
                    }
                    Saved::Taken => {
                        tracing::error!(run = %context.run(), "run is driven by another daemon; this one lets go of it");
                        return;
                    }
                },
                Ok(()) = desired.changed() => {
                    let published = desired.borrow_and_update().clone();
                    self.on_published(published.as_deref(), &newest);
                }
                () = context.sleep(due) => self.on(&Event::Tick, &newest),
            }
        }
    }

    fn begin(&mut self, newest: &watch::Sender<(u64, RunRow)>) -> Option<AbortOnDropHandle<()>> {
        let Some(known) = self.adopted.take() else {
            self.on(&Event::Begin, newest);
            return None;
        };
        let context = Arc::clone(&self.context);
        self.follow_demand(&context.state());
        self.on(&Event::Adopted, newest);
        self.follow_effects();
        let published = context.shared.parts.world.published().borrow().clone();
        self.on_published(published.as_deref(), newest);
        let adoption = async move {
            adopt_fleet(context).await;
            let _ = known.send(());
        };
        Some(AbortOnDropHandle::new(tokio::spawn(adoption)))
    }

    fn is_over(&self) -> bool {
        self.context.state.borrow().is_finished() && self.saved >= self.generation
    }

    fn due(&self) -> Duration {
        let state = self.context.state.borrow();
        if state.is_finished() {
            return LOOK;
        }
        let left = state.deadline.duration_since(self.context.now());
        Duration::try_from(left).unwrap_or(Duration::ZERO).min(LOOK)
    }

    fn on(&mut self, event: &Event, newest: &watch::Sender<(u64, RunRow)>) {
        let context = Arc::clone(&self.context);
        let old = context.state();
        let (state, _) = step(&old, &context.plan, event, context.now());
        if state == old {
            return;
        }
        self.generation += 1;
        context.state.send_replace(state.clone());
        context
            .live
            .send_modify(|view| view.follow(&state, &context.plan, &context.pinned.plan));
        // First what must happen, stops above all; then it is saved (promise 47). What must not be repeated waits for the save.
        self.follow_effects();
        self.follow_demand(&state);
        self.fill_row(&state);
        newest.send_replace((self.generation, self.row.clone()));
        if old.stage() != state.stage() {
            self.announce(&state, event);
        }
        if old.position == Position::Reporting && *event != Event::Reported {
            tracing::error!(run = %context.run(), "report of a run could not be kept: the run is finished without one");
        }
        if *event == Event::PlanChanged {
            self.announce_change(&state);
        }
    }

    fn fill_row(&mut self, state: &RunState) {
        match serde_json::to_value(state) {
            Ok(json) => self.row.state = json,
            Err(error) => {
                tracing::error!(run = %self.context.run(), error = %error, "state of a run cannot be written as JSON")
            }
        }
        self.row.stage = state.stage().as_str().to_owned();
        self.row.ending = state.final_ending().map(|ending| ending.kind.to_string());
        self.row.deadline = (!state.is_finished()).then_some(state.deadline);
        self.row.started_at = state.start_at.filter(|_| !state.started.is_empty());
        self.row.finished_at = state.is_finished().then_some(state.since);
    }

    /// Starts the effects that the state wants and gives up those that it does not want any more.
    fn follow_effects(&mut self) {
        let wanted = effects_of(&self.context.state.borrow(), &self.context.plan);
        self.effects.retain(|effect, _| wanted.contains(effect));
        for effect in wanted {
            let may_begin = self.saved >= self.generation || !waits_for_save(&effect);
            if may_begin && !self.effects.contains_key(&effect) {
                let task = tokio::spawn(perform(Arc::clone(&self.context), effect.clone()));
                self.effects.insert(effect, AbortOnDropHandle::new(task));
            }
        }
    }

    fn follow_demand(&self, state: &RunState) {
        let context = &self.context;
        let workers = state.demand(&context.plan);
        let keep = context.pinned.keep_warm;
        if workers == 0 && state.is_finished() && !keep.is_zero() {
            let context = Arc::clone(context);
            let shared = Arc::clone(&context.shared);
            shared.tasks.spawn(async move {
                let stop = context.shared.stop.clone();
                stop.run_until_cancelled(context.sleep(keep)).await;
                context.shared.demand.set(context.run(), &context.pinned.pool, 0);
            });
        } else if workers > 0 || keep.is_zero() {
            context.shared.demand.set(context.run(), &context.pinned.pool, workers);
        }
    }

    fn on_fleet(
        &mut self,
        news: Result<FleetEvent, broadcast::error::RecvError>,
        newest: &watch::Sender<(u64, RunRow)>,
    ) {
        let run = self.context.run();
        match news {
            Ok(FleetEvent::Progress {
                run: of,
                worker,
                progress,
            }) if of == run => self.on_progress(worker, &progress, newest),
            Ok(FleetEvent::Lost { worker, .. }) if self.context.is_let_go(worker) => {}
            Ok(FleetEvent::Lost { worker, reason, .. }) => self.on(&Event::Lost(worker, reason), newest),
            Ok(_) => {}
            Err(_) => {
                let fleet = &self.context.shared.parts.fleet;
                let (known, progress) = (fleet.workers(), fleet.progress(run));
                for (worker, history) in progress {
                    for one in &history {
                        self.on_progress(worker, one, newest);
                    }
                }
                for worker in self.context.state().workers {
                    if known.iter().all(|view| view.id != worker) && !self.context.is_let_go(worker) {
                        self.on(&Event::Lost(worker, "it is not connected".to_owned()), newest);
                    }
                }
            }
        }
    }

    fn on_progress(&mut self, worker: WorkerId, progress: &Progress, newest: &watch::Sender<(u64, RunRow)>) {
        let event = match progress {
            Progress::Prepared => Event::Prepared(worker),
            Progress::Refused(reason) => Event::Refused(worker, reason.clone()),
            // Who ordered it looks at the history.
            Progress::HookEnded { .. } => return,
            Progress::Armed => Event::Armed {
                worker,
                attempt: self.context.armed_attempt(),
            },
            Progress::Started { late_us } => {
                let clock = self.context.shared.parts.fleet.clock(worker);
                let mut began = self.context.began.lock().unwrap_or_else(PoisonError::into_inner);
                began.entry(worker).or_insert(Began {
                    late_us: *late_us,
                    clock,
                });
                Event::Started(worker)
            }
            Progress::PhaseStarted(phase) => Event::PhaseStarted { worker, phase: *phase },
            Progress::PhaseEnded(phase) => Event::PhaseEnded { worker, phase: *phase },
            Progress::Waiting(phase) => Event::Waiting { worker, phase: *phase },
            Progress::Ended { why, .. } => match why {
                EndedWhy::Finished | EndedWhy::Stopped => Event::Ended(worker),
                EndedWhy::Orphaned => Event::Lost(worker, "it had not heard from the daemon for too long".to_owned()),
                EndedWhy::Failed(reason) => Event::Refused(worker, reason.clone()),
            },
        };
        self.on(&event, newest);
    }

    /// A commit that edits or deletes the plan (promise 46). Before anything was read, nothing is known to have changed.
    fn on_published(&mut self, published: Option<&Published>, newest: &watch::Sender<(u64, RunRow)>) {
        let identity = &self.context.identity;
        let Some(published) = published.filter(|_| identity.trigger.kind != TriggerKind::Rerun) else {
            return;
        };
        let plan = published.desired.get(&identity.plan);
        let same = plan.is_some_and(|plan| plan.digest == identity.digest);
        if !same && !self.context.state.borrow().plan_changed {
            self.on(&Event::PlanChanged, newest);
        }
    }

    /// Says what a commit that changed the plan did to the run, on both (promise 46).
    fn announce_change(&self, state: &RunState) {
        let context = Arc::clone(&self.context);
        let run = context.run();
        let what = if state.plan_changed {
            format!("a commit changed the plan; run {run} finishes as it began")
        } else {
            format!("a commit changed the plan; run {run} is aborted")
        };
        tracing::info!(run = %run, plan = %context.identity.plan, "{what}");
        let shared = Arc::clone(&context.shared);
        shared.tasks.spawn(async move {
            let plan = context.identity.plan.to_string();
            context.log(Severity::Normal, "PlanChanged", what.clone()).await;
            context.log_about(plan, Severity::Normal, "PlanChanged", what).await;
        });
    }

    fn announce(&self, state: &RunState, event: &Event) {
        let context = Arc::clone(&self.context);
        if let (Position::Finished, Some(ending)) = (&state.position, &state.ending) {
            let (kind, why) = (ending.kind.as_str(), ending.kind.reason().unwrap_or_default());
            metrics::counter!("muster_runs_finished_total", "ending" => kind, "reason" => why).increment(1);
        }
        let (reason, severity) = match state.position {
            Position::Finished => match &state.ending {
                Some(ending) if ending.kind.exit_code() == 0 => ("RunFinished", Severity::Normal),
                _ => ("RunFinished", Severity::Warning),
            },
            Position::Provisioning => ("RunStarted", Severity::Normal),
            _ => (state.stage().as_str(), Severity::Normal),
        };
        let message = message_of(state, &context, event);
        tracing::info!(run = %context.run(), plan = %context.identity.plan, stage = state.stage().as_str(), "{message}");
        let shared = Arc::clone(&context.shared);
        let reason = reason.to_owned();
        shared
            .tasks
            .spawn(async move { context.log(severity, &reason, message).await });
    }
}

fn message_of(state: &RunState, context: &Context, event: &Event) -> String {
    let plan = &context.identity.plan;
    let phase = |index: u32| {
        let phase = context
            .pinned
            .plan
            .phases
            .get(usize::try_from(index).unwrap_or(usize::MAX));
        phase.map_or_else(|| index.to_string(), |phase| phase.name.to_string())
    };
    match state.stage() {
        Stage::Provisioning => format!(
            "run of {}/{} by {} asks for {}",
            plan.project,
            plan.name,
            context.identity.trigger.who,
            counted(context.plan.workers as usize, "worker")
        ),
        Stage::Running { phase: index } => format!("phase {}", phase(index)),
        Stage::Paused { phase: index } => match event {
            Event::Pause { who } => format!("paused by {who} in phase {}", phase(index)),
            _ => format!(
                "pause phase {} waits for `muster resume run/{}`",
                phase(index),
                context.run()
            ),
        },
        Stage::Finished => match &state.ending {
            Some(ending) if ending.detail.is_empty() => ending.kind.to_string(),
            Some(ending) => format!("{}: {}", ending.kind, ending.detail),
            None => String::new(),
        },
        stage => {
            let workers = counted(context.plan.workers as usize, "worker");
            let what = match stage {
                Stage::Preparing => format!("the plan goes to {workers}"),
                Stage::Ready => format!("{workers} prepared; load starts together"),
                Stage::Draining => "iterations in flight end, last results arrive".to_owned(),
                Stage::Verifying => "Verify hooks run, thresholds are judged".to_owned(),
                Stage::CleaningUp => "PostRun hooks run, workers are let go".to_owned(),
                stage => stage.as_str().to_owned(),
            };
            match &state.ending {
                Some(ending) => format!("{what} ({}: {})", ending.kind, ending.detail),
                None => what,
            }
        }
    }
}

/// What cannot be taken back must be in the ledger before it begins: a daemon that dies then is followed by one that knows.
fn waits_for_save(effect: &Effect) -> bool {
    matches!(effect, Effect::RunHook { .. } | Effect::Prepare | Effect::Commit { .. })
}
