//! How frames travel from workers to ingest: one trait for each end, one adapter per way.

pub mod dial;
pub mod direct;
pub mod kafka;
pub mod memory;
pub mod wire;

use async_trait::async_trait;
use muster_core::model::id::{RunId, SessionId};
use tokio::sync::oneshot;

/// Largest payload of a message: what `measure::frame` decodes.
pub const PAYLOAD_MAX_BYTES: usize = muster_core::measure::frame::FRAME_MAX_BYTES;
/// Most messages a consumer holds without having said what became of them, per sender; then the sender waits.
pub const IN_FLIGHT_MAX: usize = 128;

/// One message: a frame, or the end of a session, as bytes that `measure::frame` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The run, for routing and partitioning.
    pub run: RunId,
    /// The session it is from.
    pub session: SessionId,
    /// Its sequence in the session, from 1, without gaps but for what a full spool dropped.
    pub sequence: u64,
    /// Encoded frame or end; at most [`PAYLOAD_MAX_BYTES`].
    pub payload: bytes::Bytes,
}

/// A worker's end. One sender per session, in order.
#[async_trait]
pub trait Producer: Send {
    /// Sends messages of one session, in their order, and waits until the last is safe: stored (promise 49), or kept by a bus that
    /// gives it to ingest again and again until it is. Returns up to where all are safe, which is at least the last sequence.
    ///
    /// # Errors
    /// When they are not known to be safe; a part of them may be: send all of them again. Refused: the first one will
    /// never be taken.
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError>;
}

/// Ingest's end.
#[async_trait]
pub trait Consumer: Send {
    /// The next messages, at least one, at most `max`; `None` when the bus is closed. Cancel-safe: a message is returned or
    /// stays.
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>>;
}

/// A message with the duty to say what became of it.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Told once its fate is known; dropped without a word: not stored, sent again.
    pub fate: oneshot::Sender<Fate>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is stored, and so is everything of its session up to this watermark.
    Stored(u64),
    /// It will never be taken: impossible bytes, an unknown session, a sealed run.
    Refused(String),
}

/// What a bus could not do.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody took it within the deadline, or the way is cut.
    #[error("bus is unavailable: {0}")]
    Unavailable(String),
    /// It will never be taken: too large, of an unknown session, of a sealed run.
    #[error("message {sequence} refused: {reason}")]
    Refused {
        /// Which.
        sequence: u64,
        /// Why.
        reason: String,
    },
}

/// Refuses what no adapter may carry.
fn check_size(messages: &[Message]) -> Result<(), BusError> {
    match messages
        .iter()
        .find(|message| message.payload.len() > PAYLOAD_MAX_BYTES)
    {
        Some(message) => Err(BusError::Refused {
            sequence: message.sequence,
            reason: format!("{} bytes are more than {PAYLOAD_MAX_BYTES}", message.payload.len()),
        }),
        None => Ok(()),
    }
}
