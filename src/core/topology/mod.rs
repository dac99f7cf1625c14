//! Expands resources into the units they consist of: a Service and an IngestCluster into replicas, a WorkerPool into workers.

use crate::model::desired::Desired;
use crate::model::environment::{Capacity, Environment, EnvironmentLimits, ProviderSpec, WorkerPool};
use crate::model::id::{Digest, Name};
use crate::model::key::{Key, Kind};
use crate::model::observed::AppliedResource;
use crate::model::resource::Spec;
use crate::model::service::Service;
use crate::model::streaming::IngestCluster;
use crate::model::unit::{UnitName, UnitSpec, UnitWork};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod applied;
pub mod outlook;
#[cfg(test)]
mod tests;

/// Time between TERM and KILL of a unit: what Docker gives a container.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Most units one resource expands into; a larger number in a plan is a typing error that must not fill the memory.
pub const UNITS_MAX: u32 = 10_000;

/// How many workers runs need of each pool now. A pool that is not named is needed by nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolDemand {
    /// Workers by pool; while a pool's number is above 0 its living workers are neither stopped nor replaced.
    pub workers: BTreeMap<Key, u32>,
}

/// What must be there, unit by unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Every unit by name.
    pub units: BTreeMap<UnitName, UnitSpec>,
    /// Every environment of Desired, and the implicit one.
    pub environments: BTreeMap<Key, Environment>,
    /// Pools that runs need now: their living workers are left alone.
    pub busy: BTreeSet<Key>,
}

impl Topology {
    /// The units of one resource, by ordinal.
    pub fn of<'a>(&'a self, owner: &'a Key) -> impl Iterator<Item = &'a UnitSpec> {
        self.units.values().filter(move |unit| unit.owner == *owner)
    }
}

/// The key of the implicit environment: Muster's own processes on the daemon's host. No document may take it.
pub fn local_environment() -> Key {
    implicit(Kind::Environment)
}

/// The key of the implicit pool that plans without `pool` use. No document may take it.
pub fn local_pool() -> Key {
    implicit(Kind::WorkerPool)
}

fn implicit(kind: Kind) -> Key {
    let name = Name::new("local").expect("`local` is a DNS label");
    Key::new(Name::default_project(), kind, name)
}

/// The implicit environment's spec.
pub fn local_environment_spec() -> Environment {
    Environment {
        provider: ProviderSpec::Process { work_dir: None },
        limits: EnvironmentLimits::default(),
        price: None,
    }
}

/// The implicit pool's spec.
pub fn local_pool_spec() -> WorkerPool {
    WorkerPool {
        environment: local_environment(),
        capacity: Capacity::LOCAL,
        min: 0,
        // A run takes one; runs beside each other get one each, as many as settings allow workers by default.
        max: 20,
        ready_timeout: Duration::from_secs(60),
        lead_time: Duration::ZERO,
        keep_warm: Duration::ZERO,
        orphan_timeout: Duration::from_secs(60),
        bus: None,
    }
}

/// Every environment that may hold units, as a provider is to be built for it: the implicit one, those of Desired, and those
/// that were applied once and are still to be emptied. Where the applied spec differs from the desired one, units still stand
/// where the applied one put them, so that one counts until the change is applied.
pub fn environments(desired: &Desired, applied: &BTreeMap<Key, AppliedResource>) -> BTreeMap<Key, Environment> {
    let mut all: BTreeMap<Key, Environment> = applied
        .iter()
        .filter(|(key, _)| key.kind == Kind::Environment)
        .filter_map(|(key, row)| Some((key.clone(), applied::environment(&row.rendered)?)))
        .collect();
    for resource in desired.resources() {
        if let Spec::Environment(environment) = &resource.spec {
            all.entry(resource.meta.key.clone())
                .or_insert_with(|| environment.clone());
        }
    }
    all.insert(local_environment(), local_environment_spec());
    all
}

/// Expands every resource of Desired, and the implicit pool, into units.
pub fn expand(desired: &Desired, demand: &PoolDemand) -> Topology {
    let mut topology = Topology {
        units: BTreeMap::new(),
        environments: environments(desired, &BTreeMap::new()),
        busy: demand
            .workers
            .iter()
            .filter(|(_, workers)| **workers > 0)
            .map(|(pool, _)| pool.clone())
            .collect(),
    };
    for resource in desired.resources() {
        match &resource.spec {
            Spec::Service(service) => expand_service(&mut topology, &resource.meta.key, service),
            Spec::WorkerPool(pool) => expand_pool(&mut topology, &resource.meta.key, pool, demand),
            Spec::IngestCluster(ingest) => expand_ingest(&mut topology, desired, &resource.meta.key, ingest),
            Spec::Environment(_) | Spec::KafkaCluster(_) | Spec::DatabaseCluster(_) | Spec::TestPlan(_) => {}
        }
    }
    expand_pool(&mut topology, &local_pool(), &local_pool_spec(), demand);
    topology
}

fn expand_service(topology: &mut Topology, owner: &Key, service: &Service) {
    let work = UnitWork::Replica {
        command: service.command.clone(),
        env: service.env.clone(),
        files: service.files.clone(),
        ports: service.ports.clone(),
        health: service.health.clone(),
    };
    add_units(topology, owner, &service.environment, service.replicas, &work);
}

/// The group that an IngestCluster's replicas are members of: one for each topic and database.
pub fn ingest_group(ingest: &IngestCluster) -> String {
    let IngestCluster { from, database, .. } = ingest;
    format!("muster.{}.{}.{}", from.topic, database.project, database.name)
}

/// Without its cluster and database nothing is known about its units; the diff then leaves those that run alone.
fn expand_ingest(topology: &mut Topology, desired: &Desired, owner: &Key, ingest: &IngestCluster) {
    let cluster = desired.get(&ingest.from.cluster).map(|resource| &resource.spec);
    let database = desired.get(&ingest.database).map(|resource| &resource.spec);
    if let (Some(Spec::KafkaCluster(cluster)), Some(Spec::DatabaseCluster(database))) = (cluster, database) {
        let work = UnitWork::Ingest {
            kafka: cluster.external.clone(),
            topic: ingest.from.topic.clone(),
            group: ingest_group(ingest),
            database: database.url.clone(),
        };
        add_units(topology, owner, &ingest.environment, ingest.replicas, &work);
    }
}

fn expand_pool(topology: &mut Topology, owner: &Key, pool: &WorkerPool, demand: &PoolDemand) {
    // Workers of a joined environment are started by hand.
    let provider = topology.environments.get(&pool.environment).map(|spec| &spec.provider);
    if provider == Some(&ProviderSpec::Joined) {
        return;
    }
    let needed = demand.workers.get(owner).copied().unwrap_or(0);
    let count = pool.min.max(needed).min(pool.max);
    let work = UnitWork::Worker {
        orphan_timeout: pool.orphan_timeout,
    };
    add_units(topology, owner, &pool.environment, count, &work);
}

fn add_units(topology: &mut Topology, owner: &Key, environment: &Key, count: u32, work: &UnitWork) {
    let provider = topology.environments.get(environment).map(|spec| &spec.provider);
    let digest = unit_digest(work, environment, provider);
    for ordinal in 0..count.min(UNITS_MAX) {
        let name = UnitName::of(owner, ordinal);
        let unit = UnitSpec {
            name: name.clone(),
            owner: owner.clone(),
            environment: environment.clone(),
            ordinal,
            work: work.clone(),
            digest: digest.clone(),
            stop_grace: STOP_GRACE,
        };
        topology.units.insert(name, unit);
    }
}

/// The digest of everything that decides what a unit does; how many siblings it has does not.
fn unit_digest(work: &UnitWork, environment: &Key, provider: Option<&ProviderSpec>) -> Digest {
    let text = serde_json::to_vec(&(work, environment, provider)).expect("model types hold only what JSON can write");
    Digest::of(&text)
}
