//! What the API shows of rows and resources, as JSON. The command line shows the same where it reads a store itself.

use crate::control::fleet::WorkerView;
use crate::control::sync::SourceState;
use crate::store::rows::{EventRow, RunRow};
use muster_core::model::observed::{ConditionStatus, ResourceStatus};
use muster_core::model::resource::Resource;
use muster_core::model::unit::ObservedUnit;
use serde_json::{Value, json};

/// A run as lists and `describe` show it.
pub fn run(row: &RunRow) -> Value {
    let identity = &row.identity;
    json!({
        "id": identity.id,
        "project": identity.plan.project,
        "plan": identity.plan.name,
        "revision": identity.revision,
        "digest": identity.digest,
        "trigger": identity.trigger,
        "stage": row.stage,
        "ending": row.ending,
        "createdAt": identity.created_at,
        "startedAt": row.started_at,
        "finishedAt": row.finished_at,
        "deadline": row.deadline,
        "tag": row.tag,
    })
}

/// An event as `events` shows it.
pub fn event(row: &EventRow) -> Value {
    json!({
        "sequence": row.sequence,
        "at": row.event.at,
        "project": row.event.project,
        "about": row.event.about,
        "severity": row.event.severity,
        "reason": row.event.reason,
        "message": row.event.message,
    })
}

/// How the source is doing, as `get projects` shows it.
pub fn source(state: &SourceState) -> Value {
    match state {
        SourceState::Unasked => json!({"state": "Unasked"}),
        SourceState::Ready => json!({"state": "Ready"}),
        SourceState::Failing { reason, message, since } => {
            json!({"state": "Failing", "reason": reason.as_str(), "message": message, "since": since})
        }
    }
}

/// A unit as `get units` shows it.
pub fn unit(unit: &ObservedUnit) -> Value {
    let ports: Vec<Value> = unit
        .ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port}))
        .collect();
    json!({
        "name": unit.name,
        "owner": unit.owner,
        "environment": unit.environment,
        "digest": unit.digest,
        "state": unit.state.as_str(),
        "reason": unit.state.reason(),
        "ports": ports,
        "restarts": unit.restarts,
        "since": unit.since,
    })
}

/// A worker as `get workers` shows it.
pub fn worker(worker: &WorkerView) -> Value {
    let status = &worker.status;
    json!({
        "id": worker.id,
        "unit": worker.unit,
        "pool": worker.pool,
        "version": worker.version,
        "threads": worker.threads,
        "name": worker.name(),
        "host": worker.host,
        "address": worker.address,
        "allowsCommands": worker.allows_commands,
        "state": worker.state(),
        "clockOffsetMs": worker.clock.map(|clock| milliseconds(clock.wall_us)),
        "clockErrorMs": worker.clock.map(|clock| clock.error_us as f64 / 1e3),
        "startSkewMs": worker.start_late_us.map(milliseconds),
        "run": worker.run,
        "joinedAt": worker.joined_at,
        "cpu": status.cpu,
        "steal": status.steal,
        "memoryBytes": status.memory_bytes,
        "sent": status.frames_made,
        "acked": status.frames_acked,
        "spooled": status.frames_spooled,
        "dropped": status.frames_dropped,
    })
}

fn milliseconds(us: i64) -> f64 {
    us as f64 / 1e3
}

/// A resource in a list.
pub fn resource(resource: &Resource, status: Option<&ResourceStatus>) -> Value {
    let key = &resource.meta.key;
    let ready = status.and_then(|status| status.conditions.iter().find(|condition| condition.kind == "Ready"));
    json!({
        "project": key.project,
        "kind": key.kind,
        "name": key.name,
        "sync": status.map(|status| status.sync),
        "health": status.map(|status| status.health),
        "ready": ready.map(|condition| condition.status == ConditionStatus::True),
        "reason": ready.map(|condition| &condition.reason),
        "message": ready.map(|condition| &condition.message),
        "appliedRevision": status.and_then(|status| status.applied_revision.as_ref()),
        "file": resource.meta.origin.file,
        "line": resource.meta.origin.line,
    })
}

/// A resource with everything known of it.
pub fn resource_detail(full: &Resource, status: Option<&ResourceStatus>) -> Value {
    let mut value = resource(full, status);
    value["digest"] = json!(full.digest);
    value["labels"] = json!(full.meta.labels);
    value["owner"] = json!(full.meta.annotations.owner);
    value["runbook"] = json!(full.meta.annotations.runbook);
    value["conditions"] = json!(status.map(|status| &status.conditions));
    value["observedRevision"] = json!(status.and_then(|status| status.observed_revision.as_ref()));
    value["document"] = full.rendered.clone();
    value
}
