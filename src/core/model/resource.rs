//! A resource: identity, metadata and the spec of its kind.

use super::environment::{Environment, WorkerPool};
use super::id::Digest;
use super::key::Key;
use super::plan::TestPlan;
use super::service::{Service, StringMap};
use super::streaming::{DatabaseCluster, IngestCluster, KafkaCluster};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One document of a commit, valid and resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Identity, labels, annotations and place.
    pub meta: Meta,
    /// What its kind holds.
    pub spec: Spec,
    /// Of the resolved spec with the digests of every file it names: what a run pins and what an approval will sign.
    pub digest: Digest,
    /// The document with defaults and steps expanded, as `muster render` prints it and a field diff compares it.
    pub rendered: serde_json::Value,
}

/// What every resource carries beside its spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Its identity.
    pub key: Key,
    /// `metadata.labels`.
    pub labels: StringMap,
    /// The annotations that Muster reads.
    pub annotations: Annotations,
    /// Where it stands.
    pub origin: Origin,
}

/// The annotations that Muster reads; all others are kept in `other`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    /// `muster.dev/prune: Disabled`.
    pub prune_disabled: bool,
    /// `muster.dev/reconcile: Disabled`.
    pub reconcile_disabled: bool,
    /// `muster.dev/deletion-approved` (promise 21).
    pub deletion_approved: Option<Timestamp>,
    /// `muster.dev/owner`.
    pub owner: Option<String>,
    /// `muster.dev/runbook`.
    pub runbook: Option<String>,
    /// Everything else.
    pub other: StringMap,
}

/// A place in the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Path relative to the configured path, with `/`.
    pub file: String,
    /// Line of the document's first key, from 1.
    pub line: u32,
}

/// The spec of each kind this build acts on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Spec {
    /// Where units run.
    Environment(Environment),
    /// Load generators.
    WorkerPool(WorkerPool),
    /// A Kafka cluster's topics.
    KafkaCluster(KafkaCluster),
    /// Replicas of `muster ingest`.
    IngestCluster(IngestCluster),
    /// Where results go.
    DatabaseCluster(DatabaseCluster),
    /// Replicated units.
    Service(Service),
    /// A test.
    TestPlan(Box<TestPlan>),
}

impl Resource {
    /// The environment its units run in, for the kinds that have units.
    pub fn environment(&self) -> Option<&Key> {
        match &self.spec {
            Spec::WorkerPool(pool) => Some(&pool.environment),
            Spec::Service(service) => Some(&service.environment),
            Spec::IngestCluster(ingest) => Some(&ingest.environment),
            Spec::Environment(_) | Spec::KafkaCluster(_) | Spec::DatabaseCluster(_) | Spec::TestPlan(_) => None,
        }
    }

    /// Every resource this one names: what must exist, and (but for a plan's) be applied before it.
    pub fn references(&self) -> Vec<&Key> {
        match &self.spec {
            Spec::Environment(_) | Spec::KafkaCluster(_) | Spec::DatabaseCluster(_) => Vec::new(),
            Spec::WorkerPool(pool) => std::iter::once(&pool.environment)
                .chain(pool.bus.iter().map(|bus| &bus.cluster))
                .collect(),
            Spec::IngestCluster(ingest) => vec![&ingest.environment, &ingest.from.cluster, &ingest.database],
            Spec::Service(service) => std::iter::once(&service.environment)
                .chain(&service.depends_on)
                .collect(),
            Spec::TestPlan(plan) => plan.references(),
        }
    }
}
