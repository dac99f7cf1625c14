//! Workers: what the fleet knows of each, joined with what is stored of its part in a run.

use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Path, Query};
use super::{ApiState, Live, views};
use crate::control::fleet::WorkerView;
use crate::control::runs::{LiveView, SetMember};
use axum::extract::State;
use muster_core::model::id::{RunId, WorkerId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Workers shown beside a run's progress: those that need eyes.
const WORST: usize = 10;

/// Which workers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersQuery {
    run: Option<RunId>,
}

/// All workers that are connected or were until a moment ago, and those that active runs have lost.
pub async fn list(
    State(state): State<ApiState>,
    _caller: Caller,
    Query(query): Query<WorkersQuery>,
) -> Result<Json<Value>, ApiError> {
    let mut items = all(state.live()?);
    if let Some(run) = query.run {
        items.retain(|item| item["run"] == json!(run));
    }
    Ok(Json(json!({"formatVersion": 1, "items": items})))
}

/// One worker, by its id or the last digits of it.
pub async fn one(
    State(state): State<ApiState>,
    _caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let is_it = |item: &Value| {
        item["id"]
            .as_str()
            .is_some_and(|text| text == id || text.ends_with(&format!("-{id}")))
    };
    let mut found: Vec<Value> = all(state.live()?).into_iter().filter(is_it).collect();
    match (found.pop(), found.is_empty()) {
        (Some(worker), true) => Ok(Json(worker)),
        (None, _) => {
            Err(ApiError::not_found(format!("there is no worker {id}")).hint("`muster get workers` lists them"))
        }
        (Some(_), false) => Err(ApiError::bad_request(format!("several workers end in {id}"))),
    }
}

fn all(live: &Live) -> Vec<Value> {
    let active: BTreeMap<RunId, LiveView> = live
        .runs
        .active()
        .into_keys()
        .filter_map(|run| Some((run, live.runs.live(run)?.borrow().clone())))
        .collect();
    let known = live.fleet.workers();
    let mut items: Vec<Value> = known
        .iter()
        .map(|worker| row(worker, worker.run.and_then(|run| active.get(&run))))
        .collect();
    let is_known = |id: WorkerId| known.iter().any(|worker| worker.id == id);
    for view in active.values() {
        let lost = view
            .set
            .iter()
            .filter(|member| member.lost.is_some() && !is_known(member.worker));
        items.extend(lost.map(|member| lost_row(view, member)));
    }
    items
}

/// A worker with the numbers of its run.
fn row(worker: &WorkerView, run: Option<&LiveView>) -> Value {
    let mut value = views::worker(worker);
    let Some(run) = run else { return value };
    let Some(index) = run.set.iter().position(|member| member.worker == worker.id) else {
        return value;
    };
    value["index"] = json!(index);
    if let Some((reason, at)) = &run.set[index].lost {
        value["state"] = json!("Lost");
        value["reason"] = json!(reason);
        value["lostAt"] = json!(at);
    }
    if let Some(each) = run.each.iter().find(|each| each.index as usize == index) {
        value["vus"] = json!(each.vus);
        value["iterationsPerS"] = json!(each.iterations_per_s);
        value["lagMs"] = json!(each.lag_ms);
        value["badSeconds"] = json!(each.bad_seconds);
    }
    value
}

fn lost_row(run: &LiveView, member: &SetMember) -> Value {
    let index = run.set.iter().position(|other| other.worker == member.worker);
    let (reason, at) = member.lost.clone().unzip();
    json!({"id": member.worker, "index": index, "state": "Lost", "run": run.run, "reason": reason, "lostAt": at})
}

/// The workers of a run that need eyes, the worst first, and the sums over all; null for a run of one.
pub fn worst(live: &Live, view: &LiveView) -> Value {
    if view.set.len() < 2 {
        return Value::Null;
    }
    let known: BTreeMap<WorkerId, WorkerView> = live
        .fleet
        .workers()
        .into_iter()
        .map(|worker| (worker.id, worker))
        .collect();
    let mut rows: Vec<Value> = view
        .set
        .iter()
        .map(|member| match known.get(&member.worker) {
            Some(worker) => row(worker, Some(view)),
            None => lost_row(view, member),
        })
        .collect();
    let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_f64()).sum::<f64>();
    let sums = json!({"workers": rows.len(), "vus": sum("vus"), "iterationsPerS": sum("iterationsPerS"),
        "spooled": sum("spooled"), "dropped": sum("dropped")});
    rows.sort_by(|left, right| badness(right).total_cmp(&badness(left)));
    rows.truncate(WORST);
    json!({"worst": rows, "sum": sums})
}

/// Lost before away before anything else; then by what spoils numbers: dropped frames, lateness, CPU.
fn badness(row: &Value) -> f64 {
    let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
    let state = match row["state"].as_str() {
        Some("Lost") => 1e12,
        Some("Away") => 1e11,
        _ => 0.0,
    };
    state + (number("dropped") * 1e6).min(1e10) + number("lagMs") + number("cpu")
}
