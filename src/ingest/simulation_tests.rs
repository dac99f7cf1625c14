//! Seeded histories of senders, several ingests and a database in which everything goes wrong in turn: messages lost, late, doubled,
//! replayed, sessions moved between ingests, ingests killed or cut off and going on, a database that fails before and after it commits,
//! and a seal at any moment. Time is simulated; a failing seed names itself.
//!
//! `MUSTER_SEEDS=FROM..TO` runs others than the usual ones.

use super::{Ingest, ingest};
use crate::bus::{Delivery, Fate, Message, memory};
use crate::runtime::clock::Clock;
use crate::store::rows::{Appended, Flush, PartOf, RejectRow, SessionRow, SlicePart};
use crate::store::{Results, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::key::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(7));
/// Histories of one `cargo test`: some seconds of an unoptimised build.
const SEEDS: std::ops::Range<u64> = 0..1_500;
/// Faults happen for so long; then everything must come to rest within the second.
const TROUBLE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(600);

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to draw faults from, and the same everywhere.
#[derive(Debug, Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True so many times of a hundred.
    fn percent(&self, share: u64) -> bool {
        self.below(100) < share
    }

    async fn pause(&self, most_ms: u64) {
        sleep(Duration::from_millis(self.below(most_ms + 1))).await;
    }
}

#[derive(Debug, Default)]
struct Tables {
    sessions: BTreeMap<SessionId, SessionRow>,
    parts: Vec<SlicePart>,
    sealed: bool,
}

/// What a database means, without one: the contract suite holds the real ones to the same.
#[derive(Debug, Clone)]
struct Database {
    tables: Arc<Mutex<Tables>>,
    dice: Dice,
    quiet_from: Instant,
}

impl Database {
    fn new(dice: &Dice) -> Self {
        Self {
            tables: Arc::default(),
            dice: dice.clone(),
            quiet_from: Instant::now() + TROUBLE,
        }
    }

    async fn open(&self, sent: &[Arc<Sent>]) {
        for (worker, sent) in (0..).zip(sent) {
            let row = SessionRow {
                run: RUN,
                session: sent.session,
                worker,
                watermark: 0,
                end: None,
                dropped: Vec::new(),
            };
            self.open_session(&row).await.unwrap();
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    /// Takes its time; sometimes it is away.
    async fn fate(&self, away: u64) -> Result<(), StoreError> {
        let slow = if self.dice.percent(3) { 15_000 } else { 40 };
        self.dice.pause(slow).await;
        if Instant::now() < self.quiet_from && self.dice.percent(away) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        Ok(())
    }
}

fn commit(tables: &mut Tables, flush: &Flush) -> Appended {
    if tables.sealed {
        return Appended::Late;
    }
    let stands = |session: &SessionId| tables.sessions.get(session).map(|row| row.watermark);
    if !flush
        .watermarks
        .iter()
        .all(|(session, (from, _))| stands(session) == Some(*from))
    {
        return Appended::Moved;
    }
    tables.parts.extend(flush.parts.iter().cloned());
    for (session, (_, to)) in &flush.watermarks {
        tables.sessions.get_mut(session).unwrap().watermark = *to;
    }
    for (session, (last, dropped)) in &flush.ends {
        let row = tables.sessions.get_mut(session).unwrap();
        (row.end, row.dropped) = (Some(*last), dropped.clone());
    }
    Appended::Stored
}

#[async_trait]
impl Results for Database {
    async fn open_run(&self, _: RunId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn open_session(&self, row: &SessionRow) -> Result<(), StoreError> {
        self.tables().sessions.insert(row.session, row.clone());
        Ok(())
    }

    async fn sessions(&self, _: RunId) -> Result<Vec<SessionRow>, StoreError> {
        self.fate(20).await?;
        Ok(self.tables().sessions.values().cloned().collect())
    }

    async fn append(&self, flush: &Flush) -> Result<Appended, StoreError> {
        self.fate(15).await?;
        // Detached: a commit on its way arrives also when nobody waits for it any more.
        let (database, flush) = (self.clone(), flush.clone());
        let late = self.dice.percent(10);
        let work = tokio::spawn(async move {
            if late {
                database.dice.pause(12_000).await;
            }
            commit(&mut database.tables(), &flush)
        });
        let appended = work.await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // The answer is lost.
        self.fate(15).await?;
        Ok(appended)
    }

    async fn reject(&self, _: RunId, _: &[RejectRow]) -> Result<(), StoreError> {
        self.fate(10).await
    }

    async fn rejects(&self, _: RunId) -> Result<Vec<RejectRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn parts(&self, _: RunId, _: u64, _: u32) -> Result<Vec<(u64, SlicePart)>, StoreError> {
        Ok((1..).zip(self.tables().parts.iter().cloned()).collect())
    }

    async fn seal(&self, _: RunId) -> Result<u64, StoreError> {
        self.fate(10).await?;
        self.tables().sealed = true;
        Ok(0)
    }

    async fn compact(&self, _: RunId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn is_sealed(&self, _: RunId) -> Result<bool, StoreError> {
        Ok(self.tables().sealed)
    }
    async fn describe_run(&self, _: RunId, _: &Key, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("nobody looks at dashboards here")
    }
    async fn remove_run(&self, _: RunId) -> Result<bool, StoreError> {
        unreachable!("the run is kept")
    }
}

/// One ingest process.
struct Node {
    handle: Ingest,
    queue: mpsc::Sender<Delivery>,
    task: JoinHandle<()>,
}

impl Node {
    fn start(database: &Database, clock: &Clock) -> Self {
        let (queue, mut consumer) = memory::queue(32);
        let (handle, intake) = ingest(Arc::new(database.clone()), clock.clone());
        let task = tokio::spawn(async move { intake.run(&mut consumer, CancellationToken::new()).await });
        Self { handle, queue, task }
    }
}

/// What one worker made, and where its sender stands.
struct Sent {
    session: SessionId,
    messages: Vec<Message>,
    dropped: Vec<(u64, u64)>,
    last: u64,
}

fn sent(worker: u32, dice: &Dice) -> Sent {
    let session = SessionId(Uuid::from_u128(100 + u128::from(worker)));
    let last = 2 + dice.below(25);
    let (mut messages, mut dropped, mut skipped) = (Vec::new(), Vec::<(u64, u64)>::new(), 0);
    for sequence in 1..=last {
        if sequence < last && dice.percent(8) {
            skipped += 1;
            match dropped.last_mut() {
                Some(range) if range.1 + 1 == sequence => range.1 = sequence,
                _ => dropped.push((sequence, sequence)),
            }
            continue;
        }
        let body = if sequence == last {
            Body::End {
                last_sequence: last,
                dropped: dropped.clone(),
            }
        } else {
            Body::Second(second(sequence))
        };
        let frame = Frame {
            run: RUN,
            session,
            worker,
            sequence,
            skipped,
            body,
        };
        skipped = 0;
        messages.push(Message {
            run: RUN,
            session,
            sequence,
            payload: frame.encode().into(),
        });
    }
    Sent {
        session,
        messages,
        dropped,
        last,
    }
}

fn second(sequence: u64) -> Second {
    let mut second = Second {
        second: u32::try_from(sequence - 1).unwrap(),
        ..Second::default()
    };
    let series = SeriesKey {
        phase: "peak".to_owned(),
        scenario: "default".to_owned(),
        name: "home".to_owned(),
    };
    let stats = Stats {
        requests: sequence * 1_000 + 1,
        ..Stats::default()
    };
    second.entries.insert(series, stats);
    second
}

/// The way from a spool to whichever ingest has the session just then.
struct Way {
    routes: Arc<Mutex<Vec<mpsc::Sender<Delivery>>>>,
    database: Database,
    dice: Dice,
}

impl Way {
    /// Sends until the run takes nothing more or all is stored.
    async fn run(self, sent: Arc<Sent>) {
        let mut stored = 0;
        while stored < sent.last {
            let first = sent.messages.partition_point(|message| message.sequence <= stored);
            // A partition that moves is read again from where its commit stood.
            let first = if self.dice.percent(15) {
                first.saturating_sub(3)
            } else {
                first
            };
            let queue = {
                let routes = self.routes.lock().unwrap();
                routes[usize::try_from(self.dice.below(routes.len() as u64)).unwrap()].clone()
            };
            let batch = &sent.messages[first..sent.messages.len().min(first + 1 + self.dice.below(6) as usize)];
            let work = timeout(Duration::from_secs(30), self.send(&queue, batch));
            match work.await {
                Ok(Some(Ok(watermark))) => {
                    stored = stored.max(watermark);
                    let row = self.database.tables().sessions[&sent.session].watermark;
                    assert!(watermark <= row, "acknowledged up to {watermark}, stored up to {row}");
                }
                Ok(Some(Err(reason))) => {
                    let sealed = self.database.tables().sealed;
                    assert!(sealed, "refused while the run is open: {reason}");
                    return;
                }
                _ => self.dice.pause(500).await,
            }
        }
    }

    /// The watermark, or the refusal; `None`: unknown.
    async fn send(&self, queue: &mpsc::Sender<Delivery>, batch: &[Message]) -> Option<Result<u64, String>> {
        let trouble = Instant::now() < self.database.quiet_from;
        let mut fates = Vec::new();
        for message in batch {
            let copies = match self.dice.below(if trouble { 100 } else { 1 }) {
                90..95 => 0,
                95.. => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let (fate, told) = oneshot::channel();
                let message = message.clone();
                queue.send(Delivery { message, fate }).await.ok()?;
                fates.push(told);
            }
            if copies == 0 {
                // Lost: its sender never hears of it.
                fates.push(oneshot::channel().1);
            }
            if trouble && self.dice.percent(20) {
                self.dice.pause(700).await;
            }
        }
        let mut watermark = 0;
        for told in fates {
            match told.await {
                Ok(Fate::Stored(stored)) => watermark = watermark.max(stored),
                Ok(Fate::Refused(reason)) => return Some(Err(reason)),
                Err(_) => return None,
            }
        }
        Some(Ok(watermark))
    }
}

async fn history(seed: u64) {
    let dice = Dice::new(seed);
    let clock = Clock::following("2026-01-01T00:00:00Z".parse().unwrap());
    let database = Database::new(&dice);
    let sent: Vec<Arc<Sent>> = (0..1 + dice.below(4) as u32)
        .map(|worker| Arc::new(sent(worker, &dice)))
        .collect();
    database.open(&sent).await;
    let mut nodes: Vec<Node> = (0..1 + dice.below(3)).map(|_| Node::start(&database, &clock)).collect();
    let routes = Arc::new(Mutex::new(
        nodes.iter().map(|node| node.queue.clone()).collect::<Vec<_>>(),
    ));
    let mut senders = JoinSet::new();
    for sent in &sent {
        let way = Way {
            routes: routes.clone(),
            database: database.clone(),
            dice: dice.clone(),
        };
        senders.spawn(way.run(sent.clone()));
    }
    let seals_at = dice.percent(30).then(|| Duration::from_millis(dice.below(20_000)));
    let sealing = async {
        let Some(at) = seals_at else { return };
        sleep(at).await;
        while database.seal(RUN).await.is_err() {
            dice.pause(500).await;
        }
    };
    let breaking = async {
        while Instant::now() < database.quiet_from {
            dice.pause(6_000).await;
            let victim = usize::try_from(dice.below(nodes.len() as u64)).unwrap();
            let fresh = Node::start(&database, &clock);
            routes.lock().unwrap()[victim] = fresh.queue.clone();
            let old = std::mem::replace(&mut nodes[victim], fresh);
            if dice.percent(60) {
                old.task.abort();
            }
            // Else it is cut off and goes on with what it holds.
        }
    };
    let all = async {
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
    };
    timeout(TROUBLE + REST, async { tokio::join!(sealing, breaking, all) })
        .await
        .expect("everything comes to rest");
    if seals_at.is_none() {
        let deadline = Instant::now() + REST;
        while nodes[0].handle.seal(RUN, deadline).await.is_err() {}
    }
    // A commit on its way, and a zombie's last one, must change nothing any more.
    sleep(Duration::from_secs(60)).await;
    check(&database.tables(), &sent, seals_at.is_none());
}

/// What is stored is what was sent, up to each watermark, once.
fn check(tables: &Tables, sent: &[Arc<Sent>], whole: bool) {
    let mut requests: BTreeMap<u32, u64> = BTreeMap::new();
    let mut seconds: BTreeSet<(u32, u32)> = BTreeSet::new();
    for part in &tables.parts {
        match part.what {
            PartOf::Series(_) => {
                *requests.entry(part.second).or_default() += Stats::decode(&part.data).unwrap().requests;
            }
            PartOf::Worker(worker) => assert!(
                seconds.insert((worker, part.second)),
                "second {} of worker {worker} is stored twice",
                part.second
            ),
        }
    }
    let (mut expected, mut expected_seconds) = (BTreeMap::<u32, u64>::new(), BTreeSet::new());
    for (worker, sent) in (0_u32..).zip(sent) {
        let row = &tables.sessions[&sent.session];
        if whole {
            let stands = (row.watermark, row.end, &row.dropped);
            assert_eq!(stands, (sent.last, Some(sent.last), &sent.dropped));
        }
        for message in &sent.messages {
            if message.sequence <= row.watermark && message.sequence < sent.last {
                let second = u32::try_from(message.sequence - 1).unwrap();
                *expected.entry(second).or_default() += message.sequence * 1_000 + 1;
                expected_seconds.insert((worker, second));
            }
        }
    }
    assert_eq!(requests, expected);
    assert_eq!(seconds, expected_seconds);
}

#[test]
fn s49_no_history_loses_or_doubles_a_frame() {
    let seeds = std::env::var("MUSTER_SEEDS").ok().map_or(SEEDS, |text| {
        let (from, to) = text.split_once("..").unwrap();
        from.parse().unwrap()..to.parse().unwrap()
    });
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let work = std::panic::AssertUnwindSafe(|| runtime.block_on(history(seed)));
        if std::panic::catch_unwind(work).is_err() {
            panic!("seed {seed}: run it alone with MUSTER_SEEDS={seed}..{}", seed + 1);
        }
    }
}
