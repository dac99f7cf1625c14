//! The frames of one session that are not known to be stored, in order: the oldest in memory, behind them those on disk, behind them the
//! newest, in memory again. Pure: it says what is to be written and read, and is told what came of it.

use crate::bus::{Message, PAYLOAD_MAX_BYTES};
use bytes::Bytes;
use muster_core::measure::frame::{Body, DROPPED_MAX, Frame};
use muster_core::measure::slice::Second;
use muster_core::model::id::{RunId, SessionId};
use std::collections::VecDeque;

/// Messages sent, written or read at once: a spool of minutes drains in seconds.
const BATCH_MESSAGES: usize = 64;
/// And their bytes, unless one is larger.
const BATCH_BYTES: usize = 8 << 20;

/// What a spool holds at most, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Limits {
    /// In memory, half of it before anything goes to disk. What comes back from disk may be a batch more.
    pub memory: usize,
    /// On disk.
    pub disk: u64,
}

/// How full it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct SpoolStatus {
    pub made: u64,
    pub acked: u64,
    pub spooled: u64,
    pub bytes: u64,
    /// Of those bytes.
    pub on_disk: u64,
    pub dropped: u64,
}

/// Messages in memory and their bytes.
#[derive(Debug, Default)]
struct Part {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Part {
    fn push(&mut self, message: Message) {
        self.bytes += message.payload.len();
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.payload.len();
        Some(message)
    }

    fn front(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// The first messages that make a batch, in no more than so many bytes.
    fn batch(&self, bytes_max: u64) -> Vec<Message> {
        let sizes = self.messages.iter().map(|message| message.payload.len());
        let count = batch_len(sizes, bytes_max);
        self.messages.iter().take(count).cloned().collect()
    }
}

fn batch_len(sizes: impl Iterator<Item = usize>, bytes_max: u64) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += *size;
        (bytes <= BATCH_BYTES || bytes == *size) && bytes as u64 <= bytes_max
    };
    sizes.take(BATCH_MESSAGES).take_while(fits).count()
}

/// Frames to be written.
#[derive(Debug)]
pub(super) struct Spill {
    /// Where, in bytes since the disk was empty.
    pub at: u64,
    pub messages: Vec<Message>,
}

/// Frames to be read.
#[derive(Debug)]
pub(super) struct Load {
    /// Where, in bytes since the disk was empty.
    pub at: u64,
    /// Sequence and size of each.
    pub frames: Vec<(u64, usize)>,
    /// Nothing else is on disk.
    pub is_all: bool,
}

/// The spool of one session.
#[derive(Debug)]
pub(super) struct Queue {
    run: RunId,
    pub session: SessionId,
    worker: u32,
    limits: Limits,
    head: Part,
    /// Sequence and size of each frame on disk.
    disk: VecDeque<(u64, usize)>,
    disk_from: u64,
    disk_to: u64,
    /// The disk took or gave something wrongly: nothing more is written in this session.
    is_broken: bool,
    tail: Part,
    last_sequence: u64,
    /// The newest that was not dropped.
    last_kept: u64,
    acked: u64,
    dropped: Vec<(u64, u64)>,
    dropped_frames: u64,
    has_ended: bool,
    /// The end's sequence, until it is stored. It is made when it is sent, because it tells of all drops.
    end: Option<u64>,
    /// The owner will take nothing of this session any more.
    pub is_refused: bool,
}

impl Queue {
    /// A session at sequence 1.
    pub fn new(run: RunId, session: SessionId, worker: u32, limits: Limits) -> Self {
        Self {
            run,
            session,
            worker,
            limits,
            head: Part::default(),
            disk: VecDeque::new(),
            disk_from: 0,
            disk_to: 0,
            is_broken: false,
            tail: Part::default(),
            last_sequence: 0,
            last_kept: 0,
            acked: 0,
            dropped: Vec::new(),
            dropped_frames: 0,
            has_ended: false,
            end: None,
            is_refused: false,
        }
    }

    /// Takes in a second; drops it when it does not fit.
    pub fn push(&mut self, second: Second) {
        if self.has_ended {
            return;
        }
        self.last_sequence += 1;
        let message = self.message(self.last_sequence, Body::Second(second));
        let size = message.payload.len();
        if self.is_refused || size > PAYLOAD_MAX_BYTES || self.head.bytes + self.tail.bytes + size > self.limits.memory
        {
            return self.drop_newest();
        }
        self.last_kept = message.sequence;
        self.tail.push(message);
        self.settle();
    }

    /// Ends the session: its end always fits. Returns the last sequence and how many frames were dropped.
    pub fn end(&mut self) -> (u64, u64) {
        if !self.has_ended {
            self.has_ended = true;
            self.last_sequence += 1;
            self.end = (!self.is_refused).then_some(self.last_sequence);
        }
        (self.last_sequence, self.dropped_frames)
    }

    pub fn status(&self) -> SpoolStatus {
        let messages = self.head.messages.len() + self.disk.len() + self.tail.messages.len();
        SpoolStatus {
            made: self.last_sequence,
            acked: self.acked,
            spooled: messages as u64 + u64::from(self.end.is_some()),
            bytes: (self.head.bytes + self.tail.bytes) as u64 + self.disk_bytes(),
            on_disk: self.disk_bytes(),
            dropped: self.dropped_frames,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.is_empty_of_frames() && self.end.is_none()
    }

    fn is_empty_of_frames(&self) -> bool {
        self.head.messages.is_empty() && self.disk.is_empty() && self.tail.messages.is_empty()
    }

    /// The next messages to send, oldest first; they stay until they are known to be stored.
    pub fn batch(&self) -> Vec<Message> {
        let mut batch = self.head.batch(u64::MAX);
        let is_last = batch.len() == self.head.messages.len() && self.disk.is_empty() && self.tail.messages.is_empty();
        if let Some(sequence) = self.end.filter(|_| is_last) {
            let end = Body::End {
                last_sequence: sequence,
                dropped: self.dropped.clone(),
            };
            batch.push(self.message(sequence, end));
        }
        batch
    }

    /// All up to here is stored.
    pub fn stored(&mut self, watermark: u64) {
        self.acked = self.acked.max(watermark);
        while self.head.front().is_some_and(|message| message.sequence <= watermark) {
            self.head.pop();
        }
        self.end = self.end.filter(|end| *end > watermark);
        self.settle();
    }

    /// The owner takes nothing of this session any more: it is unknown or sealed.
    pub fn refuse(&mut self) {
        self.is_refused = true;
        self.end = None;
        let frames = self.status().spooled;
        self.dropped_frames += frames;
        (self.head, self.tail) = (Part::default(), Part::default());
        self.forget_disk();
    }

    /// What is to be written now: the oldest that memory should not hold.
    pub fn spill(&self) -> Option<Spill> {
        let room = self.limits.disk - self.disk_bytes();
        let messages = match self.is_broken {
            true => Vec::new(),
            false => self.tail.batch(room),
        };
        (!messages.is_empty()).then_some(Spill {
            at: self.disk_to,
            messages,
        })
    }

    /// It is written. What went another way meanwhile is not on disk: its place is written over.
    pub fn spilled(&mut self, spill: &Spill) {
        let first = |message: Option<&Message>| message.map(|message| message.sequence);
        if self.disk_to != spill.at || first(self.tail.front()) != first(spill.messages.first()) {
            return;
        }
        for message in &spill.messages {
            self.tail.pop();
            self.disk.push_back((message.sequence, message.payload.len()));
            self.disk_to += message.payload.len() as u64;
        }
    }

    /// What is to be read now: the oldest, when memory holds none that is older.
    pub fn load(&self) -> Option<Load> {
        let count = batch_len(self.disk.iter().map(|(_, size)| *size), u64::MAX);
        (self.head.messages.is_empty() && count > 0).then(|| Load {
            at: self.disk_from,
            frames: self.disk.iter().take(count).copied().collect(),
            is_all: count == self.disk.len(),
        })
    }

    /// It is read: the payloads one after the other.
    pub fn loaded(&mut self, load: &Load, mut payloads: Bytes) {
        for (sequence, size) in &load.frames {
            // Refused meanwhile.
            if self.disk.pop_front().is_none() {
                return;
            }
            self.disk_from += *size as u64;
            let payload = payloads.split_to(*size);
            self.head.push(self.wrap(*sequence, payload));
        }
        if self.disk.is_empty() {
            (self.disk_from, self.disk_to) = (0, 0);
        }
        self.settle();
    }

    /// The disk takes nothing more: what memory does not hold from now on is dropped.
    pub fn cannot_write(&mut self) {
        self.is_broken = true;
    }

    /// What is on disk cannot be read: it is dropped, and what comes behind it says so.
    pub fn cannot_read(&mut self) {
        self.is_broken = true;
        self.dropped_frames += self.disk.len() as u64;
        self.dropped
            .extend(self.disk.iter().map(|(sequence, _)| (*sequence, *sequence)));
        self.dropped.sort_unstable();
        self.dropped = joined(&self.dropped);
        self.forget_disk();
        let before = self.head.messages.back().map_or(self.acked, |message| message.sequence);
        match self.tail.messages.front_mut() {
            Some(next) => {
                if let Ok(mut frame) = Frame::decode(&next.payload) {
                    frame.skipped = frame.sequence - 1 - before;
                    self.tail.bytes -= next.payload.len();
                    next.payload = frame.encode().into();
                    self.tail.bytes += next.payload.len();
                }
            }
            None => self.last_kept = before,
        }
        self.settle();
    }

    fn forget_disk(&mut self) {
        self.disk.clear();
        (self.disk_from, self.disk_to) = (0, 0);
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_to - self.disk_from
    }

    /// What need not go to disk goes to the head, as long as nothing before it is on disk.
    fn settle(&mut self) {
        let room = self.limits.memory / 2;
        while self.disk.is_empty()
            && let Some(next) = self.tail.front()
            && (self.head.bytes + next.payload.len() <= room || self.head.messages.is_empty())
            && let Some(next) = self.tail.pop()
        {
            self.head.push(next);
        }
    }

    fn message(&self, sequence: u64, body: Body) -> Message {
        let frame = Frame {
            run: self.run,
            session: self.session,
            worker: self.worker,
            sequence,
            skipped: sequence - 1 - self.last_kept,
            body,
        };
        self.wrap(sequence, frame.encode().into())
    }

    fn wrap(&self, sequence: u64, payload: Bytes) -> Message {
        Message {
            run: self.run,
            session: self.session,
            sequence,
            payload,
        }
    }

    fn drop_newest(&mut self) {
        let sequence = self.last_sequence;
        self.dropped_frames += 1;
        let is_full = self.dropped.len() >= DROPPED_MAX;
        match self.dropped.last_mut() {
            Some(last) if last.1 + 1 == sequence || is_full => last.1 = sequence,
            _ => self.dropped.push((sequence, sequence)),
        }
    }
}

/// Ascending ranges, those that touch as one, and no more than an end may hold.
fn joined(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        let is_full = all.len() >= DROPPED_MAX;
        match all.last_mut() {
            Some(last) if last.1 + 1 >= *from || is_full => last.1 = last.1.max(*to),
            _ => all.push((*from, *to)),
        }
    }
    all
}
