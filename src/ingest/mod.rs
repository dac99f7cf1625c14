//! Takes frames from a bus, merges them, stores them, and only then says so (promises 48 to 50).

mod accept;
mod flush;
mod reject;
mod seal;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

pub use seal::Sealed;

use crate::bus::{Consumer, Delivery, Fate};
use crate::runtime::clock::Clock;
use crate::store::rows::{Appended, SlicePart};
use crate::store::{Results, StoreError};
use accept::{Known, Verdict};
use flush::{Batch, Closed};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use muster_core::model::id::RunId;
use reject::Rejects;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How often what came is stored: half of a frame's second, so that a live view is never two seconds behind.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// A batch of so many frames is stored at once.
const FLUSH_FRAMES: usize = 512;
/// And one of so many bytes, encoded: some of the largest frames.
const FLUSH_BYTES: usize = 16 << 20;
/// Messages taken from the bus at a time.
const RECEIVE_MAX: usize = 128;
/// What ingest holds unstored, encoded, if it is of two runs; beyond twice this nothing is taken from the bus. Frames then stay in
/// the workers' spools. Over a minute of a hundred workers with 20 kB a frame.
const HELD_MAX_BYTES: usize = 128 << 20;
/// A database call that takes longer is given up and tried again; that it was done meanwhile is then found by reading.
const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after the database failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// At the end, so much time to store what is held; the rest comes again from the spools.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// The group of those that are started by hand, unless they are told another.
pub const DEFAULT_GROUP: &str = "muster";

/// What others may ask of ingest. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    results: Arc<dyn Results>,
    clock: Clock,
    /// Merged and not stored yet, oldest first.
    held: Mutex<VecDeque<Arc<Closed>>>,
    /// Runs with frames that are not even merged.
    open: Mutex<BTreeMap<RunId, usize>>,
    flush_now: Notify,
    /// Runs that are over.
    sealed: Mutex<Vec<RunId>>,
}

/// The loop: run it once.
pub struct Intake {
    shared: Arc<Shared>,
    known: Known,
    open: BTreeMap<RunId, Batch>,
    next_flush: Option<Instant>,
    /// Runs whose database failed just now. Each run may have another one, so each waits by itself.
    retry_at: BTreeMap<RunId, Instant>,
    unreadable_until: BTreeMap<RunId, Instant>,
    /// At most one batch of each run, its oldest.
    appending: FuturesUnordered<BoxFuture<'static, (RunId, Result<Appended, StoreError>)>>,
    appended_runs: BTreeSet<RunId>,
    rejects: Rejects,
}

/// Ingest into a results store: the handle and the loop.
pub fn ingest(results: Arc<dyn Results>, clock: Clock) -> (Ingest, Intake) {
    let shared = Arc::new(Shared {
        results,
        clock,
        held: Mutex::default(),
        open: Mutex::default(),
        flush_now: Notify::new(),
        sealed: Mutex::default(),
    });
    let intake = Intake {
        shared: shared.clone(),
        known: Known::default(),
        open: BTreeMap::new(),
        next_flush: None,
        retry_at: BTreeMap::new(),
        unreadable_until: BTreeMap::new(),
        appending: FuturesUnordered::new(),
        appended_runs: BTreeSet::new(),
        rejects: Rejects::default(),
    };
    (Ingest { shared }, intake)
}

impl Ingest {
    /// Parts of a run that came and are not stored yet: what there is to judge while the database is down (promise 44). A part
    /// may be stored in the moment between this call and the next read of the store.
    pub fn held(&self, run: RunId) -> Vec<SlicePart> {
        let held = self.shared.held();
        held.iter()
            .filter(|closed| closed.flush.run == run)
            .flat_map(|closed| closed.flush.parts.iter().cloned())
            .collect()
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, VecDeque<Arc<Closed>>> {
        lock(&self.held)
    }

    fn holds(&self, run: RunId) -> bool {
        self.held().iter().any(|closed| closed.flush.run == run) || lock(&self.open).contains_key(&run)
    }

    fn held_bytes(&self) -> usize {
        self.held().iter().map(|closed| closed.bytes).sum()
    }

    fn held_bytes_of(&self, run: RunId) -> usize {
        let held = self.held();
        let of_run = held.iter().filter(|closed| closed.flush.run == run);
        of_run.map(|closed| closed.bytes).sum()
    }

    fn held_runs(&self) -> BTreeSet<RunId> {
        self.held().iter().map(|closed| closed.flush.run).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What the loop woke up for.
enum Woken {
    Stop,
    Received(Option<Vec<Delivery>>),
    Appended(RunId, Result<Appended, StoreError>),
    Flush,
    Retry,
}

impl Intake {
    /// Takes, merges and stores until the bus is closed or `stop` is cancelled; then stores what it holds, for a bounded time.
    pub async fn run(mut self, consumer: &mut dyn Consumer, stop: CancellationToken) {
        loop {
            for run in std::mem::take(&mut *lock(&self.shared.sealed)) {
                self.known.forget(run);
                self.unreadable_until.remove(&run);
            }
            self.begin_appends();
            self.rejects.begin(&self.shared.results);
            match self.wait(consumer, &stop).await {
                Woken::Stop | Woken::Received(None) => break,
                Woken::Received(Some(deliveries)) => {
                    for delivery in deliveries {
                        self.take(delivery).await;
                    }
                }
                Woken::Appended(run, result) => self.appended(run, result).await,
                Woken::Flush => self.close_all(),
                // The next pass begins what is due.
                Woken::Retry => {}
            }
        }
        self.close_all();
        let given_up = self.shared.clock.instant() + LAST_FLUSH;
        let last = async {
            while !self.shared.held().is_empty() {
                self.begin_appends();
                let retry = self.next_retry();
                tokio::select! {
                    Some((run, result)) = self.appending.next() => self.appended(run, result).await,
                    () = sleep_until(retry.unwrap_or(given_up)), if retry.is_some() => {}
                    else => break,
                }
            }
        };
        if timeout(LAST_FLUSH, last).await.is_err() {
            tracing::warn!("frames that could not be stored in time are left to the workers' spools");
        }
    }

    async fn wait(&mut self, consumer: &mut dyn Consumer, stop: &CancellationToken) -> Woken {
        let held = self.shared.held_bytes() + self.open_bytes();
        metrics::gauge!("muster_ingest_held_bytes").set(held as f64);
        let may_take = held < 2 * HELD_MAX_BYTES;
        let retry = self.next_retry();
        let far = self.shared.clock.instant() + Duration::from_secs(3_600);
        tokio::select! {
            biased;
            () = stop.cancelled() => Woken::Stop,
            Some((run, result)) = self.appending.next() => Woken::Appended(run, result),
            () = sleep_until(self.next_flush.unwrap_or(far)), if self.next_flush.is_some() => Woken::Flush,
            () = sleep_until(retry.unwrap_or(far)), if retry.is_some() => Woken::Retry,
            () = self.rejects.kept() => Woken::Retry,
            () = self.shared.flush_now.notified() => Woken::Flush,
            deliveries = consumer.receive(RECEIVE_MAX), if may_take => Woken::Received(deliveries),
        }
    }

    fn open_bytes(&self) -> usize {
        self.open.values().map(Batch::bytes).sum()
    }

    /// When the first of the runs that wait after a failure is tried again.
    fn next_retry(&self) -> Option<Instant> {
        self.retry_at.values().min().copied()
    }

    /// Whether a run holds its share: what a run whose database is away may take must leave room for the others.
    fn is_full(&self, run: RunId) -> bool {
        let open = self.open.get(&run).map_or(0, Batch::bytes);
        let of_run = self.shared.held_bytes_of(run) + open;
        // Cheap for the many that hold little.
        of_run > HELD_MAX_BYTES / 16 && of_run >= HELD_MAX_BYTES / (self.shared.held_runs().len() + 1)
    }

    async fn take(&mut self, delivery: Delivery) {
        let run = delivery.message.run;
        if self.is_full(run) {
            // Not stored, so it comes again.
            count("full");
            return;
        }
        let now = self.shared.clock.instant();
        let mut verdict = self.known.judge(&delivery.message, now);
        if matches!(verdict, Verdict::UnknownSession) {
            if self.read_sessions(run).await.is_err() {
                // Not stored, so it comes again.
                return;
            }
            verdict = self.known.judge(&delivery.message, now);
        }
        match verdict {
            Verdict::Take { frame, from } => {
                let batch = self.open.entry(run).or_insert_with(|| Batch::new(run));
                batch.add(*frame, from, delivery);
                let is_full = batch.frames() >= FLUSH_FRAMES || batch.bytes() >= FLUSH_BYTES;
                lock(&self.shared.open).insert(run, batch.frames());
                if is_full {
                    self.close(run);
                } else if self.next_flush.is_none() {
                    self.next_flush = Some(self.shared.clock.instant() + FLUSH_EVERY);
                }
            }
            Verdict::Stored(watermark) => {
                count("repeat");
                let _ = delivery.fate.send(Fate::Stored(watermark));
            }
            Verdict::Held => {
                count("repeat");
                self.hold_answer(delivery);
            }
            Verdict::Early => count("early"),
            Verdict::Refuse(reason) => self.refuse(delivery, reason),
            Verdict::UnknownSession => self.refuse(delivery, "the session is unknown".to_owned()),
        }
    }

    /// A repeat of something that is held: its answer waits for the newest batch, which is stored after the one it is in.
    fn hold_answer(&mut self, delivery: Delivery) {
        let run = delivery.message.run;
        self.open.entry(run).or_insert_with(|| Batch::new(run)).wait(delivery);
        if self.next_flush.is_none() {
            self.next_flush = Some(self.shared.clock.instant() + FLUSH_EVERY);
        }
    }

    /// Looks up the sessions of a run. After a failure the next ones fail at once for a while: each would wait for the database,
    /// and the loop with it.
    async fn read_sessions(&mut self, run: RunId) -> Result<(), StoreError> {
        let unreadable = || StoreError::Unavailable("no answer in time".to_owned());
        let until = self.unreadable_until.get(&run);
        if until.is_some_and(|until| self.shared.clock.instant() < *until) {
            return Err(unreadable());
        }
        let rows = timeout(STORE_DEADLINE, self.shared.results.sessions(run))
            .await
            .unwrap_or_else(|_| Err(unreadable()));
        match rows {
            Ok(rows) => {
                self.unreadable_until.remove(&run);
                if self.known.is_full() {
                    let mut busy = self.shared.held_runs();
                    busy.extend(self.open.keys());
                    self.known.keep_only(&busy);
                }
                self.known.learn(run, rows);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%run, %error, "cannot read the sessions of a run");
                let now = self.shared.clock.instant();
                self.unreadable_until.retain(|_, until| now < *until);
                self.unreadable_until.insert(run, now + RETRY_AFTER);
                Err(error)
            }
        }
    }

    fn refuse(&mut self, delivery: Delivery, reason: String) {
        count("refused");
        let message = &delivery.message;
        tracing::warn!(run = %message.run, session = %message.session, %reason, "frame refused");
        self.rejects.add(message, &reason, self.shared.clock.now());
        let _ = delivery.fate.send(Fate::Refused(reason));
    }

    fn close_all(&mut self) {
        let runs: Vec<RunId> = self.open.keys().copied().collect();
        for run in runs {
            self.close(run);
        }
        self.next_flush = None;
    }

    fn close(&mut self, run: RunId) {
        if let Some(batch) = self.open.remove(&run) {
            self.shared.held().push_back(Arc::new(batch.close()));
            lock(&self.shared.open).remove(&run);
        }
    }

    /// Stores the oldest batch of each run, unless one of that run is under way or failed just now.
    fn begin_appends(&mut self) {
        let now = self.shared.clock.instant();
        self.retry_at.retain(|_, at| now < *at);
        let mut seen = BTreeSet::new();
        for oldest in self.shared.held().iter() {
            let run = oldest.flush.run;
            if !seen.insert(run) || self.retry_at.contains_key(&run) || !self.appended_runs.insert(run) {
                continue;
            }
            let (results, oldest) = (self.shared.results.clone(), oldest.clone());
            self.appending.push(Box::pin(async move {
                let result = timeout(STORE_DEADLINE, results.append(&oldest.flush)).await;
                let slow = || StoreError::Unavailable("no answer in time".to_owned());
                (run, result.unwrap_or_else(|_| Err(slow())))
            }));
        }
    }

    async fn appended(&mut self, run: RunId, result: Result<Appended, StoreError>) {
        self.appended_runs.remove(&run);
        match result {
            Ok(Appended::Stored) => {
                let Some(closed) = self.pop_oldest(run) else {
                    return;
                };
                metrics::counter!("muster_ingest_frames_total", "fate" => "stored").increment(closed.frames as u64);
                self.known.stored(&closed.flush);
                for (session, sequence, fate) in closed.take_fates() {
                    let watermark = self.known.watermark(run, session).max(sequence);
                    let _ = fate.send(Fate::Stored(watermark));
                }
            }
            Ok(Appended::Late) => {
                for delivery in self.take_held(run) {
                    count("late");
                    let _ = delivery.fate.send(Fate::Refused("the run is sealed".to_owned()));
                }
            }
            Ok(Appended::Moved) => self.rebuild(run).await,
            Err(error) if error.is_transient() => {
                tracing::warn!(%run, %error, "results cannot be stored; trying again");
                self.retry_at.insert(run, self.shared.clock.instant() + RETRY_AFTER);
            }
            Err(error) => {
                // Not stored: the answers are dropped, the spools keep the frames, other runs go on.
                tracing::error!(%run, %error, "results are refused by the store");
                drop(self.take_held(run));
                self.retry_at.insert(run, self.shared.clock.instant() + RETRY_AFTER);
            }
        }
    }

    fn pop_oldest(&self, run: RunId) -> Option<Arc<Closed>> {
        let mut held = self.shared.held();
        let place = held.iter().position(|closed| closed.flush.run == run)?;
        held.remove(place)
    }

    /// Takes out everything that is held of a run, in the order it came, and forgets its sessions.
    fn take_held(&mut self, run: RunId) -> Vec<Delivery> {
        let mut all: Vec<Delivery> = Vec::new();
        let mut held = self.shared.held();
        held.retain(|closed| {
            if closed.flush.run == run {
                all.extend(closed.take_deliveries());
            }
            closed.flush.run != run
        });
        drop(held);
        lock(&self.shared.open).remove(&run);
        all.extend(self.open.remove(&run).into_iter().flat_map(Batch::into_deliveries));
        self.known.forget(run);
        all
    }

    /// The store was not where the oldest batch thought: another writer, or a commit whose answer was lost. Everything held of
    /// that run is judged anew against what the store says.
    async fn rebuild(&mut self, run: RunId) {
        let held = self.take_held(run);
        if self.read_sessions(run).await.is_err() {
            // Not stored, so they come again.
            return;
        }
        for delivery in held {
            self.take(delivery).await;
        }
    }
}

fn count(fate: &'static str) {
    metrics::counter!("muster_ingest_frames_total", "fate" => fate).increment(1);
}
