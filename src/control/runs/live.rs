//! How a run is doing now, for progress displays.

use jiff::Timestamp;
use muster_core::lifecycle::plan::{PhasePlan, RunPlan};
use muster_core::lifecycle::state::RunState;
use muster_core::measure::judge::ThresholdResult;
use muster_core::measure::query::{Live, LiveWorker};
use muster_core::model::id::{RunId, WorkerId};
use muster_core::model::plan::TestPlan;
use serde::Serialize;

/// One look at a run. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveView {
    /// Changes with each new view.
    pub version: u64,
    /// The run.
    pub run: RunId,
    /// The stage's word.
    pub stage: &'static str,
    /// Since when it is in it.
    pub since: Timestamp,
    /// When it must have been left.
    pub deadline: Timestamp,
    /// The phase begun last.
    pub phase: Option<PhaseNow>,
    /// Agreed start of load.
    pub load_started_at: Option<Timestamp>,
    /// How long load lasts as planned, pauses apart; phases that end by iterations count with their longest time.
    pub planned_ms: u64,
    /// The hook that runs.
    pub hook: Option<String>,
    /// Workers.
    pub workers: WorkersNow,
    /// The exact set, by index; who is lost of it, when and why.
    #[serde(skip)]
    pub set: Vec<SetMember>,
    /// The numbers.
    pub numbers: Live,
    /// Those of each worker that has reported.
    #[serde(skip)]
    pub each: Vec<LiveWorker>,
    /// Thresholds as they stand; empty before the first numbers.
    pub thresholds: Vec<ThresholdResult>,
    /// The ending that holds so far, or for good.
    pub ending: Option<String>,
    /// What led to it.
    pub ending_detail: Option<String>,
}

/// One of a run's exact set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetMember {
    /// Who.
    pub worker: WorkerId,
    /// Why it is gone, and since when.
    pub lost: Option<(String, Option<Timestamp>)>,
}

/// The phase begun last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseNow {
    /// Its index, from 0.
    pub index: u32,
    /// Of so many.
    pub of: u32,
    /// Its name.
    pub name: String,
    /// When it began.
    pub began_at: Option<Timestamp>,
    /// How long it lasts at most.
    pub planned_ms: u64,
    /// Whether it waits for `muster resume`.
    pub waits_for_resume: bool,
}

/// Workers by what they have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkersNow {
    /// Of the exact set.
    pub wanted: u32,
    /// That hold everything they need.
    pub prepared: u32,
    /// That made load.
    pub started: u32,
    /// That are done.
    pub ended: u32,
    /// That are gone.
    pub lost: u32,
}

impl LiveView {
    /// The first view.
    pub(super) fn new(run: RunId, state: &RunState, plan: &RunPlan, spec: &TestPlan) -> Self {
        let mut view = Self {
            version: 0,
            run,
            stage: "",
            since: state.since,
            deadline: state.deadline,
            phase: None,
            load_started_at: None,
            planned_ms: plan.phases.iter().map(planned_ms).sum(),
            hook: None,
            workers: WorkersNow {
                wanted: plan.workers,
                prepared: 0,
                started: 0,
                ended: 0,
                lost: 0,
            },
            set: Vec::new(),
            numbers: Live::default(),
            each: Vec::new(),
            thresholds: Vec::new(),
            ending: None,
            ending_detail: None,
        };
        view.follow(state, plan, spec);
        view
    }

    /// Takes over what the state says.
    pub(super) fn follow(&mut self, state: &RunState, plan: &RunPlan, spec: &TestPlan) {
        use muster_core::lifecycle::effects::effects_of;
        use muster_core::lifecycle::event::Effect;
        use muster_core::model::run::Stage;
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let stage = state.stage();
        let (index, waits_for_resume) = match stage {
            Stage::Running { phase } => (Some(phase), false),
            Stage::Paused { phase } => (Some(phase), true),
            _ => (None, false),
        };
        self.version += 1;
        self.stage = stage.as_str();
        self.since = state.since;
        self.deadline = state.deadline;
        self.phase = index.and_then(|index| {
            let phase = spec.phases.get(usize::try_from(index).ok()?)?;
            Some(PhaseNow {
                index,
                of: count(plan.phases.len()),
                name: phase.name.to_string(),
                began_at: state.phases.get(&index).map(|times| times.began_at),
                planned_ms: plan.phase(index).map_or(0, planned_ms),
                waits_for_resume,
            })
        });
        self.load_started_at = state.start_at.filter(|_| state.could_have_begun());
        self.hook = effects_of(state, plan).iter().find_map(|effect| match effect {
            Effect::RunHook { hook, .. } => plan
                .hooks
                .get(usize::try_from(*hook).ok()?)
                .map(|hook| hook.name.clone()),
            _ => None,
        });
        self.workers = WorkersNow {
            wanted: plan.workers,
            prepared: count(state.prepared.len()),
            started: count(state.started.len()),
            ended: count(state.ended.len()),
            lost: count(state.lost.len()),
        };
        let member = |worker: &WorkerId| SetMember {
            worker: *worker,
            lost: state
                .lost
                .get(worker)
                .map(|reason| (reason.clone(), state.lost_at.get(worker).copied())),
        };
        self.set = state.workers.iter().map(member).collect();
        self.ending = state.ending.as_ref().map(|ending| ending.kind.to_string());
        self.ending_detail = state.ending.as_ref().map(|ending| ending.detail.clone());
    }
}

fn planned_ms(phase: &PhasePlan) -> u64 {
    let lasts = match phase {
        PhasePlan::Timed { lasts, .. } => *lasts,
        PhasePlan::Iterations { at_most, .. } => *at_most,
        PhasePlan::Pause { .. } => return 0,
    };
    u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)
}
