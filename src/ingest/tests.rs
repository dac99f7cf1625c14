//! Ingest against the bus in memory and SQLite in memory.

use super::{Ingest, ingest};
use crate::bus::{BusError, Message, Producer as _, memory};
use crate::runtime::clock::Clock;
use crate::store::rows::{Appended, Flush, PartOf, RejectRow, SessionRow, SlicePart};
use crate::store::{Results, StoreError, open};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::key::Key;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(7));

fn session(worker: u32) -> SessionId {
    SessionId(Uuid::from_u128(100 + u128::from(worker)))
}

fn message(worker: u32, sequence: u64, body: Body) -> Message {
    message_after(worker, sequence, 0, body)
}

/// One before which the spool dropped so many.
fn message_after(worker: u32, sequence: u64, skipped: u64, body: Body) -> Message {
    let frame = Frame {
        run: RUN,
        session: session(worker),
        worker,
        sequence,
        skipped,
        body,
    };
    Message {
        run: RUN,
        session: session(worker),
        sequence,
        payload: frame.encode().into(),
    }
}

/// The second of one worker with some requests in it.
fn second(worker: u32, sequence: u64, requests: u64) -> Message {
    second_after(worker, sequence, 0, requests)
}

fn second_after(worker: u32, sequence: u64, skipped: u64, requests: u64) -> Message {
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
        requests,
        ..Stats::default()
    };
    second.entries.insert(series, stats);
    message_after(worker, sequence, skipped, Body::Second(second))
}

fn end(worker: u32, last_sequence: u64) -> Message {
    let dropped = Vec::new();
    message(worker, last_sequence, Body::End { last_sequence, dropped })
}

/// Results where the database of [`RUN`] can be away, and which can lose the answer to a commit.
struct Shaky {
    inner: Arc<dyn Results>,
    away: AtomicBool,
    lose_answer: AtomicBool,
}

fn away() -> StoreError {
    StoreError::Unavailable("away".to_owned())
}

#[async_trait]
impl Results for Shaky {
    async fn open_run(&self, run: RunId) -> Result<(), StoreError> {
        self.inner.open_run(run).await
    }
    async fn open_session(&self, row: &SessionRow) -> Result<(), StoreError> {
        self.inner.open_session(row).await
    }
    async fn sessions(&self, run: RunId) -> Result<Vec<SessionRow>, StoreError> {
        if run == RUN && self.away.load(Ordering::Relaxed) {
            return Err(away());
        }
        self.inner.sessions(run).await
    }
    async fn append(&self, flush: &Flush) -> Result<Appended, StoreError> {
        if flush.run == RUN && self.away.load(Ordering::Relaxed) {
            return Err(away());
        }
        let result = self.inner.append(flush).await;
        if self.lose_answer.swap(false, Ordering::Relaxed) {
            return Err(away());
        }
        result
    }
    async fn reject(&self, run: RunId, rows: &[RejectRow]) -> Result<(), StoreError> {
        self.inner.reject(run, rows).await
    }
    async fn rejects(&self, run: RunId) -> Result<Vec<RejectRow>, StoreError> {
        self.inner.rejects(run).await
    }
    async fn parts(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<(u64, SlicePart)>, StoreError> {
        self.inner.parts(run, after, limit).await
    }
    async fn seal(&self, run: RunId) -> Result<u64, StoreError> {
        self.inner.seal(run).await
    }
    async fn compact(&self, run: RunId) -> Result<(), StoreError> {
        self.inner.compact(run).await
    }
    async fn is_sealed(&self, run: RunId) -> Result<bool, StoreError> {
        self.inner.is_sealed(run).await
    }
    async fn describe_run(&self, run: RunId, plan: &Key, started_at: Timestamp) -> Result<(), StoreError> {
        self.inner.describe_run(run, plan, started_at).await
    }
    async fn remove_run(&self, run: RunId) -> Result<bool, StoreError> {
        self.inner.remove_run(run).await
    }
}

/// An ingest at work.
struct World {
    results: Arc<Shaky>,
    ingest: Ingest,
    producer: memory::MemoryProducer,
    stop: CancellationToken,
}

impl World {
    async fn start(workers: u32) -> Self {
        let inner = open("sqlite::memory:").await.unwrap().results;
        inner.open_run(RUN).await.unwrap();
        for worker in 0..workers {
            let row = SessionRow {
                run: RUN,
                session: session(worker),
                worker,
                watermark: 0,
                end: None,
                dropped: Vec::new(),
            };
            inner.open_session(&row).await.unwrap();
        }
        let results = Arc::new(Shaky {
            inner,
            away: AtomicBool::new(false),
            lose_answer: AtomicBool::new(false),
        });
        let (producer, mut consumer) = memory::bus(64);
        let (handle, intake) = ingest(results.clone(), Clock::system());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { intake.run(&mut consumer, stopped).await });
        Self {
            results,
            ingest: handle,
            producer,
            stop,
        }
    }

    /// Requests stored in all.
    async fn requests(&self) -> u64 {
        let parts = self.results.parts(RUN, 0, 10_000).await.unwrap();
        requests_of(parts.into_iter().map(|(_, part)| part))
    }

    async fn seal(&self, within: Duration) -> super::Sealed {
        let deadline = tokio::time::Instant::now() + within;
        self.ingest.seal(RUN, deadline).await.unwrap()
    }
}

fn requests_of(parts: impl IntoIterator<Item = SlicePart>) -> u64 {
    parts
        .into_iter()
        .filter(|part| matches!(part.what, PartOf::Series(_)))
        .map(|part| Stats::decode(&part.data).unwrap().requests)
        .sum()
}

async fn until(what: impl AsyncFn() -> bool) {
    let work = async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap();
}

#[tokio::test]
async fn s49_nothing_is_acknowledged_before_it_is_stored_and_repeats_change_nothing() {
    let mut world = World::start(2).await;
    assert_eq!(
        world.producer.send(&[second(0, 1, 5), second(0, 2, 6)]).await.unwrap(),
        2
    );
    assert_eq!(world.requests().await, 11);
    let again = world
        .producer
        .send(&[second(0, 1, 5), second(0, 2, 6), second(0, 3, 7)])
        .await;
    assert_eq!(again.unwrap(), 3);
    assert_eq!(world.requests().await, 18);
    assert_eq!(world.producer.send(&[second(1, 1, 100)]).await.unwrap(), 1);
    assert_eq!(world.requests().await, 118);
    let parts = world.results.parts(RUN, 0, 100).await.unwrap();
    assert_eq!(
        parts
            .iter()
            .filter(|(_, part)| matches!(part.what, PartOf::Worker(_)))
            .count(),
        4
    );
}

#[tokio::test]
async fn s49_a_lost_answer_to_a_commit_is_resolved_by_reading() {
    let mut world = World::start(1).await;
    world.results.lose_answer.store(true, Ordering::Relaxed);
    assert_eq!(world.producer.send(&[second(0, 1, 5)]).await.unwrap(), 1);
    assert_eq!(world.producer.send(&[second(0, 2, 6)]).await.unwrap(), 2);
    assert_eq!(world.requests().await, 11);
}

#[tokio::test]
async fn a_database_that_is_away_from_the_start_keeps_frames_unanswered_and_ingest_alive() {
    let mut world = World::start(1).await;
    world.results.away.store(true, Ordering::Relaxed);
    let result = world.producer.send(&[second(0, 1, 5), second(0, 2, 6)]).await;
    assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
    world.results.away.store(false, Ordering::Relaxed);
    let work = async {
        while world.producer.send(&[second(0, 1, 5), second(0, 2, 6)]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap();
    assert_eq!(world.requests().await, 11);
}

#[tokio::test]
async fn s52_a_run_whose_database_is_away_does_not_hold_up_another() {
    let mut world = World::start(1).await;
    let other = RunId(Uuid::from_u128(8));
    world.results.open_run(other).await.unwrap();
    for row in world.results.sessions(RUN).await.unwrap() {
        world
            .results
            .open_session(&SessionRow { run: other, ..row })
            .await
            .unwrap();
    }
    let of_other = |message: Message| {
        let mut frame = Frame::decode(&message.payload).unwrap();
        frame.run = other;
        let payload = frame.encode().into();
        Message {
            run: other,
            payload,
            ..message
        }
    };
    assert_eq!(world.producer.send(&[second(0, 1, 1)]).await.unwrap(), 1);
    world.results.away.store(true, Ordering::Relaxed);
    let mut producer = world.producer.clone();
    let waiting = tokio::spawn(async move { producer.send(&[second(0, 2, 2)]).await });
    until(async || requests_of(world.ingest.held(RUN)) == 2).await;
    for sequence in 1..=3 {
        let stored = world.producer.send(&[of_other(second(0, sequence, 5))]).await;
        assert_eq!(stored.unwrap(), sequence);
    }
    assert!(!waiting.is_finished());
    world.results.away.store(false, Ordering::Relaxed);
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    assert_eq!(world.requests().await, 3);
}

#[tokio::test]
async fn s44_while_the_database_is_away_what_came_can_be_judged_and_is_stored_later() {
    let mut world = World::start(1).await;
    world.producer.send(&[second(0, 1, 1)]).await.unwrap();
    world.results.away.store(true, Ordering::Relaxed);
    let mut producer = world.producer.clone();
    let waiting = tokio::spawn(async move { producer.send(&[second(0, 2, 2), second(0, 3, 3)]).await });
    until(async || requests_of(world.ingest.held(RUN)) == 5).await;
    assert!(!waiting.is_finished());
    // The same again, as after a cut: it waits for the same fate and is not counted twice.
    let mut producer = world.producer.clone();
    let repeated = tokio::spawn(async move { producer.send(&[second(0, 2, 2), second(0, 3, 3)]).await });
    assert_eq!(world.requests().await, 1);
    world.results.away.store(false, Ordering::Relaxed);
    assert_eq!(waiting.await.unwrap().unwrap(), 3);
    assert_eq!(repeated.await.unwrap().unwrap(), 3);
    assert_eq!(world.requests().await, 6);
    assert_eq!(world.ingest.held(RUN), Vec::new());
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_the_rest_goes_on() {
    let mut world = World::start(1).await;
    let mut wrong_worker = second(5, 1, 1);
    wrong_worker.session = session(0);
    let mut wrong_sequence = second(0, 2, 1);
    wrong_sequence.sequence = 1;
    let mut garbage = second(0, 1, 1);
    garbage.payload = bytes::Bytes::from_static(b"\xff garbage");
    let unknown = second(9, 1, 1);
    let early_end = message(
        0,
        1,
        Body::End {
            last_sequence: 5,
            dropped: Vec::new(),
        },
    );
    for bad in [wrong_worker, wrong_sequence, garbage, unknown, early_end] {
        let result = world.producer.send(std::slice::from_ref(&bad)).await;
        assert!(matches!(result, Err(BusError::Refused { .. })), "{bad:?}: {result:?}");
    }
    assert_eq!(world.producer.send(&[second(0, 1, 5), end(0, 2)]).await.unwrap(), 2);
    let after = world.producer.send(&[second(0, 3, 1)]).await;
    assert!(matches!(after, Err(BusError::Refused { .. })), "{after:?}");
    assert_eq!(world.requests().await, 5);
    // Each is kept with the reason, once per place in its session.
    let results = world.results.clone();
    until(async || results.rejects(RUN).await.unwrap().len() == 3).await;
    let kept = results.rejects(RUN).await.unwrap();
    assert!(
        kept.iter()
            .any(|row| row.reason == "the session is unknown" && row.session == session(9)),
        "{kept:?}"
    );
    assert!(kept.iter().any(|row| row.sequence == 3 && row.bytes > 0), "{kept:?}");
}

#[tokio::test]
async fn s50_a_run_is_complete_when_every_session_reached_its_end() {
    let mut world = World::start(2).await;
    world.producer.send(&[second(0, 1, 1), end(0, 2)]).await.unwrap();
    let ingest = world.ingest.clone();
    let sealing = tokio::spawn(async move {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        ingest.seal(RUN, deadline).await
    });
    world.producer.send(&[second(1, 1, 1)]).await.unwrap();
    assert!(!sealing.is_finished());
    world.producer.send(&[end(1, 2)]).await.unwrap();
    let sealed = sealing.await.unwrap().unwrap();
    assert!(
        sealed
            .states()
            .iter()
            .all(|state| state.end == Some(2) && state.watermark == 2)
    );
    assert!(world.results.is_sealed(RUN).await.unwrap());
    let late = world.producer.send(&[second(1, 3, 1)]).await;
    assert!(matches!(late, Err(BusError::Refused { .. })), "{late:?}");
    assert_eq!(world.requests().await, 2);
}

#[tokio::test]
async fn s50_a_session_without_end_is_sealed_at_the_deadline_with_what_came() {
    let mut world = World::start(2).await;
    world.producer.send(&[second(0, 1, 1), end(0, 2)]).await.unwrap();
    // Sequences 2 to 4 never came: whoever lost them, they are missing.
    world
        .producer
        .send(&[second(1, 1, 1), second_after(1, 5, 3, 1)])
        .await
        .unwrap();
    let sealed = world.seal(Duration::from_millis(50)).await;
    let states = sealed.states();
    assert_eq!((states[1].watermark, states[1].end), (5, None));
    assert_eq!(world.seal(Duration::ZERO).await.sessions, sealed.sessions);
}

#[tokio::test]
async fn s48_a_hole_that_nobody_told_of_is_told_by_the_end() {
    let mut world = World::start(1).await;
    world
        .producer
        .send(&[second(0, 1, 1), second_after(0, 4, 2, 1), end(0, 5)])
        .await
        .unwrap();
    let sealed = world.seal(Duration::from_secs(5)).await;
    assert_eq!(sealed.states()[0].dropped, [(2, 3)]);
}

#[tokio::test]
async fn s49_what_comes_before_something_that_is_still_on_its_way_is_not_taken() {
    let mut world = World::start(1).await;
    // The second frame was given up on the way, as when the sessions could not be read; the third was behind it already.
    let early = world.producer.send(&[second(0, 1, 1), second(0, 3, 4)]).await;
    assert!(matches!(early, Err(BusError::Unavailable(_))), "{early:?}");
    let all = [second(0, 1, 1), second(0, 2, 2), second(0, 3, 4), end(0, 4)];
    assert_eq!(world.producer.send(&all).await.unwrap(), 4);
    assert_eq!(world.requests().await, 7);
    assert_eq!(world.seal(Duration::from_secs(5)).await.sessions[0].dropped, []);
}

#[tokio::test]
async fn what_is_held_is_stored_before_ingest_ends() {
    let world = World::start(1).await;
    let mut producer = world.producer.clone();
    let sending = tokio::spawn(async move { producer.send(&[second(0, 1, 9)]).await });
    until(async || !sending.is_finished()).await;
    world.stop.cancel();
    // Either it was taken and stored, or it was not and comes again: never acknowledged without being there.
    match sending.await.unwrap() {
        Ok(_) => assert_eq!(world.requests().await, 9),
        Err(_) => assert_eq!(world.requests().await, 0),
    }
}

proptest! {
    #[test]
    fn s48_no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..200), sequence in 0_u64..4) {
        let mut known = super::accept::Known::default();
        let row = SessionRow {
            run: RUN,
            session: session(0),
            worker: 0,
            watermark: 1,
            end: None,
            dropped: Vec::new(),
        };
        known.learn(RUN, vec![row]);
        let message = Message { run: RUN, session: session(0), sequence, payload: payload.into() };
        known.judge(&message, tokio::time::Instant::now());
    }
}
