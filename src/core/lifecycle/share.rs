//! Splits load among workers so that all shares add up to the whole and differ by at most one (promise 39).

use crate::model::load::Segment;

/// This worker's part of `total` (users, iterations, arrivals so far): floor split, the first `total mod count` workers get one more.
///
/// It equals how many of the indices `0..total` the worker owns, so shares add up whenever they are asked for.
pub fn share(total: u64, segment: Segment) -> u64 {
    let count = u64::from(segment.count.max(1));
    total / count + u64::from(u64::from(segment.index) < total % count)
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
    use super::{index_of, owns, share};
    use crate::model::load::Segment;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn s39_shares_add_up_and_differ_by_at_most_one(total in any::<u32>(), count in 1_u32..200) {
            let shares: Vec<u64> = (0..count).map(|index| share(total.into(), Segment { index, count })).collect();
            prop_assert_eq!(shares.iter().sum::<u64>(), u64::from(total));
            let (low, high) = (shares.iter().min(), shares.iter().max());
            prop_assert!(high.zip(low).is_some_and(|(high, low)| high - low <= 1));
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
    }
}
