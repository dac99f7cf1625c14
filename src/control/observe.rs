//! Asks every provider and the ledger what is there. The answer is complete, or says of which environment it is not.

use super::external::Externals;
use super::providers::Providers;
use super::sync::Published;
use crate::runtime::clock::Clock;
use crate::store::{Ledger, StoreError};
use jiff::SignedDuration;
use muster_core::base::chain::chain;
use muster_core::model::observed::{Observed, Sight};
use muster_core::model::unit::{ObservedUnit, UnitName};
use muster_core::topology;
use std::sync::Arc;

/// How long deletions of a project add up (promise 21).
const DELETIONS_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Looks at everything there is.
#[derive(Clone)]
pub struct Observer {
    ledger: Arc<dyn Ledger>,
    providers: Arc<Providers>,
    externals: Externals,
    clock: Clock,
}

impl Observer {
    /// Over a ledger, the providers of its environments, and what somebody else runs.
    pub fn new(ledger: Arc<dyn Ledger>, providers: Arc<Providers>, externals: Externals, clock: Clock) -> Self {
        Self {
            ledger,
            providers,
            externals,
            clock,
        }
    }

    /// One complete look. The ledger is read before the providers are asked: a unit whose row was read and that is not seen
    /// was there before and is gone, never one that is just being made.
    ///
    /// # Errors
    /// When the ledger does not answer: without what was written down nothing may be decided.
    pub async fn observe(&self, published: &Published) -> Result<Observed, StoreError> {
        let since = self.clock.now() - DELETIONS_WINDOW;
        self.externals.refresh(&published.desired);
        let inventory = self.ledger.inventory().await?;
        let applied = self.ledger.applied().await?.into_iter().collect();
        let mut observed = Observed {
            inventory: inventory.into_iter().map(|row| (row.unit.clone(), row)).collect(),
            high_water: published
                .projects
                .iter()
                .map(|(name, state)| (name.clone(), state.high_water))
                .collect(),
            recent_deletions: self.ledger.deletions_since(since).await?.into_iter().collect(),
            approved_deletions: self.ledger.deletion_approvals().await?,
            environments: Default::default(),
            externals: self.externals.sights(),
            applied,
        };
        let environments = topology::environments(&published.desired, &observed.applied);
        for (key, answer) in self.providers.observe(&environments).await {
            let sight = match answer {
                // Two environments may share a folder or a host; a unit belongs to the one it was started for.
                Ok(units) => Sight::Seen(units.into_iter().filter(|unit| unit.environment == key).collect()),
                Err(error) => Sight::Unreachable { reason: chain(&error) },
            };
            observed.environments.insert(key, sight);
        }
        Ok(observed)
    }
}

/// All units seen, by name.
pub fn units(observed: &Observed) -> Vec<ObservedUnit> {
    let seen = observed.environments.values().filter_map(|sight| match sight {
        Sight::Seen(units) => Some(units),
        Sight::Unreachable { .. } => None,
    });
    let mut units: Vec<ObservedUnit> = seen.flatten().cloned().collect();
    units.sort_by_key(|unit| (unit.owner.clone(), ordinal(&unit.name)));
    units
}

fn ordinal(name: &UnitName) -> u32 {
    let text = name.as_str().rsplit('.').next().unwrap_or_default();
    text.parse().unwrap_or(u32::MAX)
}
