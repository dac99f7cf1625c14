//! Owns the worker sessions: who is connected, what each is wanted to do, what each has reported.
//!
//! Commands are level-triggered: the fleet keeps what is wanted per run and tells it anew on each connection; a worker answers a
//! repeat like the first. Reports are numbered and kept by the worker until it is released, so nothing is lost with a connection.

mod admit;
pub mod door;
pub mod join;
pub mod offset;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod wanted;

pub use session::{Connection, Hello, Order, What};
pub use view::{WorkerStatus, WorkerView};

use crate::bus::kafka::TopicAt;
use crate::runtime::clock::Clock;
use door::Bringer;
use muster_core::model::id::{RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::load::{LoadPlan, Segment};
use offset::Estimate;
use secrecy::SecretString;
use state::State;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// A worker that is not connected for so long is lost; never more than half of its run's orphan timeout. Long enough for a
/// reconnect over a short cut, short enough that a dead worker is noticed before its run is much further.
pub const GRACE: Duration = Duration::from_secs(10);
/// Events a slow subscriber may be behind: all milestones of 200 workers with a handful of phases.
const EVENTS: usize = 8_192;
/// How often connections are looked at for loss.
const LOOK: Duration = Duration::from_millis(250);

/// What all workers of one run share.
#[derive(Debug, Clone)]
pub struct SharedLoad {
    /// The load.
    pub plan: LoadPlan,
    /// Contents of all files the plan refers to, by digest (`sha256:…`).
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Seed of all random draws of the run.
    pub seed: u64,
    /// Where frames go; `None`: to the owner.
    pub bus: Option<TopicAt>,
    /// How long a worker may be without its owner (promise 41).
    pub orphan_timeout: Duration,
    /// The pool whose workers make it.
    pub pool: Key,
    /// Who may bring them, their numbers and their requests for files.
    pub bringer: Bringer,
}

/// One worker's part in one run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Who.
    pub worker: WorkerId,
    /// Its session; opened in the results store before it is prepared, or ingest refuses its frames.
    pub session: SessionId,
    /// Its share; `index` is the worker's index in the run.
    pub segment: Segment,
    /// The run's load.
    pub load: Arc<SharedLoad>,
}

/// A command of the plan that a worker runs before load, with every name put in.
#[derive(Debug, Clone)]
pub struct HookOrder {
    /// The hook's name: it runs once in a run.
    pub name: String,
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its environment; values of secrets among it.
    pub env: BTreeMap<String, SecretString>,
    /// Digest of the program's content, where it is a file of the repository.
    pub script: Option<String>,
    /// Then it is killed.
    pub timeout: Duration,
}

/// How hard load is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopMode {
    /// No new iterations; those in flight get their graceful stop.
    Graceful,
    /// At once.
    Abort,
}

/// A milestone of one worker's part in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It holds everything it needs.
    Prepared,
    /// It cannot take part.
    Refused(String),
    /// A command that it was told to run has ended.
    HookEnded {
        /// The hook's name.
        name: String,
        /// Success, or why not.
        result: Result<(), String>,
    },
    /// It knows the instant.
    Armed,
    /// Load began.
    Started {
        /// How much later than agreed, in microseconds.
        late_us: i64,
    },
    /// A load phase began.
    PhaseStarted(u32),
    /// A load phase has started its last iteration.
    PhaseEnded(u32),
    /// The worker begins this phase (or what follows it, if it is a pause) only at [`Fleet::advance`].
    Waiting(u32),
    /// The generator is done; everything measured is in the spool, the session's end behind it.
    Ended {
        /// Why.
        why: EndedWhy,
        /// Last sequence of the session, its end included.
        last_sequence: u64,
        /// Frames that a full spool dropped.
        dropped_frames: u64,
    },
}

impl Progress {
    fn start_late_us(&self) -> Option<i64> {
        match self {
            Self::Started { late_us } => Some(*late_us),
            _ => None,
        }
    }
}

/// Why a worker's part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedWhy {
    /// All phases are over.
    Finished,
    /// It was told to.
    Stopped,
    /// It had not heard from its owner for the orphan timeout; the process exits.
    Orphaned,
    /// The generator broke.
    Failed(String),
}

/// News of the fleet. A repeat (after a daemon's restart) is possible; a subscriber that lagged reads [`Fleet::progress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetEvent {
    /// A worker is connected, for the first time or again.
    Joined {
        /// Who.
        worker: WorkerId,
    },
    /// A worker is gone for longer than the grace, said goodbye, or its unit came back as another process.
    Lost {
        /// Who.
        worker: WorkerId,
        /// The run whose set it belongs to.
        run: Option<RunId>,
        /// Why it counts as lost.
        reason: String,
    },
    /// A milestone.
    Progress {
        /// The run.
        run: RunId,
        /// Who.
        worker: WorkerId,
        /// What.
        progress: Progress,
    },
}

/// Whether a session's frames may come by a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaySend {
    /// They may.
    Yes,
    /// It is a session of somebody else's worker.
    No,
    /// This daemon does not know its predecessor's sessions yet.
    NotYet,
}

/// Why the fleet cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// A worker of the set is not connected.
    #[error("worker {0} is not connected")]
    NotConnected(WorkerId),
    /// A worker of the set has another run.
    #[error("worker {worker} is busy with run {run}")]
    Busy {
        /// Who.
        worker: WorkerId,
        /// With which.
        run: RunId,
    },
    /// The run was neither prepared nor adopted, or is released.
    #[error("run {0} has no workers")]
    UnknownRun(RunId),
    /// The set is empty or names a worker twice.
    #[error("the set of workers of run {0} is not a set")]
    NotASet(RunId),
}

/// What the owner knows and wants of all workers. Cheap to clone; every method returns at once.
#[derive(Debug, Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: u64,
    clock: Clock,
    base: Instant,
    events: broadcast::Sender<FleetEvent>,
    state: Mutex<State>,
}

impl Fleet {
    /// An empty fleet. Workers refuse commands of an epoch lower than the highest they obeyed, so it must grow from one daemon
    /// to the next on the same ledger.
    pub fn new(epoch: u64, clock: Clock) -> Self {
        Self::with_grace(epoch, clock, GRACE)
    }

    /// One with another grace than [`GRACE`].
    pub fn with_grace(epoch: u64, clock: Clock, grace: Duration) -> Self {
        let base = clock.instant();
        Self {
            inner: Arc::new(Inner {
                epoch,
                clock,
                base,
                events: broadcast::channel(EVENTS).0,
                state: Mutex::new(State::new(grace)),
            }),
        }
    }

    /// The owner's epoch.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// All workers that are connected or within their grace.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.state().views()
    }

    /// News from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<FleetEvent> {
        self.inner.events.subscribe()
    }

    /// How well a worker's clock is known.
    pub fn clock(&self, worker: WorkerId) -> Option<Estimate> {
        self.state().clock(worker)
    }

    /// All milestones so far of the workers of a run.
    pub fn progress(&self, run: RunId) -> BTreeMap<WorkerId, Vec<Progress>> {
        self.state().progress(run)
    }

    /// Makes these workers the run's exact set and has them prepare. Each answers Prepared or Refused. The same set again is
    /// success.
    ///
    /// # Errors
    /// When one is not connected or has another run; then none is touched.
    pub fn prepare(&self, run: RunId, set: Vec<Assignment>) -> Result<(), FleetError> {
        self.change(|state, now| state.prepare(run, set, now))
    }

    /// Takes a run over from an earlier daemon: the same set as it was prepared with. Members that are connected have their
    /// milestones told again as events; those that do not come within the grace are lost (promise 42).
    ///
    /// # Errors
    /// When the set is not one.
    pub fn adopt(&self, run: RunId, set: Vec<Assignment>) -> Result<(), FleetError> {
        self.change(|state, now| state.adopt(run, set, now))
    }

    /// Says that every run of the ledger is adopted: from now on, a run that a worker holds and nobody wants is released.
    pub fn adoption_done(&self) {
        let _: Result<(), FleetError> = self.change(|state, _| {
            state.adoption_done();
            Ok(())
        });
    }

    /// Tells all workers of the run the instant at which load starts. Each answers Armed, or Refused if its clock is not known
    /// well enough. A later call moves the instant as long as there was no commit.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn arm(&self, run: RunId, in_ms: u64) -> Result<(), FleetError> {
        let at_us = self.owner_us().saturating_add(in_ms.saturating_mul(1_000));
        self.change(|state, _| state.arm(run, at_us))
    }

    /// Has each worker of the run that is named run a command. Each answers HookEnded, once.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn hook(&self, run: RunId, orders: BTreeMap<WorkerId, HookOrder>) -> Result<(), FleetError> {
        self.change(|state, _| state.update(run, |wanted| wanted.hook = orders))
    }

    /// Has load start at the armed instant. Each answers Started then.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn commit(&self, run: RunId) -> Result<(), FleetError> {
        self.change(|state, _| state.update(run, |wanted| wanted.commit = true))
    }

    /// Starts a phase that workers wait for, or what follows it if it is a pause.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn advance(&self, run: RunId, phase: u32, in_ms: u64) -> Result<(), FleetError> {
        let at_us = self.owner_us().saturating_add(in_ms.saturating_mul(1_000));
        self.change(|state, _| state.advance(run, phase, at_us))
    }

    /// Freezes phase time; iterations in flight finish, none starts.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn pause(&self, run: RunId) -> Result<(), FleetError> {
        self.change(|state, _| state.update(run, |wanted| wanted.paused = Some(true)))
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn resume(&self, run: RunId) -> Result<(), FleetError> {
        self.change(|state, _| state.update(run, |wanted| wanted.paused = Some(false)))
    }

    /// Stops load. Each answers Ended. Abort after Graceful hardens it, never the other way round.
    ///
    /// # Errors
    /// When the run is unknown.
    pub fn stop(&self, run: RunId, mode: StopMode) -> Result<(), FleetError> {
        self.change(|state, _| state.update(run, |wanted| wanted.stop = wanted.stop.max(Some(mode))))
    }

    /// Sets the workers of a run free. What they still hold of it is stopped and thrown away: seal first. Unknown is success.
    pub fn release(&self, run: RunId) {
        let _: Result<(), FleetError> = self.change(|state, _| {
            state.release(run);
            Ok(())
        });
    }

    /// Sets one worker of a run free whose part is over and stored, while the others go on. Unknown is success.
    pub fn let_go(&self, run: RunId, worker: WorkerId) {
        let _: Result<(), FleetError> = self.change(|state, _| {
            state.let_go(run, worker);
            Ok(())
        });
    }

    /// A file of a run that is prepared or adopted, for one whose workers take part in it.
    pub fn file(&self, digest: &str, bringer: &Bringer) -> Option<Arc<[u8]>> {
        self.state().file(digest, bringer)
    }

    /// Whether frames of a session may come with the token of this one.
    pub fn may_send(&self, session: SessionId, bringer: &Bringer) -> MaySend {
        self.state().may_send(session, bringer)
    }

    /// The pool of a worker that is known, or of the run that it is wanted for: one that calls again mid-run is in its pool still,
    /// whatever the plans have come to say.
    pub fn pool_of(&self, worker: WorkerId, bringer: &Bringer) -> Option<Key> {
        self.state().pool_of(worker, bringer)
    }

    /// Notices lost workers. Runs for as long as the daemon; whoever serves workers runs it.
    pub async fn watch(&self) {
        loop {
            self.inner.clock.sleep(LOOK).await;
            let _: Result<(), FleetError> = self.change(|state, now| {
                state.look(now);
                Ok(())
            });
        }
    }

    fn owner_us(&self) -> u64 {
        let passed = self.inner.clock.instant().duration_since(self.inner.base);
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, work: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state();
        let result = work(&mut state, self.inner.clock.instant());
        for event in state.take_events() {
            // Nobody listening is fine: whoever comes later reads the snapshots.
            let _ = self.inner.events.send(event);
        }
        result
    }
}
