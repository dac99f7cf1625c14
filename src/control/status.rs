//! Status of resources: sync and health as separate axes, conditions, written only when changed, told only on transitions
//! (promise 22).

use super::news::News;
use super::sync::{ProjectState, Published};
use crate::store::rows::Overlay;
use crate::store::{Ledger, StoreError};
use jiff::Timestamp;
use muster_core::base::units::counted;
use muster_core::diff::{Action, Change, Changeset};
use muster_core::model::key::{Key, Kind};
use muster_core::model::observed::{
    Condition, ConditionStatus, ExternalSight, HealthState, Observed, ResourceStatus, Sight, SyncState,
};
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::Severity;
use muster_core::model::unit::{ObservedUnit, UnitState};
use muster_core::topology::{self, Topology};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The condition that sums everything up.
pub const READY: &str = "Ready";
/// Something outside git changed what is there.
pub const DRIFTED: &str = "Drifted";
/// A plan is held back, in git or by an overlay; since when is its transition time (promise 23).
pub const SUSPENDED: &str = "Suspended";
/// The guard holds a deletion back.
pub const DELETION_BLOCKED: &str = "DeletionBlocked";

/// What statuses follow from.
pub struct Basis<'a> {
    /// Desired and how each project stands.
    pub published: &'a Published,
    /// Its units.
    pub topology: &'a Topology,
    /// What is there.
    pub observed: &'a Observed,
    /// What differs.
    pub changeset: &'a Changeset,
    /// The last failure of each resource whose change failed.
    pub failures: &'a BTreeMap<Key, String>,
    /// Suspensions beside git's.
    pub overlays: &'a [Overlay],
    /// The time of the decision.
    pub now: Timestamp,
}

/// Derives every status from one observation; `before` gives the transition times.
pub fn derive(basis: &Basis<'_>, before: &BTreeMap<Key, ResourceStatus>) -> BTreeMap<Key, ResourceStatus> {
    let mut statuses = BTreeMap::new();
    for change in &basis.changeset.changes {
        let old = before.get(&change.key);
        let status = match basis.published.desired.get(&change.key) {
            Some(resource) => desired_status(basis, resource, change, old),
            None if change.key == topology::local_pool() => {
                continue;
            }
            None => deleted_status(basis, change, old),
        };
        statuses.insert(change.key.clone(), status);
    }
    statuses
}

/// What Ready says: status, reason and message.
struct Verdict {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn not(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::False,
            reason,
            message: message.into(),
        }
    }
}

fn desired_status(
    basis: &Basis<'_>,
    resource: &Resource,
    change: &Change,
    old: Option<&ResourceStatus>,
) -> ResourceStatus {
    let key = &resource.meta.key;
    let project = basis.published.projects.get(&key.project);
    let good = project.and_then(|project| project.good.clone());
    let observed_revision = project.map(|project| project.observed.clone());
    let (health, health_text) = health(basis, resource);
    let applied_revision = match change.action {
        Action::NoOp => good,
        _ => old.and_then(|old| old.applied_revision.clone()),
    };
    let sync = sync(change.action);
    let suspended = (health == HealthState::Suspended).then(|| health_text.clone());
    let verdict = verdict(basis, change, project, health, health_text);
    let mut conditions = Conditions {
        basis,
        old,
        observed_revision: observed_revision.clone(),
        list: Vec::new(),
    };
    conditions.set(READY, verdict);
    let drift = change.drift.then(|| drift_text(change));
    conditions.set_if(DRIFTED, "ChangedOutsideGit", drift);
    conditions.set_if(SUSPENDED, "HeldBack", suspended);
    ResourceStatus {
        sync,
        health,
        conditions: conditions.list,
        applied_revision,
        observed_revision,
    }
}

fn deleted_status(basis: &Basis<'_>, change: &Change, old: Option<&ResourceStatus>) -> ResourceStatus {
    let project = basis.published.projects.get(&change.key.project);
    let observed_revision = project.map(|project| project.observed.clone());
    let message = change.reason.clone().unwrap_or_else(|| "is being deleted".to_owned());
    let mut conditions = Conditions {
        basis,
        old,
        observed_revision: observed_revision.clone(),
        list: Vec::new(),
    };
    let reason = match change.action {
        Action::NoOp => "Kept",
        Action::Blocked => "DeletionBlocked",
        Action::Unknown => "Unknown",
        _ if basis.failures.contains_key(&change.key) => "DeletionFailed",
        _ => "Deleting",
    };
    let failure = basis.failures.get(&change.key).cloned();
    conditions.set(READY, Verdict::not(reason, failure.unwrap_or_else(|| message.clone())));
    let blocked = (change.action == Action::Blocked).then_some(message);
    conditions.set_if(DELETION_BLOCKED, "ApprovalRequired", blocked);
    ResourceStatus {
        sync: sync(change.action),
        health: HealthState::Unknown,
        conditions: conditions.list,
        applied_revision: old.and_then(|old| old.applied_revision.clone()),
        observed_revision,
    }
}

fn sync(action: Action) -> SyncState {
    match action {
        Action::NoOp => SyncState::Synced,
        Action::Unknown => SyncState::Unknown,
        Action::Create | Action::Update | Action::Roll | Action::Replace | Action::Delete | Action::Blocked => {
            SyncState::OutOfSync
        }
    }
}

fn drift_text(change: &Change) -> String {
    let units = change.units.iter().map(|step| format!("{} {}", step.unit, step.reason));
    let all: Vec<String> = units.chain(change.notes.iter().cloned()).collect();
    all.join(", ")
}

/// Ready=True needs applied revision == observed revision (promise 5), everything in sync, and all of it healthy.
fn verdict(
    basis: &Basis<'_>,
    change: &Change,
    project: Option<&ProjectState>,
    health: HealthState,
    health_text: String,
) -> Verdict {
    if let Some(project) = project.filter(|project| project.good.as_ref() != Some(&project.observed)) {
        let first = project
            .first_error
            .as_deref()
            .unwrap_or("see the project's diagnostics");
        let message = format!(
            "revision {} of the project has {}, the last good one stays: {first}",
            project.observed.short(),
            counted(project.errors, "error")
        );
        return Verdict::not("InvalidRevision", message);
    }
    let reason = || change.reason.clone().unwrap_or_default();
    if let Some(failure) = basis.failures.get(&change.key) {
        return Verdict::not("ApplyFailed", failure.clone());
    }
    match change.action {
        Action::Unknown => Verdict {
            status: ConditionStatus::Unknown,
            reason: "Unknown",
            message: reason(),
        },
        Action::Blocked => Verdict::not("Blocked", reason()),
        Action::NoOp => match health {
            HealthState::Healthy | HealthState::Suspended => Verdict {
                status: ConditionStatus::True,
                reason: if health == HealthState::Healthy {
                    "AsWanted"
                } else {
                    "Suspended"
                },
                message: health_text,
            },
            HealthState::Progressing => Verdict::not("Progressing", health_text),
            HealthState::Degraded => Verdict::not("Degraded", health_text),
            HealthState::Unknown => Verdict {
                status: ConditionStatus::Unknown,
                reason: "Unknown",
                message: health_text,
            },
        },
        _ if change.reason.is_some() => Verdict::not("Waiting", reason()),
        _ => {
            let revision = project.and_then(|project| project.good.as_ref());
            let mut message = revision.map_or_else(
                || "it is being applied".to_owned(),
                |revision| format!("revision {} is being applied", revision.short()),
            );
            if has_progress(change.key.kind) {
                message.push_str(&format!("; {health_text}"));
            }
            Verdict::not(APPLYING, message)
        }
    }
}

/// The reason of a change that is under way.
const APPLYING: &str = "Applying";

/// Whether its health says how far a change is.
fn has_progress(kind: Kind) -> bool {
    !matches!(kind, Kind::Environment | Kind::TestPlan)
}

/// Whether what is there works, and a line that says so.
fn health(basis: &Basis<'_>, resource: &Resource) -> (HealthState, String) {
    match &resource.spec {
        Spec::Environment(_) => match basis.observed.environments.get(&resource.meta.key) {
            Some(Sight::Seen(units)) => (
                HealthState::Healthy,
                format!("it answers, with {}", counted(units.len(), "unit")),
            ),
            Some(Sight::Unreachable { reason }) => (HealthState::Degraded, format!("it does not answer: {reason}")),
            None => (HealthState::Progressing, "it has not been asked yet".to_owned()),
        },
        Spec::TestPlan(plan) => {
            let until = |until: &Option<Timestamp>| until.is_none_or(|until| until > basis.now);
            let git = plan.suspend.as_ref().filter(|suspend| until(&suspend.until));
            let overlay = basis
                .overlays
                .iter()
                .find(|overlay| overlay.plan == resource.meta.key && until(&overlay.until));
            match (git, overlay) {
                (Some(suspend), _) => (
                    HealthState::Suspended,
                    format!("suspended by {}: {}", suspend.by(), suspend.reason),
                ),
                (None, Some(overlay)) => (
                    HealthState::Suspended,
                    format!("suspended by {}: {}", overlay.who, overlay.reason),
                ),
                (None, None) => (HealthState::Healthy, "it can be started".to_owned()),
            }
        }
        Spec::KafkaCluster(_) | Spec::DatabaseCluster(_) => {
            external_health(basis.observed.externals.get(&resource.meta.key))
        }
        Spec::Service(_) | Spec::WorkerPool(_) | Spec::IngestCluster(_) => unit_health(basis, &resource.meta.key),
    }
}

fn external_health(sight: Option<&ExternalSight>) -> (HealthState, String) {
    let Some(sight) = sight else {
        return (HealthState::Progressing, "it has not been asked yet".to_owned());
    };
    let health = match sight {
        ExternalSight::Fine { .. } => HealthState::Healthy,
        ExternalSight::Missing { .. } | ExternalSight::Unfit { .. } | ExternalSight::Unreachable { .. } => {
            HealthState::Degraded
        }
    };
    (health, sight.summary().to_owned())
}

fn unit_health(basis: &Basis<'_>, key: &Key) -> (HealthState, String) {
    let wanted: Vec<_> = basis.topology.of(key).collect();
    let environments = wanted.iter().map(|unit| &unit.environment);
    for environment in environments.collect::<std::collections::BTreeSet<_>>() {
        if !matches!(basis.observed.environments.get(environment), Some(Sight::Seen(_))) {
            return (HealthState::Unknown, format!("{environment} does not answer"));
        }
    }
    let seen: Vec<&ObservedUnit> = basis
        .observed
        .environments
        .values()
        .filter_map(|sight| match sight {
            Sight::Seen(units) => Some(units),
            Sight::Unreachable { .. } => None,
        })
        .flatten()
        .filter(|unit| unit.owner == *key)
        .collect();
    let current = |name| seen.iter().find(|unit| unit.name == name);
    let found: Vec<_> = wanted.iter().filter_map(|unit| current(unit.name.clone())).collect();
    let ready = found.iter().filter(|unit| unit.state == UnitState::Ready).count();
    let mut text = match wanted.len() {
        0 => "no units are wanted now".to_owned(),
        count => format!("{ready} of {count} units are Ready"),
    };
    let broken = found.iter().find(|unit| {
        matches!(
            unit.state,
            UnitState::Unhealthy { .. } | UnitState::BackOff { .. } | UnitState::Exited { .. }
        )
    });
    if let Some(unit) = broken {
        let reason = unit.state.reason().unwrap_or_default();
        text.push_str(&format!("; {} is {}: {reason}", unit.name, unit.state.as_str()));
        return (HealthState::Degraded, text);
    }
    if ready == wanted.len() {
        (HealthState::Healthy, text)
    } else {
        (HealthState::Progressing, text)
    }
}

/// Builds conditions with the times of their transitions.
struct Conditions<'a> {
    basis: &'a Basis<'a>,
    old: Option<&'a ResourceStatus>,
    observed_revision: Option<muster_core::model::id::Revision>,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    fn old(&self, kind: &str) -> Option<&Condition> {
        self.old?.conditions.iter().find(|condition| condition.kind == kind)
    }

    fn set(&mut self, kind: &str, verdict: Verdict) {
        let since = match self.old(kind) {
            Some(old) if old.status == verdict.status => old.last_transition_time,
            _ => self.basis.now,
        };
        self.list.push(Condition {
            kind: kind.to_owned(),
            status: verdict.status,
            reason: verdict.reason.to_owned(),
            message: verdict.message,
            observed_revision: self.observed_revision.clone(),
            last_transition_time: since,
        });
    }

    /// A condition that only shows once it was true.
    fn set_if(&mut self, kind: &str, reason: &'static str, message: Option<String>) {
        match message {
            Some(message) => self.set(
                kind,
                Verdict {
                    status: ConditionStatus::True,
                    reason,
                    message,
                },
            ),
            None if self.old(kind).is_some() => self.set(kind, Verdict::not("Over", "")),
            None => {}
        }
    }
}

/// Keeps what was written last and writes what differs.
pub struct StatusWriter {
    ledger: Arc<dyn Ledger>,
    news: News,
    written: BTreeMap<Key, ResourceStatus>,
}

impl StatusWriter {
    /// Reads what the last daemon wrote.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn restore(ledger: Arc<dyn Ledger>, news: News) -> Result<Self, StoreError> {
        let written = ledger.statuses().await?.into_iter().collect();
        Ok(Self { ledger, news, written })
    }

    /// What was written last.
    pub fn written(&self) -> &BTreeMap<Key, ResourceStatus> {
        &self.written
    }

    /// Shows for how long each plan has been suspended; 0 for those that are not.
    pub fn measure(&self, now: Timestamp) {
        for (key, status) in &self.written {
            let suspended = status.conditions.iter().find(|condition| condition.kind == SUSPENDED);
            let age = suspended
                .filter(|condition| condition.status == ConditionStatus::True)
                .map_or(0.0, |condition| {
                    now.duration_since(condition.last_transition_time).as_secs_f64()
                });
            suspended_for(key, age);
        }
    }

    /// Writes what changed, tells of transitions, and removes the status of what is gone.
    ///
    /// # Errors
    /// When the ledger does not answer; what is not written yet is written next time.
    pub async fn write(&mut self, statuses: BTreeMap<Key, ResourceStatus>) -> Result<(), StoreError> {
        let gone: Vec<Key> = self
            .written
            .keys()
            .filter(|key| !statuses.contains_key(key))
            .cloned()
            .collect();
        for key in gone {
            self.ledger.delete_status(&key).await?;
            suspended_for(&key, 0.0);
            self.written.remove(&key);
            self.news
                .about_resource(&key, Severity::Normal, "Deleted", "it is gone")
                .await;
        }
        for (key, status) in statuses {
            let old = self.written.get(&key);
            if old == Some(&status) {
                continue;
            }
            self.ledger.put_status(&key, &status).await?;
            let told = transitions(&key, old, &status);
            self.written.insert(key.clone(), status);
            for condition in told {
                let severity = severity(&condition);
                let reason = match (condition.kind.as_str(), condition.status) {
                    (READY, _) => condition.reason.clone(),
                    (kind, ConditionStatus::True) => kind.to_owned(),
                    (kind, _) => format!("{kind}Over"),
                };
                self.news
                    .about_resource(&key, severity, &reason, &condition.message)
                    .await;
            }
        }
        Ok(())
    }
}

fn suspended_for(key: &Key, seconds: f64) {
    if key.kind == Kind::TestPlan {
        let (project, plan) = (key.project.to_string(), key.name.to_string());
        metrics::gauge!("muster_plan_suspended_seconds", "project" => project, "plan" => plan).set(seconds);
    }
}

/// Conditions that turned, or whose reason did. Of a suspension or a deletion that is held back Ready's own reason tells; where nothing is to be started,
/// being applied takes no time and is not worth telling.
fn transitions(key: &Key, old: Option<&ResourceStatus>, new: &ResourceStatus) -> Vec<Condition> {
    let before = |kind: &str| old.and_then(|old| old.conditions.iter().find(|condition| condition.kind == kind));
    new.conditions
        .iter()
        .filter(|condition| condition.kind != SUSPENDED && condition.kind != DELETION_BLOCKED)
        .filter(|condition| condition.reason != APPLYING || has_progress(key.kind))
        .filter(|condition| {
            before(&condition.kind).is_none_or(|old| old.status != condition.status || old.reason != condition.reason)
        })
        .cloned()
        .collect()
}

fn severity(condition: &Condition) -> Severity {
    let calm = [
        "AsWanted",
        "Suspended",
        APPLYING,
        "Progressing",
        "Waiting",
        "Deleting",
        "Kept",
        "Over",
    ];
    if calm.contains(&condition.reason.as_str()) {
        Severity::Normal
    } else {
        Severity::Warning
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
