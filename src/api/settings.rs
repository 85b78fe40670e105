//! `GET /api/system/settings` and `POST /api/system/settings/update`: the settings, where each came from, and changes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::problem::Problem;
use crate::config::{LiveConfig, Origin, SettingsPatch, SystemConfig};
use crate::security::Principal;
use crate::security::audit::{Attempt, Conclusion};

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
    value: Value,
    /// The value when nothing sets it.
    default: Value,
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
        (status = 401, description = "Valid credentials are needed", body = Problem),
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
        (status = 401, description = "Valid credentials are needed", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 422, description = "Refused whole, with all reasons", body = Problem),
        (status = 503, description = "The daemon is shutting down", body = Problem),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    principal: Principal,
    Body(patch): Body<SettingsPatch>,
) -> Result<Json<SettingsAnswer>, Problem> {
    let attempt = Attempt::new(principal.caller, "settings.update");
    let system = api.audit.carry_out(attempt, apply(api.clone(), patch)).await??;
    Ok(Json(answer(&system, &api.config)))
}

/// Writes the changed settings and has the scheduler follow them.
async fn apply(api: Api, patch: SettingsPatch) -> (Result<SystemConfig, Problem>, Conclusion) {
    let _turn = api.config.change().await;
    let before = api.config.system();
    let file = Arc::clone(&api.system_file);
    let system = match tokio::task::spawn_blocking(move || file.update(&patch)).await {
        Ok(Ok(system)) => system,
        Ok(Err(errors)) => return (Err(Problem::refused_settings(&errors)), Conclusion::refused(errors)),
        Err(broken) => return (Err(Problem::internal()), Conclusion::failed(broken)),
    };
    if let Err(gone) = api.handle.replace_settings(system.settings().clone()).await {
        return (Err(gone.into()), Conclusion::failed(gone));
    }
    api.config.mended(api.system_file.path());
    api.config.accept_system(system.clone());
    let (before, after) = difference(&before, &system);
    (Ok(system), Conclusion::done(Some(before), Some(after)))
}

/// The settings that differ, as they were and as they are.
fn difference(before: &SystemConfig, after: &SystemConfig) -> (Value, Value) {
    let (before, after) = (before.effective(), after.effective());
    let changed = before.into_iter().zip(after).filter(|(before, after)| before.value != after.value);
    let (before, after): (Map<_, _>, Map<_, _>) = changed
        .map(|(before, after)| ((before.name.to_owned(), before.value), (after.name.to_owned(), after.value)))
        .unzip();
    (before.into(), after.into())
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
