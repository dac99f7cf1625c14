//! The daemon's HTTP API: JSON over the stores and, where a daemon runs, over its services.

pub mod auth;
mod error;
mod events;
mod extract;
mod forecast;
mod health;
pub mod ingest;
mod plans;
mod runs;
mod slots;
mod views;
pub mod worker;
mod workers;

use crate::control::fleet::Fleet;
use crate::control::reconcile::ReconcilerHandle;
use crate::control::runs::Runs;
use crate::control::scheduler::SchedulerHandle;
use crate::runtime::clock::Clock;
use crate::store::Stores;
use auth::{Auth, Caller};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use error::ApiError;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt as _;

/// Bodies of this API are a few names and a reason.
const BODY_MAX: usize = 64 << 10;
/// Largest answer read in process; the daemon itself has made it.
const ANSWER_MAX: usize = 64 << 20;

/// What the routes read and act on.
#[derive(Clone)]
pub struct ApiState {
    stores: Stores,
    clock: Clock,
    auth: Arc<Auth>,
    live: Option<Arc<Live>>,
    metrics: Option<PrometheusHandle>,
}

/// The services of a running daemon.
pub struct Live {
    /// Runs.
    pub runs: Runs,
    /// The reconciler.
    pub reconciler: ReconcilerHandle,
    /// Workers.
    pub fleet: Fleet,
    /// Schedules.
    pub scheduler: SchedulerHandle,
}

impl ApiState {
    /// Over a daemon.
    pub fn new(stores: Stores, clock: Clock, auth: Auth, live: Live, metrics: PrometheusHandle) -> Self {
        Self {
            stores,
            clock,
            auth: Arc::new(auth),
            live: Some(Arc::new(live)),
            metrics: Some(metrics),
        }
    }

    /// Over a store alone: what is recorded can be read, nothing can be done.
    pub fn offline(stores: Stores, clock: Clock) -> Self {
        Self {
            stores,
            clock,
            auth: Arc::new(Auth::default()),
            live: None,
            metrics: None,
        }
    }

    fn live(&self) -> Result<&Live, ApiError> {
        self.live.as_deref().ok_or_else(|| {
            ApiError::unavailable("no daemon runs here; only recorded runs, reports and events can be read")
                .hint("start one with `muster serve --config muster.yaml`")
        })
    }
}

/// All routes.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/version", get(health::version))
        .route("/api/v1/projects", get(plans::projects))
        .route("/api/v1/resources", get(plans::list))
        .route("/api/v1/resources/{project}/{kind}/{name}", get(plans::one))
        .route("/api/v1/units", get(plans::units))
        .route("/api/v1/units/{name}/logs", get(plans::logs))
        .route("/api/v1/workers", get(workers::list))
        .route("/api/v1/workers/{id}", get(workers::one))
        .route("/api/v1/diff", get(plans::diff))
        .route("/api/v1/policy", get(plans::policy))
        .route("/api/v1/reconcile", post(plans::reconcile))
        .route("/api/v1/deletions/{revision}/approve", post(plans::approve_deletion))
        .route("/api/v1/plans/{project}/{name}/suspend", post(plans::suspend))
        .route("/api/v1/plans/{project}/{name}/resume", post(plans::resume))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/forecast", get(forecast::forecast))
        .route("/api/v1/slots", get(slots::list))
        .route("/api/v1/runs", get(runs::list).post(runs::start))
        .route("/api/v1/runs/{id}", get(runs::one))
        .route("/api/v1/runs/{id}/live", get(runs::live))
        .route("/api/v1/runs/{id}/report", get(runs::report))
        .route("/api/v1/runs/{id}/rerun", post(runs::rerun))
        .route("/api/v1/runs/{id}/tag", post(runs::tag))
        .route("/api/v1/runs/{id}/{action}", post(runs::act))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), own_host))
        .with_state(state)
}

/// Before anything else: without tokens only this host's own names are answered to, whatever the path.
async fn own_host(State(state): State<ApiState>, request: Request<Body>, next: Next) -> Result<Response, ApiError> {
    state.auth.own_host(request.headers())?;
    Ok(next.run(request).await)
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no path {}", uri.path())).hint("every path of the API begins with /api/v1/")
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        .hint("read with GET, act with POST; `Allow` names what it takes")
}

/// Serves until `stop` resolves; open requests then get a bounded time to finish.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    state: ApiState,
    listener: tokio::net::TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await
}

/// Answers one GET in process, as the daemon would: status and document.
pub async fn answer(state: &ApiState, path: &str) -> (u16, Value) {
    let broken = |message: String| (500, json!({"code": "Internal", "message": message}));
    let request = match Request::get(path).header("host", "localhost").body(Body::empty()) {
        Ok(request) => request,
        Err(error) => return broken(error.to_string()),
    };
    let Ok(response) = router(state.clone()).oneshot(request).await;
    let status = response.status().as_u16();
    match to_bytes(response.into_body(), ANSWER_MAX).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => (status, value),
            Err(error) => broken(error.to_string()),
        },
        Err(error) => broken(error.to_string()),
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        state.auth.caller(&parts.method, &parts.headers, state.clock.now())
    }
}
