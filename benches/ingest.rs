//! P6: what one ingest core takes from Kafka, decoded, deduplicated and merged, beside what is only consumed.
//!
//! `bench-ingest [WORKERS] [SECONDS] [NAMES] [ROUNDS]`; brokers as `MUSTER_TEST_KAFKA` says (tests/parts/kafka.sh up). Fills a topic of its
//! own with so many workers' seconds, then reads it from the start in groups of their own, in alternation. Nothing is written to a
//! database: that is P5. CPU is the whole process's, with the client library's threads.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use async_trait::async_trait;
use jiff::Timestamp;
use muster::bus::kafka::{Brokers, KafkaConsumer, KafkaProducer, TopicSpec, ensure_topic};
use muster::bus::{Consumer as _, Fate, Message, Producer as _};
use muster::ingest::ingest;
use muster::runtime::clock::Clock;
use muster::store::rows::{Appended, Flush, RejectRow, SessionRow, SlicePart};
use muster::store::{Result, Results};
use muster_bench::machine::own_cpu;
use muster_bench::{figure, median};
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::key::Key;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Requests of one name in one worker's second, spread over three decades.
const REQUESTS: u64 = 200;
/// Records acknowledged together, as by a worker's uplink.
const BATCH: usize = 64;

/// A store that keeps watermarks only.
struct Sink {
    sessions: Mutex<BTreeMap<SessionId, SessionRow>>,
    /// What the last sequences of all sessions add up to, once all is there.
    wanted: u64,
    done: Notify,
}

impl Sink {
    fn new(run: RunId, workers: u32, last: u64) -> Self {
        let row = |worker| SessionRow {
            run,
            session: session(worker),
            worker,
            watermark: 0,
            end: None,
            dropped: Vec::new(),
        };
        Self {
            sessions: Mutex::new((0..workers).map(|worker| (session(worker), row(worker))).collect()),
            wanted: u64::from(workers) * last,
            done: Notify::new(),
        }
    }
}

#[async_trait]
impl Results for Sink {
    async fn open_run(&self, _: RunId) -> Result<()> {
        Ok(())
    }
    async fn open_session(&self, _: &SessionRow) -> Result<()> {
        Ok(())
    }
    async fn sessions(&self, _: RunId) -> Result<Vec<SessionRow>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sessions.values().cloned().collect())
    }
    async fn append(&self, flush: &Flush) -> Result<Appended> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        for (session, (_, to)) in &flush.watermarks {
            if let Some(row) = sessions.get_mut(session) {
                row.watermark = *to;
            }
        }
        if sessions.values().map(|row| row.watermark).sum::<u64>() == self.wanted {
            self.done.notify_one();
        }
        Ok(Appended::Stored)
    }
    async fn reject(&self, _: RunId, rows: &[RejectRow]) -> Result<()> {
        panic!("refused: {rows:?}");
    }
    async fn rejects(&self, _: RunId) -> Result<Vec<RejectRow>> {
        Ok(Vec::new())
    }
    async fn parts(&self, _: RunId, _: u64, _: u32) -> Result<Vec<(u64, SlicePart)>> {
        Ok(Vec::new())
    }
    async fn seal(&self, _: RunId) -> Result<u64> {
        Ok(0)
    }
    async fn compact(&self, _: RunId) -> Result<()> {
        Ok(())
    }
    async fn is_sealed(&self, _: RunId) -> Result<bool> {
        Ok(false)
    }
    async fn describe_run(&self, _: RunId, _: &Key, _: Timestamp) -> Result<()> {
        Ok(())
    }
    async fn remove_run(&self, _: RunId) -> Result<bool> {
        Ok(true)
    }
}

fn session(worker: u32) -> SessionId {
    SessionId(Uuid::from_u128(1 + u128::from(worker)))
}

/// One worker's second as it travels.
fn message(run: RunId, worker: u32, sequence: u64, names: u32) -> Message {
    let mut second = Second {
        second: u32::try_from(sequence - 1).expect("seconds of a benchmark"),
        ..Second::default()
    };
    for name in 0..names {
        let mut duration = Histogram::new(Precision::Fine);
        for request in 0..REQUESTS {
            // A long tail: 1 ms to 1 s, each worker, second and name a little different.
            let place = request * 7_919 + u64::from(worker) * 104_729 + sequence * 31 + u64::from(name);
            duration.record(1_000_000 + (place % 1_000).pow(3));
        }
        let stats = Stats {
            requests: REQUESTS,
            waiting: Some(duration.clone()),
            duration: Some(duration),
            statuses: BTreeMap::from([(200, REQUESTS)]),
            ..Stats::default()
        };
        let series = SeriesKey {
            phase: "steady".to_owned(),
            scenario: "default".to_owned(),
            name: format!("request-{name:02}"),
        };
        second.entries.insert(series, stats);
    }
    let frame = Frame {
        run,
        session: session(worker),
        worker,
        sequence,
        skipped: 0,
        body: Body::Second(second),
    };
    Message {
        run,
        session: session(worker),
        sequence,
        payload: frame.encode().into(),
    }
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u32>().expect("a number"));
    let mut next = |default| numbers.next().unwrap_or(default);
    let (workers, seconds, names, rounds) = (next(100), next(60), next(20), next(5));
    let servers = std::env::var("MUSTER_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
    let brokers = Brokers {
        bootstrap_servers: vec![servers],
        sasl: None,
        ca: None,
    };
    // One core: what ingest itself does is on this thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let run = RunId(Uuid::now_v7());
        let topic = format!("muster-bench-{}", run.0.simple());
        let spec = TopicSpec {
            name: topic.clone(),
            partitions: 6,
            replication_factor: 3,
            config: BTreeMap::new(),
        };
        ensure_topic(&brokers, &spec)
            .await
            .expect("brokers: tests/parts/kafka.sh up");
        let bytes = fill(&brokers, &topic, run, (workers, seconds, names)).await;
        let frames = f64::from(workers) * f64::from(seconds);
        let entries = frames * f64::from(names);
        let (mut rates, mut cpu, mut raw, mut raw_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (took, used) = consume(&brokers, &topic, &format!("raw-{round}"), frames as u64).await;
            raw.push(entries / took.as_secs_f64());
            raw_cpu.push(used.as_secs_f64() * 1e6 / frames);
            let sink = Arc::new(Sink::new(run, workers, u64::from(seconds)));
            let (took, used) = merge(&brokers, &topic, &format!("ingest-{round}"), sink).await;
            rates.push(entries / took.as_secs_f64());
            cpu.push(used.as_secs_f64() * 1e6 / frames);
        }
        figure("p6_frames", frames, "frames");
        figure("p6_bytes_per_frame", bytes / frames, "bytes");
        figure("p6_merged_entries", median(&mut rates), "1/s");
        figure("p6_cpu_per_frame", median(&mut cpu), "us");
        figure(
            "p6_entries_per_cpu_second",
            f64::from(names) * 1e6 / median(&mut cpu),
            "1/s",
        );
        figure("p6_raw_consumed_entries", median(&mut raw), "1/s");
        figure("p6_raw_cpu_per_frame", median(&mut raw_cpu), "us");
    });
}

/// Sends all frames; returns their bytes before compression.
async fn fill(brokers: &Brokers, topic: &str, run: RunId, (workers, seconds, names): (u32, u32, u32)) -> f64 {
    let mut bytes = 0;
    let mut producer = KafkaProducer::new(brokers.clone(), topic.to_owned());
    let sequences: Vec<u64> = (1..=u64::from(seconds)).collect();
    for worker in 0..workers {
        for batch in sequences.chunks(BATCH) {
            let batch: Vec<Message> = batch
                .iter()
                .map(|sequence| message(run, worker, *sequence, names))
                .collect();
            bytes += batch.iter().map(|message| message.payload.len()).sum::<usize>();
            producer.send(&batch).await.expect("kafka takes it");
        }
    }
    bytes as f64
}

/// Takes all records and looks at none. Time counts from the first.
async fn consume(brokers: &Brokers, topic: &str, group: &str, frames: u64) -> (Duration, Duration) {
    let mut consumer = KafkaConsumer::join(brokers, topic, group).expect("a consumer");
    let (mut begun, mut taken) = (None, 0);
    while taken < frames {
        let batch = consumer.receive(128).await.expect("an open bus");
        begun.get_or_insert_with(|| (Instant::now(), own_cpu()));
        for delivery in batch {
            taken += 1;
            let _ = delivery.fate.send(Fate::Stored(delivery.message.sequence));
        }
    }
    let (at, cpu) = begun.expect("something came");
    let took = (at.elapsed(), own_cpu() - cpu);
    consumer.close().await;
    took
}

/// Takes, decodes, merges; until the last watermark is where it should be. Time counts from the first assignment.
async fn merge(brokers: &Brokers, topic: &str, group: &str, sink: Arc<Sink>) -> (Duration, Duration) {
    let mut consumer = KafkaConsumer::join(brokers, topic, group).expect("a consumer");
    let state = consumer.state();
    let (_handle, intake) = ingest(sink.clone(), Clock::system());
    let stop = CancellationToken::new();
    let work = intake.run(&mut consumer, stop.clone());
    let measured = async {
        while !state().joined {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (at, cpu) = (Instant::now(), own_cpu());
        sink.done.notified().await;
        let took = (at.elapsed(), own_cpu() - cpu);
        stop.cancel();
        took
    };
    let (took, ()) = tokio::join!(measured, work);
    consumer.close().await;
    took
}
