//! The bus within one process: a bounded channel.

use super::{BusError, Consumer, Delivery, Fate, Message, Producer, check_size};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

/// A bus that holds at most `capacity` messages nobody has received yet.
pub fn bus(capacity: usize) -> (MemoryProducer, Deliveries) {
    let (sender, receiver) = mpsc::channel(capacity);
    (MemoryProducer { sender }, Deliveries { receiver })
}

/// The queue between whatever brings messages into a process and ingest.
#[derive(Debug)]
pub struct Deliveries {
    receiver: mpsc::Receiver<Delivery>,
}

/// A bounded queue: its writing end for an adapter's server, its reading end for ingest.
pub fn queue(capacity: usize) -> (mpsc::Sender<Delivery>, Deliveries) {
    let (sender, receiver) = mpsc::channel(capacity);
    (sender, Deliveries { receiver })
}

#[async_trait]
impl Consumer for Deliveries {
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let mut batch = Vec::new();
        match self.receiver.recv_many(&mut batch, max.max(1)).await {
            0 => None,
            _ => Some(batch),
        }
    }
}

/// A worker's end of the bus within one process.
#[derive(Debug, Clone)]
pub struct MemoryProducer {
    sender: mpsc::Sender<Delivery>,
}

#[async_trait]
impl Producer for MemoryProducer {
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError> {
        check_size(messages)?;
        let work = async {
            let mut fates = Vec::with_capacity(messages.len());
            for message in messages {
                let (fate, told) = oneshot::channel();
                let message = message.clone();
                let sequence = message.sequence;
                self.sender
                    .send(Delivery { message, fate })
                    .await
                    .map_err(|_| closed("ingest is gone"))?;
                fates.push((sequence, told));
            }
            let mut watermark = 0;
            for (sequence, told) in fates {
                match told.await {
                    Ok(Fate::Stored(stored)) => watermark = watermark.max(stored),
                    Ok(Fate::Refused(reason)) => return Err(BusError::Refused { sequence, reason }),
                    Err(_) => return Err(closed("not stored")),
                }
            }
            Ok(watermark)
        };
        tokio::time::timeout(super::direct::STORED_DEADLINE, work)
            .await
            .unwrap_or_else(|_| Err(closed("not stored within the deadline")))
    }
}

fn closed(reason: &str) -> BusError {
    BusError::Unavailable(reason.to_owned())
}
