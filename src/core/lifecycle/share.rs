//! Splits load among workers so that all shares add up to the whole and differ by at most one (promise 39).

use crate::model::load::Segment;
use std::ops::Range;

/// This worker's part of `total` (users, iterations, arrivals so far): floor split, the first `total mod count` workers get one more.
///
/// It equals how many of the indices `0..total` the worker owns, so shares add up whenever they are asked for.
pub fn share(total: u64, segment: Segment) -> u64 {
    let count = u64::from(segment.count.max(1));
    total / count + u64::from(u64::from(segment.index) < total % count)
}

/// A worker's part in a phase that only the first `workers` of the run's workers make; `None`: it has none, and idles.
pub fn part_in(workers: Option<u32>, worker: Segment) -> Option<Segment> {
    let count = workers.unwrap_or(worker.count).clamp(1, worker.count.max(1));
    (worker.index < count).then_some(Segment {
        index: worker.index,
        count,
    })
}

/// This worker's rows of a file of `rows`: contiguous blocks, one behind the other, whose sizes differ by at most one (promise 40).
pub fn block(rows: u64, segment: Segment) -> Range<u64> {
    let border = |index: u32| {
        let place = u128::from(rows) * u128::from(index) / u128::from(segment.count.max(1));
        u64::try_from(place).expect("a part is no more than the whole")
    };
    border(segment.index)..border(segment.index + 1)
}

/// Whether arrival (or user, or iteration) `k` of the whole run, from 0, is this worker's: those of worker i are i, i + n, i + 2n, ….
pub fn owns(k: u64, segment: Segment) -> bool {
    k % u64::from(segment.count.max(1)) == u64::from(segment.index)
}

/// The index in the whole run of this worker's `nth` own one, from 0; saturates far beyond any run.
pub fn index_of(nth: u64, segment: Segment) -> u64 {
    nth.saturating_mul(u64::from(segment.count.max(1)))
        .saturating_add(u64::from(segment.index))
}

#[cfg(test)]
mod tests {
    use super::{block, index_of, owns, part_in, share};
    use crate::lifecycle::arrivals::Arrivals;
    use crate::lifecycle::vus::Vus;
    use crate::model::load::{Executor, Rate, RateStage, Segment, Users, VuStage};
    use proptest::prelude::*;
    use std::time::Duration;

    /// The parts of all workers of a run in a phase, idle ones left out.
    fn parts(workers: Option<u32>, count: u32) -> Vec<Segment> {
        let all = (0..count).map(|index| Segment { index, count });
        all.filter_map(|worker| part_in(workers, worker)).collect()
    }

    fn check_fair(shares: &[u64], whole: u64) -> Result<(), TestCaseError> {
        prop_assert_eq!(shares.iter().sum::<u64>(), whole);
        let (low, high) = (shares.iter().min(), shares.iter().max());
        prop_assert!(high.zip(low).is_some_and(|(high, low)| high - low <= 1));
        Ok(())
    }

    fn any_executor() -> impl Strategy<Value = Executor> {
        let users = Users {
            pre_allocated: 1,
            max: 10_000,
        };
        let ms = Duration::from_millis;
        let rate = || (0_u64..5_000, 1_u64..2_000).prop_map(|(iterations, per_ms)| Rate { iterations, per_ms });
        let rates = prop::collection::vec((rate(), 0_u64..3_000), 1..4);
        let levels = prop::collection::vec((0_u64..5_000, 0_u64..3_000), 1..4);
        prop_oneof![
            (0_u64..10_000, 0_u64..3_000).prop_map(move |(vus, long)| Executor::ConstantVus {
                vus,
                duration: ms(long)
            }),
            (0_u64..3_000, levels).prop_map(move |(start_vus, levels)| Executor::RampingVus {
                start_vus,
                stages: levels
                    .into_iter()
                    .map(|(target, long)| VuStage {
                        target,
                        duration: ms(long)
                    })
                    .collect(),
                graceful_ramp_down: Duration::ZERO,
            }),
            (rate(), 0_u64..3_000).prop_map(move |(rate, long)| Executor::ConstantArrivalRate {
                rate,
                duration: ms(long),
                users
            }),
            (rate(), rates).prop_map(move |(start, rates)| Executor::RampingArrivalRate {
                start,
                stages: rates
                    .into_iter()
                    .map(|(target, long)| RateStage {
                        target,
                        duration: ms(long)
                    })
                    .collect(),
                users,
            }),
        ]
    }

    proptest! {
        #[test]
        fn s39_shares_add_up_and_differ_by_at_most_one(total in any::<u32>(), count in 1_u32..=1_000) {
            let shares: Vec<u64> = parts(None, count).iter().map(|part| share(total.into(), *part)).collect();
            check_fair(&shares, total.into())?;
        }

        #[test]
        fn s39_each_arrival_has_one_owner_and_a_share_counts_the_owned(total in 0_u64..500, count in 1_u32..20) {
            for index in 0..count {
                let segment = Segment { index, count };
                let owned: Vec<u64> = (0..total).filter(|k| owns(*k, segment)).collect();
                prop_assert_eq!(owned.len() as u64, share(total, segment));
                let counted: Vec<u64> = (0..owned.len() as u64).map(|nth| index_of(nth, segment)).collect();
                prop_assert_eq!(owned, counted);
            }
        }

        #[test]
        fn s39_at_every_instant_the_workers_of_each_phase_share_the_whole_fairly(
            count in 1_u32..=1_000,
            phases in prop::collection::vec((any_executor(), prop::option::of(1_u32..=1_200)), 1..4),
            permille in prop::collection::vec(0_u32..=1_000, 1..4),
        ) {
            for (executor, workers) in phases {
                let parts = parts(workers, count);
                let working = workers.map_or(count, |workers| workers.min(count));
                prop_assert_eq!(parts.len(), working as usize, "the first so many, all others idle");
                for permille in &permille {
                    let at = executor.duration() * *permille / 1_000;
                    if let Some(vus) = Vus::new(&executor) {
                        let shares: Vec<u64> = parts.iter().map(|part| vus.own_at(at, *part)).collect();
                        check_fair(&shares, vus.at(at))?;
                    }
                    if let Some(arrivals) = Arrivals::new(&executor) {
                        let come = arrivals.count_until(at);
                        let shares: Vec<u64> = parts.iter().map(|part| share(come, *part)).collect();
                        check_fair(&shares, come)?;
                        let (k, times) = (come / 2, u64::from(working));
                        let owners = parts.iter().filter(|part| owns(k, **part)).count();
                        prop_assert_eq!(owners, 1, "arrival {} of the phase", k);
                        let owner = parts[(k % times) as usize];
                        let own = arrivals.own(owner).nth((k / times) as usize);
                        prop_assert_eq!(own, arrivals.time_of(k).map(|at| (k, at)));
                    }
                }
            }
        }

        #[test]
        fn s40_blocks_are_contiguous_differ_by_at_most_one_and_lose_no_row(
            rows in prop_oneof![0_u64..3_000, any::<u64>()],
            count in 1_u32..=1_000,
        ) {
            let mut next = 0;
            let mut sizes = Vec::new();
            for index in 0..count {
                let block = block(rows, Segment { index, count });
                prop_assert_eq!(block.start, next);
                next = block.end;
                sizes.push(block.end - block.start);
            }
            prop_assert_eq!(next, rows);
            check_fair(&sizes, rows)?;
        }
    }
}
