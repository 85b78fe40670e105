//! The HTTP API: routes, and what every call passes through before it reaches its handler.
//!
//! It knows of the scheduler only what its handle tells, and of instances what the fleet keeps.

mod auth;
mod health;
mod meta;
mod problem;
mod settings;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

pub use auth::Door;
pub use health::{BreakerStateName, HealthAnswer, InstanceRow};
pub use meta::openapi;
pub use problem::Problem;

use crate::config::{LiveConfig, SystemFile};
use crate::fleet::Fleet;
use crate::runtime::{Clock, Handle};
use crate::security::TokenStore;

/// The largest body that a request may have, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// The longest time that a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Talks to the scheduler.
    pub handle: Handle,
    /// Tells the wall time of moments.
    pub clock: Arc<dyn Clock>,
    /// The instances and their last readings.
    pub fleet: Fleet,
    /// The settings in force.
    pub config: LiveConfig,
    /// Where changed settings are written.
    pub system_file: Arc<SystemFile>,
    /// Who may come in.
    pub tokens: TokenStore,
}

/// Every route, behind the checks of `door`.
pub fn router(api: Api, door: Door) -> Router {
    let guard = auth::Guard { door, tokens: api.tokens.clone() };
    Router::new()
        .route("/api/monitoring/scheduler/health", get(health::scheduler_health))
        .route("/api/state", get(state::last_readings))
        .route("/api/system/settings", get(settings::show))
        .route("/api/system/settings/update", post(settings::update))
        .route("/api/health", get(meta::liveness))
        .route("/api/version", get(meta::version))
        .route("/api/openapi.json", get(meta::document))
        .fallback(unknown_path)
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(guard, auth::check))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, CALL_TIMEOUT))
        .layer(CatchPanicLayer::custom(|_| -> Response { Problem::internal().into_response() }))
        .with_state(api)
}

async fn unknown_path() -> Problem {
    Problem::not_found("no call has this path; /api/openapi.json lists all of them")
}
