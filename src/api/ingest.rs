//! What `muster ingest` answers: whether it lives, whether it is ready, what it counts.

use super::error::ApiError;
use super::extract::Json;
use super::health::livez;
use crate::bus::kafka::ConsumerState;
use crate::store::Results;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use muster_core::model::id::RunId;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use uuid::Uuid;

/// A database that has not answered by then is not ready to store anything.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Clone)]
pub struct Probe {
    state: Arc<dyn Fn() -> ConsumerState + Send + Sync>,
    results: Arc<dyn Results>,
    metrics: PrometheusHandle,
}

impl Probe {
    /// Of a member of a group and the database it stores into.
    pub fn new(
        state: impl Fn() -> ConsumerState + Send + Sync + 'static,
        results: Arc<dyn Results>,
        metrics: PrometheusHandle,
    ) -> Self {
        Self {
            state: Arc::new(state),
            results,
            metrics,
        }
    }
}

/// Serves until `stop` resolves.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    probe: Probe,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probe);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

/// It is a member of its group and the database answers.
async fn readyz(State(probe): State<Probe>) -> Result<Json<Value>, ApiError> {
    let state = (probe.state)();
    if !state.joined {
        return Err(ApiError::unavailable("kafka's group has not given it a share yet"));
    }
    // Any run does: the question is whether there is an answer.
    timeout(STORE_DEADLINE, probe.results.is_sealed(RunId(Uuid::nil())))
        .await
        .map_err(|_| ApiError::unavailable("the database does not answer"))??;
    Ok(Json(json!({
        "ready": true,
        "partitions": state.partitions,
        "lagRecords": state.lag,
        "inFlight": state.in_flight,
        "paused": state.paused,
    })))
}

async fn metrics(State(probe): State<Probe>) -> String {
    probe.metrics.render()
}
