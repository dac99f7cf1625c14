//! Desired, topology and Observed, indexed by the resource that units belong to.

use crate::model::desired::Desired;
use crate::model::key::Key;
use crate::model::observed::{InventoryRow, Observed, Sight};
use crate::model::resource::Spec;
use crate::model::unit::{ObservedUnit, UnitName, UnitSpec, UnitState};
use crate::topology::{Topology, local_pool};
use std::collections::{BTreeMap, BTreeSet};

/// What the decisions of one changeset look at.
pub(super) struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) topology: &'a Topology,
    pub(super) observed: &'a Observed,
    wanted: BTreeMap<&'a Key, Vec<&'a UnitSpec>>,
    seen: BTreeMap<&'a Key, Vec<&'a ObservedUnit>>,
    inventory: BTreeMap<&'a Key, Vec<&'a InventoryRow>>,
}

impl<'a> View<'a> {
    pub(super) fn new(desired: &'a Desired, topology: &'a Topology, observed: &'a Observed) -> Self {
        let mut wanted: BTreeMap<&Key, Vec<&UnitSpec>> = BTreeMap::new();
        for unit in topology.units.values() {
            wanted.entry(&unit.owner).or_default().push(unit);
        }
        for units in wanted.values_mut() {
            units.sort_by_key(|unit| unit.ordinal);
        }
        let mut seen: BTreeMap<&Key, Vec<&ObservedUnit>> = BTreeMap::new();
        for sight in observed.environments.values() {
            if let Sight::Seen(units) = sight {
                for unit in units {
                    seen.entry(&unit.owner).or_default().push(unit);
                }
            }
        }
        let mut inventory: BTreeMap<&Key, Vec<&InventoryRow>> = BTreeMap::new();
        for row in observed.inventory.values() {
            inventory.entry(&row.owner).or_default().push(row);
        }
        Self {
            desired,
            topology,
            observed,
            wanted,
            seen,
            inventory,
        }
    }

    pub(super) fn wanted(&self, owner: &Key) -> &[&'a UnitSpec] {
        self.wanted.get(owner).map_or(&[], Vec::as_slice)
    }

    pub(super) fn seen(&self, owner: &Key) -> &[&'a ObservedUnit] {
        self.seen.get(owner).map_or(&[], Vec::as_slice)
    }

    pub(super) fn inventory(&self, owner: &Key) -> &[&'a InventoryRow] {
        self.inventory.get(owner).map_or(&[], Vec::as_slice)
    }

    /// A unit's inventory row.
    pub(super) fn row(&self, unit: &UnitName) -> Option<&'a InventoryRow> {
        self.observed.inventory.get(unit)
    }

    /// Every resource that has units here or once had, and every applied one.
    pub(super) fn known_owners(&self) -> BTreeSet<&'a Key> {
        let applied = self.observed.applied.keys();
        applied
            .chain(self.inventory.keys().copied())
            .chain(self.seen.keys().copied())
            .collect()
    }

    /// Why nothing can be decided about a resource's units, where that is so (promise 14): an environment that has or should
    /// have some of them does not answer, or one of them is Unknown.
    pub(super) fn blind_spot(&self, owner: &Key) -> Option<String> {
        let wanted = self.wanted(owner).iter().map(|unit| &unit.environment);
        let noted = self.inventory(owner).iter().map(|row| &row.environment);
        for environment in wanted.chain(noted).collect::<BTreeSet<_>>() {
            match self.observed.environments.get(environment) {
                Some(Sight::Seen(_)) => {}
                Some(Sight::Unreachable { reason }) => return Some(format!("{environment} does not answer: {reason}")),
                None => return Some(format!("{environment} has not been observed")),
            }
        }
        self.seen(owner).iter().find_map(|unit| match &unit.state {
            UnitState::Unknown { reason } => Some(format!("unit {} is Unknown: {reason}", unit.name)),
            _ => None,
        })
    }

    /// Whether every wanted unit of a resource is there and Ready. What has no units always is.
    pub(super) fn is_ready(&self, owner: &Key) -> bool {
        let replicated = self
            .desired
            .get(owner)
            .is_some_and(|resource| matches!(resource.spec, Spec::Service(_) | Spec::IngestCluster(_)));
        !replicated
            || self.wanted(owner).iter().all(|wanted| {
                self.seen(owner).iter().any(|unit| {
                    unit.name == wanted.name && unit.environment == wanted.environment && unit.state == UnitState::Ready
                })
            })
    }

    /// Units that stand in an environment, or may: seen there or noted in the inventory.
    pub(super) fn units_in(&self, environment: &Key) -> usize {
        let noted = self
            .observed
            .inventory
            .values()
            .filter(|row| row.environment == *environment);
        let mut names: BTreeSet<&UnitName> = noted.map(|row| &row.unit).collect();
        if let Some(Sight::Seen(units)) = self.observed.environments.get(environment) {
            names.extend(units.iter().map(|unit| &unit.name));
        }
        names.len()
    }

    /// Whether a key is the implicit pool, which no document describes and which is always wanted.
    pub(super) fn is_implicit(key: &Key) -> bool {
        *key == local_pool()
    }
}
