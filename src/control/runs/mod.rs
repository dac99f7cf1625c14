//! Runs: whether one may start, one task that drives each, and the handle to steer and watch them.

mod admit;
mod context;
mod demand;
mod drive;
mod hook;
mod let_go;
mod live;
mod load;
mod numbers;
mod on_workers;
mod perform;
pub mod pinned;
mod ready;
mod report;
mod reserve;
mod save;
mod start;
pub mod world;

pub use live::{LiveView, PhaseNow, SetMember, WorkersNow};
pub use start::{Blocked, SlotStart, StartRequest};
pub use world::{DaemonWorld, World};

use crate::control::fleet::Fleet;
use crate::control::hooks::Hooks;
use crate::ingest::Ingest;
use crate::runtime::clock::Clock;
use crate::store::rows::{Inserted, RunFilter, RunRow};
use crate::store::{StoreError, Stores};
use admit::{Load, check_environment};
use context::Context;
use demand::Demand;
use drive::Driver;
use jiff::Timestamp;
use muster_core::lifecycle::event::Event;
use muster_core::lifecycle::state::RunState;
use muster_core::model::id::{Digest, RunId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::policy::Policy;
use muster_core::model::run::{RunIdentity, Trigger, TriggerKind};
use muster_core::topology::PoolDemand;
use pinned::Pinned;
use start::resolve;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Events that may wait for one run: a few milestones of each of 200 workers.
const EVENTS: usize = 1_024;
/// A run that cannot take a command within so long is stuck, and says so.
const STEER_DEADLINE: Duration = Duration::from_secs(5);
/// Most active runs adopted at a start; far more than environments hold.
const ADOPT_MAX: u32 = 10_000;

/// What runs stand on.
pub struct Parts {
    /// The ledger and the results.
    pub stores: Stores,
    /// The workers.
    pub fleet: Fleet,
    /// What takes in their numbers.
    pub ingest: Ingest,
    /// The rest of the daemon.
    pub world: Arc<dyn World>,
    /// The reconciler follows it.
    pub demand: watch::Sender<PoolDemand>,
    /// Time.
    pub clock: Clock,
    /// The daemon's state folder; hooks work below it.
    pub state_dir: PathBuf,
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Runs {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    hooks: Hooks,
    demand: Demand,
    /// Held while a start looks at what is active and adds to it.
    starting: tokio::sync::Mutex<()>,
    active: Mutex<BTreeMap<RunId, Active>>,
    claims: Mutex<BTreeMap<WorkerId, RunId>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Active {
    plan: Key,
    events: mpsc::Sender<Event>,
    live: watch::Receiver<LiveView>,
    load: Load,
}

/// Why a run was not steered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// No such run is active here.
    #[error("run {0} is not active")]
    NotActive(RunId),
    /// It cannot do that now.
    #[error("run {run} is {stage}: it cannot be {what} now")]
    NotNow {
        /// Which.
        run: RunId,
        /// Where it is.
        stage: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// It did not take the command in time.
    #[error("run {0} does not answer")]
    Stuck(RunId),
}

impl Runs {
    /// A handle with no runs yet; [`Runs::adopt`] takes over those of an earlier daemon.
    pub fn new(mut parts: Parts) -> Self {
        let sum = std::mem::replace(&mut parts.demand, watch::channel(PoolDemand::default()).0);
        let hooks = Hooks::new(parts.state_dir.join("hooks"), parts.clock.clone());
        Self {
            shared: Arc::new(Shared {
                parts,
                hooks,
                demand: Demand::new(sum),
                starting: tokio::sync::Mutex::new(()),
                active: Mutex::default(),
                claims: Mutex::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Takes over every run that is not finished (promise 42), and says how many. Call it once, before workers may dial in.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn adopt(&self) -> Result<usize, StoreError> {
        let filter = RunFilter {
            active: true,
            limit: ADOPT_MAX,
            ..RunFilter::default()
        };
        let rows = self.shared.parts.stores.ledger.runs(&filter).await?;
        let mut adopted = Vec::new();
        for row in rows {
            let id = row.identity.id;
            match read_row(&row) {
                Some((pinned, state)) => {
                    let (known, is_known) = oneshot::channel();
                    self.drive(row, pinned, state, Some(known));
                    adopted.push(is_known);
                }
                None => tracing::error!(run = %id, "run was written by another version of muster and is left alone"),
            }
        }
        let count = adopted.len();
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let all = async {
                for is_known in adopted {
                    // A run that ended before its workers were known has none to keep.
                    let _ = is_known.await;
                }
                shared.parts.fleet.adoption_done();
            };
            shared.stop.run_until_cancelled(all).await;
        });
        Ok(count)
    }

    /// The rest of the daemon, as runs see it.
    pub fn world(&self) -> Arc<dyn World> {
        self.shared.parts.world.clone()
    }

    /// What the settings let plans ask for.
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.parts.world.policy()
    }

    /// An id for a run that is to be started.
    pub fn new_id(&self) -> RunId {
        RunId(new_uuid(self.shared.parts.clock.now()))
    }

    /// Starts a run and returns its id; an id that is known already is that run, not another (promise 34). What is returned is
    /// in the ledger.
    ///
    /// # Errors
    /// Why nothing was started.
    pub async fn start(&self, request: StartRequest) -> Result<RunId, Blocked> {
        // A slot's row and its run's are one: whether they are there is found when they are written.
        if let Some(id) = request.id
            && request.slot.is_none()
            && self.shared.parts.stores.ledger.run(id).await?.is_some()
        {
            return Ok(id);
        }
        let parts = &self.shared.parts;
        let now = parts.clock.now();
        let id = request.id.unwrap_or_else(|| RunId(new_uuid(now)));
        let found = resolve(&request, &*parts.world, &*parts.stores.ledger, (now, seed_of(id))).await?;
        let identity = RunIdentity {
            id,
            plan: request.plan,
            revision: found.revision,
            digest: found.digest,
            trigger: Trigger {
                kind: request.trigger,
                who: request.who,
                slot: request.slot.as_ref().map(|start| start.slot),
            },
            created_at: now,
        };
        let mut files = Vec::new();
        for digest in found.pinned.files() {
            let content = parts.world.content(&digest).await.map_err(Blocked::Content)?;
            files.push((digest, content));
        }
        self.begin((identity, request.slot), found.pinned, files, |active, load| {
            check_environment(&found.limits, load, active)
        })
        .await
    }

    /// Nothing starts while this is held: nobody writes contents that no run refers to yet.
    pub(super) async fn hold_starts(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.starting.lock().await
    }

    /// Starts a run with everything another one was pinned to: revision, plan, files, seed.
    ///
    /// # Errors
    /// Why nothing was started.
    pub async fn rerun(&self, of: RunId, who: &str) -> Result<RunId, Blocked> {
        let ledger = &self.shared.parts.stores.ledger;
        let row = ledger.run(of).await?.ok_or(Blocked::UnknownRun(of))?;
        let (pinned, _) = read_row(&row).ok_or(Blocked::Format(of))?;
        let mut files = Vec::new();
        for digest in pinned.files() {
            let content = ledger.blob(digest.as_str()).await?;
            let content = content.ok_or_else(|| Blocked::Content(digest.to_string()))?;
            files.push((digest, Arc::from(content)));
        }
        let now = self.shared.parts.clock.now();
        let identity = RunIdentity {
            id: RunId(new_uuid(now)),
            trigger: Trigger {
                kind: TriggerKind::Rerun,
                who: who.to_owned(),
                slot: None,
            },
            created_at: now,
            ..row.identity
        };
        let (pinned, limits) = start::renew(pinned, &identity.plan, &*self.shared.parts.world, now).await?;
        self.begin((identity, None), pinned, files, |active, load| {
            check_environment(&limits, load, active)
        })
        .await
    }

    async fn begin(
        &self,
        (identity, slot): (RunIdentity, Option<SlotStart>),
        pinned: Pinned,
        files: Vec<(Digest, Arc<[u8]>)>,
        check: impl FnOnce(&mut dyn Iterator<Item = &Load>, &Load) -> Result<(), Blocked>,
    ) -> Result<RunId, Blocked> {
        let id = identity.id;
        let _alone = self.shared.starting.lock().await;
        if self.shared.stop.is_cancelled() {
            return Err(Blocked::ShuttingDown);
        }
        check(
            &mut self.shared.active().values().map(|active| &active.load),
            &Load::of(&pinned),
        )?;
        for (digest, content) in files {
            self.shared
                .parts
                .stores
                .ledger
                .put_blob(digest.as_str(), &content)
                .await?;
        }
        let state = RunState::new(identity.created_at);
        let (state_json, pinned_json) = (as_json(&state)?, as_json(&pinned)?);
        let reserved = self.shared.reserve(id, &pinned)?;
        let row = RunRow {
            stage: state.stage().as_str().to_owned(),
            ending: None,
            state: state_json,
            pinned: pinned_json,
            deadline: Some(state.deadline),
            started_at: None,
            finished_at: None,
            tag: None,
            retention_s: pinned.plan.retention.map(|retention| retention.as_secs()),
            version: 1,
            identity,
        };
        match self.shared.insert(&row, slot).await {
            Ok(Inserted::New) => self.drive(row, pinned, state, None),
            Ok(Inserted::Existing(_)) => self.shared.give_back(&reserved),
            Err(error) => {
                self.shared.give_back(&reserved);
                return Err(error);
            }
        }
        Ok(id)
    }

    /// `adopted`: told once the fleet knows the workers of a run of an earlier daemon.
    fn drive(&self, row: RunRow, pinned: Pinned, state: RunState, adopted: Option<oneshot::Sender<()>>) {
        let id = row.identity.id;
        let plan = pinned.run_plan();
        // Before the reconciler's next look, which would take workers nobody seems to need for superfluous (promise 42).
        let workers = state.demand(&plan);
        if workers > 0 {
            self.shared.demand.set(id, &pinned.pool, workers);
        }
        let (events, inbox) = mpsc::channel(EVENTS);
        let view = LiveView::new(id, &state, &plan, &pinned.plan);
        let (live, watcher) = watch::channel(view);
        let active = Active {
            plan: row.identity.plan.clone(),
            events: events.clone(),
            live: watcher,
            load: Load::of(&pinned),
        };
        self.shared.active().insert(id, active);
        metrics::gauge!("muster_runs_active").increment(1.0);
        let context = Context {
            shared: Arc::clone(&self.shared),
            identity: row.identity.clone(),
            pinned: Arc::new(pinned),
            plan,
            state: watch::channel(state).0,
            events,
            live,
            armed_attempt: 0.into(),
            began: Mutex::default(),
            let_go: Mutex::default(),
            judged: Mutex::default(),
        };
        let driver = Driver::new(Arc::new(context), row, inbox, adopted);
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let stop = shared.stop.clone();
            // A daemon that goes down leaves its runs as they are: the next one adopts them (promise 24).
            stop.run_until_cancelled(driver.run()).await;
            shared.retire(id);
        });
    }

    /// How a run is doing; `None`: it is not active here.
    pub fn live(&self, run: RunId) -> Option<watch::Receiver<LiveView>> {
        self.shared.active().get(&run).map(|active| active.live.clone())
    }

    /// All runs that are active here, with their plans; known without the database (promise 47).
    pub fn active(&self) -> BTreeMap<RunId, Key> {
        let active = self.shared.active();
        active.iter().map(|(run, active)| (*run, active.plan.clone())).collect()
    }

    /// Ends a run; iterations in flight may finish.
    ///
    /// # Errors
    /// When it is not active.
    pub async fn stop(&self, run: RunId, who: &str) -> Result<(), SteerError> {
        let who = who.to_owned();
        self.steer(run, Event::Stop { who }).await
    }

    /// Ends a run at once.
    ///
    /// # Errors
    /// When it is not active.
    pub async fn abort(&self, run: RunId, who: &str) -> Result<(), SteerError> {
        let who = who.to_owned();
        self.steer(run, Event::Abort { who }).await
    }

    /// Freezes a run, for at most 30 minutes.
    ///
    /// # Errors
    /// When it is not active, or makes no load.
    pub async fn pause(&self, run: RunId, who: &str) -> Result<(), SteerError> {
        self.check_stage(run, "Running", "paused")?;
        let who = who.to_owned();
        self.steer(run, Event::Pause { who }).await
    }

    /// Lets a run go on, after a pause by hand or a pause phase.
    ///
    /// # Errors
    /// When it is not active, or not paused.
    pub async fn resume(&self, run: RunId, who: &str) -> Result<(), SteerError> {
        self.check_stage(run, "Paused", "resumed")?;
        let who = who.to_owned();
        self.steer(run, Event::Resume { who }).await
    }

    fn check_stage(&self, run: RunId, wanted: &str, what: &'static str) -> Result<(), SteerError> {
        let live = self.live(run).ok_or(SteerError::NotActive(run))?;
        let stage = live.borrow().stage;
        if stage == wanted {
            Ok(())
        } else {
            Err(SteerError::NotNow { run, stage, what })
        }
    }

    async fn steer(&self, run: RunId, event: Event) -> Result<(), SteerError> {
        let sender = self.shared.active().get(&run).map(|active| active.events.clone());
        let sender = sender.ok_or(SteerError::NotActive(run))?;
        match tokio::time::timeout(STEER_DEADLINE, sender.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SteerError::NotActive(run)),
            Err(_) => Err(SteerError::Stuck(run)),
        }
    }

    /// Waits until a run is not driven here any more: it is finished, and the ledger says so.
    pub async fn finished(&self, run: RunId) {
        if let Some(mut live) = self.live(run) {
            while live.changed().await.is_ok() {}
        }
    }

    /// Stops driving runs; they stay as they are, for the next daemon. Starts are refused from now on.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, BTreeMap<RunId, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<WorkerId, RunId>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retire(&self, run: RunId) {
        self.claims().retain(|_, holder| *holder != run);
        if self.active().remove(&run).is_some() {
            metrics::gauge!("muster_runs_active").decrement(1.0);
        }
    }
}

/// The pins and the state of a row; `None`: another build wrote it.
fn read_row(row: &RunRow) -> Option<(Pinned, RunState)> {
    let pinned: Pinned = serde_json::from_value(row.pinned.clone()).ok()?;
    let state: RunState = serde_json::from_value(row.state.clone()).ok()?;
    (pinned.format == Pinned::FORMAT && state.format == RunState::FORMAT).then_some((pinned, state))
}

fn as_json(value: &impl serde::Serialize) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Refused(error.to_string()))
}

fn new_uuid(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// Random draws of a run follow from its id: no two runs draw alike, and a rerun carries the seed of the first in its pins.
fn seed_of(run: RunId) -> u64 {
    let (high, low) = run.0.as_u64_pair();
    high ^ low
}
