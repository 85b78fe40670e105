//! `GET /api/system/settings` and `POST /api/system/settings/update`: the settings, where each came from, and changes.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, Reason};
use super::change::{api_author, carry_out};
use super::problem::Problem;
use super::schema::SettingsRequest;
use crate::config::{LiveConfig, Origin, SettingsPatch, SystemConfig};
use crate::security::Principal;
use crate::security::audit::Attempt;

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
        content = SettingsRequest,
        description = "Some settings by name, and if wanted a `reason` for the history and the audit log",
        example = json!({"adaptivePollingEnabled": false, "reason": "maintenance"})
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
    Body(mut patch): Body<SettingsPatch>,
) -> Result<Json<SettingsAnswer>, Problem> {
    let reason = patch.take_text("reason").map(Reason::try_from).transpose().map_err(Problem::malformed)?;
    let author = api_author(&principal, reason);
    let attempt = Attempt::new(principal.caller, "settings.update").because(author.reason.clone());
    let change = api.clone().configurator;
    let change = async move { change.update_settings(patch, author).await };
    carry_out(&api, attempt, change).await?;
    Ok(Json(answer(&api.config.system(), &api.config)))
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
    let refused = refused.iter().flat_map(|(file, errors)| errors.by_file(file)).map(|(file, errors)| RefusedEdit {
        file: file.display().to_string(),
        errors: errors.iter().map(ToString::to_string).collect(),
    });
    SettingsAnswer { settings: system.effective().into_iter().map(setting).collect(), refused_edits: refused.collect() }
}
