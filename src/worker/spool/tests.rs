//! The queue and its file: order, bounds, and that every frame is either sent or told to be dropped.

use super::queue::{Limits, Queue};
use super::ring::Ring;
use super::{read, write};
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use proptest::prelude::*;
use std::collections::BTreeSet;
use uuid::Uuid;

const LIMITS: Limits = Limits {
    memory: 4_000,
    disk: 6_000,
};

/// A second whose frame has about so many bytes.
fn second(number: u32, size: usize) -> Second {
    let key = SeriesKey {
        name: "x".repeat(size),
        ..SeriesKey::default()
    };
    Second {
        second: number,
        entries: [(key, Stats::default())].into(),
        ..Second::default()
    }
}

/// A worker with its queue and its disk, and all that its bus took.
struct Sender {
    queue: Queue,
    ring: Ring,
    limits: Limits,
    pushed: u32,
    taken: Vec<Frame>,
}

impl Sender {
    fn new(limits: Limits) -> Self {
        let (run, session) = (RunId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
        Self {
            queue: Queue::new(run, session, 3, limits),
            ring: Ring::of(tempfile::tempfile().unwrap(), limits.disk),
            limits,
            pushed: 0,
            taken: Vec::new(),
        }
    }

    fn push(&mut self, size: usize) {
        self.queue.push(second(self.pushed, size));
        self.pushed += 1;
        let status = self.queue.status();
        assert!(status.on_disk <= self.limits.disk, "{status:?}");
        assert!(
            status.bytes <= self.limits.memory as u64 + 2 * self.limits.disk,
            "{status:?}"
        );
    }

    /// The bus takes the first so many of a batch.
    fn send(&mut self, count: usize) {
        let batch = self.queue.batch();
        for message in batch.iter().take(count) {
            let frame = Frame::decode(&message.payload).unwrap();
            assert_eq!(frame.sequence, message.sequence);
            // What ingest asks before it takes a frame: that nothing before it is still on its way.
            let last = self.taken.last().map_or(0, |frame| frame.sequence);
            assert_eq!(frame.sequence - 1 - frame.skipped, last);
            self.taken.push(frame);
        }
        let last = self.taken.last().map_or(0, |frame| frame.sequence);
        self.queue.stored(last);
    }

    fn spill(&mut self, is_overtaken: bool) {
        if let Some(spill) = self.queue.spill() {
            write(&self.ring, &spill).unwrap();
            if is_overtaken {
                self.send(usize::MAX);
            }
            self.queue.spilled(&spill);
        }
    }

    fn load(&mut self) {
        if let Some(load) = self.queue.load() {
            let (load, payloads) = read(Some(&self.ring), load).unwrap();
            self.queue.loaded(&load, payloads);
        }
    }

    /// Ends, sends all that is left, and sees whether anything is missing or there twice.
    fn finish(mut self) {
        self.queue.end();
        for _ in 0..1_000 {
            self.load();
            self.send(usize::MAX);
        }
        assert!(self.queue.is_empty(), "{:?}", self.queue.status());
        let Some(Frame {
            body: Body::End { last_sequence, dropped },
            ..
        }) = self.taken.pop()
        else {
            panic!("the end is the last")
        };
        assert_eq!(last_sequence, u64::from(self.pushed) + 1);
        let mut all: BTreeSet<u64> = dropped.iter().flat_map(|(from, to)| *from..=*to).collect();
        assert_eq!(all.len() as u64, self.queue.status().dropped);
        for frame in self.taken {
            let Body::Second(second) = frame.body else {
                panic!("one end")
            };
            assert_eq!(u64::from(second.second) + 1, frame.sequence);
            assert!(all.insert(frame.sequence), "{} is there and dropped", frame.sequence);
        }
        assert_eq!(all, (1..last_sequence).collect());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Send(usize),
    Spill,
    /// The bus takes all that is in memory while it is written.
    SpillLate,
    Load,
    BreakWriting,
    BreakReading,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => (1_usize..900).prop_map(Step::Push),
        6 => (0_usize..9).prop_map(Step::Send),
        10 => Just(Step::Spill),
        3 => Just(Step::SpillLate),
        6 => Just(Step::Load),
        1 => Just(Step::BreakWriting),
        1 => Just(Step::BreakReading),
    ];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn s48_every_frame_is_sent_once_in_order_or_told_to_be_dropped(steps in steps()) {
        let mut sender = Sender::new(LIMITS);
        for step in steps {
            match step {
                Step::Push(size) => sender.push(size),
                Step::Send(count) => sender.send(count),
                Step::Spill => sender.spill(false),
                Step::SpillLate => sender.spill(true),
                Step::Load => sender.load(),
                Step::BreakWriting => sender.queue.cannot_write(),
                Step::BreakReading => sender.queue.cannot_read(),
            }
        }
        sender.finish();
    }
}

#[test]
fn s48_the_disk_takes_what_memory_cannot_and_is_written_round_and_round() {
    let limits = Limits {
        memory: 40_000,
        disk: 20_000,
    };
    let mut sender = Sender::new(limits);
    while sender.queue.status().on_disk < 15_000 {
        sender.push(50);
        sender.spill(false);
    }
    let spooled = sender.queue.status().spooled;
    for _ in 0..2_000 {
        sender.push(50);
        sender.spill(false);
        sender.send(1);
        sender.load();
    }
    let status = sender.queue.status();
    assert_eq!((status.dropped, status.spooled), (0, spooled), "{status:?}");
    while sender.queue.status().dropped == 0 {
        sender.push(50);
        sender.spill(false);
    }
    let status = sender.queue.status();
    assert!(status.bytes > 59_000, "full is when both are: {status:?}");
    sender.finish();
}

#[test]
fn s48_what_cannot_be_read_back_is_dropped_and_told() {
    let mut sender = Sender::new(LIMITS);
    for _ in 0..12 {
        sender.push(400);
        sender.spill(false);
    }
    sender.push(400);
    sender.send(1);
    let before = sender.queue.status();
    sender.queue.cannot_read();
    let after = sender.queue.status();
    assert!(
        after.dropped > 0 && after.spooled + after.dropped == before.spooled,
        "{before:?} {after:?}"
    );
    // Nothing is written any more: memory takes what it can.
    sender.push(400);
    assert!(sender.queue.spill().is_none());
    sender.finish();
}

#[test]
fn a_ring_gives_back_what_was_written_across_its_end() {
    let ring = Ring::of(tempfile::tempfile().unwrap(), 10);
    ring.write(7, b"abcdef").unwrap();
    let mut back = [0; 6];
    ring.read(7, &mut back).unwrap();
    assert_eq!(&back, b"abcdef");
    let mut first = [0; 3];
    ring.read(10, &mut first).unwrap();
    assert_eq!(&first, b"def");
    ring.clear().unwrap();
    assert!(ring.read(7, &mut back).is_err(), "the disk has it back");
}

#[test]
fn a_ring_has_no_name_on_its_disk_and_a_full_or_closed_disk_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let ring = Ring::make(folder.path(), "spool", 100).unwrap();
    ring.write(0, b"abc").unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(Ring::make(&folder.path().join("gone"), "spool", 100).is_err());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Ring::of(full, 100).write(0, b"abc").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
