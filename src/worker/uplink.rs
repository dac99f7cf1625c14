//! The spool and its one sender: frames leave in order and are deleted once they are stored (promise 48).
//!
//! The spool is in memory: 64 MiB, over ten minutes of a busy worker. Frames that come when it is full are dropped, the newest
//! first, because the oldest may be stored already and only unanswered; what was dropped is said in the session's end.

use crate::bus::{BusError, Message, PAYLOAD_MAX_BYTES, Producer};
use muster_core::measure::frame::{Body, DROPPED_MAX, Frame};
use muster_core::measure::slice::Second;
use muster_core::model::id::{RunId, SessionId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// What a spool holds at most.
pub(super) const SPOOL_MAX_BYTES: usize = 64 << 20;
/// Messages sent before an answer is awaited: a spool of minutes drains in seconds.
const BATCH_MESSAGES: usize = 64;
/// And their bytes, unless one is larger.
const BATCH_BYTES: usize = 8 << 20;
/// First pause after a failure; doubled up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Frames that are not known to be stored.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_bytes: usize,
    wake: Notify,
    state: Mutex<Option<Open>>,
}

/// The spool of one session.
#[derive(Debug)]
struct Open {
    run: RunId,
    session: SessionId,
    worker: u32,
    queue: VecDeque<Message>,
    bytes: usize,
    last_sequence: u64,
    /// The newest that was not dropped.
    last_kept: u64,
    acked: u64,
    dropped: Vec<(u64, u64)>,
    dropped_frames: u64,
    ended: bool,
    /// The owner will take nothing of this session any more.
    refused: bool,
}

/// How full it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SpoolStatus {
    pub made: u64,
    pub acked: u64,
    pub spooled: u64,
    pub bytes: u64,
    pub dropped: u64,
}

impl Spool {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_bytes,
                wake: Notify::new(),
                state: Mutex::new(None),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Open>> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins a session at sequence 1; what is there of another one is thrown away.
    pub fn open(&self, run: RunId, session: SessionId, worker: u32) {
        *self.state() = Some(Open {
            run,
            session,
            worker,
            queue: VecDeque::new(),
            bytes: 0,
            last_sequence: 0,
            last_kept: 0,
            acked: 0,
            dropped: Vec::new(),
            dropped_frames: 0,
            ended: false,
            refused: false,
        });
        self.shared.wake.notify_waiters();
    }

    /// Forgets the session.
    pub fn discard(&self) {
        *self.state() = None;
        self.shared.wake.notify_waiters();
    }

    /// Takes in a second; drops it when it does not fit.
    pub fn push(&self, second: Second) {
        if let Some(open) = self.state().as_mut().filter(|open| !open.ended) {
            let message = open.frame(Body::Second(second));
            let size = message.payload.len();
            if open.refused || size > PAYLOAD_MAX_BYTES || open.bytes + size > self.shared.max_bytes {
                open.drop_frame(message.sequence);
            } else {
                open.keep(message);
            }
        }
        self.shared.wake.notify_waiters();
    }

    /// Ends the session: its end always fits. Returns the last sequence and how many frames were dropped.
    pub fn end(&self) -> (u64, u64) {
        let mut state = self.state();
        let Some(open) = state.as_mut() else { return (0, 0) };
        if !open.ended {
            open.ended = true;
            let end = Body::End {
                last_sequence: open.last_sequence + 1,
                dropped: open.dropped.clone(),
            };
            let message = open.frame(end);
            if !open.refused {
                open.keep(message);
            }
        }
        let result = (open.last_sequence, open.dropped_frames);
        drop(state);
        self.shared.wake.notify_waiters();
        result
    }

    pub fn status(&self) -> SpoolStatus {
        self.state()
            .as_ref()
            .map_or_else(SpoolStatus::default, |open| SpoolStatus {
                made: open.last_sequence,
                acked: open.acked,
                spooled: open.queue.len() as u64,
                bytes: open.bytes as u64,
                dropped: open.dropped_frames,
            })
    }

    /// Waits until nothing is left to send.
    pub async fn drained(&self) {
        loop {
            let woken = self.shared.wake.notified();
            if self.state().as_ref().is_none_or(|open| open.queue.is_empty()) {
                return;
            }
            woken.await;
        }
    }

    /// The next messages to send, oldest first; they stay until they are known to be stored.
    async fn batch(&self) -> Vec<Message> {
        loop {
            let woken = self.shared.wake.notified();
            if let Some(open) = self.state().as_ref() {
                let mut bytes = 0;
                let batch: Vec<Message> = open
                    .queue
                    .iter()
                    .take(BATCH_MESSAGES)
                    .take_while(|message| {
                        bytes += message.payload.len();
                        bytes <= BATCH_BYTES || bytes == message.payload.len()
                    })
                    .cloned()
                    .collect();
                if !batch.is_empty() {
                    return batch;
                }
            }
            woken.await;
        }
    }

    fn stored(&self, session: SessionId, watermark: u64) {
        if let Some(open) = self.state().as_mut().filter(|open| open.session == session) {
            open.acked = open.acked.max(watermark);
            while open.queue.front().is_some_and(|message| message.sequence <= watermark) {
                let size = open.queue.pop_front().map_or(0, |message| message.payload.len());
                open.bytes -= size;
            }
        }
        self.shared.wake.notify_waiters();
    }

    /// The owner takes nothing of this session any more: it is unknown or sealed.
    fn refused(&self, session: SessionId) {
        if let Some(open) = self.state().as_mut().filter(|open| open.session == session) {
            open.refused = true;
            for message in std::mem::take(&mut open.queue) {
                open.drop_frame(message.sequence);
            }
            open.bytes = 0;
        }
        self.shared.wake.notify_waiters();
    }
}

impl Open {
    fn frame(&mut self, body: Body) -> Message {
        self.last_sequence += 1;
        let frame = Frame {
            run: self.run,
            session: self.session,
            worker: self.worker,
            sequence: self.last_sequence,
            skipped: self.last_sequence - 1 - self.last_kept,
            body,
        };
        Message {
            run: self.run,
            session: self.session,
            sequence: self.last_sequence,
            payload: frame.encode().into(),
        }
    }

    fn keep(&mut self, message: Message) {
        self.bytes += message.payload.len();
        self.last_kept = message.sequence;
        self.queue.push_back(message);
    }

    fn drop_frame(&mut self, sequence: u64) {
        self.dropped_frames += 1;
        let is_full = self.dropped.len() >= DROPPED_MAX;
        match self.dropped.last_mut() {
            Some(last) if last.1 + 1 == sequence || is_full => last.1 = sequence,
            _ => self.dropped.push((sequence, sequence)),
        }
    }
}

/// Sends what is in the spool, for as long as it is polled.
pub(super) async fn run(spool: Spool, producer: &mut dyn Producer) {
    let mut pause = RETRY_FIRST;
    loop {
        let batch = spool.batch().await;
        let Some(session) = batch.first().map(|message| message.session) else {
            continue;
        };
        match producer.send(&batch).await {
            Ok(watermark) => {
                pause = RETRY_FIRST;
                spool.stored(session, watermark);
            }
            Err(BusError::Refused { sequence, reason }) => {
                tracing::error!(%session, sequence, %reason, "the owner refuses the session's frames; they are dropped");
                spool.refused(session);
            }
            Err(BusError::Unavailable(reason)) => {
                tracing::debug!(%session, %reason, "frames are not stored yet; sending again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
