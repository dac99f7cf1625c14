//! What happened: events after a number, held back until there are some where the caller waits.

use super::ApiState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Query};
use super::views;
use crate::store::rows::EventFilter;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest an answer is held back: below the idle timeout of common proxies.
const WAIT_MAX_S: u64 = 30;
/// How often a waiting answer looks; one indexed query.
const POLL: Duration = Duration::from_millis(250);
/// Events in one answer.
const LIMIT_MAX: u32 = 1_000;

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventQuery {
    #[serde(default)]
    after: u64,
    about: Option<String>,
    #[serde(default)]
    wait_seconds: u64,
    #[serde(default)]
    limit: u32,
}

/// Events, oldest first, and the number to go on after.
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<EventQuery>,
) -> Result<Json<Value>, ApiError> {
    let filter = EventFilter {
        after: query.after,
        about: query.about,
        project: None,
        limit: query.limit.min(LIMIT_MAX),
    };
    let deadline = state.clock.instant() + Duration::from_secs(query.wait_seconds.min(WAIT_MAX_S));
    loop {
        let rows = state.stores.ledger.events(&filter).await?;
        let last = rows.last().map_or(query.after, |row| row.sequence);
        if !rows.is_empty() || state.clock.instant() >= deadline {
            let seen = rows
                .iter()
                .filter(|row| row.event.project.as_ref().is_none_or(|project| caller.sees(project)));
            let items: Vec<Value> = seen.map(views::event).collect();
            return Ok(Json(json!({"formatVersion": 1, "items": items, "last": last})));
        }
        state.clock.sleep(POLL).await;
    }
}
