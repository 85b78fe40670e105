//! `GET /api/updates/history`: which versions were installed, and what came of it.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::update::Record;

/// The version that runs, and how it came to run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Updates {
    /// The version of the daemon.
    pub version: String,
    /// Whether `pulse update` keeps it up to date; otherwise a package or an image does.
    pub managed: bool,
    /// Updates, the last one first.
    pub updates: Vec<Record>,
}

/// Tells which versions were installed, and which went back by themselves.
#[utoipa::path(
    get,
    path = "/api/updates/history",
    tag = "daemon",
    responses(
        (status = 200, description = "The updates, the last one first", body = Updates),
        (status = 503, description = "The history cannot be read", body = Problem),
    )
)]
pub(super) async fn history(State(api): State<Api>) -> Result<Json<Updates>, Problem> {
    let version = api.program.version.to_owned();
    let Some(installation) = api.program.installation else {
        return Ok(Json(Updates { version, managed: false, updates: Vec::new() }));
    };
    let read = tokio::task::spawn_blocking(move || installation.updates()).await;
    let updates = read.map_err(|_| Problem::internal())?;
    let updates = updates.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Json(Updates { version, managed: true, updates }))
}
