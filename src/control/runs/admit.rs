//! What holds a start back: a suspension, windows, data that cannot be split, and the bounds of pool, environment and settings.

use super::pinned::Pinned;
use super::start::Blocked;
use crate::store::Ledger;
use jiff::Timestamp;
use muster_core::base::units::format_duration;
use muster_core::model::environment::{Capacity, EnvironmentLimits, WorkerPool};
use muster_core::model::key::Key;
use muster_core::model::load::{Executor, Phase, PhaseWork};
use muster_core::model::plan::TestPlan;
use muster_core::model::policy::Caps;
use muster_core::schedule::window::check;

/// What an active run takes of its environment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    pub environment: Key,
    pub workers: u32,
    pub vus: u64,
    pub rate: f64,
    pub requests_per_second: Option<u64>,
}

impl Load {
    pub fn of(pinned: &Pinned) -> Self {
        let executors = || {
            pinned.plan.phases.iter().filter_map(|phase| match &phase.work {
                PhaseWork::Load { executor, .. } => Some(executor),
                PhaseWork::Pause { .. } => None,
            })
        };
        Self {
            environment: pinned.environment.clone(),
            workers: pinned.workers,
            vus: executors().map(|executor| executor.peak_vus()).max().unwrap_or(0),
            rate: executors()
                .filter_map(|executor| executor.peak_rate())
                .fold(0.0, f64::max),
            requests_per_second: pinned.requests_per_second,
        }
    }
}

/// The most users of an open phase are what its workers carry: a target that stalls must not grow a worker without bound.
pub(super) fn bound_users(phase: &mut Phase, capacity: &Capacity, workers: u32) {
    let carried = capacity.vus.saturating_mul(phase.workers.unwrap_or(workers).into());
    if let PhaseWork::Load {
        executor: Executor::ConstantArrivalRate { users, .. } | Executor::RampingArrivalRate { users, .. },
        ..
    } = &mut phase.work
    {
        users.max = users.max.min(carried).max(users.pre_allocated);
    }
}

/// Where a file is split, each worker gets rows of it (promise 40).
pub(super) fn check_data(plan: &TestPlan, workers: u32) -> Result<(), Blocked> {
    match plan.data.iter().find(|data| !data.suffices(workers)) {
        Some(data) => Err(Blocked::TooFewRows {
            data: data.name.clone(),
            rows: data.rows,
            workers,
        }),
        None => Ok(()),
    }
}

pub(super) fn check_windows(key: &Key, plan: &TestPlan, now: Timestamp) -> Result<(), Blocked> {
    check(&plan.timing.windows, now, plan.duration()).map_err(|refusal| Blocked::OutsideWindow {
        plan: key.clone(),
        refusal,
    })
}

/// Either of git's `suspend` and the overlay holds a plan back.
pub(super) async fn check_suspended(
    key: &Key,
    plan: &TestPlan,
    ledger: &dyn Ledger,
    now: Timestamp,
) -> Result<(), Blocked> {
    let holds = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
    let by_git = plan.suspend.as_ref().filter(|suspend| holds(suspend.until));
    let found = match by_git {
        Some(suspend) => Some((suspend.by(), true, suspend.reason.clone())),
        None => {
            let overlays = ledger.overlays().await?;
            let overlay = overlays
                .into_iter()
                .find(|overlay| overlay.plan == *key && holds(overlay.until));
            overlay.map(|overlay| (overlay.who, false, overlay.reason))
        }
    };
    match found {
        Some((by, in_git, reason)) => Err(Blocked::Suspended {
            plan: key.clone(),
            by,
            in_git,
            reason,
        }),
        None => Ok(()),
    }
}

/// The pool may hold so many workers.
pub(super) fn fits_pool(workers: u32, key: &Key, pool: &WorkerPool) -> Result<(), Blocked> {
    match workers > pool.max {
        true => Err(Blocked::PoolTooSmall {
            needed: workers,
            pool: key.clone(),
            max: pool.max,
        }),
        false => Ok(()),
    }
}

pub(super) fn check_caps(pinned: &Pinned, caps: &Caps) -> Result<(), Blocked> {
    let load = Load::of(pinned);
    let whose = "the settings";
    bound("workers", load.workers.into(), Some(caps.workers.into()), whose)?;
    bound("users", load.vus, Some(caps.vus), whose)?;
    bound("iterations per second", load.rate.ceil() as u64, Some(caps.rate), whose)?;
    let duration = pinned.plan.duration();
    if duration > caps.duration && !pinned.smoke {
        return Err(Blocked::Limit {
            what: "duration",
            wanted: format_duration(duration),
            bound: format_duration(caps.duration),
            whose: whose.to_owned(),
        });
    }
    Ok(())
}

/// Whether an environment can carry one more run beside those that are active on it.
pub(super) fn check_environment<'a>(
    limits: &EnvironmentLimits,
    new: &Load,
    active: impl Iterator<Item = &'a Load>,
) -> Result<(), Blocked> {
    let beside: Vec<&Load> = active.filter(|load| load.environment == new.environment).collect();
    let all = || beside.iter().copied().chain([new]);
    let whose = new.environment.to_string();
    let runs = u64::try_from(beside.len()).unwrap_or(u64::MAX) + 1;
    bound(
        "runs at the same time",
        runs,
        limits.concurrent_runs.map(u64::from),
        &whose,
    )?;
    let workers = all().map(|load| u64::from(load.workers)).sum();
    bound("workers", workers, limits.workers.map(u64::from), &whose)?;
    bound("users", all().map(|load| load.vus).sum(), limits.vus, &whose)?;
    let rate: f64 = all().map(|load| load.rate).sum();
    bound("iterations per second", rate.ceil() as u64, limits.rate, &whose)
}

fn bound(what: &'static str, wanted: u64, most: Option<u64>, whose: &str) -> Result<(), Blocked> {
    match most {
        Some(most) if wanted > most => Err(Blocked::Limit {
            what,
            wanted: wanted.to_string(),
            bound: most.to_string(),
            whose: whose.to_owned(),
        }),
        _ => Ok(()),
    }
}
