//! Ingest's end: a member of a consumer group whose commits trail what became of each message.
//!
//! A task of its own polls the client library, which must go on under back-pressure too: who does not poll is thrown out of the group.
//! It hands messages to ingest through a bounded queue, and hears each one's fate. A message nobody stored is read again, and everything
//! after it in its partition. Nothing here waits for a database.

use super::partitions::{Partitions, Place};
use super::{Brokers, BrokersError, log, read};
use crate::bus::{Consumer, Delivery, Fate};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Room of the queue to ingest. Small, because each may be of the largest size.
const QUEUE: usize = 32;
/// Messages without a fate, at most: several flushes of an ingest at full speed.
const IN_FLIGHT_MAX: usize = 16_384;
/// How often Kafka is told how far we are. What a killed ingest had stored since then is read once more, and recognised.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Pause before something is read again: whoever could not store it needs some time.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Ingest may hold us up for so long without a poll; then partitions are paused, and polls go on. Pausing throws away what was fetched
/// ahead, so it is not done for a moment.
const UNPOLLED_MAX: Duration = Duration::from_secs(3);
/// A member that is not heard for so long is dead, and its partitions go to others. Above what brokers allow at least (6 s).
const SESSION_TIMEOUT_MS: &str = "10000";
const HEARTBEAT_MS: &str = "2000";
/// A member that does not poll for so long is stuck.
const POLL_MAX_MS: &str = "60000";
/// Fetched ahead, in KiB: seconds of a busy topic.
const FETCHED_KBYTES: &str = "16384";
const STATISTICS_MS: &str = "5000";
/// At the end, so much time to commit and to leave the group.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// How a consumer is doing, as the last polls and statistics say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// Whether the group has given it its share, which may be nothing.
    pub joined: bool,
    /// Partitions it reads.
    pub partitions: usize,
    /// Records in them that are not committed yet; `None`: not known yet.
    pub lag: Option<u64>,
    /// Messages handed out and without a fate.
    pub in_flight: usize,
    /// Whether it reads nothing for now, because nobody takes what it has read.
    pub paused: bool,
}

/// A member of a group that reads a topic. Dropped, it leaves the group by itself; [`KafkaConsumer::close`] waits for that.
pub struct KafkaConsumer {
    deliveries: mpsc::Receiver<Delivery>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    partitions: Mutex<Partitions>,
    joined: AtomicBool,
    /// Partitions came or went since somebody looked.
    changed: AtomicBool,
    paused: AtomicBool,
    lag: AtomicI64,
    in_flight: AtomicUsize,
}

impl Shared {
    fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn state(&self) -> ConsumerState {
        ConsumerState {
            joined: self.joined.load(Ordering::Relaxed),
            partitions: self.partitions().owned().count(),
            lag: u64::try_from(self.lag.load(Ordering::Relaxed)).ok(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            paused: self.paused.load(Ordering::Relaxed),
        }
    }
}

/// What the client library calls from within polls.
struct Context {
    topic: String,
    shared: Arc<Shared>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka");
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let owned: Vec<i32> = self.shared.partitions().owned().collect();
        let lags = owned
            .iter()
            .filter_map(|id| topic.partitions.get(id))
            .map(|partition| partition.consumer_lag);
        // -1: not known.
        let lag = lags.map(|lag| lag.max(0)).sum();
        self.shared.lag.store(lag, Ordering::Relaxed);
        metrics::gauge!("muster_ingest_lag_records").set(lag as f64);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            // For the next owner's sake, who would otherwise read more of it again.
            let grown = self.shared.partitions().take_grown();
            commit(consumer, &self.topic, &grown);
            self.shared.partitions().revoke(ids(list));
            self.changed("taken away", list);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.shared.partitions().assign(ids(list));
            self.shared.joined.store(true, Ordering::Relaxed);
            self.changed("given", list);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Nothing depends on it: what is read again is recognised.
            tracing::debug!(%error, "kafka did not take a commit");
            self.shared.partitions().not_committed(ids(offsets));
        }
    }
}

impl Context {
    fn changed(&self, what: &str, list: &TopicPartitionList) {
        self.shared.changed.store(true, Ordering::Relaxed);
        let owned = self.shared.partitions().owned().count();
        tracing::info!(partitions = ?ids(list).collect::<Vec<_>>(), owned, "partitions were {what}");
        metrics::gauge!("muster_ingest_partitions").set(owned as f64);
    }
}

fn ids(list: &TopicPartitionList) -> impl Iterator<Item = i32> {
    let ids: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    ids.into_iter()
}

fn commit(consumer: &impl rdkafka::consumer::Consumer<Context>, topic: &str, offsets: &[(i32, i64)]) {
    let Some(list) = positions(topic, offsets) else { return };
    if let Err(error) = consumer.commit(&list, CommitMode::Async) {
        tracing::debug!(%error, "kafka did not take a commit");
        consumer.context().shared.partitions().not_committed(ids(&list));
    }
}

fn positions(topic: &str, offsets: &[(i32, i64)]) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .ok()?;
    }
    (list.count() > 0).then_some(list)
}

impl KafkaConsumer {
    /// Joins a group that reads a topic. Brokers that are away are waited for.
    ///
    /// # Errors
    /// When the settings are none.
    pub fn join(brokers: &Brokers, topic: &str, group: &str) -> Result<Self, BrokersError> {
        let shared = Arc::new(Shared {
            partitions: Mutex::default(),
            joined: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            lag: AtomicI64::new(-1),
            in_flight: AtomicUsize::new(0),
        });
        let context = Context {
            topic: topic.to_owned(),
            shared: shared.clone(),
        };
        let failed = |error: KafkaError| BrokersError::Settings(error.to_string());
        let consumer: StreamConsumer<Context> = brokers
            .config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A new group reads what there is. One whose place Kafka has deleted goes on with the oldest that is left; ingest finds
            // the hole by the sessions' sequences, so `error` would stop it and save nothing.
            .set("auto.offset.reset", "earliest")
            // Only partitions that move are disturbed when a member comes or goes.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT_MS)
            .set("heartbeat.interval.ms", HEARTBEAT_MS)
            .set("max.poll.interval.ms", POLL_MAX_MS)
            .set("queued.max.messages.kbytes", FETCHED_KBYTES)
            .set("statistics.interval.ms", STATISTICS_MS)
            .set("check.crcs", "true")
            .create_with_context(context)
            .map_err(failed)?;
        consumer.subscribe(&[topic]).map_err(failed)?;
        let (out, deliveries) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let pump = Pump {
            consumer: Arc::new(consumer),
            topic: topic.to_owned(),
            shared: shared.clone(),
            out,
            held: VecDeque::new(),
            fates: FuturesUnordered::new(),
            read_again_at: None,
            stuck_since: None,
        };
        let task = tokio::spawn(pump.run(stop.clone()));
        Ok(Self {
            deliveries,
            shared,
            stop,
            task,
        })
    }

    /// How it is doing.
    pub fn state(&self) -> impl Fn() -> ConsumerState + Clone + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.state()
    }

    /// Commits what is stored and leaves the group, so that others take over at once. Bounded.
    pub async fn close(mut self) {
        self.stop.cancel();
        if timeout(LEAVE_MAX, &mut self.task).await.is_err() {
            tracing::warn!("could not leave the group in time; it will notice");
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let mut batch = Vec::new();
        match self.deliveries.recv_many(&mut batch, max.max(1)).await {
            0 => None,
            _ => Some(batch),
        }
    }
}

/// The task between the client library and the queue.
struct Pump {
    consumer: Arc<StreamConsumer<Context>>,
    topic: String,
    shared: Arc<Shared>,
    out: mpsc::Sender<Delivery>,
    /// Read, not yet taken by the queue.
    held: VecDeque<Delivery>,
    fates: FuturesUnordered<BoxFuture<'static, (Place, Option<Fate>)>>,
    read_again_at: Option<Instant>,
    /// Since when nothing more could be taken.
    stuck_since: Option<Instant>,
}

impl Pump {
    async fn run(mut self, stop: CancellationToken) {
        let consumer = self.consumer.clone();
        let mut records = consumer.stream();
        let out = self.out.clone();
        let mut tick = interval(COMMIT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_full = !self.held.is_empty() || self.fates.len() >= IN_FLIGHT_MAX;
            self.mind_pressure(is_full);
            let again_at = self.read_again_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((place, fate)) = self.fates.next() => self.told(place, fate),
                permit = out.reserve(), if !self.held.is_empty() => match (permit, self.held.pop_front()) {
                    (Ok(permit), Some(delivery)) => permit.send(delivery),
                    // Ingest is gone.
                    _ => break,
                },
                () = sleep_until(again_at), if self.read_again_at.is_some() => self.read_again(),
                _ = tick.tick() => self.commit(),
                record = records.next(), if !is_full || self.shared.paused.load(Ordering::Relaxed) => match record {
                    Some(Ok(record)) => self.take(record.partition(), record.offset(), || read(&record)),
                    Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                        tracing::error!(%code, "kafka lets us read no more");
                        break;
                    }
                    Some(Err(error)) => tracing::warn!(%error, "kafka"),
                    None => break,
                },
            }
        }
        drop(records);
        drop(consumer);
        self.leave().await;
    }

    fn take(&mut self, partition: i32, offset: i64, message: impl FnOnce() -> crate::bus::Message) {
        let Some(place) = self.shared.partitions().hand_out(partition, offset) else {
            return;
        };
        let (fate, told) = oneshot::channel();
        self.fates.push(told.map(move |fate| (place, fate.ok())).boxed());
        self.shared.in_flight.store(self.fates.len(), Ordering::Relaxed);
        let message = message();
        self.held.push_back(Delivery { message, fate });
    }

    fn told(&mut self, place: Place, fate: Option<Fate>) {
        self.shared.in_flight.store(self.fates.len(), Ordering::Relaxed);
        let is_ours = self.shared.partitions().told(place, fate.is_some());
        if is_ours && fate.is_none() && self.read_again_at.is_none() {
            self.read_again_at = Some(Instant::now() + READ_AGAIN_AFTER);
        }
    }

    fn read_again(&mut self) {
        self.read_again_at = None;
        let again = self.shared.partitions().read_again();
        for (partition, offset) in again {
            tracing::info!(partition, offset, "reading again what could not be stored");
            // Without waiting: what was fetched before is thrown away from now on.
            if let Err(error) = self
                .consumer
                .seek(&self.topic, partition, Offset::Offset(offset), Duration::ZERO)
            {
                // Taken away in the meantime: the next owner reads it.
                tracing::warn!(partition, %error, "cannot read again");
            }
        }
    }

    fn commit(&mut self) {
        let grown = self.shared.partitions().take_grown();
        commit(self.consumer.as_ref(), &self.topic, &grown);
    }

    /// Pauses all partitions when nothing could be taken for long, so that polling can go on; and resumes them. Also when partitions
    /// came or went: the client library keeps a partition paused that was taken away in that state, and comes back.
    fn mind_pressure(&mut self, is_full: bool) {
        let is_stuck = match is_full {
            true => self.stuck_since.get_or_insert_with(Instant::now).elapsed() >= UNPOLLED_MAX,
            false => {
                self.stuck_since = None;
                false
            }
        };
        let has_moved = self.shared.changed.swap(false, Ordering::Relaxed);
        let was_paused = self.shared.paused.swap(is_stuck, Ordering::Relaxed);
        if was_paused != is_stuck {
            tracing::info!(paused = is_stuck, "reading what nobody takes is paused, or goes on");
        }
        match (has_moved || was_paused != is_stuck, is_stuck) {
            (true, true) => self.all_partitions("paused", |consumer, list| consumer.pause(list)),
            (true, false) => self.all_partitions("resumed", |consumer, list| consumer.resume(list)),
            (false, _) => {}
        }
    }

    fn all_partitions(
        &self,
        what: &str,
        work: impl FnOnce(&StreamConsumer<Context>, &TopicPartitionList) -> KafkaResult<()>,
    ) {
        let mut list = TopicPartitionList::new();
        for partition in self.shared.partitions().owned() {
            list.add_partition(&self.topic, partition);
        }
        if let Err(error) = work(&self.consumer, &list) {
            tracing::warn!(%error, "partitions cannot be {what}");
        }
    }

    /// Commits what has a fate by now, and says goodbye.
    async fn leave(mut self) {
        while let Some(Some((place, fate))) = self.fates.next().now_or_never() {
            self.told(place, fate);
        }
        let grown = self.shared.partitions().take_grown();
        let (consumer, topic) = (self.consumer, self.topic);
        let work = move || {
            if let Some(list) = positions(&topic, &grown)
                && let Err(error) = consumer.commit(&list, CommitMode::Sync)
            {
                tracing::debug!(%error, "kafka did not take the last commit");
            }
            // Leaves the group, and waits for it.
            drop(consumer);
        };
        let _ = spawn_blocking(work).await;
    }
}
