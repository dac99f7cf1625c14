//! The bus from a worker straight to its owner: a gRPC stream of frames, answered once they are stored.

use super::dial::Dial;
use super::wire::{Envelope, Receipt};
use super::{BusError, Delivery, Fate, IN_FLIGHT_MAX, Message, PAYLOAD_MAX_BYTES, Producer, check_size};
use async_trait::async_trait;
use futures_util::stream::{FuturesOrdered, Stream, StreamExt as _};
use muster_core::model::id::{RunId, SessionId};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// How long a sender waits until its messages are stored before it connects anew. A database that is down for longer is ridden out
/// by sending again: ingest knows repeats.
pub const STORED_DEADLINE: Duration = Duration::from_secs(30);
/// Largest envelope: the payload and its three labels.
pub const ENVELOPE_MAX_BYTES: usize = PAYLOAD_MAX_BYTES + 1_024;

/// A worker's end. Connects when it is first used, and anew after any failure.
#[derive(Debug)]
pub struct DirectProducer {
    dial: Dial,
    stream: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: mpsc::Sender<Envelope>,
    receipts: Streaming<Receipt>,
}

impl DirectProducer {
    /// A producer that is not connected yet.
    pub fn new(dial: Dial) -> Self {
        Self { dial, stream: None }
    }

    async fn open(&self) -> Result<Open, BusError> {
        let mut client = self
            .dial
            .connect()
            .await
            .map_err(|error| BusError::Unavailable(muster_core::base::chain::chain(&error)))?
            .max_encoding_message_size(ENVELOPE_MAX_BYTES);
        let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
        let response = client
            .data(ReceiverStream::new(receiver))
            .await
            .map_err(|status| cut(&status))?;
        Ok(Open {
            sender,
            receipts: response.into_inner(),
        })
    }
}

impl Open {
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError> {
        let Some(last) = messages.last() else { return Ok(0) };
        let mut waiting = messages.iter();
        let mut next = waiting.next().map(envelope);
        loop {
            tokio::select! {
                permit = self.sender.reserve(), if next.is_some() => {
                    let permit = permit.map_err(|_| BusError::Unavailable("the stream ended".to_owned()))?;
                    if let Some(envelope) = next.take() {
                        permit.send(envelope);
                    }
                    next = waiting.next().map(envelope);
                }
                receipt = self.receipts.message() => {
                    let receipt = receipt
                        .map_err(|status| cut(&status))?
                        .ok_or_else(|| BusError::Unavailable("the owner closed the stream".to_owned()))?;
                    if receipt.session != last.session.0.as_bytes()[..] {
                        continue;
                    }
                    if !receipt.refused.is_empty() {
                        return Err(BusError::Refused { sequence: receipt.sequence, reason: receipt.refused });
                    }
                    if receipt.watermark >= last.sequence {
                        return Ok(receipt.watermark);
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Producer for DirectProducer {
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError> {
        check_size(messages)?;
        let mut open = match self.stream.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        let result = timeout(STORED_DEADLINE, open.send(messages))
            .await
            .unwrap_or_else(|_| Err(BusError::Unavailable("not stored within the deadline".to_owned())));
        // After a failure, answers to what was sent may still come: they must not be taken for answers to what is sent next.
        if result.is_ok() {
            self.stream = Some(open);
        }
        result
    }
}

fn envelope(message: &Message) -> Envelope {
    Envelope {
        run: bytes::Bytes::copy_from_slice(message.run.0.as_bytes()),
        session: bytes::Bytes::copy_from_slice(message.session.0.as_bytes()),
        sequence: message.sequence,
        payload: message.payload.clone(),
    }
}

fn cut(status: &Status) -> BusError {
    BusError::Unavailable(format!("{}: {}", status.code(), status.message()))
}

/// Whether a session's frames may come by this stream.
pub enum May {
    /// They may.
    Yes,
    /// Never; the sender is told this.
    No(&'static str),
    /// Nobody knows yet: the stream ends, and its sender tries again.
    NotYet,
}

/// The owner's end of one stream: hands what comes to `queue` and answers as it learns the fate of each message. It reads no more
/// than [`IN_FLIGHT_MAX`] messages ahead of the answers. A message nobody stored ends the stream. `may` is asked once per session.
pub fn receive(
    envelopes: Streaming<Envelope>,
    queue: mpsc::Sender<Delivery>,
    may: impl Fn(SessionId) -> May + Send + 'static,
) -> impl Stream<Item = Result<Receipt, Status>> {
    let state = Receiving {
        envelopes: Some(envelopes),
        queue,
        may: Box::new(may),
        allowed: None,
        fates: FuturesOrdered::new(),
        held: None,
    };
    futures_util::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Some(Ok(receipt)) => Some((Ok(receipt), Some(state))),
            Some(Err(status)) => Some((Err(status), None)),
            None => None,
        }
    })
}

type Answer = futures_util::future::BoxFuture<'static, Result<Receipt, Status>>;

struct Receiving {
    envelopes: Option<Streaming<Envelope>>,
    queue: mpsc::Sender<Delivery>,
    may: Box<dyn Fn(SessionId) -> May + Send>,
    /// The session that was allowed last.
    allowed: Option<SessionId>,
    fates: FuturesOrdered<Answer>,
    /// Read from the wire, not yet taken by the queue.
    held: Option<Delivery>,
}

impl Receiving {
    async fn next(&mut self) -> Option<Result<Receipt, Status>> {
        loop {
            let may_read = self.envelopes.is_some() && self.held.is_none() && self.fates.len() < IN_FLIGHT_MAX;
            let envelope = tokio::select! {
                answer = self.fates.next(), if !self.fates.is_empty() => return answer,
                permit = self.queue.reserve(), if self.held.is_some() => {
                    let (Ok(permit), Some(delivery)) = (permit, self.held.take()) else {
                        return Some(Err(Status::unavailable("ingest is gone")));
                    };
                    permit.send(delivery);
                    continue;
                }
                envelope = read(&mut self.envelopes), if may_read => envelope,
                else => return None,
            };
            match envelope {
                Ok(Some(envelope)) => {
                    if let Err(status) = self.take(envelope) {
                        return Some(Err(status));
                    }
                }
                Ok(None) => self.envelopes = None,
                Err(status) => return Some(Err(status)),
            }
        }
    }

    fn take(&mut self, envelope: Envelope) -> Result<(), Status> {
        let (run, session) = (Uuid::from_slice(&envelope.run), Uuid::from_slice(&envelope.session));
        let (Ok(run), Ok(session)) = (run, session) else {
            return Err(Status::invalid_argument("run and session are UUIDs of 16 bytes"));
        };
        let (fate, told) = oneshot::channel();
        let sequence = envelope.sequence;
        if self.allowed != Some(SessionId(session)) {
            match (self.may)(SessionId(session)) {
                May::Yes => self.allowed = Some(SessionId(session)),
                May::No(reason) => {
                    let receipt = Receipt {
                        session: envelope.session,
                        sequence,
                        watermark: 0,
                        refused: reason.to_owned(),
                    };
                    self.fates.push_back(Box::pin(std::future::ready(Ok(receipt))));
                    return Ok(());
                }
                May::NotYet => return Err(Status::unavailable("the owner does not know its sessions yet")),
            }
        }
        self.held = Some(Delivery {
            message: Message {
                run: RunId(run),
                session: SessionId(session),
                sequence,
                payload: envelope.payload,
            },
            fate,
        });
        self.fates.push_back(Box::pin(async move {
            let (watermark, refused) = match told.await {
                Ok(Fate::Stored(watermark)) => (watermark, String::new()),
                Ok(Fate::Refused(reason)) => (0, reason),
                Err(_) => return Err(Status::unavailable("not stored")),
            };
            Ok(Receipt {
                session: envelope.session,
                sequence,
                watermark,
                refused,
            })
        }));
        Ok(())
    }
}

async fn read(envelopes: &mut Option<Streaming<Envelope>>) -> Result<Option<Envelope>, Status> {
    match envelopes {
        Some(envelopes) => envelopes.message().await,
        None => Ok(None),
    }
}
