//! Slots of schedules: what became of the past ones, and when plans start next.

use super::ApiState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Query};
use super::runs::plan_key;
use crate::store::rows::{SlotFilter, SlotRow};
use axum::extract::State;
use jiff::Timestamp;
use muster_core::model::id::Name;
use muster_core::model::key::Key;
use muster_core::model::resource::Spec;
use muster_core::model::schedule::Zone;
use muster_core::schedule::fires::between;
use serde::Deserialize;
use serde_json::{Value, json};

/// Most slots listed at once.
const LIMIT_MAX: u32 = 10_000;
/// Coming slots of each plan; `muster forecast` shows more.
const COMING: usize = 2;

/// Which slots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotsQuery {
    plan: Option<String>,
    project: Option<Name>,
    #[serde(default)]
    limit: u32,
}

/// Slots, newest first: those that come next, then what became of the others.
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<SlotsQuery>,
) -> Result<Json<Value>, ApiError> {
    let plan = query.plan.as_deref().map(plan_key).transpose()?;
    let filter = SlotFilter {
        projects: caller.within(query.project),
        pending: false,
        limit: query.limit.min(LIMIT_MAX),
        plan,
    };
    let rows = state.stores.ledger.slots(&filter).await?;
    let mut items = coming(&state, &filter).await?;
    for row in &rows {
        items.push(past(&state, row));
    }
    Ok(Json(json!({"formatVersion": 1, "items": items})))
}

/// The next slots of each plan, the latest first. Without a daemon nobody knows them.
async fn coming(state: &ApiState, filter: &SlotFilter) -> Result<Vec<Value>, ApiError> {
    let Some(live) = &state.live else { return Ok(Vec::new()) };
    let desired = live.reconciler.desired();
    let schedules = state.stores.ledger.schedules().await?;
    let now = state.clock.now();
    let mut found: Vec<(Timestamp, Value)> = Vec::new();
    for (key, row) in schedules {
        let is_wanted = filter.plan.as_ref().is_none_or(|plan| *plan == key)
            && filter
                .projects
                .as_ref()
                .is_none_or(|projects| projects.contains(&key.project))
            && desired.get(&key).is_some();
        if !is_wanted {
            continue;
        }
        let fires = between(&row.cursor.schedule, now.max(row.cursor.at), Timestamp::MAX);
        found.extend(fires.take(COMING).map(|fire| {
            let slot = json!({"project": key.project, "plan": key.name, "slot": fire.at, "local": fire.local_text(),
                "timeZone": row.cursor.schedule.zone, "outcome": "Coming", "note": fire.note});
            (fire.at, slot)
        }));
    }
    found.sort_by_key(|slot| std::cmp::Reverse(slot.0));
    Ok(found.into_iter().map(|(_, slot)| slot).collect())
}

fn past(state: &ApiState, row: &SlotRow) -> Value {
    let zone = zone_of(state, &row.plan);
    let local = zone.as_ref().map(|zone| {
        row.slot
            .to_zoned(zone.time_zone().clone())
            .strftime("%FT%T%:z")
            .to_string()
    });
    let late = row.load_at.map(|at| at.duration_since(row.slot).as_secs_f64());
    json!({"project": row.plan.project, "plan": row.plan.name, "slot": row.slot, "local": local, "timeZone": zone,
        "outcome": row.outcome, "detail": row.detail, "run": row.run, "loadAt": row.load_at, "lateSeconds": late,
        "decidedAt": row.decided_at})
}

/// The zone that the plan's schedule is written in by now.
fn zone_of(state: &ApiState, plan: &Key) -> Option<Zone> {
    let desired = state.live.as_ref()?.reconciler.desired();
    match &desired.get(plan)?.spec {
        Spec::TestPlan(plan) => plan.timing.schedule.as_ref().map(|schedule| schedule.zone.clone()),
        _ => None,
    }
}
