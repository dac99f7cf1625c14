//! How frames travel from workers to ingest: one trait for each end, one adapter per way.

use async_trait::async_trait;
use muster_core::model::id::{RunId, SessionId};

/// One message: a frame, or the end of a session, as bytes that `measure::frame` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The run, for routing and partitioning.
    pub run: RunId,
    /// The session it is from.
    pub session: SessionId,
    /// Its sequence in the session, from 1, without gaps.
    pub sequence: u64,
    /// Encoded frame or end.
    pub payload: bytes::Bytes,
}

/// A worker's end. One sender per session, in order.
#[async_trait]
pub trait Producer: Send {
    /// Sends a message and waits until it is stored (promise 49); returns the highest sequence stored.
    ///
    /// # Errors
    /// When it is not known to be stored: send it again.
    async fn send(&mut self, message: Message) -> Result<u64, BusError>;
}

/// Ingest's end.
#[async_trait]
pub trait Consumer: Send {
    /// The next messages, at least one, at most `max`; `None` when the bus is closed.
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>>;
}

/// A message with the duty to say what became of it.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Told once the message is stored, with the session's watermark; dropped without a word: not stored, sent again.
    pub stored: tokio::sync::oneshot::Sender<u64>,
}

/// What a bus could not do.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody took it within the deadline, or the way is cut.
    #[error("bus is unavailable: {0}")]
    Unavailable(String),
    /// It will never be taken: too large, or of an unknown session.
    #[error("message refused: {0}")]
    Refused(String),
}
