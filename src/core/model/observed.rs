//! Observed: what providers and the ledger report, and the status that people read.

use super::id::{Digest, Name, Revision};
use super::key::Key;
use super::unit::{ObservedUnit, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is there. Made only after every provider was asked (promise 14).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// By environment: its units, or why its provider could not say.
    pub environments: BTreeMap<Key, Sight>,
    /// What Muster wrote down before it created anything (promise 17).
    pub inventory: BTreeMap<UnitName, InventoryRow>,
    /// Resources as they were last applied, with their digests.
    pub applied: BTreeMap<Key, AppliedResource>,
    /// Most resources each project ever had at the same time.
    pub high_water: BTreeMap<Name, u32>,
    /// Deletions of each project within the last 24 hours.
    pub recent_deletions: BTreeMap<Name, u32>,
    /// Deletions that an operator approved: revision and exact set.
    pub approved_deletions: Vec<DeletionApproval>,
    /// By resource: how what somebody else runs looked last. Absent: not looked at yet.
    #[serde(default)]
    pub externals: BTreeMap<Key, ExternalSight>,
}

/// How something that somebody else runs looked last. Each says it in a line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalSight {
    /// It answers, and all is there.
    Fine {
        /// What is there.
        summary: String,
    },
    /// It answers, and something that Muster makes is not there.
    Missing {
        /// What would be made: `topic muster.metrics (60 partitions, 3 copies)`.
        what: Vec<String>,
        /// What is there and what is not.
        summary: String,
    },
    /// It answers, and will not do until somebody mends it.
    Unfit {
        /// What is wrong, and what to do.
        summary: String,
    },
    /// It does not answer, or does not let Muster in.
    Unreachable {
        /// Why.
        summary: String,
    },
}

impl ExternalSight {
    /// The line for people.
    pub fn summary(&self) -> &str {
        match self {
            Self::Fine { summary }
            | Self::Missing { summary, .. }
            | Self::Unfit { summary }
            | Self::Unreachable { summary } => summary,
        }
    }
}

/// What a provider said of one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Sight {
    /// A complete answer.
    Seen(Vec<ObservedUnit>),
    /// No answer: its units are Unknown, never absent.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// A row written before a unit's first side effect and removed after its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryRow {
    /// The unit.
    pub unit: UnitName,
    /// The resource it belongs to.
    pub owner: Key,
    /// Where it runs.
    pub environment: Key,
    /// Digest of the spec it is started from.
    pub digest: Digest,
    /// The revision that wanted it.
    pub revision: Revision,
    /// When the row was written.
    pub since: Timestamp,
}

/// A resource as it was last applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedResource {
    /// Its digest then.
    pub digest: Digest,
    /// The revision then.
    pub revision: Revision,
    /// Its document then, for the diff of fields.
    pub rendered: serde_json::Value,
    /// Whether it carried `muster.dev/deletion-approved` then (promise 21).
    pub deletion_approved: bool,
    /// Whether it carried `muster.dev/prune: Disabled` then.
    pub prune_disabled: bool,
}

/// An operator's `approve-deletion`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionApproval {
    /// The revision that deletes.
    pub revision: Revision,
    /// Exactly these.
    pub keys: Vec<Key>,
    /// The token's name.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// Status of one resource, or of one project (`condition.kind` Ready only).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Sync: does what is there match what git wants.
    pub sync: SyncState,
    /// Health: does what is there work. Apart from sync (promise 22).
    pub health: HealthState,
    /// Conditions by type.
    pub conditions: Vec<Condition>,
    /// The revision last applied without an error.
    pub applied_revision: Option<Revision>,
    /// The revision last looked at.
    pub observed_revision: Option<Revision>,
}

/// Whether what is there matches what git wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SyncState {
    Synced,
    OutOfSync,
    Unknown,
}

/// Whether what is there works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum HealthState {
    Healthy,
    Progressing,
    Degraded,
    Suspended,
    Unknown,
}

/// One condition, in Kubernetes' shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Ready`, `Drifted`, `DeletionBlocked`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word.
    pub reason: String,
    /// For people; no secret, no file content.
    pub message: String,
    /// The revision it was found at.
    pub observed_revision: Option<Revision>,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Kubernetes' words")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}
