//! Whether a run may start, and what it is pinned to.

use super::admit::{bound_users, check_caps, check_data, check_suspended, check_windows, fits_pool};
use super::pinned::Pinned;
use super::ready::{check_ready, check_way, find_bus, find_results};
use super::world::World;
use crate::control::sync::Published;
use crate::store::rows::ScheduleRow;
use crate::store::{Ledger, StoreError};
use jiff::Timestamp;
use muster_core::lifecycle::variant;
use muster_core::model::desired::Desired;
use muster_core::model::environment::{Environment, EnvironmentLimits, ProviderSpec, WorkerPool};
use muster_core::model::id::{Digest, Name, Revision, RunId};
use muster_core::model::key::Key;
use muster_core::model::plan::{Target, TestPlan};
use muster_core::model::policy::TargetRules;
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::TriggerKind;
use muster_core::schedule::window::Refusal;
use muster_core::topology::{local_environment_spec, local_pool, local_pool_spec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a start asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Which plan.
    pub plan: Key,
    /// The run's id; the same id again is the same run (promise 34).
    pub id: Option<RunId>,
    /// How it is started.
    pub trigger: TriggerKind,
    /// The token's name.
    pub who: String,
    /// Share of the load, above 0 up to 1.
    pub scale: Option<f64>,
    /// One user, one iteration of each scenario, nothing judged.
    pub smoke: bool,
    /// Another base URL than the plan's.
    pub target: Option<String>,
    /// Added to the environment of command hooks.
    pub env: BTreeMap<String, String>,
    /// The slot it is the run of, with what is written of it.
    pub slot: Option<SlotStart>,
    /// Why the plan's windows do not hold for it.
    pub override_windows: Option<String>,
}

/// The slot that a run is started for.
#[derive(Debug, Clone)]
pub struct SlotStart {
    /// Its instant, before which load does not begin.
    pub slot: Timestamp,
    /// How far its plan's slots are decided by it.
    pub schedule: ScheduleRow,
}

impl StartRequest {
    /// A plain start.
    pub fn new(plan: Key, trigger: TriggerKind, who: impl Into<String>) -> Self {
        Self {
            plan,
            id: None,
            trigger,
            who: who.into(),
            scale: None,
            smoke: false,
            target: None,
            env: BTreeMap::new(),
            slot: None,
            override_windows: None,
        }
    }
}

/// Why a run did not start.
#[derive(Debug, thiserror::Error)]
pub enum Blocked {
    /// No such plan.
    #[error("there is no plan {0}")]
    UnknownPlan(Key),
    /// No such run to repeat.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// Nothing was read from the source yet.
    #[error("plans are not read yet")]
    NotRead,
    /// The plan's project does not stand at a good commit.
    #[error("project {project} is not good: {reason}")]
    Project {
        /// Which.
        project: String,
        /// Why.
        reason: String,
    },
    /// It is held back (promise 23).
    #[error("plan {plan} is suspended by {by}: {reason}")]
    Suspended {
        /// Which.
        plan: Key,
        /// Who suspended it.
        by: String,
        /// Whether in its file; else by an overlay that `resume` clears.
        in_git: bool,
        /// Why.
        reason: String,
    },
    /// Something it depends on is not there.
    #[error("{key} is not ready: {reason}")]
    NotReady {
        /// Which.
        key: Key,
        /// Why.
        reason: String,
    },
    /// The pool cannot hold so many workers.
    #[error("the plan takes {needed} workers; pool {pool} has at most {max}")]
    PoolTooSmall {
        /// Of the busiest phase.
        needed: u32,
        /// Which pool.
        pool: Key,
        /// Its bound.
        max: u32,
    },
    /// A data file cannot be split among the run's workers (promise 40).
    #[error("data {data} has {rows} rows to split; the run has {workers} workers")]
    TooFewRows {
        /// Its name.
        data: String,
        /// Without the header.
        rows: u64,
        /// Of the run.
        workers: u32,
    },
    /// Too few workers have come by themselves.
    #[error("not enough workers in {pool}: the plan needs {needed}; {free} of {connected} connected are free")]
    NotEnoughWorkers {
        /// Which pool.
        pool: Key,
        /// Of the busiest phase.
        needed: u32,
        /// That no run has.
        free: usize,
        /// That are connected.
        connected: usize,
    },
    /// A bound is reached (promise 61).
    #[error("{what} would be {wanted}; {whose} allows {bound}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// With this run.
        wanted: String,
        /// At most.
        bound: String,
        /// Whose bound.
        whose: String,
    },
    /// A target that the settings do not allow (promise 60).
    #[error("target {0} is not allowed")]
    Target(String),
    /// The whole run must fit the plan's windows.
    #[error("plan {plan} may not run now: {refusal}")]
    OutsideWindow {
        /// Which.
        plan: Key,
        /// Which window is in the way.
        refusal: Refusal,
    },
    /// A slot is started once (promise 27).
    #[error("slot {slot} of {plan} has its row already")]
    SlotTaken {
        /// Whose.
        plan: Key,
        /// Its instant.
        slot: Timestamp,
    },
    /// Not a share.
    #[error("a scale is above 0 and at most 100%, not {0}")]
    Scale(f64),
    /// A file of the plan is not at hand.
    #[error("the content of a file is not at hand: {0}")]
    Content(String),
    /// A run of another build.
    #[error("run {0} was written by another version of muster")]
    Format(RunId),
    /// The ledger did not answer, so nothing was started.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// What a start found: pins, the plan's commit and digest, and the bounds of its environment.
pub(super) struct Found {
    pub pinned: Pinned,
    pub revision: Revision,
    pub digest: Digest,
    pub limits: EnvironmentLimits,
}

/// Looks the plan up and resolves what it is pinned to.
pub(super) async fn resolve(
    request: &StartRequest,
    world: &dyn World,
    ledger: &dyn Ledger,
    (now, seed): (Timestamp, u64),
) -> Result<Found, Blocked> {
    let published = published(world)?;
    let desired = &published.desired;
    let (resource, plan) = find_plan(desired, &request.plan)?;
    let project = &request.plan.project;
    check_project(&published, project)?;
    let mut plan = wanted(request, plan, ledger, now).await?;
    for key in &plan.depends_on {
        check_ready(world, key).await?;
    }
    let policy = world.policy();
    let results = find_results(desired, &plan)?;
    let project_policy = policy.projects.get(project);
    let mut targets = project_policy.map(|policy| policy.targets.clone()).unwrap_or_default();
    let base_urls = base_urls(&plan.target, world, &mut targets).await?;
    let (pool_key, pool, environment) = find_pool(desired, &plan)?;
    check_way(world, &plan, &pool).await?;
    let bus = find_bus(desired, &pool)?;
    let workers = pool.capacity.workers_for(&plan.phases);
    fits_pool(workers, &pool_key, &pool)?;
    for phase in &mut plan.phases {
        bound_users(phase, &pool.capacity, workers);
    }
    check_data(&plan, workers)?;
    let caps = project_policy.map(|policy| policy.caps.clone()).unwrap_or_default();
    let bounds = [
        plan.limits.requests_per_second,
        environment.limits.requests_per_second,
        Some(caps.requests_per_second),
    ];
    let pinned = Pinned {
        format: Pinned::FORMAT,
        pool: pool_key,
        environment: pool.environment.clone(),
        joined: environment.provider == ProviderSpec::Joined,
        workers,
        ready_timeout: pool.ready_timeout,
        orphan_timeout: pool.orphan_timeout,
        keep_warm: pool.keep_warm,
        base_urls,
        targets,
        requests_per_second: bounds.into_iter().flatten().min(),
        results,
        bus,
        not_before: request.slot.as_ref().map(|start| start.slot),
        seed,
        smoke: request.smoke,
        env: request.env.clone(),
        commands_allowed: policy.process_enabled || request.trigger == TriggerKind::Foreground,
        plan,
    };
    check_caps(&pinned, &caps)?;
    let revision = desired.projects.get(project).map(|project| project.revision.clone());
    Ok(Found {
        pinned,
        revision: revision.ok_or_else(|| Blocked::UnknownPlan(request.plan.clone()))?,
        digest: resource.digest.clone(),
        limits: environment.limits,
    })
}

/// The plan as this start wants it, if it may be started now.
async fn wanted(
    request: &StartRequest,
    plan: &TestPlan,
    ledger: &dyn Ledger,
    now: Timestamp,
) -> Result<TestPlan, Blocked> {
    // A slot's suspension is that of its instant, which may lie ahead: the scheduler has looked.
    if request.slot.is_none() {
        check_suspended(&request.plan, plan, ledger, now).await?;
    }
    let plan = adapted(plan.clone(), request)?;
    // A slot's were looked at for when its load begins; who runs a plan in the foreground is its own scheduler.
    if request.trigger == TriggerKind::Manual && request.override_windows.is_none() {
        check_windows(&request.plan, &plan, now)?;
    }
    Ok(plan)
}

/// The plan as this start wants it: scaled, a smoke test, aimed elsewhere.
fn adapted(mut plan: TestPlan, request: &StartRequest) -> Result<TestPlan, Blocked> {
    if let Some(factor) = request.scale {
        if !(factor > 0.0 && factor <= 1.0) {
            return Err(Blocked::Scale(factor));
        }
        variant::scale(&mut plan, factor);
    }
    if request.smoke {
        variant::smoke(&mut plan);
    }
    if let Some(url) = &request.target {
        plan.target = Target::BaseUrl(url.clone());
    }
    Ok(plan)
}

fn published(world: &dyn World) -> Result<Arc<Published>, Blocked> {
    world.published().borrow().clone().ok_or(Blocked::NotRead)
}

fn check_project(published: &Published, project: &Name) -> Result<(), Blocked> {
    let state = published.projects.get(project);
    match state.and_then(|state| state.first_error.clone().filter(|_| state.errors > 0)) {
        Some(reason) => Err(Blocked::Project {
            project: project.to_string(),
            reason,
        }),
        None => Ok(()),
    }
}

fn find_plan<'a>(desired: &'a Desired, key: &Key) -> Result<(&'a Resource, &'a TestPlan), Blocked> {
    match desired.get(key).map(|resource| (resource, &resource.spec)) {
        Some((resource, Spec::TestPlan(plan))) => Ok((resource, plan)),
        _ => Err(Blocked::UnknownPlan(key.clone())),
    }
}

/// What is aimed at; replicas of a service are what Muster itself runs, so they are always allowed.
async fn base_urls(target: &Target, world: &dyn World, targets: &mut TargetRules) -> Result<Vec<String>, Blocked> {
    match target {
        Target::BaseUrl(url) => {
            let parsed = reqwest::Url::parse(url).map_err(|_| Blocked::Target(url.clone()))?;
            let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let port = parsed.port_or_known_default().unwrap_or(0);
            if matches!(parsed.scheme(), "http" | "https") && targets.name_allowed(host, port) {
                Ok(vec![url.clone()])
            } else {
                Err(Blocked::Target(url.clone()))
            }
        }
        Target::Service { service, port } => {
            check_ready(world, service).await?;
            let replicas = world.replicas(service, port);
            if replicas.is_empty() {
                return Err(Blocked::NotReady {
                    key: service.clone(),
                    reason: format!("no replica with port {port} is ready"),
                });
            }
            targets.own.extend(replicas.iter().cloned());
            Ok(replicas
                .into_iter()
                .map(|address| format!("http://{address}"))
                .collect())
        }
    }
}

fn find_pool(desired: &Desired, plan: &TestPlan) -> Result<(Key, WorkerPool, Environment), Blocked> {
    let Some(key) = &plan.pool else {
        return Ok((local_pool(), local_pool_spec(), local_environment_spec()));
    };
    let missing = |key: &Key| Blocked::NotReady {
        key: key.clone(),
        reason: "it does not exist".to_owned(),
    };
    let Some(Spec::WorkerPool(pool)) = desired.get(key).map(|resource| &resource.spec) else {
        return Err(missing(key));
    };
    match desired.get(&pool.environment).map(|resource| &resource.spec) {
        Some(Spec::Environment(environment)) => Ok((key.clone(), pool.clone(), environment.clone())),
        _ => Err(missing(&pool.environment)),
    }
}

/// The pins of a run that is repeated, with what must be as it is now: limits, and the addresses of the service aimed at.
pub(super) async fn renew(
    mut pinned: Pinned,
    plan: &Key,
    world: &dyn World,
    now: Timestamp,
) -> Result<(Pinned, EnvironmentLimits), Blocked> {
    check_windows(plan, &pinned.plan, now)?;
    for key in &pinned.plan.depends_on {
        check_ready(world, key).await?;
    }
    let policy = world.policy();
    let project = policy.projects.get(&plan.project);
    let mut targets = project.map(|policy| policy.targets.clone()).unwrap_or_default();
    pinned.base_urls = base_urls(&pinned.plan.target, world, &mut targets).await?;
    pinned.targets = targets;
    pinned.not_before = None;
    pinned.commands_allowed = policy.process_enabled;
    check_caps(&pinned, &project.map(|policy| policy.caps.clone()).unwrap_or_default())?;
    let (_, pool, environment) = find_pool(&published(world)?.desired, &pinned.plan)?;
    check_way(world, &pinned.plan, &pool).await?;
    fits_pool(pinned.workers, &pinned.pool, &pool)?;
    Ok((pinned, environment.limits))
}
