//! How far a worker's clock is from the owner's: measured by exchanges, one a second. What counts is the exchange whose error is least
//! now: half of its round trip, and what the clocks may have drifted apart since (promise 38).

use std::collections::VecDeque;

/// Exchanges before an estimate counts; made in a row when a worker connects.
pub const EXCHANGES: usize = 8;
/// Exchanges kept: with one a second, an estimate stands on what is at most 16 s old, and on 8 of the last 10 s.
pub(super) const KEPT: usize = 16;
/// Largest error of an estimate at which a worker may take part in a common start.
pub const MAX_ERROR_US: u64 = 50_000;
/// How fast two clocks drift apart at most, in microseconds per second: time daemons slew Linux' monotonic clock by up to 500.
const DRIFT_US_PER_S: u64 = 500;

/// One exchange. Both clocks count microseconds from an instant of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Owner's clock when the question left.
    pub sent_us: u64,
    /// Worker's clock when it answered.
    pub worker_us: u64,
    /// Owner's clock when the answer came.
    pub received_us: u64,
    /// Worker's wall clock when it answered, microseconds since 1970.
    pub worker_wall_us: i64,
    /// Owner's wall clock when the answer came.
    pub owner_wall_us: i64,
}

/// The estimate of one connection.
#[derive(Debug, Clone, Default)]
pub struct Offset {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    offset_us: i64,
    wall_us: i64,
    round_trip_us: u64,
    received_us: u64,
}

/// What the exchanges say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Worker's clock minus owner's clock; both count from when their process began, so the number itself means nothing to people.
    pub offset_us: i64,
    /// The truth is at most so far away, with what clocks may have drifted apart since the exchange.
    pub error_us: u64,
    /// Worker's wall clock minus the owner's: what logs of both machines differ by. Load starts by the other one.
    pub wall_us: i64,
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
    pub fn add(&mut self, exchange: Exchange) {
        let Some(round_trip_us) = exchange.received_us.checked_sub(exchange.sent_us) else {
            return;
        };
        let middle = i128::from(exchange.sent_us) + i128::from(round_trip_us / 2);
        let way_back = i128::from(round_trip_us.div_ceil(2));
        let wall = i128::from(exchange.worker_wall_us) - (i128::from(exchange.owner_wall_us) - way_back);
        let (Ok(offset_us), Ok(wall_us)) = (
            i64::try_from(i128::from(exchange.worker_us) - middle),
            i64::try_from(wall),
        ) else {
            return;
        };
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            offset_us,
            wall_us,
            round_trip_us,
            received_us: exchange.received_us,
        });
    }

    /// The estimate as of the newest exchange, once there were [`EXCHANGES`].
    pub fn estimate(&self) -> Option<Estimate> {
        if self.samples.len() < EXCHANGES {
            return None;
        }
        let now_us = self.samples.back()?.received_us;
        let error_us = |sample: &Sample| {
            // The worker answered somewhere within the round trip; the clocks drift from then on.
            let age_us = now_us
                .saturating_sub(sample.received_us)
                .saturating_add(sample.round_trip_us);
            sample.round_trip_us.div_ceil(2) + age_us.saturating_mul(DRIFT_US_PER_S).div_ceil(1_000_000)
        };
        let best = self.samples.iter().min_by_key(|sample| error_us(sample))?;
        Some(Estimate {
            offset_us: best.offset_us,
            error_us: error_us(best),
            wall_us: best.wall_us,
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
    use super::{DRIFT_US_PER_S, EXCHANGES, Exchange, MAX_ERROR_US, Offset, Verdict};
    use proptest::prelude::*;

    fn exchange(sent_us: u64, worker_us: u64, received_us: u64) -> Exchange {
        Exchange {
            sent_us,
            worker_us,
            received_us,
            ..Exchange::default()
        }
    }

    proptest! {
        /// Whatever the two ways of an exchange take, and however the clocks drift within the bound, the truth is within the error.
        #[test]
        fn s38_the_true_offset_is_within_the_error_also_when_clocks_drift(
            ahead in 0_u64..1 << 40,
            drift in -(DRIFT_US_PER_S as i64)..=DRIFT_US_PER_S as i64,
            ways in proptest::collection::vec((0_u64..200_000, 0_u64..200_000, 0_u64..2_000_000), EXCHANGES..40),
        ) {
            let mut offset = Offset::default();
            let mut now = 1_000_u64;
            let truth = |now: u64| ahead as i64 + (now as i128 * i128::from(drift) / 1_000_000) as i64;
            let mut received = 0;
            for (there, back, pause) in ways {
                let answered = now + there;
                received = answered + back;
                offset.add(exchange(now, answered.saturating_add_signed(truth(answered)), received));
                now = received + pause;
            }
            let estimate = offset.estimate().expect("enough exchanges");
            let wrong = estimate.offset_us.abs_diff(truth(received));
            prop_assert!(wrong <= estimate.error_us + 2, "{wrong} µs off, said {}", estimate.error_us);
            prop_assert_eq!(offset.verdict() == Verdict::Good, estimate.error_us <= MAX_ERROR_US);
        }
    }

    #[test]
    fn s38_an_estimate_needs_eight_exchanges_and_old_ones_are_forgotten() {
        let mut offset = Offset::default();
        for round in 0..EXCHANGES as u64 {
            assert!(offset.estimate().is_none());
            offset.add(exchange(round, round, round));
        }
        // Answered within the microsecond, just now.
        assert_eq!(offset.estimate().map(|estimate| estimate.error_us), Some(0));
        for _ in 0..20 {
            offset.add(exchange(0, 0, 200_000));
        }
        assert_eq!(offset.verdict(), Verdict::Bad);
        offset.add(exchange(9, 0, 3));
        offset.add(exchange(0, u64::MAX, 0));
    }

    #[test]
    fn s38_a_quick_exchange_of_long_ago_loses_to_a_slower_new_one() {
        let mut offset = Offset::default();
        let second = 1_000_000;
        for _ in 0..EXCHANGES {
            offset.add(exchange(0, 100, 20));
        }
        assert_eq!(
            offset
                .estimate()
                .map(|estimate| (estimate.offset_us, estimate.error_us)),
            Some((90, 11))
        );
        // Ten seconds later the old one may be off by 5 ms; a round trip of 2 ms is better, one of 20 ms is not.
        let mut slower = offset.clone();
        slower.add(exchange(10 * second, 10 * second + 77, 10 * second + 20_000));
        assert_eq!(slower.estimate().map(|estimate| estimate.offset_us), Some(90));
        offset.add(exchange(10 * second, 10 * second + 1_500, 10 * second + 2_000));
        assert_eq!(
            offset
                .estimate()
                .map(|estimate| (estimate.offset_us, estimate.error_us)),
            Some((500, 1_001))
        );
    }

    #[test]
    fn the_wall_clocks_difference_is_told_apart_from_the_way_back() {
        let mut offset = Offset::default();
        for _ in 0..EXCHANGES {
            offset.add(Exchange {
                sent_us: 1_000,
                worker_us: 0,
                received_us: 3_000,
                worker_wall_us: 5_000_000,
                owner_wall_us: 2_001_000,
            });
        }
        assert_eq!(offset.estimate().map(|estimate| estimate.wall_us), Some(3_000_000));
    }
}
