//! `GET /api/system/settings` and `POST /api/system/settings/update`: the settings, where each came from, and changes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::config::{LiveConfig, Origin, SettingsPatch, SystemConfig};

/// The settings in force.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettingsAnswer {
    /// Every setting, in the order of the documentation.
    settings: Vec<Setting>,
    /// Edits of configuration files that were refused; what was in force before stays.
    refused_edits: Vec<RefusedEdit>,
}

/// One setting.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Setting {
    /// Its name in `system.json` and in an update.
    name: &'static str,
    /// The value in force.
    value: serde_json::Value,
    /// The value when nothing sets it.
    default: serde_json::Value,
    /// `environment`, `file` or `default`.
    origin: &'static str,
    /// The environment variable that pins it, or would.
    environment: &'static str,
    /// What it is for.
    help: &'static str,
}

/// An edit that was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RefusedEdit {
    /// The file.
    file: String,
    /// Everything that is wrong with it.
    errors: Vec<String>,
}

/// Shows the settings.
#[utoipa::path(
    get,
    path = "/api/system/settings",
    tag = "system",
    responses(
        (status = 200, description = "The settings in force, and where each came from", body = SettingsAnswer),
        (status = 401, description = "A valid token is needed", body = Problem),
    )
)]
pub(super) async fn show(State(api): State<Api>) -> Json<SettingsAnswer> {
    Json(answer(&api.config.system(), &api.config))
}

/// Changes some settings, at once and without a restart. `null` means the default.
#[utoipa::path(
    post,
    path = "/api/system/settings/update",
    tag = "system",
    request_body(
        content = Object,
        description = "Some settings by name",
        example = json!({"adaptivePollingEnabled": false})
    ),
    responses(
        (status = 200, description = "The settings in force from now on", body = SettingsAnswer),
        (status = 400, description = "The body is not a JSON object", body = Problem),
        (status = 401, description = "A valid token is needed", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 422, description = "Refused whole, with all reasons", body = Problem),
        (status = 503, description = "The daemon is shutting down", body = Problem),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<SettingsAnswer>, Problem> {
    let body = body.map_err(|_| Problem::too_large(super::MAX_BODY))?;
    let patch: SettingsPatch = serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the body must be a JSON object of settings: {error}")))?;
    let file = std::sync::Arc::clone(&api.system_file);
    let updated = tokio::task::spawn_blocking(move || file.update(&patch)).await.map_err(|_| Problem::internal())?;
    let system = updated.map_err(|errors| Problem::refused_settings(&errors))?;
    api.handle.replace_settings(system.settings().clone()).await?;
    api.config.mended(api.system_file.path());
    api.config.accept_system(system.clone());
    Ok(Json(answer(&system, &api.config)))
}

fn answer(system: &SystemConfig, live: &LiveConfig) -> SettingsAnswer {
    let setting = |setting: crate::config::EffectiveSetting| Setting {
        name: setting.name,
        value: setting.value,
        default: setting.default,
        origin: match setting.origin {
            Origin::Environment => "environment",
            Origin::File => "file",
            Origin::Default => "default",
        },
        environment: setting.environment,
        help: setting.help,
    };
    let refused = live.refused();
    let refused = refused.iter().map(|(file, errors)| RefusedEdit {
        file: file.display().to_string(),
        errors: errors.iter().map(ToString::to_string).collect(),
    });
    SettingsAnswer { settings: system.effective().into_iter().map(setting).collect(), refused_edits: refused.collect() }
}
