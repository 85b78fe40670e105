//! About the daemon itself: that it lives, which version it is, and what calls there are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::Api;
use super::problem::Problem;

/// Whether the daemon lives. It says nothing of the instances: a dead host does not make the daemon ill (lesson 27).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Liveness {
    /// `ok`.
    status: &'static str,
    /// How long the daemon runs.
    uptime_seconds: u64,
}

/// Which version this is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    /// The version of the daemon.
    version: &'static str,
}

/// Tells that the daemon lives.
#[utoipa::path(
    get,
    path = "/api/health",
    tag = "daemon",
    responses(
        (status = 200, description = "The daemon and its scheduler live", body = Liveness),
        (status = 401, description = "A valid token is needed", body = Problem),
        (status = 503, description = "The scheduler has stopped", body = Problem),
    )
)]
pub(super) async fn liveness(State(api): State<Api>) -> Result<Json<Liveness>, Problem> {
    let up = api.handle.read(|_, now| now).await?;
    Ok(Json(Liveness { status: "ok", uptime_seconds: up.as_millis() / 1_000 }))
}

/// Tells the version.
#[utoipa::path(
    get,
    path = "/api/version",
    tag = "daemon",
    responses(
        (status = 200, description = "The version of the daemon", body = Version),
        (status = 401, description = "A valid token is needed", body = Problem),
    )
)]
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// Tells every call.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "daemon",
    responses(
        (status = 200, description = "This document", body = Object),
        (status = 401, description = "A valid token is needed", body = Problem),
    )
)]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}

/// The OpenAPI document of the whole API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Pulse", description = "Polls Proxmox fleets and endpoints, and contains what is broken."),
    paths(
        super::health::scheduler_health,
        super::state::last_readings,
        super::settings::show,
        super::settings::update,
        liveness,
        version,
        document,
    ),
    modifiers(&Tokens),
    security(("bearer" = []), ("token" = []))
)]
struct Document;

/// Tokens come as bearer or in a header of their own.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Token")));
        components.add_security_scheme("bearer", bearer);
        components.add_security_scheme("token", token);
    }
}
