//! The spool and its sender against the bus in memory.

use super::{Spool, SpoolStatus, run};
use crate::bus::{Consumer as _, Fate, memory};
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::Second;
use muster_core::model::id::{RunId, SessionId};
use uuid::Uuid;

fn second(second: u32) -> Second {
    Second {
        second,
        ..Second::default()
    }
}

fn opened(max_bytes: usize) -> Spool {
    let spool = Spool::new(max_bytes);
    spool.open(RunId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)), 3);
    spool
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
    let sending = run(spool.clone(), &mut producer);
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
    let one = {
        let spool = opened(1 << 20);
        spool.push(second(0));
        usize::try_from(spool.status().bytes).unwrap()
    };
    let spool = opened(one * 3);
    for index in 0..5 {
        spool.push(second(index));
    }
    spool.stored(SessionId(Uuid::from_u128(2)), 1);
    for index in 5..7 {
        spool.push(second(index));
    }
    assert_eq!(spool.end(), (8, 3));
    let batch = spool.batch().await;
    let sequences: Vec<u64> = batch.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, [2, 3, 6, 8]);
    let skipped: Vec<u64> = batch
        .iter()
        .map(|message| Frame::decode(&message.payload).unwrap().skipped)
        .collect();
    assert_eq!(skipped, [0, 0, 2, 1]);
    let end = Frame::decode(&batch[3].payload).unwrap();
    let dropped = vec![(4, 5), (7, 7)];
    assert_eq!(
        end.body,
        Body::End {
            last_sequence: 8,
            dropped
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_session_is_dropped_and_the_next_one_is_sent() {
    let spool = opened(1 << 20);
    spool.push(second(0));
    let (mut producer, mut consumer) = memory::bus(8);
    let sending = run(spool.clone(), &mut producer);
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
