//! The forecast: what the daemon's plans will do.

use super::ApiState;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Json, Query};
use axum::extract::State;
use jiff::Timestamp;
use muster_core::model::key::Key;
use muster_core::schedule::forecast::Forecast;
use muster_core::schedule::slot::Suspension;
use muster_core::topology::outlook::{DAYS_MAX, end, outlook};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How far it looks where the caller does not say.
const DAYS: u32 = 60;

/// Which stretch of time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastQuery {
    from: Option<Timestamp>,
    days: Option<u32>,
}

/// Every slot of the plans that the caller sees, and what they add up to.
pub async fn forecast(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ForecastQuery>,
) -> Result<Json<Forecast>, ApiError> {
    let days = query.days.unwrap_or(DAYS);
    let from = query.from.unwrap_or_else(|| state.clock.now());
    let until = end(from, days).filter(|_| (1..=DAYS_MAX).contains(&days));
    let until =
        until.ok_or_else(|| ApiError::bad_request(format!("`days` is 1 to {DAYS_MAX}, within the calendar")))?;
    let desired = state.live()?.reconciler.desired();
    let overlays = state.stores.ledger.overlays().await?;
    let held: BTreeMap<Key, Suspension> = overlays
        .iter()
        .map(|overlay| (overlay.plan.clone(), overlay.suspension()))
        .collect();
    // A million slots take a second: not on a thread that answers others.
    let ahead = move || outlook(&desired, &held, (from, until), |key| caller.sees(&key.project));
    let forecast = tokio::task::spawn_blocking(ahead).await;
    forecast
        .map(Json)
        .map_err(|_| ApiError::unavailable("the forecast was not finished"))
}
