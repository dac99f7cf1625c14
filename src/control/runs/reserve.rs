//! Workers of pools where they come by themselves: a start takes free ones at once, or nothing is started.

use super::Shared;
use super::pinned::Pinned;
use super::start::Blocked;
use muster_core::model::id::{RunId, WorkerId};

impl Shared {
    /// Takes as many free workers of a joined pool as the run needs, lowest ids first, and returns them. Others are no concern of this.
    ///
    /// # Errors
    /// When there are too few; then none is taken.
    pub(super) fn reserve(&self, run: RunId, pinned: &Pinned) -> Result<Vec<WorkerId>, Blocked> {
        if !pinned.joined {
            return Ok(Vec::new());
        }
        let mut views = self.parts.fleet.workers();
        views.retain(|view| view.connected && view.pool == pinned.pool);
        let mut claims = self.claims();
        let free: Vec<WorkerId> = views
            .iter()
            .filter(|view| view.is_free() && !claims.contains_key(&view.id))
            .map(|view| view.id)
            .collect();
        let needed = usize::try_from(pinned.workers).unwrap_or(usize::MAX);
        let Some(taken) = free.get(..needed) else {
            return Err(Blocked::NotEnoughWorkers {
                pool: pinned.pool.clone(),
                needed: pinned.workers,
                free: free.len(),
                connected: views.len(),
            });
        };
        claims.extend(taken.iter().map(|worker| (*worker, run)));
        Ok(taken.to_vec())
    }

    /// Gives workers back that were reserved for a run that was not started.
    pub(super) fn give_back(&self, workers: &[WorkerId]) {
        self.claims().retain(|worker, _| !workers.contains(worker));
    }
}
