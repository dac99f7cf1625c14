//! The spool: frames that are not known to be stored, in a bounded queue in memory, then in a bounded file, then dropped and counted
//! (promise 48).
//!
//! Whoever puts frames in never waits: a task of its own moves them between memory and disk, and a disk that is slow, full or not there
//! costs frames once memory is full, never time. Frames that come when all is full are dropped, the newest first, because the oldest may be
//! stored already and only unanswered; what was dropped is said in the session's end.

mod queue;
mod ring;
#[cfg(test)]
mod tests;

pub(super) use queue::{Limits, SpoolStatus};

use crate::bus::Message;
use bytes::Bytes;
use muster_core::measure::slice::Second;
use muster_core::model::id::{RunId, SessionId};
use queue::{Load, Queue, Spill};
use ring::Ring;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// In memory over ten minutes of a busy worker (100 kB a second), and on disk some three hours: longer than anybody leaves a run alone whose
/// results do not arrive, and little of a host's disk.
pub(super) const LIMITS: Limits = Limits {
    memory: 64 << 20,
    disk: 1 << 30,
};

/// Frames that are not known to be stored. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    wake: Notify,
    state: Mutex<Option<Queue>>,
}

/// What is to be done on disk.
enum Work {
    Write(SessionId, Spill),
    Read(SessionId, Load),
}

impl Spool {
    pub fn new(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                wake: Notify::new(),
                state: Mutex::new(None),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Queue>> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does something with the session that is open, if it is this one, and wakes whoever waits.
    fn with(&self, session: SessionId, work: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.state().as_mut().filter(|queue| queue.session == session) {
            work(queue);
        }
        self.shared.wake.notify_waiters();
    }

    /// Begins a session at sequence 1; what is there of another one is thrown away.
    pub fn open(&self, run: RunId, session: SessionId, worker: u32) {
        *self.state() = Some(Queue::new(run, session, worker, self.shared.limits));
        self.shared.wake.notify_waiters();
    }

    /// Forgets the session.
    pub fn discard(&self) {
        *self.state() = None;
        self.shared.wake.notify_waiters();
    }

    /// Takes in a second; drops it when it does not fit. Never waits.
    pub fn push(&self, second: Second) {
        if let Some(queue) = self.state().as_mut() {
            queue.push(second);
        }
        self.shared.wake.notify_waiters();
    }

    /// Ends the session: its end always fits. Returns the last sequence and how many frames were dropped.
    pub fn end(&self) -> (u64, u64) {
        let ended = self.state().as_mut().map_or((0, 0), Queue::end);
        self.shared.wake.notify_waiters();
        ended
    }

    pub fn status(&self) -> SpoolStatus {
        self.state().as_ref().map_or_else(SpoolStatus::default, Queue::status)
    }

    /// Waits until nothing is left to send.
    pub async fn drained(&self) {
        loop {
            let woken = self.shared.wake.notified();
            if self.state().as_ref().is_none_or(Queue::is_empty) {
                return;
            }
            woken.await;
        }
    }

    /// The next messages to send, oldest first; they stay until they are known to be stored.
    pub async fn batch(&self) -> Vec<Message> {
        loop {
            let woken = self.shared.wake.notified();
            let batch = self.state().as_ref().map_or_else(Vec::new, Queue::batch);
            if !batch.is_empty() {
                return batch;
            }
            woken.await;
        }
    }

    /// All of a session up to here is stored.
    pub fn stored(&self, session: SessionId, watermark: u64) {
        self.with(session, |queue| queue.stored(watermark));
    }

    /// The owner takes nothing of this session any more: it is unknown or sealed.
    pub fn refused(&self, session: SessionId) {
        self.with(session, Queue::refuse);
    }

    /// Moves frames between memory and a file in this folder, for as long as it is polled. The file is there from the first frame that needs
    /// it to the session's end.
    pub async fn keep_on_disk(&self, folder: &Path) {
        let mut open: Option<(SessionId, Arc<Ring>)> = None;
        loop {
            let woken = self.shared.wake.notified();
            let (session, work) = self.work();
            open = open.filter(|(of, _)| Some(*of) == session);
            match work {
                Some(Work::Write(session, spill)) => {
                    let ring = open.take().map(|(_, ring)| ring);
                    let (folder, size) = (folder.to_owned(), self.shared.limits.disk);
                    let written = blocking(move || {
                        let name = format!(".muster-spool-{session}");
                        let ring = ring.map_or_else(|| Ring::make(&folder, &name, size).map(Arc::new), Ok)?;
                        let result = write(&ring, &spill);
                        Ok((ring, spill, result))
                    });
                    open = self.wrote(session, written.await);
                }
                Some(Work::Read(session, load)) => {
                    let ring = open.as_ref().map(|(_, ring)| Arc::clone(ring));
                    let read = blocking(move || read(ring.as_deref(), load)).await;
                    self.with(session, |queue| match read {
                        Ok((load, payloads)) => queue.loaded(&load, payloads),
                        Err(error) => {
                            tracing::error!(%session, %error, "frames on disk cannot be read; they are dropped");
                            queue.cannot_read();
                        }
                    });
                }
                None => woken.await,
            }
        }
    }

    /// The session that may have a file, and what is to be done with it.
    fn work(&self) -> (Option<SessionId>, Option<Work>) {
        let state = self.state();
        let Some(queue) = state.as_ref().filter(|queue| !queue.is_refused) else {
            return (None, None);
        };
        let session = queue.session;
        // What can be sent comes first.
        let read = queue.load().map(|load| Work::Read(session, load));
        let work = read.or_else(|| Some(Work::Write(session, queue.spill()?)));
        (Some(session), work)
    }

    fn wrote(
        &self,
        session: SessionId,
        written: io::Result<(Arc<Ring>, Spill, io::Result<()>)>,
    ) -> Option<(SessionId, Arc<Ring>)> {
        let (ring, result) = match written {
            Ok((ring, spill, Ok(()))) => {
                self.with(session, |queue| queue.spilled(&spill));
                return Some((session, ring));
            }
            Ok((ring, _, Err(error))) => (Some((session, ring)), error),
            Err(error) => (None, error),
        };
        tracing::error!(%session, error = %result, "frames cannot be kept on disk; those that memory cannot hold are dropped");
        self.with(session, Queue::cannot_write);
        ring
    }
}

fn write(ring: &Ring, spill: &Spill) -> io::Result<()> {
    let mut at = spill.at;
    for message in &spill.messages {
        ring.write(at, &message.payload)?;
        at += message.payload.len() as u64;
    }
    Ok(())
}

fn read(ring: Option<&Ring>, load: Load) -> io::Result<(Load, Bytes)> {
    let ring = ring.ok_or_else(|| io::Error::other("the file is gone"))?;
    let size = load.frames.iter().map(|(_, size)| size).sum();
    let mut payloads = vec![0; size];
    ring.read(load.at, &mut payloads)?;
    if load.is_all {
        // If not: it is written over.
        let _ = ring.clear();
    }
    Ok((load, payloads.into()))
}

/// Somewhere where waiting for a disk holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
