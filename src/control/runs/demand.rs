//! How many workers each pool should hold: the sum over active runs, and for a while over those that just ended (`keepWarm`).

use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::topology::PoolDemand;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// What every run wants of its pool; the reconciler follows the sum.
#[derive(Debug)]
pub(super) struct Demand {
    wanted: Mutex<BTreeMap<RunId, (Key, u32)>>,
    sum: watch::Sender<PoolDemand>,
}

impl Demand {
    pub fn new(sum: watch::Sender<PoolDemand>) -> Self {
        Self {
            wanted: Mutex::default(),
            sum,
        }
    }

    /// Sets what a run wants.
    pub fn set(&self, run: RunId, pool: &Key, workers: u32) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if workers == 0 {
            wanted.remove(&run);
        } else {
            wanted.insert(run, (pool.clone(), workers));
        }
        let mut sum = PoolDemand::default();
        for (pool, workers) in wanted.values() {
            let entry = sum.workers.entry(pool.clone()).or_default();
            *entry = entry.saturating_add(*workers);
        }
        self.sum.send_if_modified(|old| {
            let changed = *old != sum;
            *old = sum;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Demand;
    use muster_core::model::id::RunId;
    use muster_core::topology::{PoolDemand, local_pool};
    use tokio::sync::watch;
    use uuid::Uuid;

    #[test]
    fn the_pool_holds_workers_for_all_runs_together() {
        let (sender, receiver) = watch::channel(PoolDemand::default());
        let demand = Demand::new(sender);
        let (one, two) = (RunId(Uuid::from_u128(1)), RunId(Uuid::from_u128(2)));
        demand.set(one, &local_pool(), 2);
        demand.set(two, &local_pool(), 3);
        assert_eq!(receiver.borrow().workers.get(&local_pool()), Some(&5));
        demand.set(one, &local_pool(), 0);
        demand.set(two, &local_pool(), 0);
        assert!(receiver.borrow().workers.is_empty());
    }
}
