//! The spool and its sender against the bus in memory.

use super::super::spool::{Limits, Spool, SpoolStatus};
use super::run;
use crate::bus::{Consumer as _, Fate, memory};
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::Second;
use muster_core::model::id::{RunId, SessionId};
use std::path::Path;
use uuid::Uuid;

fn second(second: u32) -> Second {
    Second {
        second,
        ..Second::default()
    }
}

fn opened(memory: usize) -> Spool {
    let spool = Spool::new(Limits { memory, disk: 1 << 20 });
    spool.open(RunId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)), 3);
    spool
}

/// As many bytes as so many of these frames have.
fn frames(count: usize) -> usize {
    let spool = opened(1 << 20);
    spool.push(second(0));
    usize::try_from(spool.status().bytes).unwrap() * count
}

fn nowhere() -> &'static Path {
    Path::new("/nowhere")
}

#[tokio::test(start_paused = true)]
async fn s48_frames_leave_in_order_from_one_without_gaps_and_are_deleted_when_stored() {
    let spool = opened(1 << 20);
    for index in 0..200 {
        spool.push(second(index));
    }
    assert_eq!(spool.end(), (201, 0));
    assert_eq!(spool.end(), (201, 0), "an end is made once");
    let (mut producer, mut consumer) = memory::bus(8);
    let sending = run(spool.clone(), &mut producer, nowhere());
    let storing = async {
        let mut next = 1;
        let mut seen = 0;
        while next <= 201 {
            for delivery in consumer.receive(16).await.unwrap() {
                seen += 1;
                let frame = Frame::decode(&delivery.message.payload).unwrap();
                assert_eq!(frame.sequence, delivery.message.sequence);
                // Every seventh is not stored the first time.
                if frame.sequence < next || (frame.sequence == next && seen % 7 != 0) {
                    next = next.max(frame.sequence + 1);
                    let _ = delivery.fate.send(Fate::Stored(next - 1));
                }
            }
        }
        spool.drained().await;
    };
    tokio::select! {
        () = sending => unreachable!("a sender never ends"),
        () = storing => {}
    }
    let expected = SpoolStatus {
        made: 201,
        acked: 201,
        ..SpoolStatus::default()
    };
    assert_eq!(spool.status(), expected);
}

#[tokio::test]
async fn s48_what_a_full_spool_drops_is_told_as_ranges_in_the_end() {
    let spool = opened(frames(3));
    let session = SessionId(Uuid::from_u128(2));
    for index in 0..5 {
        spool.push(second(index));
    }
    spool.stored(session, 1);
    for index in 5..7 {
        spool.push(second(index));
    }
    assert_eq!(spool.end(), (8, 3));
    let mut sent = Vec::new();
    while spool.status().spooled > 0 {
        for message in spool.batch().await {
            sent.push(Frame::decode(&message.payload).unwrap());
            spool.stored(session, message.sequence);
        }
    }
    let sequences: Vec<(u64, u64)> = sent.iter().map(|frame| (frame.sequence, frame.skipped)).collect();
    assert_eq!(sequences, [(2, 0), (3, 0), (6, 2), (8, 1)]);
    let dropped = vec![(4, 5), (7, 7)];
    assert_eq!(
        sent[3].body,
        Body::End {
            last_sequence: 8,
            dropped
        }
    );
}

/// Memory for ten frames gets a hundred while nobody takes any; then all that is left is sent. Returns what arrived.
async fn ride_out(folder: &Path, is_writable: bool) -> Vec<Frame> {
    let spool = opened(frames(10));
    let (mut producer, mut consumer) = memory::bus(8);
    let sending = run(spool.clone(), &mut producer, folder);
    let storing = async {
        for index in 0..100 {
            spool.push(second(index));
            let in_memory = || spool.status().bytes - spool.status().on_disk;
            while is_writable && in_memory() > frames(5) as u64 {
                tokio::task::yield_now().await;
            }
        }
        spool.end();
        let mut arrived = Vec::new();
        while spool.status().spooled > 0 {
            tokio::select! {
                () = spool.drained() => {}
                deliveries = consumer.receive(16) => for delivery in deliveries.unwrap() {
                    arrived.push(Frame::decode(&delivery.message.payload).unwrap());
                    let _ = delivery.fate.send(Fate::Stored(delivery.message.sequence));
                }
            }
        }
        arrived
    };
    tokio::select! {
        () = sending => unreachable!("a sender never ends"),
        arrived = storing => arrived
    }
}

#[tokio::test]
async fn s48_an_outage_longer_than_memory_is_ridden_out_on_disk_and_nothing_is_left_there() {
    let folder = tempfile::tempdir().unwrap();
    let arrived = ride_out(folder.path(), true).await;
    let sequences: Vec<u64> = arrived.iter().map(|frame| frame.sequence).collect();
    assert_eq!(sequences, (1..=101).collect::<Vec<u64>>());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn s48_without_a_disk_what_memory_cannot_hold_is_dropped_and_counted() {
    let arrived = ride_out(nowhere(), false).await;
    let sequences: Vec<u64> = arrived.iter().map(|frame| frame.sequence).collect();
    assert_eq!(sequences, (1..=10).chain([101]).collect::<Vec<u64>>());
    let Some(Body::End { dropped, .. }) = arrived.last().map(|frame| &frame.body) else {
        panic!("the end is the last")
    };
    assert_eq!(dropped, &[(11, 100)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_session_is_dropped_and_the_next_one_is_sent() {
    let spool = opened(1 << 20);
    spool.push(second(0));
    let (mut producer, mut consumer) = memory::bus(8);
    let sending = run(spool.clone(), &mut producer, nowhere());
    let storing = async {
        let delivery = consumer.receive(1).await.unwrap().remove(0);
        delivery.fate.send(Fate::Refused("sealed".to_owned())).unwrap();
        spool.drained().await;
        assert_eq!(spool.status().dropped, 1);
        spool.push(second(1));
        spool.end();
        spool.drained().await;
        spool.open(RunId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(9)), 3);
        spool.push(second(0));
        let delivery = consumer.receive(1).await.unwrap().remove(0);
        assert_eq!(delivery.message.session, SessionId(Uuid::from_u128(9)));
        delivery.fate.send(Fate::Stored(1)).unwrap();
        spool.drained().await;
    };
    tokio::select! {
        () = sending => unreachable!("a sender never ends"),
        () = storing => {}
    }
    assert_eq!(spool.status().acked, 1);
}
