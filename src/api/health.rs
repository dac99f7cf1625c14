//! Whether the daemon lives, is ready, and what it counts.

use super::ApiState;
use super::error::ApiError;
use super::extract::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// The process answers.
pub async fn livez() -> Json<Value> {
    Json(json!({"live": true}))
}

/// The first complete observation was made and the store answers.
pub async fn readyz(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    state.stores.ledger.meta("host-id").await?;
    if state.live()?.reconciler.has_observed() {
        Ok(Json(json!({"ready": true})))
    } else {
        Err(ApiError::unavailable(
            "the first look at all environments is not complete yet",
        ))
    }
}

/// Prometheus' text format.
pub async fn metrics(State(state): State<ApiState>) -> Result<String, ApiError> {
    match &state.metrics {
        Some(handle) => Ok(handle.render()),
        None => Err(ApiError::unavailable("no daemon runs here")),
    }
}

/// The daemon's version.
pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
