//! What exists in a commit: identities first, then what each turned out to be, so that references resolve in any order of files.

use super::parse::Document;
use crate::model::environment::{Environment, WorkerPool};
use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use crate::model::resource::{Resource, Spec};
use crate::model::service::Service;
use crate::model::streaming::{IngestCluster, KafkaCluster};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Resources of the last good load, by project.
pub(super) type Good = BTreeMap<Name, BTreeMap<Key, Arc<Resource>>>;

/// Everything that can be referred to.
pub(super) struct Index<'a> {
    /// Every document with an identity, valid or not.
    pub heads: BTreeMap<Key, &'a Document>,
    /// What was lowered so far.
    pub resources: BTreeMap<Key, Arc<Resource>>,
    /// Projects with files whose documents are not known.
    pub unreadable: BTreeSet<Name>,
    /// What projects held when they were good: what a reference into a broken project means until it is mended (promise 5).
    pub good: &'a Good,
}

impl Index<'_> {
    /// Whether a key exists, or still exists in the last good state of a project that cannot be read.
    pub fn known(&self, key: &Key) -> bool {
        self.heads.contains_key(key) || (self.unreadable(&key.project) && self.was_good(key).is_some())
    }

    /// Whether some of a project's documents are not known.
    pub fn unreadable(&self, project: &Name) -> bool {
        self.unreadable.contains(project)
    }

    /// Names of a kind in a project.
    pub fn names<'s>(&'s self, project: &'s Name, kind: Kind) -> impl Iterator<Item = &'s str> {
        self.heads
            .keys()
            .filter(move |key| key.project == *project && key.kind == kind)
            .map(|key| key.name.as_str())
    }

    fn was_good(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.good.get(&key.project)?.get(key)
    }

    fn resource(&self, key: &Key) -> Option<&Resource> {
        self.resources.get(key).or_else(|| self.was_good(key)).map(Arc::as_ref)
    }

    /// A valid Environment.
    pub fn environment(&self, key: &Key) -> Option<&Environment> {
        match &self.resource(key)?.spec {
            Spec::Environment(environment) => Some(environment),
            _ => None,
        }
    }

    /// A valid WorkerPool.
    pub fn pool(&self, key: &Key) -> Option<&WorkerPool> {
        match &self.resource(key)?.spec {
            Spec::WorkerPool(pool) => Some(pool),
            _ => None,
        }
    }

    /// A valid KafkaCluster.
    pub fn kafka(&self, key: &Key) -> Option<&KafkaCluster> {
        match &self.resource(key)?.spec {
            Spec::KafkaCluster(cluster) => Some(cluster),
            _ => None,
        }
    }

    /// Every valid IngestCluster, also those of the last good state of projects that cannot be read.
    pub fn ingests(&self) -> impl Iterator<Item = &IngestCluster> {
        let unread = self.unreadable.iter().filter_map(|project| self.good.get(project));
        let all = self.resources.values().chain(unread.flat_map(BTreeMap::values));
        all.filter_map(|resource| match &resource.spec {
            Spec::IngestCluster(ingest) => Some(ingest),
            _ => None,
        })
    }

    /// A valid Service.
    pub fn service(&self, key: &Key) -> Option<&Service> {
        match &self.resource(key)?.spec {
            Spec::Service(service) => Some(service),
            _ => None,
        }
    }
}
