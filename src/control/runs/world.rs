//! What runs need to know of the rest of the daemon: a port, and the daemon's own way to fill it.

use super::pinned::BusPin;
use crate::bus::kafka::{self, Brokers, Lag};
use crate::control::reconcile::ReconcilerHandle;
use crate::control::sync::Published;
use crate::ingest::DEFAULT_GROUP;
use crate::runtime::secrets::Secrets;
use crate::store::Ledger;
use crate::store::rows::ResultsPin;
use async_trait::async_trait;
use muster_core::base::chain::chain;
use muster_core::model::id::{Digest, Name};
use muster_core::model::key::Key;
use muster_core::model::observed::{HealthState, SyncState};
use muster_core::model::policy::Policy;
use muster_core::model::resource::Spec;
use muster_core::model::streaming::IngestCluster;
use muster_core::model::unit::{ObservedUnit, UnitState};
use muster_core::topology::ingest_group;
use std::sync::Arc;
use tokio::sync::watch;

/// The daemon as runs see it.
#[async_trait]
pub trait World: Send + Sync {
    /// What git wants and how each project stands, and each change of it (promise 46).
    fn published(&self) -> watch::Receiver<Option<Arc<Published>>>;

    /// What the settings allow.
    fn policy(&self) -> Arc<Policy>;

    /// Whether a resource is Ready and in sync.
    ///
    /// # Errors
    /// Why not.
    async fn check_ready(&self, key: &Key) -> Result<(), String>;

    /// The units of a resource as they were seen last.
    fn units(&self, owner: &Key) -> Vec<ObservedUnit>;

    /// `host:port` of the ready replicas of a service.
    fn replicas(&self, service: &Key, port: &Name) -> Vec<String>;

    /// The content of a file of the repository.
    ///
    /// # Errors
    /// Why it is not at hand.
    async fn content(&self, digest: &Digest) -> Result<Arc<[u8]>, String>;

    /// Where values of secrets come from.
    fn secrets(&self) -> Arc<dyn Secrets>;

    /// How far whoever takes results from a topic into a database is; `None`: nobody knows who that is.
    ///
    /// # Errors
    /// When the brokers do not answer.
    async fn lag(&self, bus: &BusPin, database: Option<&ResultsPin>) -> Result<Option<Lag>, String>;
}

/// The daemon's own.
pub struct DaemonWorld {
    /// What git wants and what is there.
    pub reconciler: ReconcilerHandle,
    /// Statuses of resources.
    pub ledger: Arc<dyn Ledger>,
    /// What the settings allow.
    pub policy: Arc<Policy>,
    /// Values of secrets.
    pub secrets: Arc<dyn Secrets>,
}

#[async_trait]
impl World for DaemonWorld {
    fn published(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.reconciler.published()
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    async fn check_ready(&self, key: &Key) -> Result<(), String> {
        let statuses = self.ledger.statuses().await.map_err(|error| chain(&error))?;
        let (_, status) = statuses
            .into_iter()
            .find(|(of, _)| of == key)
            .ok_or("it was not looked at yet")?;
        // A status of an older commit says nothing of what the newest one wants.
        let published = self.reconciler.published().borrow().clone();
        let wanted = published.and_then(|published| published.projects.get(&key.project)?.good.clone());
        if status.applied_revision != wanted {
            let short = wanted
                .as_ref()
                .map_or("the newest revision", |revision| revision.short());
            return Err(format!("{short} is not applied to it yet"));
        }
        match (status.sync, status.health) {
            (SyncState::Synced, HealthState::Healthy) => Ok(()),
            (sync, health) => {
                let why = status.conditions.iter().find(|condition| condition.kind == "Ready");
                let why = why.map_or(String::new(), |condition| format!(": {}", condition.message));
                Err(format!("{sync:?}, {health:?}{why}"))
            }
        }
    }

    fn units(&self, owner: &Key) -> Vec<ObservedUnit> {
        let mut units = self.reconciler.units();
        units.retain(|unit| unit.owner == *owner);
        units
    }

    fn replicas(&self, service: &Key, port: &Name) -> Vec<String> {
        let units = self.units(service).into_iter();
        let ready = units.filter(|unit| unit.state == UnitState::Ready);
        // Providers of this build start units on the daemon's own host only.
        ready
            .filter_map(|unit| {
                unit.ports
                    .iter()
                    .find(|(name, _)| name == port)
                    .map(|(_, port)| format!("127.0.0.1:{port}"))
            })
            .collect()
    }

    async fn content(&self, digest: &Digest) -> Result<Arc<[u8]>, String> {
        let found = self
            .reconciler
            .contents()
            .get(digest)
            .await
            .map_err(|error| chain(&error))?;
        found.ok_or_else(|| format!("{digest} is not in the repository any more"))
    }

    fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::clone(&self.secrets)
    }

    async fn lag(&self, bus: &BusPin, database: Option<&ResultsPin>) -> Result<Option<Lag>, String> {
        let brokers = Brokers::of(&bus.external, &*self.secrets).map_err(|error| chain(&error))?;
        let published = self.reconciler.published().borrow().clone();
        let resources = published.iter().flat_map(|published| published.desired.resources());
        let mut ingests = resources.filter_map(|resource| match &resource.spec {
            Spec::IngestCluster(ingest) => Some(ingest),
            _ => None,
        });
        let is_it = |ingest: &&IngestCluster| {
            let is_topic = ingest.from.cluster == bus.cluster && ingest.from.topic == bus.topic;
            is_topic && database.is_some_and(|database| database.cluster == ingest.database)
        };
        let own = ingests.find(is_it).map(ingest_group);
        let group = own.as_deref().unwrap_or(DEFAULT_GROUP);
        let lag = kafka::lag(&brokers, &bus.topic, group)
            .await
            .map_err(|error| chain(&error))?;
        // Started by hand, in a group of another name.
        Ok(Some(lag).filter(|lag| own.is_some() || !lag.is_new))
    }
}
