//! The control connection: dials in until it is answered, passes commands on, tells milestones, gives signs of life.

use super::assignment::Board;
use super::deadman::Deadman;
use super::news::{News, Teller};
use super::spool::Spool;
use super::usage::Usage;
use crate::bus::dial::Dial;
use crate::bus::wire::{self, from_owner, from_worker, progress};
use muster_core::base::chain::chain;
use muster_core::model::id::{RunId, WorkerId};
use muster_core::model::unit::UnitName;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// An owner that has not answered Hello by then is not there.
const WELCOME_DEADLINE: Duration = Duration::from_secs(5);
/// An owner gives a sign of life each second; after so long without one the connection is given up. Below the shortest orphan timeout.
const SILENCE: Duration = Duration::from_secs(4);
/// First pause between dials; doubled up to the last, so that a daemon that starts anew finds its workers within a second.
const REDIAL_FIRST: Duration = Duration::from_millis(100);
const REDIAL_LAST: Duration = Duration::from_secs(1);
/// Pause after an owner that refused: nothing changes by asking soon.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Messages to the owner that may wait. All milestones of a run are told at once after a reconnect.
const OUTBOX: usize = 256;
/// A message that cannot be handed over by then: the connection is dead.
const SEND_DEADLINE: Duration = Duration::from_secs(4);

/// A goodbye that is not heard by then is not said.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// Who this worker is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub worker: WorkerId,
    pub unit: Option<UnitName>,
    pub pool: String,
    pub host: String,
    pub threads: u32,
    pub allows_commands: bool,
}

/// What the session needs of the rest of the worker.
pub(super) struct Session {
    pub identity: Identity,
    pub dial: Dial,
    /// Zero of the worker's clock.
    pub base: Instant,
    pub commands: mpsc::Sender<wire::Command>,
    pub released: mpsc::Receiver<RunId>,
    pub board: watch::Receiver<Board>,
    pub spool: Spool,
    pub deadman: Arc<Deadman>,
    pub teller: Teller,
    /// Highest epoch obeyed.
    pub epoch: u64,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("{0}")]
    Dial(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Broken(&'static str),
    #[error("{} ({})", .0.message(), .0.code())]
    Status(tonic::Status),
}

impl From<tonic::Status> for Cut {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Self::Refused(status.message().to_owned()),
            _ => Self::Status(status),
        }
    }
}

type Outbox = mpsc::Sender<wire::FromWorker>;

impl Session {
    /// Keeps a connection to the owner until the worker is `over`; then says goodbye if it is connected.
    pub async fn run(mut self, over: CancellationToken) {
        let mut pause = REDIAL_FIRST;
        // Said once, not at each try.
        let mut said = None;
        loop {
            let connected = tokio::select! {
                () = over.cancelled() => return,
                result = self.dial() => result,
            };
            let cut = match connected {
                Ok((outbox, inbox)) => {
                    pause = REDIAL_FIRST;
                    match self.talk(outbox, inbox, &over).await {
                        Ok(()) => return,
                        Err(cut) => {
                            tracing::info!(reason = %cut, "not connected");
                            self.teller.tell(News::Lost {
                                reason: cut.to_string(),
                                run: self.held_run(),
                                orphan_timeout: self.deadman.timeout(),
                            });
                            said = None;
                            cut
                        }
                    }
                }
                Err(cut) => cut,
            };
            let wait = match &cut {
                // In a run every second counts: a daemon that has just started may not know its workers yet.
                Cut::Refused(_) if self.held_run().is_none() => REFUSED_PAUSE,
                _ => pause,
            };
            if said.as_ref() != Some(&cut.to_string()) {
                self.say(&cut, wait);
                said = Some(cut.to_string());
            }
            pause = (pause * 2).min(REDIAL_LAST);
            tokio::select! {
                () = over.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn held_run(&self) -> Option<RunId> {
        self.board.borrow().held.map(|(run, _)| run)
    }

    /// Why there is no connection, for the log and for the person who waits.
    fn say(&self, cut: &Cut, pause: Duration) {
        let reason = cut.to_string();
        match cut {
            Cut::Refused(_) => {
                tracing::warn!(reason, "cannot join");
                self.teller.tell(News::Refused { reason, pause });
            }
            Cut::Dial(_) => {
                tracing::info!(reason, "not connected");
                self.teller.tell(News::Unreachable(reason));
            }
            Cut::Broken(_) | Cut::Status(_) => {}
        }
    }

    async fn dial(&mut self) -> Result<(Outbox, Streaming<wire::FromOwner>), Cut> {
        let client = self.dial.connect().await.map_err(|error| Cut::Dial(chain(&error)))?;
        let mut client = client
            .max_decoding_message_size(wire::CONTROL_MAX_BYTES)
            .max_encoding_message_size(wire::CONTROL_MAX_BYTES);
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let hello = from_worker::What::Hello(self.hello());
        send(&outbox, hello).await?;
        let work = async {
            let mut inbox = client.control(ReceiverStream::new(messages)).await?.into_inner();
            let first = inbox.message().await?.and_then(|message| message.what);
            Ok::<_, Cut>((inbox, first))
        };
        let (inbox, first) = timeout(WELCOME_DEADLINE, work)
            .await
            .map_err(|_| Cut::Broken("no answer to Hello"))??;
        match first {
            Some(from_owner::What::Welcome(welcome)) if welcome.epoch >= self.epoch => {
                self.epoch = welcome.epoch;
                self.deadman.heard();
                tracing::info!(epoch = welcome.epoch, "connected");
                self.teller.tell(News::Connected {
                    address: self.dial.shown().await,
                    pool: welcome.pool,
                    run: self.held_run(),
                });
                Ok((outbox, inbox))
            }
            Some(from_owner::What::Welcome(_)) => Err(Cut::Broken("the owner is of an epoch that is over")),
            Some(from_owner::What::Refused(refused)) => Err(Cut::Refused(refused.reason)),
            _ => Err(Cut::Broken("the first answer is not to Hello")),
        }
    }

    fn hello(&self) -> wire::Hello {
        let board = self.board.borrow();
        let held = board.held.map(|(run, session)| (run.to_string(), session.to_string()));
        let (held_run, held_session) = held.unwrap_or_default();
        wire::Hello {
            protocol: wire::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            worker: self.identity.worker.to_string(),
            unit: self.identity.unit.as_ref().map(ToString::to_string).unwrap_or_default(),
            pool: self.identity.pool.clone(),
            host: self.identity.host.clone(),
            threads: self.identity.threads,
            allows_commands: self.identity.allows_commands,
            held_run,
            held_session,
            epoch: self.epoch,
            last_sequence: self.spool.status().made,
        }
    }

    /// Talks until the connection is cut, or the worker is over: Ok.
    async fn talk(
        &mut self,
        outbox: Outbox,
        mut inbox: Streaming<wire::FromOwner>,
        over: &CancellationToken,
    ) -> Result<(), Cut> {
        let mut told = Told::default();
        let mut usage = Usage::start();
        let mut beat = interval(wire::HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.board.mark_changed();
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                message = timeout_at(heard + SILENCE, inbox.message()) => {
                    let message = message.map_err(|_| Cut::Broken("it is silent"))??;
                    heard = tokio::time::Instant::now();
                    let what = message.ok_or(Cut::Broken("the owner closed the connection"))?.what;
                    self.deadman.heard();
                    self.obey(&outbox, what).await?;
                }
                changed = self.board.changed() => {
                    changed.map_err(|_| Cut::Broken("the worker is ending"))?;
                    let news = told.news(&self.board.borrow_and_update());
                    for progress in news {
                        send(&outbox, from_worker::What::Progress(progress)).await?;
                    }
                }
                Some(run) = self.released.recv() => {
                    let what = Some(progress::What::Released(wire::Released {}));
                    let released = wire::Progress { run: run.to_string(), number: 0, what };
                    send(&outbox, from_worker::What::Progress(released)).await?;
                }
                _ = beat.tick() => send(&outbox, from_worker::What::Status(self.status(&mut usage))).await?,
                () = over.cancelled() => return self.say_goodbye(outbox, inbox, told).await,
            }
        }
    }

    /// Tells what is left, says goodbye and waits until the owner has read it, which closes its side.
    async fn say_goodbye(
        &self,
        outbox: Outbox,
        mut inbox: Streaming<wire::FromOwner>,
        mut told: Told,
    ) -> Result<(), Cut> {
        let news = told.news(&self.board.borrow());
        for progress in news {
            send(&outbox, from_worker::What::Progress(progress)).await?;
        }
        let is_orphan = self.deadman.fired().is_cancelled();
        let reason = if is_orphan {
            "it had lost its owner"
        } else {
            "it was told to end"
        };
        let reason = reason.to_owned();
        send(&outbox, from_worker::What::Goodbye(wire::Goodbye { reason })).await?;
        drop(outbox);
        let read = async { while let Ok(Some(_)) = inbox.message().await {} };
        // An owner that is gone hears nothing.
        let _ = timeout(GOODBYE_DEADLINE, read).await;
        Ok(())
    }

    async fn obey(&mut self, outbox: &Outbox, what: Option<from_owner::What>) -> Result<(), Cut> {
        match what {
            Some(from_owner::What::Clock(clock)) if clock.epoch >= self.epoch => {
                let worker_us = u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX);
                let owner_us = clock.owner_us;
                send(
                    outbox,
                    from_worker::What::Clock(wire::ClockReply {
                        owner_us,
                        worker_us,
                        wall_us: jiff::Timestamp::now().as_microsecond(),
                    }),
                )
                .await
            }
            Some(from_owner::What::Command(command)) if command.epoch >= self.epoch => self
                .commands
                .send(command)
                .await
                .map_err(|_| Cut::Broken("the worker is ending")),
            Some(from_owner::What::Clock(_) | from_owner::What::Command(_)) => {
                Err(Cut::Broken("the owner is of an epoch that is over"))
            }
            // Of a later version of the same protocol.
            _ => Ok(()),
        }
    }

    fn status(&self, usage: &mut Usage) -> wire::Status {
        let reading = usage.read();
        let spool = self.spool.status();
        wire::Status {
            cpu: reading.cpu,
            steal: reading.steal,
            memory_bytes: reading.memory_bytes,
            frames_made: spool.made,
            frames_acked: spool.acked,
            frames_spooled: spool.spooled,
            bytes_spooled: spool.bytes,
            frames_dropped: spool.dropped,
        }
    }
}

/// Which milestones this connection has told.
#[derive(Debug, Default)]
struct Told {
    run: Option<RunId>,
    count: usize,
}

impl Told {
    fn news(&mut self, board: &Board) -> Vec<wire::Progress> {
        let run = board.held.map(|(run, _)| run);
        if run != self.run {
            *self = Self { run, count: 0 };
        }
        let Some(run) = run else { return Vec::new() };
        let progress = |(index, what): (usize, &progress::What)| wire::Progress {
            run: run.to_string(),
            number: u32::try_from(index + 1).unwrap_or(u32::MAX),
            what: Some(what.clone()),
        };
        let news = board
            .history
            .iter()
            .enumerate()
            .skip(self.count)
            .map(progress)
            .collect();
        self.count = board.history.len();
        news
    }
}

async fn send(outbox: &Outbox, what: from_worker::What) -> Result<(), Cut> {
    let message = wire::FromWorker { what: Some(what) };
    match outbox.send_timeout(message, SEND_DEADLINE).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Cut::Broken("the connection takes nothing")),
    }
}
