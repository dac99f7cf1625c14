//! A worker process: dials in, holds one run at a time, makes its share of the load, and sends what it measured.

mod assignment;
mod commands;
mod deadman;
mod fetch;
mod news;
mod session;
mod spool;
mod uplink;
mod usage;
mod way;

pub use crate::bus::dial::{Address, Dial};
pub use news::{News, Teller};

use crate::bus::direct::DirectProducer;
use assignment::{Board, Keeper, Stage};
use commands::Commands;
use deadman::Deadman;
use muster_core::base::chain::chain;
use muster_core::model::id::WorkerId;
use muster_core::model::unit::{EXIT_ORPHANED, UnitName};
use session::{Identity, Session};
use spool::Spool;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use way::Fork;

/// Commands that may wait while one is obeyed; obeying never waits.
const COMMANDS: usize = 64;
/// Threads for control and frames, beside the generator's own.
const SERVICE_THREADS: usize = 2;
/// Where the spool's file is: the worker's own folder.
const FOLDER: &str = ".";

/// What a worker process is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerArgs {
    /// Where its owner is, and how it proves itself.
    pub dial: Dial,
    /// The pool it belongs to, by its key or as a person writes it; empty: the only one that the token is for.
    pub pool: String,
    /// The unit it is; `None`: started by hand.
    pub unit: Option<UnitName>,
    /// How long it may be without its owner while it has no run; `None`: for ever. In a run, the run's own counts.
    pub orphan_timeout: Option<Duration>,
    /// Whether it runs commands of plans (hooks with `onWorkers`).
    pub allows_commands: bool,
    /// Whom it tells what happens.
    pub teller: Teller,
    /// Load threads; `None`: as many as there are CPUs.
    pub threads: Option<u32>,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// It had lost its owner.
    Orphaned,
}

/// Why a worker could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No thread, no signal handler.
    #[error("cannot start a worker")]
    Start(#[source] std::io::Error),
}

/// The worker process. TERM and INT end it gracefully.
pub fn main(args: WorkerArgs) -> ExitCode {
    let work = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVICE_THREADS)
            .thread_name("service")
            .enable_all()
            .build()
            .map_err(WorkerError::Start)?;
        runtime.block_on(async {
            let stop = CancellationToken::new();
            let mut term = signal(SignalKind::terminate()).map_err(WorkerError::Start)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(WorkerError::Start)?;
            let asked = async {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = interrupt.recv() => {}
                }
                stop.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = run(args, stop.clone(), true) => ended,
                () = asked => Ok(Ended::Stopped),
            }
        })
    };
    match work() {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Orphaned) => ExitCode::from(EXIT_ORPHANED),
        Err(error) => {
            tracing::error!(error = chain(&error), "worker cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// A worker within the current runtime, until `stop` or the loss of its owner. `owns_process`: the dead-man's switch exits the
/// process if all else hangs.
///
/// # Errors
/// When it could not begin.
pub async fn run(args: WorkerArgs, stop: CancellationToken, owns_process: bool) -> Result<Ended, WorkerError> {
    let base = Instant::now();
    let deadman = Arc::new(Deadman::start(args.orphan_timeout, owns_process).map_err(WorkerError::Start)?);
    let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = args.threads.unwrap_or_else(|| u32::try_from(cpus()).unwrap_or(1));
    let worker = WorkerId(Uuid::now_v7());
    tracing::info!(%worker, pool = args.pool, threads, "worker starts");
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (released_sender, released) = mpsc::channel(COMMANDS);
    let (board_sender, board) = watch::channel(Board::default());
    let (way_sender, way) = watch::channel(None);
    let spool = Spool::new(spool::LIMITS);
    let session = Session {
        identity: Identity {
            worker,
            unit: args.unit,
            pool: args.pool,
            host: nix::unistd::gethostname().map_or_else(|_| String::new(), |host| host.to_string_lossy().into_owned()),
            threads,
            allows_commands: args.allows_commands,
        },
        teller: args.teller.clone(),
        dial: args.dial.clone(),
        base,
        commands: command_sender,
        released,
        board,
        spool: spool.clone(),
        deadman: deadman.clone(),
        epoch: 0,
    };
    let mut keeper = Keeper {
        dial: args.dial.clone(),
        base,
        threads,
        commands,
        released: released_sender,
        board: board_sender,
        way: way_sender,
        spool: spool.clone(),
        deadman: deadman.clone(),
        idle_timeout: args.orphan_timeout,
        teller: args.teller,
        hooks: Commands::new(args.allows_commands),
        stage: Stage::Idle,
        ending: None,
    };
    let over = CancellationToken::new();
    let mut producer = Fork::new(DirectProducer::new(args.dial), way);
    let keep = async {
        keeper.run(&stop).await;
        over.cancel();
    };
    let work = async { tokio::join!(keep, session.run(over.clone())) };
    tokio::select! {
        _ = work => {}
        () = uplink::run(spool, &mut producer, Path::new(FOLDER)) => {}
    }
    Ok(if deadman.fired().is_cancelled() {
        Ended::Orphaned
    } else {
        Ended::Stopped
    })
}
