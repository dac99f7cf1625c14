//! A worker's end: idempotent, acknowledged by all replicas that are in sync, one partition for a session.
//!
//! An idempotent producer's records arrive in order and without holes, whatever brokers do, as long as it does not give up a single one
//! of them. So records have no deadline of their own: when a batch has not arrived in time, the whole producer is thrown away, and the next
//! one sends the batch from its start. What of it arrived before is a repeat, which ingest knows.

use super::{ASK_DEADLINE, Brokers, BrokersError, RECORD_MAX_BYTES, REQUEST_TIMEOUT_MS, Told, headers, key};
use crate::bus::direct::STORED_DEADLINE;
use crate::bus::{BusError, Message, Producer, check_size};
use async_trait::async_trait;
use muster_core::base::chain::chain;
use muster_core::model::id::SessionId;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use std::collections::VecDeque;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// Records handed to the client library that may wait there. The spool sends less at a time.
const QUEUE_MESSAGES: &str = "1024";
/// And their bytes, in KiB: some of the largest.
const QUEUE_KBYTES: &str = "32768";
/// Records that come within so many milliseconds of each other travel and are compressed together.
const LINGER_MS: &str = "5";

/// Sends to a topic. Connects when it is first used, and anew after any failure.
pub struct KafkaProducer {
    brokers: Brokers,
    topic: String,
    open: Option<Open>,
    /// Where the session's records go. It stays, also when the topic gets more partitions: ingest reads a session in order.
    place: Option<(SessionId, i32)>,
}

struct Open {
    client: FutureProducer<Told>,
    told: Told,
    partitions: i32,
}

impl KafkaProducer {
    /// A producer that is not connected yet.
    pub fn new(brokers: Brokers, topic: String) -> Self {
        Self {
            brokers,
            topic,
            open: None,
            place: None,
        }
    }

    async fn open(&self) -> Result<Open, BrokersError> {
        let told = Told::default();
        let client: FutureProducer<Told> = self
            .brokers
            .config()
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("request.timeout.ms", REQUEST_TIMEOUT_MS)
            .set("message.timeout.ms", "0")
            .set("compression.type", "zstd")
            .set("linger.ms", LINGER_MS)
            .set("message.max.bytes", RECORD_MAX_BYTES.to_string())
            .set("queue.buffering.max.messages", QUEUE_MESSAGES)
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
            .create_with_context(told.clone())
            .map_err(|error| BrokersError::Settings(error.to_string()))?;
        let (asked, topic) = (client.clone(), self.topic.clone());
        let metadata = spawn_blocking(move || asked.client().fetch_metadata(Some(&topic), ASK_DEADLINE))
            .await
            .map_err(|error| BrokersError::Settings(error.to_string()))?
            .map_err(|error| self.brokers.unreachable(&error, &told))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        match i32::try_from(partitions) {
            Ok(partitions @ 1..) => Ok(Open {
                client,
                told,
                partitions,
            }),
            _ => Err(BrokersError::NoTopic {
                servers: self.brokers.servers(),
                topic: self.topic.clone(),
            }),
        }
    }

    /// The session's partition: any, but the same one as long as it sends.
    fn partition(&mut self, session: SessionId, partitions: i32) -> i32 {
        match self.place {
            Some((known, partition)) if known == session => partition,
            _ => {
                // The last bits of a UUID are random.
                let spread = session.0.as_u128() % u128::from(partitions.unsigned_abs().max(1));
                let partition = i32::try_from(spread).unwrap_or(0);
                self.place = Some((session, partition));
                partition
            }
        }
    }
}

impl Open {
    async fn send(&self, topic: &str, partition: i32, messages: &[Message]) -> Result<(), BusError> {
        let mut arriving: VecDeque<DeliveryFuture> = VecDeque::new();
        for message in messages {
            let key = key(message.run, message.session);
            let record = FutureRecord::to(topic)
                .partition(partition)
                .key(&key[..])
                .payload(&message.payload[..])
                .headers(headers(message.sequence));
            let mut next = Some(record);
            while let Some(record) = next.take() {
                match self.client.send_result(record) {
                    Ok(future) => arriving.push_back(future),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                        // There is room again when the oldest has arrived.
                        self.arrived(arriving.pop_front()).await?;
                        next = Some(record);
                    }
                    Err((error, _)) => return Err(self.failed(&error)),
                }
            }
        }
        while let Some(future) = arriving.pop_front() {
            self.arrived(Some(future)).await?;
        }
        Ok(())
    }

    async fn arrived(&self, future: Option<DeliveryFuture>) -> Result<(), BusError> {
        match future {
            Some(future) => match future.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(self.failed(&error)),
                Err(_) => Err(BusError::Unavailable("kafka's client ended".to_owned())),
            },
            None => Err(BusError::Unavailable("the client's queue takes nothing".to_owned())),
        }
    }

    fn failed(&self, error: &KafkaError) -> BusError {
        let last = self.told.last().map(|last| format!(" ({last})")).unwrap_or_default();
        BusError::Unavailable(format!("kafka: {error}{last}"))
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError> {
        check_size(messages)?;
        let Some(last) = messages.last() else { return Ok(0) };
        let deadline = Instant::now() + STORED_DEADLINE;
        let open = match self.open.take() {
            Some(open) => open,
            None => self
                .open()
                .await
                .map_err(|error| BusError::Unavailable(chain(&error)))?,
        };
        let partition = self.partition(last.session, open.partitions);
        let sent = timeout_at(deadline, open.send(&self.topic, partition, messages)).await;
        let result = sent.unwrap_or_else(|_| {
            let last = open.told.last().unwrap_or_else(|| "no reason told".to_owned());
            Err(BusError::Unavailable(format!(
                "kafka has not acknowledged within the deadline: {last}"
            )))
        });
        match result {
            Ok(()) => {
                self.open = Some(open);
                Ok(last.sequence)
            }
            Err(error) => {
                drop(spawn_blocking(move || open.end()));
                Err(error)
            }
        }
    }
}

impl Open {
    /// Gives up what is under way. Waits for threads, so it stands apart.
    fn end(self) {
        self.client.purge(PurgeConfig::default().queue().inflight());
    }
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "KafkaProducer({}, {})", self.brokers.servers(), self.topic)
    }
}
