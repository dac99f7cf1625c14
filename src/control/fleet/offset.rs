//! How far a worker's clock is from the owner's: measured by exchanges, judged by the one with the least round trip (promise 38).

use std::collections::VecDeque;

/// Exchanges before an estimate counts.
pub const EXCHANGES: usize = 8;
/// Exchanges kept: with one a second, a little more than the 10 s after which an estimate must have been renewed.
pub(super) const KEPT: usize = 16;
/// Largest error of an estimate at which a worker may take part in a common start.
pub const MAX_ERROR_US: u64 = 50_000;

/// The estimate of one connection. Both clocks count microseconds from an instant of their own.
#[derive(Debug, Clone, Default)]
pub struct Offset {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    offset_us: i64,
    round_trip_us: u64,
}

/// What the exchanges say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Worker's clock minus owner's clock.
    pub offset_us: i64,
    /// The truth is at most so far away: half of the round trip.
    pub error_us: u64,
}

/// Whether a worker may take part in a common start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: too few exchanges, or a busy machine whose next ones may be quicker.
    Unknown,
    /// It may.
    Good,
    /// It may not: none of many exchanges was quick enough.
    Bad,
}

impl Offset {
    /// Takes in one exchange. An answer from before its question is not one.
    pub fn add(&mut self, sent_us: u64, worker_us: u64, received_us: u64) {
        let Some(round_trip_us) = received_us.checked_sub(sent_us) else {
            return;
        };
        let middle = i128::from(sent_us) + i128::from(round_trip_us / 2);
        let Ok(offset_us) = i64::try_from(i128::from(worker_us) - middle) else {
            return;
        };
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            offset_us,
            round_trip_us,
        });
    }

    /// The estimate, once there were [`EXCHANGES`].
    pub fn estimate(&self) -> Option<Estimate> {
        if self.samples.len() < EXCHANGES {
            return None;
        }
        let best = self.samples.iter().min_by_key(|sample| sample.round_trip_us)?;
        Some(Estimate {
            offset_us: best.offset_us,
            error_us: best.round_trip_us.div_ceil(2),
        })
    }

    /// What the estimate means for a common start.
    pub fn verdict(&self) -> Verdict {
        match self.estimate() {
            Some(estimate) if estimate.error_us <= MAX_ERROR_US => Verdict::Good,
            Some(_) if self.samples.len() == KEPT => Verdict::Bad,
            _ => Verdict::Unknown,
        }
    }
}

impl Estimate {
    /// An instant of the owner's clock on the worker's; one before the worker's zero is its zero.
    pub fn to_worker_us(self, owner_us: u64) -> u64 {
        owner_us.saturating_add_signed(self.offset_us)
    }
}

#[cfg(test)]
mod tests {
    use super::{EXCHANGES, MAX_ERROR_US, Offset, Verdict};
    use proptest::prelude::*;

    proptest! {
        /// Whatever the two ways of an exchange take, the truth is within the error.
        #[test]
        fn s38_the_true_offset_is_within_half_the_least_round_trip(
            ahead in 0_u64..1 << 40,
            ways in proptest::collection::vec((0_u64..200_000, 0_u64..200_000), EXCHANGES..40),
        ) {
            let mut offset = Offset::default();
            let mut now = 1_000_u64;
            for (there, back) in ways {
                offset.add(now, now + there + ahead, now + there + back);
                now += there + back + 1_000;
            }
            let estimate = offset.estimate().expect("enough exchanges");
            prop_assert!(estimate.offset_us.abs_diff(ahead as i64) <= estimate.error_us + 1);
            prop_assert_eq!(offset.verdict() == Verdict::Good, estimate.error_us <= MAX_ERROR_US);
        }
    }

    #[test]
    fn s38_an_estimate_needs_eight_exchanges_and_old_ones_are_forgotten() {
        let mut offset = Offset::default();
        for round in 0..EXCHANGES as u64 {
            assert!(offset.estimate().is_none());
            offset.add(round, round, round);
        }
        assert_eq!(offset.estimate().map(|estimate| estimate.error_us), Some(0));
        for _ in 0..20 {
            offset.add(0, 0, 200_000);
        }
        assert_eq!(offset.verdict(), Verdict::Bad);
        offset.add(9, 0, 3);
        offset.add(0, u64::MAX, 0);
    }
}
