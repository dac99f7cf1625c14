//! What is stored in one transaction: the frames of some half second of one run, merged by second and series.

use crate::bus::{Delivery, Fate};
use crate::store::rows::{Flush, PartOf, SlicePart};
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::slice::{SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::oneshot;

/// Frames being merged.
#[derive(Debug)]
pub(super) struct Batch {
    run: RunId,
    merged: BTreeMap<(u32, SeriesKey), Stats>,
    workers: Vec<SlicePart>,
    watermarks: BTreeMap<SessionId, (u64, u64)>,
    ends: BTreeMap<SessionId, (u64, Vec<(u64, u64)>)>,
    deliveries: Vec<Delivery>,
    bytes: usize,
}

/// Frames merged, waiting to be stored. The messages stay with it, so that it can be judged anew.
#[derive(Debug)]
pub(super) struct Closed {
    pub flush: Flush,
    pub bytes: usize,
    pub frames: usize,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Batch {
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            merged: BTreeMap::new(),
            workers: Vec::new(),
            watermarks: BTreeMap::new(),
            ends: BTreeMap::new(),
            deliveries: Vec::new(),
            bytes: 0,
        }
    }

    pub fn frames(&self) -> usize {
        self.deliveries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Merges a frame whose session stood at `from`.
    pub fn add(&mut self, frame: Frame, from: u64, delivery: Delivery) {
        let stands = self.watermarks.entry(frame.session).or_insert((from, from));
        stands.1 = frame.sequence;
        match frame.body {
            Body::Second(second) => {
                for (series, stats) in second.entries {
                    self.merged.entry((second.second, series)).or_default().merge(&stats);
                }
                self.workers.push(SlicePart {
                    second: second.second,
                    what: PartOf::Worker(frame.worker),
                    data: second.generator.encode(),
                });
            }
            Body::End { last_sequence, dropped } => {
                self.ends.insert(frame.session, (last_sequence, dropped));
            }
        }
        self.wait(delivery);
    }

    /// Lets a message share the fate of this batch.
    pub fn wait(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.payload.len();
        self.deliveries.push(delivery);
    }

    pub fn into_deliveries(self) -> Vec<Delivery> {
        self.deliveries
    }

    pub fn close(self) -> Closed {
        let series = self.merged.into_iter().map(|((second, series), stats)| SlicePart {
            second,
            what: PartOf::Series(series),
            data: stats.encode(),
        });
        let mut parts: Vec<SlicePart> = series.chain(self.workers).collect();
        parts.sort_by(|left, right| (left.second, &left.what).cmp(&(right.second, &right.what)));
        Closed {
            bytes: self.bytes + parts.iter().map(|part| part.data.len()).sum::<usize>(),
            frames: self.deliveries.len(),
            flush: Flush {
                run: self.run,
                parts,
                watermarks: self.watermarks,
                ends: self.ends,
            },
            deliveries: Mutex::new(self.deliveries),
        }
    }
}

impl Closed {
    pub fn take_deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut super::lock(&self.deliveries))
    }

    /// Those who wait to hear of it, with the sequence each asks about.
    pub fn take_fates(&self) -> Vec<(SessionId, u64, oneshot::Sender<Fate>)> {
        let split = |delivery: Delivery| (delivery.message.session, delivery.message.sequence, delivery.fate);
        self.take_deliveries().into_iter().map(split).collect()
    }
}
