//! The run a worker holds: from Prepare to Release. Every command may come again; a repeat changes nothing.

use super::commands::Commands;
use super::deadman::Deadman;
use super::fetch;
use super::news::{News, Teller};
use super::spool::Spool;
use super::usage::Usage;
use super::way::Way;
use crate::bus::dial::Dial;
use crate::bus::kafka::{AddressError, TopicAt};
use crate::bus::wire::{self, command, ended, progress};
use futures_util::FutureExt as _;
use muster_core::lifecycle::deadline::BARRIER;
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::load::{LoadPlan, Segment};
use muster_load::{Command, Job, Prepared, Report, Running, StopMode};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant as Moment, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// What iterations in flight get when the owner is lost; k6's default graceful stop. Then they are cut off.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);
/// And when the process is told to end: below the time its provider waits before it kills.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// What a generator gets to report its last seconds after it was cut off.
const ABORT_MAX: Duration = Duration::from_secs(3);
/// What the spool gets to be sent before the process exits.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// And when there is nobody to send it to.
const DRAIN_ORPHANED: Duration = Duration::from_secs(2);

/// The run that is held and its milestones: what each new connection tells.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub held: Option<(RunId, SessionId)>,
    pub history: Vec<progress::What>,
}

/// Holds one run at a time.
pub(super) struct Keeper {
    pub dial: Dial,
    /// Zero of the worker's clock.
    pub base: Instant,
    pub threads: u32,
    pub commands: mpsc::Receiver<wire::Command>,
    pub released: mpsc::Sender<RunId>,
    pub board: watch::Sender<Board>,
    pub way: watch::Sender<Way>,
    pub spool: Spool,
    pub deadman: Arc<Deadman>,
    /// The dead-man's switch's time while no run is held.
    pub idle_timeout: Option<Duration>,
    pub teller: Teller,
    pub hooks: Commands,
    pub stage: Stage,
    /// Why the run is to end, once it is.
    pub ending: Option<ended::Why>,
}

/// How far the held run is.
pub(super) enum Stage {
    /// None is held.
    Idle,
    /// Files are fetched and read.
    Preparing(JoinHandle<Result<Prepared, String>>),
    /// Everything is there; once armed, with the start.
    Ready(Box<Prepared>, Option<Start>),
    /// Load is made, or about to be.
    Running(Box<Load>),
    /// Ended or refused; held until released.
    Over,
}

/// The agreed start, and by which order of which epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    order: (u64, u64),
    at: Instant,
}

/// A generator at work.
pub(super) struct Load {
    running: Running,
    at: Instant,
    started: bool,
    usage: Usage,
}

/// What the keeper woke up for.
enum Woken {
    Command(Option<wire::Command>),
    Prepared(Result<Prepared, String>),
    Report(Option<Report>),
    Leave,
    Harder,
}

/// The process has to go.
struct Leaving {
    harder_at: Moment,
    aborted: bool,
}

impl Keeper {
    /// Obeys until the process has to go: `stop` is asked for, or the owner is lost. Then ends the load and waits for the spool,
    /// both for a bounded time.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut leaving: Option<Leaving> = None;
        while leaving.is_none() || matches!(self.stage, Stage::Preparing(_) | Stage::Ready(..) | Stage::Running(_)) {
            match self.wait(stop, leaving.as_ref()).await {
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Command(None) => break,
                Woken::Prepared(result) => self.prepared(result),
                Woken::Report(report) => self.report(report),
                Woken::Leave => {
                    let (why, grace) = if self.deadman.fired().is_cancelled() {
                        tracing::error!("the owner has not been heard for the orphan timeout; ending");
                        self.teller.tell(News::Orphaned);
                        (ended::Why::Orphaned, ORPHAN_GRACE)
                    } else {
                        (ended::Why::Stopped, STOP_GRACE)
                    };
                    self.stop(StopMode::Graceful, why);
                    leaving = Some(Leaving {
                        harder_at: Moment::now() + grace,
                        aborted: false,
                    });
                }
                Woken::Harder => match &mut leaving {
                    Some(leaving) if !leaving.aborted => {
                        leaving.aborted = true;
                        leaving.harder_at = Moment::now() + ABORT_MAX;
                        self.stop(StopMode::Abort, ended::Why::Stopped);
                    }
                    _ => self.over(ended::Why::Failed, "the generator does not end"),
                },
            }
        }
        let is_orphan = self.deadman.fired().is_cancelled();
        let limit = if is_orphan { DRAIN_ORPHANED } else { DRAIN_MAX };
        if timeout(limit, self.spool.drained()).await.is_err() {
            tracing::error!("a worker exits with frames in its spool");
        }
    }

    async fn wait(&mut self, stop: &CancellationToken, leaving: Option<&Leaving>) -> Woken {
        let harder_at = leaving.map_or_else(Moment::now, |leaving| leaving.harder_at);
        tokio::select! {
            () = stop.cancelled(), if leaving.is_none() => Woken::Leave,
            () = self.deadman.fired().cancelled(), if leaving.is_none() => Woken::Leave,
            () = sleep_until(harder_at), if leaving.is_some() => Woken::Harder,
            command = self.commands.recv() => Woken::Command(command),
            woken = self.stage.next() => woken,
        }
    }

    fn obey(&mut self, command: wire::Command) {
        let (Ok(run), Some(what)) = (command.run.parse::<RunId>(), command.what) else {
            tracing::warn!("a command that is none");
            return;
        };
        let holds = self.board.borrow().held.is_some_and(|(held, _)| held == run);
        match what {
            command::What::Prepare(prepare) => self.prepare(run, prepare),
            command::What::Release(_) => self.release(run, holds),
            // Of a run that this worker has let go.
            _ if !holds => {}
            command::What::Arm(arm) => self.arm((command.epoch, command.id), arm.worker_us),
            command::What::Commit(_) => self.commit(),
            command::What::Advance(advance) => self.say(Command::Advance {
                phase: advance.phase,
                at: self.at(advance.worker_us),
            }),
            command::What::Pause(_) => self.say(Command::Pause),
            command::What::Resume(_) => self.say(Command::Resume),
            command::What::Stop(wire::Stop { abort: true }) => self.stop(StopMode::Abort, ended::Why::Stopped),
            command::What::Stop(_) => self.stop(StopMode::Graceful, ended::Why::Stopped),
            command::What::Hook(hook) if matches!(self.stage, Stage::Ready(..)) => {
                self.hooks.begin(run, &self.dial, &self.board, hook);
            }
            // The run has ended here: nobody waits for a hook any more.
            command::What::Hook(_) => {}
        }
    }

    fn at(&self, worker_us: u64) -> Instant {
        // An instant centuries ahead is no instant of this clock: never is as good as that.
        self.base
            .checked_add(Duration::from_micros(worker_us))
            .unwrap_or(self.base)
    }

    fn prepare(&mut self, run: RunId, mut prepare: wire::Prepare) {
        if let Some((held, _)) = self.board.borrow().held {
            if held != run {
                tracing::warn!(%run, %held, "told to prepare a run while another one is held");
            }
            return;
        }
        let Ok(session) = prepare.session.parse::<SessionId>() else {
            tracing::warn!(%run, "told to prepare a run without a session");
            return;
        };
        self.deadman
            .set_timeout(Some(Duration::from_millis(prepare.orphan_timeout_ms.max(1))));
        self.teller.tell(News::RunBegins {
            run,
            index: prepare.index,
            count: prepare.count,
        });
        let topic = prepare.kafka.take().map(TopicAt::of_wire).transpose();
        let way = topic.as_ref().ok().cloned().flatten();
        self.way.send_replace(way.map(|topic| (session, topic)));
        self.spool.open(run, session, prepare.index);
        self.ending = None;
        self.board.send_replace(Board {
            held: Some((run, session)),
            history: Vec::new(),
        });
        let (dial, threads) = (self.dial.clone(), self.threads);
        self.stage = Stage::Preparing(tokio::spawn(ready(dial, threads, prepare, topic)));
    }

    fn prepared(&mut self, result: Result<Prepared, String>) {
        match result {
            Ok(prepared) => {
                self.stage = Stage::Ready(Box::new(prepared), None);
                self.tell(progress::What::Prepared(wire::Prepared {}));
            }
            Err(reason) => {
                self.stage = Stage::Over;
                self.teller.tell(News::CannotPrepare(reason.clone()));
                self.tell(progress::What::Refused(wire::Refused { reason }));
            }
        }
    }

    fn arm(&mut self, order: (u64, u64), worker_us: u64) {
        let at = self.at(worker_us);
        if let Stage::Ready(_, start) = &mut self.stage
            && start.is_none_or(|start| start.order < order)
        {
            *start = Some(Start { order, at });
            self.tell(progress::What::Armed(wire::Armed {}));
        }
    }

    fn commit(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Ready(prepared, Some(Start { at, .. })) => {
                if at.elapsed() > BARRIER {
                    self.stage = Stage::Ready(prepared, None);
                    self.over(ended::Why::Failed, "the commit came after the start");
                    return;
                }
                self.stage = Stage::Running(Box::new(Load {
                    running: prepared.start(at),
                    at,
                    started: false,
                    usage: Usage::start(),
                }));
            }
            other => self.stage = other,
        }
    }

    fn say(&self, command: Command) {
        if let Stage::Running(load) = &self.stage {
            load.running.command(command);
        }
    }

    fn stop(&mut self, mode: StopMode, why: ended::Why) {
        let why = *self.ending.get_or_insert(why);
        match &self.stage {
            Stage::Idle | Stage::Over => {}
            Stage::Running(load) => load.running.command(Command::Stop(mode)),
            Stage::Preparing(_) | Stage::Ready(..) => self.over(why, ""),
        }
    }

    fn report(&mut self, report: Option<Report>) {
        let Stage::Running(load) = &mut self.stage else { return };
        if let Some(Report::Second(mut second)) = report {
            let reading = load.usage.read();
            second.generator.cpu = reading.cpu;
            second.generator.steal = reading.steal;
            second.generator.memory_bytes = reading.memory_bytes;
            self.spool.push(second);
            return;
        }
        if report.is_some() && !std::mem::replace(&mut load.started, true) {
            let began = load.running.began().unwrap_or_else(Instant::now);
            let late_us = i64::try_from(began.saturating_duration_since(load.at).as_micros()).unwrap_or(i64::MAX);
            self.teller.tell(News::LoadStarted { late_us });
            self.tell(progress::What::Started(wire::Started { late_us }));
        }
        let mark = |phase| wire::PhaseMark { phase };
        match report {
            Some(Report::PhaseStarted(phase)) => self.tell(progress::What::PhaseStarted(mark(phase))),
            Some(Report::PhaseEnded(phase)) => self.tell(progress::What::PhaseEnded(mark(phase))),
            Some(Report::Waiting(phase)) => self.tell(progress::What::Waiting(mark(phase))),
            Some(Report::Finished) => self.over(self.ending.unwrap_or(ended::Why::Finished), ""),
            Some(Report::Second(_)) => {}
            None => self.over(ended::Why::Failed, "the generator is gone"),
        }
    }

    /// The run has ended here: its session's end goes behind its frames.
    fn over(&mut self, why: ended::Why, reason: &str) {
        std::mem::replace(&mut self.stage, Stage::Over).throw_away();
        self.hooks.forget();
        let (last_sequence, dropped_frames) = self.spool.end();
        self.teller.tell(News::LoadEnded {
            why: match why {
                ended::Why::Finished => "finished",
                ended::Why::Orphaned => "the daemon is lost",
                ended::Why::Failed | ended::Why::Unknown => "the generator broke",
                ended::Why::Stopped => "stopped",
            },
            frames: last_sequence,
            dropped: dropped_frames,
        });
        self.tell(progress::What::Ended(wire::Ended {
            why: why.into(),
            reason: reason.to_owned(),
            last_sequence,
            dropped_frames,
        }));
    }

    fn release(&mut self, run: RunId, holds: bool) {
        if holds {
            std::mem::replace(&mut self.stage, Stage::Idle).throw_away();
            self.hooks.forget();
            self.spool.discard();
            self.board.send_replace(Board::default());
            self.deadman.set_timeout(self.idle_timeout);
            self.teller.tell(News::Released);
        }
        // Full: the owner has not read a dozen of these, and hears of it at the next Hello.
        let _ = self.released.try_send(run);
    }

    fn tell(&self, what: progress::What) {
        self.board.send_modify(|board| board.history.push(what));
    }
}

impl Stage {
    /// The next thing that happens by itself. Cancel-safe.
    async fn next(&mut self) -> Woken {
        match self {
            Self::Preparing(handle) => Woken::Prepared(match handle.await {
                Ok(result) => result,
                Err(error) => Err(format!("preparing broke: {error}")),
            }),
            // A load thread that panicked takes its numbers with it, but neither the worker nor what is in the spool.
            Self::Running(load) => {
                let report = AssertUnwindSafe(load.running.next()).catch_unwind().await;
                Woken::Report(report.unwrap_or(None))
            }
            Self::Idle | Self::Ready(..) | Self::Over => std::future::pending().await,
        }
    }

    /// Ends what is under way. Generators hold runtimes and threads, which may only be ended where waiting is allowed.
    fn throw_away(self) {
        match self {
            Self::Preparing(handle) => handle.abort(),
            Self::Running(load) => {
                load.running.command(Command::Stop(StopMode::Abort));
                drop(spawn_blocking(move || drop(load)));
            }
            Self::Ready(prepared, _) => drop(spawn_blocking(move || drop(prepared))),
            Self::Idle | Self::Over => {}
        }
    }
}

/// Fetches and reads everything the load needs.
async fn ready(
    dial: Dial,
    threads: u32,
    prepare: wire::Prepare,
    topic: Result<Option<TopicAt>, AddressError>,
) -> Result<Prepared, String> {
    let told = |error: &dyn std::error::Error| muster_core::base::chain::chain(error);
    if let Some(topic) = topic.map_err(|error| told(&error))? {
        topic.check().await.map_err(|error| told(&error))?;
    }
    let plan: LoadPlan =
        serde_json::from_slice(&prepare.plan).map_err(|error| format!("the plan cannot be read: {error}"))?;
    let files = fetch::fetch(&dial, &prepare.files)
        .await
        .map_err(|error| muster_core::base::chain::chain(&error))?;
    let job = Job {
        plan,
        segment: Segment {
            index: prepare.index,
            count: prepare.count,
        },
        files,
        threads: threads as usize,
        seed: prepare.seed,
    };
    spawn_blocking(move || muster_load::prepare(job))
        .await
        .map_err(|error| format!("preparing broke: {error}"))?
        .map_err(|error| muster_core::base::chain::chain(&error))
}
