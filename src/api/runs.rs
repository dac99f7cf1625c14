//! Runs: start, watch, steer, read.

use super::ApiState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Path, Query};
use super::views;
use super::workers;
use crate::control::news::News;
use crate::control::runs::{Blocked, Runs, StartRequest};
use crate::store::rows::{RunFilter, RunRow};
use axum::extract::State;
use axum::http::StatusCode;
use muster_core::model::id::{Name, RunId};
use muster_core::model::key::{Key, Kind};
use muster_core::model::run::{Severity, TriggerKind};
use muster_core::model::settings::Role;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest an answer is held back.
const WAIT_MAX_S: u64 = 30;
/// Runs looked at to find one by its last digits.
const SHORT_ID_RUNS: u32 = 1_000;
/// Fewer digits would name another run tomorrow.
const SHORT_ID_MIN: usize = 4;
/// Runs in one answer.
const LIMIT_MAX: u32 = 10_000;

/// Which runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsQuery {
    plan: Option<String>,
    project: Option<Name>,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    limit: u32,
}

/// Runs, newest first.
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<RunsQuery>,
) -> Result<Json<Value>, ApiError> {
    let plan = query.plan.as_deref().map(plan_key).transpose()?;
    let filter = RunFilter {
        plan,
        projects: caller.within(query.project),
        active: query.active,
        limit: query.limit.min(LIMIT_MAX),
    };
    let rows = state.stores.ledger.runs(&filter).await?;
    let items: Vec<Value> = rows.iter().map(views::run).collect();
    Ok(Json(json!({"formatVersion": 1, "items": items})))
}

/// One run, with its workers and hooks.
pub async fn one(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let row = find(&state, &caller, &id).await?;
    let mut view = views::run(&row);
    let workers = state.stores.ledger.run_workers(row.identity.id).await?;
    let hooks = state.stores.ledger.hooks(row.identity.id).await?;
    view["workers"] = workers
        .iter()
        .map(|worker| json!({"worker": worker.worker, "index": worker.index, "session": worker.session, "detail": worker.detail}))
        .collect();
    view["hooks"] = hooks
        .iter()
        .map(|hook| {
            json!({"name": hook.name, "startedAt": hook.started_at, "finishedAt": hook.finished_at,
                "succeeded": hook.succeeded, "message": hook.message})
        })
        .collect();
    Ok(Json(view))
}

/// What a start asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartBody {
    plan: String,
    id: Option<RunId>,
    scale: Option<f64>,
    #[serde(default)]
    smoke: bool,
    override_windows: Option<String>,
}

/// Starts a run. An id that is known already is that run, not another (promise 34).
pub async fn start(
    State(state): State<ApiState>,
    caller: Caller,
    Json(body): Json<StartBody>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let plan = plan_key(&body.plan)?;
    caller.require(Role::Operator, Some(&plan.project))?;
    if let Some(reason) = &body.override_windows {
        caller.require(Role::Admin, None)?;
        if reason.trim().is_empty() {
            return Err(ApiError::bad_request("windows are overridden with a reason"));
        }
    }
    let request = StartRequest {
        override_windows: body.override_windows.clone(),
        id: body.id,
        scale: body.scale,
        smoke: body.smoke,
        ..StartRequest::new(plan.clone(), TriggerKind::Manual, caller.name.clone())
    };
    let id = state.live()?.runs.start(request).await.map_err(blocked)?;
    if let Some(reason) = body.override_windows {
        let message = format!("{} started run {id} against the plan's windows: {reason}", caller.name);
        let news = News::new(state.stores.ledger.clone(), state.clock.clone());
        news.about_resource(&plan, Severity::Warning, "WindowsOverridden", &message)
            .await;
    }
    Ok((StatusCode::CREATED, Json(json!({"id": id}))))
}

/// Starts a run of the same revision and digests as another.
pub async fn rerun(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let row = find(&state, &caller, &id).await?;
    caller.require(Role::Operator, Some(&row.identity.plan.project))?;
    let id = state
        .live()?
        .runs
        .rerun(row.identity.id, &caller.name)
        .await
        .map_err(blocked)?;
    Ok((StatusCode::CREATED, Json(json!({"id": id}))))
}

/// What steering carries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActBody {
    #[serde(default)]
    abort: bool,
}

/// Stops, pauses or resumes a run.
pub async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    Json(body): Json<ActBody>,
) -> Result<Json<Value>, ApiError> {
    let runs = &state.live()?.runs;
    let (id, plan) = match active(runs, &id) {
        Some(found) => found,
        None => {
            let identity = find(&state, &caller, &id).await?.identity;
            (identity.id, identity.plan)
        }
    };
    caller.require(Role::Operator, Some(&plan.project))?;
    let outcome = match action.as_str() {
        "stop" if body.abort => runs.abort(id, &caller.name).await,
        "stop" => runs.stop(id, &caller.name).await,
        "pause" => runs.pause(id, &caller.name).await,
        "resume" => runs.resume(id, &caller.name).await,
        _ => return Err(ApiError::not_found(format!("a run cannot be told to `{action}`"))),
    };
    outcome.map_err(|error| ApiError::conflict("NotNow", error.to_string()))?;
    Ok(Json(json!({"id": id})))
}

/// What a run is to be called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagBody {
    /// Null: nothing any more.
    name: Option<Name>,
}

/// Names a run, so that retention keeps it (promise 53), or takes its name away. One run of a plan has a name.
pub async fn tag(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<TagBody>,
) -> Result<Json<Value>, ApiError> {
    state.live()?;
    let identity = find(&state, &caller, &id).await?.identity;
    caller.require(Role::Operator, Some(&identity.plan.project))?;
    let ledger = &state.stores.ledger;
    let name = body.name.as_ref().map(Name::as_str);
    if let Some(name) = name
        && let Some(other) = ledger.tagged_run(&identity.plan, name).await?
        && other != identity.id
    {
        return Err(
            ApiError::conflict("Taken", format!("run {other} of this plan is called `{name}`"))
                .hint(format!("take the name away first: `muster tag run/{other} --remove`")),
        );
    }
    ledger.tag_run(identity.id, name).await?;
    Ok(Json(json!({"id": identity.id, "tag": name})))
}

/// Which state of a run the caller has seen.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LiveQuery {
    #[serde(default)]
    wait_seconds: u64,
    /// Changes with each new view; an answer with another one is given at once.
    #[serde(default)]
    after: u64,
}

/// How a run is doing now; held back until something changed.
pub async fn live(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LiveQuery>,
) -> Result<Json<Value>, ApiError> {
    let row = find(&state, &caller, &id).await?;
    let run = views::run(&row);
    let Some(mut watch) = state.live()?.runs.live(row.identity.id) else {
        return Ok(Json(json!({"run": run, "live": null, "version": 0})));
    };
    let wait = Duration::from_secs(query.wait_seconds.min(WAIT_MAX_S));
    let changed = watch.wait_for(|view| view.version != query.after);
    // After the deadline the view is the same as before, which is an answer, too.
    let _ = tokio::time::timeout(wait, changed).await;
    let view = watch.borrow().clone();
    let row = find(&state, &caller, &id).await?;
    let each = workers::worst(state.live()?, &view);
    Ok(Json(
        json!({"run": views::run(&row), "version": view.version, "live": view, "each": each}),
    ))
}

/// The report of a finished run.
pub async fn report(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let row = find(&state, &caller, &id).await?;
    match state.stores.ledger.summary(row.identity.id).await? {
        Some(report) => Ok(Json(report)),
        None => Err(ApiError::conflict(
            "NotFinished",
            format!(
                "run {} is {}; its report is made at its end",
                row.identity.id, row.stage
            ),
        )
        .hint("`muster watch run/ID` shows it meanwhile")),
    }
}

fn blocked(blocked: Blocked) -> ApiError {
    let message = blocked.to_string();
    match blocked {
        Blocked::UnknownPlan(_) => ApiError::not_found(message).hint("`muster get plans` lists them"),
        Blocked::UnknownRun(_) => ApiError::not_found(message).hint("`muster get runs` lists them"),
        Blocked::Scale(_) => ApiError::bad_request(message),
        Blocked::Store(error) => error.into(),
        Blocked::NotRead | Blocked::ShuttingDown => ApiError::unavailable(message),
        Blocked::Suspended { in_git: true, .. } => {
            ApiError::conflict("Blocked", message).hint("remove `suspend` from the plan and commit")
        }
        Blocked::Suspended { plan, .. } => ApiError::conflict("Blocked", message)
            .hint(format!("`muster resume plan/{}/{}` clears it", plan.project, plan.name)),
        Blocked::NotEnoughWorkers { .. } => ApiError::conflict("Blocked", message)
            .hint("`muster worker --join HOST:PORT --token-file FILE` on another machine brings one; `muster get workers` shows them"),
        Blocked::OutsideWindow { .. } => ApiError::conflict("Blocked", message)
            .hint("`muster forecast` shows when it fits; an admin may `muster start … --override-windows REASON`"),
        Blocked::Project { .. }
        | Blocked::NotReady { .. }
        | Blocked::TooFewRows { .. }
        | Blocked::PoolTooSmall { .. }
        | Blocked::Limit { .. }
        | Blocked::Target(_)
        | Blocked::SlotTaken { .. }
        | Blocked::Content(_)
        | Blocked::Format(_) => ApiError::conflict("Blocked", message),
    }
}

pub(super) fn plan_key(text: &str) -> Result<Key, ApiError> {
    let (project, name) = text.split_once('/').unwrap_or(("default", text));
    let part = |text: &str| Name::new(text).map_err(|error| ApiError::bad_request(error.to_string()));
    Ok(Key::new(part(project)?, Kind::TestPlan, part(name)?))
}

/// Finds an active run by its id or the last digits of it, without the database: it may be away when somebody must stop a run (promise 47).
fn active(runs: &Runs, id: &str) -> Option<(RunId, Key)> {
    let mut found = runs.active();
    found.retain(|run, _| id.len() >= SHORT_ID_MIN && run.to_string().ends_with(id));
    found.pop_first().filter(|_| found.is_empty())
}

/// Finds a run by its id, or by the last digits that tables show.
async fn find(state: &ApiState, caller: &Caller, id: &str) -> Result<RunRow, ApiError> {
    let missing = || ApiError::not_found(format!("there is no run {id}")).hint("`muster get runs` lists them");
    let row = match id.parse::<RunId>() {
        Ok(id) => state.stores.ledger.run(id).await?.ok_or_else(missing)?,
        Err(_) if !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') => {
            return Err(ApiError::bad_request(format!("`{id}` is not a run's id"))
                .hint("`muster get runs` lists them; the last digits are enough"));
        }
        Err(_) if id.len() < SHORT_ID_MIN => {
            return Err(ApiError::bad_request(format!("`{id}` is too short for a run's id"))
                .hint(format!("give at least its last {SHORT_ID_MIN} digits")));
        }
        Err(_) => {
            let filter = RunFilter {
                projects: caller.within(None),
                limit: SHORT_ID_RUNS,
                ..RunFilter::default()
            };
            let mut found = state.stores.ledger.runs(&filter).await?;
            found.retain(|row| row.identity.id.to_string().ends_with(id));
            match found.len() {
                0 => return Err(missing()),
                1 => found.remove(0),
                many => {
                    return Err(ApiError::bad_request(format!(
                        "{many} runs end in `{id}`; give more of the id"
                    )));
                }
            }
        }
    };
    caller
        .require(Role::Viewer, Some(&row.identity.plan.project))
        .map(|()| row)
}
