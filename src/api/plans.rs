//! Resources, units, workers, the diff, and what an operator does about them.

use super::ApiState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Path, Query};
use super::views;
use crate::control::fleet::WorkerView;
use crate::store::rows::{Overlay, ProjectRow};
use axum::extract::State;
use jiff::Timestamp;
use muster_core::base::units::counted;
use muster_core::model::id::{Name, Revision};
use muster_core::model::key::{Key, Kind};
use muster_core::model::observed::DeletionApproval;
use muster_core::model::resource::Spec;
use muster_core::model::settings::Role;
use muster_core::model::unit::UnitName;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most of a unit's output in one answer.
const LOG_MAX: usize = 1 << 20;
/// What a log answer holds unless asked for more.
const LOG_DEFAULT: usize = 64 << 10;
/// Longest reason kept with a suspension.
const REASON_MAX: usize = 1_000;

/// Which resources.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceQuery {
    kind: Option<String>,
}

/// All resources of Desired, or those of one kind.
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ResourceQuery>,
) -> Result<Json<Value>, ApiError> {
    let kind = query.kind.as_deref().map(kind).transpose()?;
    let live = state.live()?;
    let (desired, workers) = (live.reconciler.desired(), live.fleet.workers());
    let statuses: BTreeMap<Key, _> = state.stores.ledger.statuses().await?.into_iter().collect();
    let items: Vec<Value> = desired
        .resources()
        .filter(|resource| {
            kind.is_none_or(|kind| resource.meta.key.kind == kind) && caller.sees(&resource.meta.key.project)
        })
        .map(|resource| {
            let key = &resource.meta.key;
            let mut view = views::resource(resource, statuses.get(key));
            add_workers(&mut view, key, &workers);
            view
        })
        .collect();
    Ok(Json(json!({"formatVersion": 1, "items": items})))
}

/// A pool is worth what is connected of it.
fn add_workers(view: &mut Value, key: &Key, workers: &[WorkerView]) {
    if key.kind == Kind::WorkerPool {
        let connected = || workers.iter().filter(|worker| worker.pool == *key && worker.connected);
        let free = connected().filter(|worker| worker.is_free()).count();
        let all = connected().count();
        view["workers"] = json!({"connected": all, "busy": all - free, "free": free});
    }
}

/// One resource with its status, units and newest events.
pub async fn one(
    State(state): State<ApiState>,
    caller: Caller,
    Path((project, kind_word, name)): Path<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let part = |text: String| Name::new(text).map_err(|error| ApiError::bad_request(error.to_string()));
    let key = Key::new(part(project)?, kind(&kind_word)?, part(name)?);
    caller.require(Role::Viewer, Some(&key.project))?;
    let live = state.live()?;
    let desired = live.reconciler.desired();
    let resource = desired
        .get(&key)
        .ok_or_else(|| ApiError::not_found(format!("there is no {key}")).hint("`muster tree` shows all there are"))?;
    let statuses: BTreeMap<Key, _> = state.stores.ledger.statuses().await?.into_iter().collect();
    let mut view = views::resource_detail(resource, statuses.get(&key));
    add_workers(&mut view, &key, &live.fleet.workers());
    let units = live.reconciler.units();
    view["units"] = units.iter().filter(|unit| unit.owner == key).map(views::unit).collect();
    let overlay = state
        .stores
        .ledger
        .overlays()
        .await?
        .into_iter()
        .find(|overlay| overlay.plan == key);
    let now = state.clock.now();
    let holds = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
    let by_hand = overlay.filter(|overlay| holds(overlay.until)).map(
        |overlay| json!({"reason": overlay.reason, "who": overlay.who, "since": overlay.since, "until": overlay.until}),
    );
    let in_git = match &resource.spec {
        Spec::TestPlan(plan) => plan.suspend.as_ref().filter(|git| holds(git.until)),
        _ => None,
    };
    let in_git = in_git.map(|git| json!({"reason": git.reason, "who": git.by(), "until": git.until}));
    view["suspended"] = json!(in_git.or(by_hand));
    Ok(Json(view))
}

/// Projects with the revision they stand at and what is wrong with the newest.
pub async fn projects(State(state): State<ApiState>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let rows = state.stores.ledger.projects().await?;
    let policy = state.live.as_ref().map(|live| live.runs.policy());
    let is_named = |row: &ProjectRow| {
        policy
            .as_ref()
            .is_none_or(|policy| policy.projects.contains_key(&row.project))
    };
    let statuses = state.stores.ledger.statuses().await?;
    let is_held = |row: &ProjectRow| statuses.iter().any(|(key, _)| key.project == row.project);
    let items: Vec<Value> = rows
        .iter()
        .filter(|row| caller.sees(&row.project) && (is_named(row) || is_held(row)))
        .map(|row| {
            let message = match row.errors().count() {
                _ if !is_named(row) => {
                    json!("the settings do not name it any more; `muster diff` shows what is left of it")
                }
                0 => Value::Null,
                errors => json!(format!(
                    "{} in {}",
                    counted(errors, "error"),
                    row.observed_revision.short()
                )),
            };
            json!({
                "project": row.project,
                "ready": is_named(row) && row.good_revision.as_ref() == Some(&row.observed_revision),
                "revision": row.good_revision,
                "observed": row.observed_revision,
                "resources": row.resources.as_array().map_or(0, Vec::len),
                "diagnostics": row.diagnostics,
                "message": message,
            })
        })
        .collect();
    let source = state.live.as_ref().map(|live| views::source(&live.reconciler.source()));
    Ok(Json(json!({"formatVersion": 1, "items": items, "source": source})))
}

/// What the daemon's settings let plans ask for, so that they can be checked against it before they are committed.
pub async fn policy(State(state): State<ApiState>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.require(Role::Viewer, None)?;
    let policy = state.live()?.runs.policy();
    Ok(Json(json!({"formatVersion": 1, "policy": *policy})))
}

/// Every unit, as its provider reported it last.
pub async fn units(State(state): State<ApiState>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let units = state.live()?.reconciler.units();
    let items: Vec<Value> = units
        .iter()
        .filter(|unit| caller.sees(&unit.owner.project))
        .map(views::unit)
        .collect();
    Ok(Json(json!({"formatVersion": 1, "items": items})))
}

/// How much of a log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    bytes: Option<usize>,
}

/// The end of a unit's output.
pub async fn logs(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Json<Value>, ApiError> {
    let name: UnitName = name.parse().map_err(|_| {
        ApiError::bad_request(format!("`{name}` is not a unit's name")).hint("`muster get units` lists them")
    })?;
    let live = state.live()?;
    let missing = || ApiError::not_found(format!("there is no unit {name}")).hint("`muster get units` lists them");
    let unit = live
        .reconciler
        .units()
        .into_iter()
        .find(|unit| unit.name == name)
        .ok_or_else(missing)?;
    caller.require(Role::Viewer, Some(&unit.owner.project))?;
    let bytes = query.bytes.unwrap_or(LOG_DEFAULT).min(LOG_MAX);
    let log = live
        .reconciler
        .logs(&name, bytes)
        .await
        .map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(Json(json!({"unit": name, "log": String::from_utf8_lossy(&log)})))
}

/// Desired against observed, now.
pub async fn diff(State(state): State<ApiState>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.require(Role::Viewer, None)?;
    match state.live()?.reconciler.changeset() {
        Some(changeset) => Ok(Json(json!(changeset))),
        None => Err(ApiError::unavailable(
            "the first look at all environments is not complete yet",
        )),
    }
}

/// What to look at again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileBody {
    resource: Option<Key>,
}

/// Looks at the source and the environments now.
pub async fn reconcile(
    State(state): State<ApiState>,
    caller: Caller,
    Json(body): Json<ReconcileBody>,
) -> Result<Json<Value>, ApiError> {
    caller.require(Role::Operator, body.resource.as_ref().map(|key| &key.project))?;
    state.live()?.reconciler.reconcile_now(body.resource);
    Ok(Json(json!({"requested": true})))
}

/// Approves what a revision deletes: exactly what the diff says now (promise 21).
pub async fn approve_deletion(
    State(state): State<ApiState>,
    caller: Caller,
    Path(revision): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(Role::Admin, None)?;
    let revision = Revision::new(revision).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let live = state.live()?;
    let keys = live.reconciler.refused_deletions(&revision);
    if keys.is_empty() {
        return Err(ApiError::conflict(
            "NothingRefused",
            format!("{revision} deletes nothing that waits for approval"),
        )
        .hint("`muster diff` shows what does"));
    }
    let approval = DeletionApproval {
        revision,
        keys,
        who: caller.name,
        at: state.clock.now(),
    };
    state.stores.ledger.put_deletion_approval(&approval).await?;
    live.reconciler.reconcile_now(None);
    Ok(Json(json!({"revision": approval.revision, "approved": approval.keys})))
}

/// Why and until when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspendBody {
    reason: String,
    until: Option<Timestamp>,
}

/// Holds a plan back, beside git's `suspend` (promise 23).
pub async fn suspend(
    State(state): State<ApiState>,
    caller: Caller,
    Path(plan): Path<(String, String)>,
    Json(body): Json<SuspendBody>,
) -> Result<Json<Value>, ApiError> {
    let key = plan_of(&state, &caller, plan)?;
    if body.reason.trim().is_empty() || body.reason.len() > REASON_MAX {
        return Err(ApiError::bad_request(format!(
            "a reason of 1 to {REASON_MAX} bytes is needed"
        )));
    }
    let overlay = Overlay {
        plan: key,
        reason: body.reason,
        who: caller.name,
        since: state.clock.now(),
        until: body.until,
    };
    state.stores.ledger.put_overlay(&overlay).await?;
    state.live()?.reconciler.reconcile_now(Some(overlay.plan.clone()));
    Ok(Json(json!({"plan": overlay.plan, "suspended": true})))
}

/// Clears the overlay; git's own `suspend` needs a commit.
pub async fn resume(
    State(state): State<ApiState>,
    caller: Caller,
    Path(plan): Path<(String, String)>,
    Json(_): Json<Value>,
) -> Result<Json<Value>, ApiError> {
    let key = plan_of(&state, &caller, plan)?;
    state.stores.ledger.delete_overlay(&key).await?;
    let live = state.live()?;
    live.reconciler.reconcile_now(Some(key.clone()));
    if !live.scheduler.arm(&key).await {
        return Err(ApiError::unavailable("the schedule could not be armed again").hint("say it once more"));
    }
    Ok(Json(json!({"plan": key, "suspended": false})))
}

fn plan_of(state: &ApiState, caller: &Caller, (project, name): (String, String)) -> Result<Key, ApiError> {
    let part = |text: String| Name::new(text).map_err(|error| ApiError::bad_request(error.to_string()));
    let key = Key::new(part(project)?, Kind::TestPlan, part(name)?);
    caller.require(Role::Operator, Some(&key.project))?;
    match state.live()?.reconciler.desired().get(&key) {
        Some(_) => Ok(key),
        None => Err(ApiError::not_found(format!("there is no {key}")).hint("`muster get plans` lists them")),
    }
}

fn kind(word: &str) -> Result<Kind, ApiError> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Kind::parse(word)
        .ok_or_else(|| ApiError::bad_request(format!("`{word}` is not a kind")).hint(format!("kinds are {}", known())))
}
