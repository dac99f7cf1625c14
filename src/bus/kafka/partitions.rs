//! Which records of each partition have been handed out and have no fate yet: what may be committed, what must come again.

use std::collections::{BTreeMap, BTreeSet};

/// Where a record stands. `generation` tells records handed out before a partition was lost or read again from those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub partition: i32,
    pub offset: i64,
    generation: u64,
}

/// The partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    owned: BTreeMap<i32, Partition>,
    generations: u64,
}

#[derive(Debug, Default)]
struct Partition {
    generation: u64,
    /// Handed out and without a fate.
    waiting: BTreeSet<i64>,
    /// After the newest that was handed out; `None`: nothing was.
    next: Option<i64>,
    /// What Kafka was last asked to remember.
    committed: Option<i64>,
    /// A record nobody stored: it must be read again.
    lost: bool,
}

impl Partition {
    /// Everything before it has a fate.
    fn done(&self) -> Option<i64> {
        self.waiting.first().copied().or(self.next)
    }
}

impl Partitions {
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.generations += 1;
            let generation = self.generations;
            self.owned.insert(
                partition,
                Partition {
                    generation,
                    ..Partition::default()
                },
            );
        }
    }

    pub fn revoke(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.owned.remove(&partition);
        }
    }

    pub fn owned(&self) -> impl Iterator<Item = i32> {
        self.owned.keys().copied()
    }

    /// Notes that a record is handed out. `None`: it is of a partition that is not ours, or was handed out already.
    pub fn hand_out(&mut self, partition: i32, offset: i64) -> Option<Place> {
        let known = self.owned.get_mut(&partition)?;
        if known.next.is_some_and(|next| offset < next) {
            return None;
        }
        known.next = Some(offset + 1);
        known.waiting.insert(offset);
        Some(Place {
            partition,
            offset,
            generation: known.generation,
        })
    }

    /// A record's fate is known, or it must come again. False: nobody cares any more.
    pub fn told(&mut self, place: Place, has_fate: bool) -> bool {
        let Some(known) = self
            .owned
            .get_mut(&place.partition)
            .filter(|known| known.generation == place.generation)
        else {
            return false;
        };
        if has_fate {
            known.waiting.remove(&place.offset);
        } else {
            known.lost = true;
        }
        true
    }

    /// The partitions in which something must be read again, with the offset to read from. What is handed out of them is forgotten: it
    /// comes again.
    pub fn read_again(&mut self) -> Vec<(i32, i64)> {
        let mut again = Vec::new();
        for (partition, known) in self.owned.iter_mut().filter(|(_, known)| known.lost) {
            let Some(from) = known.done() else { continue };
            self.generations += 1;
            known.generation = self.generations;
            known.waiting.clear();
            known.next = Some(from);
            known.lost = false;
            again.push((*partition, from));
        }
        again
    }

    /// What has grown since it was last asked for: the offset in each partition before which everything has a fate.
    pub fn take_grown(&mut self) -> Vec<(i32, i64)> {
        let mut grown = Vec::new();
        for (partition, known) in &mut self.owned {
            match known.done() {
                Some(done) if known.committed.is_none_or(|committed| committed < done) => {
                    known.committed = Some(done);
                    grown.push((*partition, done));
                }
                _ => {}
            }
        }
        grown
    }

    /// Kafka does not remember them: they are to be committed once more.
    pub fn not_committed(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            if let Some(known) = self.owned.get_mut(&partition) {
                known.committed = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Partitions, Place};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn s49_the_commit_trails_the_lowest_record_without_a_fate() {
        let mut partitions = Partitions::default();
        partitions.assign([4]);
        assert_eq!(partitions.take_grown(), []);
        let places: Vec<Place> = (10..14).filter_map(|offset| partitions.hand_out(4, offset)).collect();
        assert_eq!(partitions.take_grown(), [(4, 10)]);
        assert!(partitions.told(places[1], true) && partitions.told(places[3], true));
        assert_eq!(partitions.take_grown(), []);
        partitions.told(places[0], true);
        assert_eq!(partitions.take_grown(), [(4, 12)]);
        partitions.not_committed([4]);
        assert_eq!(partitions.take_grown(), [(4, 12)]);
        partitions.told(places[2], true);
        assert_eq!(partitions.take_grown(), [(4, 14)]);
    }

    #[test]
    fn s49_what_nobody_stored_is_read_again_from_the_lowest() {
        let mut partitions = Partitions::default();
        partitions.assign([1]);
        let places: Vec<Place> = (0..4).filter_map(|offset| partitions.hand_out(1, offset)).collect();
        partitions.told(places[0], true);
        partitions.told(places[3], true);
        partitions.told(places[2], false);
        assert_eq!(partitions.read_again(), [(1, 1)]);
        assert_eq!(partitions.read_again(), []);
        // An answer to what was handed out before counts for nothing.
        assert!(!partitions.told(places[1], true));
        assert_eq!(partitions.take_grown(), [(1, 1)]);
        let again = partitions.hand_out(1, 1).unwrap();
        assert_eq!(partitions.hand_out(1, 1), None);
        assert!(partitions.told(again, true));
        assert_eq!(partitions.take_grown(), [(1, 2)]);
    }

    #[test]
    fn s49_a_rebalance_forgets_what_is_in_flight() {
        let mut partitions = Partitions::default();
        partitions.assign([1, 2]);
        let old = partitions.hand_out(1, 5).unwrap();
        partitions.revoke([1]);
        assert!(!partitions.told(old, true));
        assert_eq!(partitions.hand_out(1, 6), None);
        partitions.assign([1]);
        assert!(!partitions.told(old, false));
        assert_eq!(partitions.read_again(), []);
        assert_eq!(partitions.owned().collect::<Vec<_>>(), [1, 2]);
        // Another consumer may have stood further back.
        assert!(partitions.hand_out(1, 3).is_some());
    }

    proptest! {
        #[test]
        fn s49_nothing_without_a_fate_is_ever_committed(
            steps in proptest::collection::vec((0_usize..40, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let mut partitions = Partitions::default();
            partitions.assign([0]);
            let (mut log_end, mut places, mut stored) = (0, Vec::new(), BTreeSet::new());
            for (pick, has_fate, reads) in steps {
                if let Some(place) = partitions.hand_out(0, log_end) {
                    places.push(place);
                    log_end += 1;
                }
                let place = places[pick % places.len()];
                if has_fate && partitions.told(place, true) {
                    stored.insert(place.offset);
                } else {
                    partitions.told(place, has_fate);
                }
                if reads {
                    for (_, from) in partitions.read_again() {
                        log_end = from;
                    }
                }
                for (_, offset) in partitions.take_grown() {
                    prop_assert!((0..offset).all(|each| stored.contains(&each)), "{offset} {stored:?}");
                }
            }
        }
    }
}
