//! One connection of one worker: what goes to it, what came from it.

use super::door::Pass;
use super::offset::{EXCHANGES, Exchange};
use super::state::{Held, Worker};
use super::{Assignment, Fleet, HookOrder, Progress, StopMode, WorkerStatus};
use muster_core::model::id::{RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::unit::UnitName;
use std::net::IpAddr;
use tokio::sync::mpsc;

/// Orders that may wait for a connection: all that is ever wanted of a worker at once is eight.
const ORDERS: usize = 64;

/// Something a worker is told.
#[derive(Debug, Clone)]
pub struct Order {
    /// The run it is about.
    pub run: RunId,
    /// Grows; an Arm keeps its own when it is told again.
    pub id: u64,
    /// What.
    pub what: What,
}

/// What a worker is told. Instants are on the worker's own clock.
#[derive(Debug, Clone)]
pub enum What {
    /// Fetch, parse, resolve; make no request.
    Prepare(Box<Assignment>),
    /// Load starts at this instant, once committed.
    Arm {
        /// The instant.
        worker_us: u64,
    },
    /// It does start.
    Commit,
    /// A phase that is waited for starts.
    Advance {
        /// Which.
        phase: u32,
        /// When.
        worker_us: u64,
    },
    /// Freeze.
    Pause,
    /// Go on.
    Resume,
    /// End.
    Stop(StopMode),
    /// Run a command of the plan.
    Hook(Box<HookOrder>),
    /// Forget the run.
    Release,
}

/// What a worker says first.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its id.
    pub worker: WorkerId,
    /// The unit it is.
    pub unit: Option<UnitName>,
    /// Name of its machine.
    pub host: String,
    /// Where it calls from.
    pub address: Option<IpAddr>,
    /// Its pool.
    pub pool: Key,
    /// Its Muster version.
    pub version: String,
    /// Load threads it can run.
    pub threads: u32,
    /// Whether it runs commands of plans.
    pub allows_commands: bool,
    /// The run and session it holds.
    pub held: Option<(RunId, SessionId)>,
    /// Highest epoch it obeyed.
    pub epoch: u64,
}

/// A worker's connection, for whoever speaks the wire. Dropped: it is cut.
#[derive(Debug)]
pub struct Connection {
    fleet: Fleet,
    worker: WorkerId,
    pool: Key,
    number: u64,
    exchanges: usize,
    orders: mpsc::Receiver<Order>,
}

impl Fleet {
    /// A worker dialled in, with the token that this pass was given for.
    ///
    /// # Errors
    /// When it obeyed a later owner than this one, is somebody else's, or one too many: the reason, for the worker's log.
    pub fn connect(&self, hello: Hello, pass: &Pass) -> Result<Connection, String> {
        if hello.epoch > self.epoch() {
            return Err(format!(
                "this daemon's epoch {} is over; the worker obeyed {}",
                self.epoch(),
                hello.epoch
            ));
        }
        let (sender, orders) = mpsc::channel(ORDERS);
        let joined_at = self.inner.clock.now();
        let pool = hello.pool.clone();
        let number = self.change(|state, now| {
            state.admit(hello.worker, hello.unit.as_ref(), pass)?;
            let worker = Worker {
                pass: pass.clone(),
                unit: hello.unit,
                host: hello.host,
                address: hello.address,
                allows_commands: hello.allows_commands,
                pool: hello.pool,
                version: hello.version,
                threads: hello.threads,
                joined_at,
                link: None,
                gone_since: now,
                offset: super::offset::Offset::default(),
                status: WorkerStatus::default(),
                held: hello.held.map(|(run, session)| Held {
                    run,
                    session,
                    history: Vec::new(),
                }),
            };
            Ok::<_, String>(state.connect(hello.worker, worker, sender, now))
        })?;
        Ok(Connection {
            fleet: self.clone(),
            worker: hello.worker,
            pool,
            number,
            exchanges: 0,
            orders,
        })
    }
}

impl Connection {
    /// The worker at the other end.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The pool it is in.
    pub fn pool(&self) -> &Key {
        &self.pool
    }

    /// The next order; `None`: the connection is over. Cancel-safe.
    pub async fn order(&mut self) -> Option<Order> {
        self.orders.recv().await
    }

    /// Now on the owner's clock, to be sent with an exchange.
    pub fn owner_us(&self) -> u64 {
        self.fleet.owner_us()
    }

    /// Takes in the answer to an exchange; true: there are too few yet, ask again at once.
    pub fn exchanged(&mut self, sent_us: u64, worker_us: u64, worker_wall_us: i64) -> bool {
        let exchange = Exchange {
            sent_us,
            worker_us,
            received_us: self.fleet.owner_us(),
            worker_wall_us,
            owner_wall_us: self.fleet.inner.clock.now().as_microsecond(),
        };
        self.exchanges += 1;
        self.fleet
            .change(|state, _| state.exchange(self.worker, self.number, exchange));
        self.exchanges < EXCHANGES
    }

    /// Takes in a status.
    pub fn status(&self, status: WorkerStatus) {
        self.fleet.change(|state, _| {
            if let Some(worker) = state.worker(self.worker, self.number) {
                worker.status = status;
            }
        });
    }

    /// Takes in a milestone; false: it cannot be, close the connection.
    pub fn report(&self, run: RunId, number: u32, progress: Progress) -> bool {
        self.fleet
            .change(|state, _| state.report(self.worker, self.number, run, number, progress))
    }

    /// The worker forgot a run, as it was told.
    pub fn released(&self, run: RunId) {
        self.fleet
            .change(|state, _| state.released(self.worker, self.number, run));
    }

    /// The worker is about to exit.
    pub fn goodbye(&self, reason: &str) {
        self.fleet.change(|state, _| {
            if state.worker(self.worker, self.number).is_some() {
                state.lose(self.worker, reason);
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.fleet
            .change(|state, now| state.disconnect(self.worker, self.number, now));
    }
}
