//! `/api/config/history` and what follows from it: versions of the configuration, going back, exports, a new key.

use axum::Json;
use axum::body::Body as RawBody;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Body, GivenReason, Reason, received};
use super::change::{api_author, carry_out};
use super::problem::Problem;
use crate::config::{Difference, MAX_BUNDLE_BYTES};
use crate::configure::{Author, Changed, RolledBack, Source, Version};
use crate::security::audit::{Attempt, Conclusion};
use crate::security::{Credential, Principal};
use crate::targets::Secret;

const DEFAULT_PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 500;

/// Which versions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only versions before this one: the `next` of the page before.
    before: Option<i64>,
    /// How many at the most, 1 to 500; 50 if not given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Versions of the configuration.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The newest first.
    pub versions: Vec<Version>,
    /// What to give as `before` for the next page; `null` on the last.
    pub next: Option<i64>,
}

/// One version of the configuration.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionAnswer {
    /// Who made it, when and why.
    #[serde(flatten)]
    pub version: Version,
    /// How it differs from the version before it, or from the one asked for; empty for the oldest that is kept.
    pub difference: Difference,
    /// `system.json` at that time; `null` if it was broken then.
    #[schema(value_type = Option<Object>)]
    pub settings: Option<serde_json::Value>,
    /// The entries of `instances.json` at that time, with `{"set": true}` for every secret; `null` if it was broken.
    #[schema(value_type = Option<Vec<Object>>)]
    pub instances: Option<Vec<serde_json::Value>>,
    /// The instances of the files of other tools at that time, each with the `source` that it stood in; `null` if one
    /// was broken.
    #[schema(value_type = Option<Vec<Object>>)]
    pub provided: Option<Vec<serde_json::Value>>,
}

/// What to compare a version with.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Comparison {
    /// The version to compare with; the one before it if not given.
    since: Option<i64>,
}

/// Where to go back to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The version to go back to; the one before the last if not given.
    #[serde(default)]
    pub version: Option<i64>,
    /// Why, for the history and the audit log.
    pub reason: Reason,
}

/// What a change of the whole configuration came to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationChanged {
    /// The version that it made; `null` if nothing changed that matters.
    pub version: Option<i64>,
    /// The version that was gone back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<i64>,
    /// What it changed.
    pub difference: Difference,
    /// The instances of the files of other tools that are not as they were at the version that was gone back to; those
    /// files are never written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<String>,
}

impl From<Changed> for ConfigurationChanged {
    fn from(Changed { version, difference }: Changed) -> Self {
        Self { version, restored: None, difference, left_alone: Vec::new() }
    }
}

impl From<RolledBack> for ConfigurationChanged {
    fn from(RolledBack { to, changed, left_alone }: RolledBack) -> Self {
        Self { restored: Some(to), left_alone, ..changed.into() }
    }
}

/// How an export is encrypted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportRequest {
    /// What opens it; at least 12 characters.
    passphrase: String,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// That the key is another one now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Rekeyed {
    /// `true`.
    pub success: bool,
}

/// Lists the versions of the configuration.
#[utoipa::path(
    get,
    path = "/api/config/history",
    tag = "configuration",
    params(Page),
    responses(
        (status = 200, description = "The versions that are kept, the newest first", body = History),
        (status = 400, description = "A parameter is wrong", body = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<History>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::malformed(format!("`limit` is {limit}; it must be 1 to {LARGEST_PAGE}")));
    }
    let mut versions = api.configurator.versions(page.before, limit + 1).await?;
    let more = versions.len() > limit as usize;
    versions.truncate(limit as usize);
    let next = versions.last().filter(|_| more).map(|last| last.version);
    Ok(Json(History { versions, next }))
}

/// Shows a version of the configuration, and how it differs from another.
#[utoipa::path(
    get,
    path = "/api/config/history/{version}",
    tag = "configuration",
    params(("version" = i64, Path, description = "The number of the version"), Comparison),
    responses(
        (status = 200, description = "The version", body = VersionAnswer),
        (status = 400, description = "A parameter is wrong", body = Problem),
        (status = 404, description = "There is none of this number, or it is no longer kept", body = Problem),
    )
)]
pub(super) async fn one(
    State(api): State<Api>,
    number: Result<Path<i64>, PathRejection>,
    comparison: Result<Query<Comparison>, QueryRejection>,
) -> Result<Json<VersionAnswer>, Problem> {
    let Path(number) = number.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let Query(comparison) = comparison.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let mut shown = api.configurator.version(number).await?;
    if let Some(since) = comparison.since {
        shown.difference = api.configurator.difference(since, Some(number)).await?;
    }
    Ok(Json(shown.into()))
}

/// Goes back to a version of the configuration. That is a new version, in force at once. The files of other tools stay
/// as they are.
#[utoipa::path(
    post,
    path = "/api/config/rollback",
    tag = "configuration",
    request_body = RollbackRequest,
    responses(
        (status = 200, description = "In force from now on", body = ConfigurationChanged),
        (status = 404, description = "There is none of this number, or it is no longer kept", body = Problem),
        (status = 409, description = "That is what is in force (`nothing_to_do`)", body = Problem),
        (status = 422, description = "It breaks a rule by now; refused whole, with all reasons", body = Problem),
    )
)]
pub(super) async fn roll_back(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<RollbackRequest>,
) -> Result<Json<ConfigurationChanged>, Problem> {
    let RollbackRequest { version, reason } = request;
    let author = Author { source: Source::Rollback, ..api_author(&principal, Some(reason)) };
    let mut attempt = Attempt::new(principal.caller, "config.rollback").because(author.reason.clone());
    attempt.key = version.map(|version| version.to_string());
    let configurator = api.configurator.clone();
    let change = async move { configurator.roll_back(version, author).await };
    let done = api.configurator.audited(attempt, |done: &RolledBack| done.changed.conclusion(), change).await??;
    Ok(Json(done.into()))
}

/// The whole configuration with its secrets, encrypted with a passphrase. Only over the unix socket: whoever can use
/// that can read the key of the secrets anyway.
#[utoipa::path(
    post,
    path = "/api/config/export",
    tag = "configuration",
    request_body = ExportRequest,
    responses(
        (status = 200, description = "The export", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 403, description = "The call did not come over the unix socket (`local_only`)", body = Problem),
        (status = 422, description = "The passphrase is too short, or a file is broken", body = Problem),
    )
)]
pub(super) async fn export(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<ExportRequest>,
) -> Result<Response, Problem> {
    let ExportRequest { passphrase, reason } = request;
    let passphrase = Secret::new(passphrase);
    let attempt = Attempt::new(principal.caller.clone(), "config.export").because(reason.map(Reason::into_inner));
    if principal.credential != Credential::Socket {
        api.audit.record(attempt, Conclusion::refused("it did not come over the unix socket")).await?;
        return Err(Problem::local_only());
    }
    let configurator = api.configurator.clone();
    let export = async move { configurator.export(passphrase).await };
    let file = api.configurator.audited(attempt, |_| Conclusion::done(None, None), export).await??;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file).into_response())
}

/// Puts an export in the place of the whole configuration. That is a new version, in force at once. Only over the unix
/// socket.
///
/// The body is the passphrase, a line break, and the export.
#[utoipa::path(
    post,
    path = "/api/config/import",
    tag = "configuration",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(ImportReason),
    responses(
        (status = 200, description = "In force from now on", body = ConfigurationChanged),
        (status = 403, description = "The call did not come over the unix socket (`local_only`)", body = Problem),
        (status = 413, description = "The export is too large", body = Problem),
        (status = 422, description = "The passphrase is wrong, or the export breaks a rule here", body = Problem),
    )
)]
pub(super) async fn import(
    State(api): State<Api>,
    principal: Principal,
    query: Result<Query<ImportReason>, QueryRejection>,
    body: RawBody,
) -> Result<Json<ConfigurationChanged>, Problem> {
    let Query(given) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let attempt = Attempt::new(principal.caller.clone(), "config.import");
    if principal.credential != Credential::Socket {
        api.audit.record(attempt, Conclusion::refused("it did not come over the unix socket")).await?;
        return Err(Problem::local_only());
    }
    let limit = MAX_BUNDLE_BYTES + 4096;
    let body = received(axum::body::to_bytes(body, limit), limit).await?;
    let broken = || Problem::malformed("the body must be a passphrase, a line break, and an export");
    let end = body.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
    let passphrase = String::from_utf8(body[..end].to_vec()).map(Secret::new).map_err(|_| broken())?;
    let file = body[end + 1..].to_vec();
    let author = Author { source: Source::Import, ..api_author(&principal, given.reason) };
    let attempt = attempt.because(author.reason.clone());
    let configurator = api.configurator.clone();
    let change = async move { configurator.import(file, passphrase, author).await };
    Ok(Json(carry_out(&api, attempt, change).await?.into()))
}

/// Why an export is imported.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportReason {
    /// Why, for the history and the audit log.
    #[serde(default)]
    #[param(inline)]
    reason: Option<Reason>,
}

/// Makes a new key for the secrets, encrypts all of them with it, and forgets the old one.
#[utoipa::path(
    post,
    path = "/api/config/rekey",
    tag = "configuration",
    request_body = Option<GivenReason>,
    responses(
        (status = 200, description = "Every secret is encrypted with a new key", body = Rekeyed),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`)", body = Problem),
    )
)]
pub(super) async fn rekey(
    State(api): State<Api>,
    principal: Principal,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<Rekeyed>, Problem> {
    let reason = given.and_then(GivenReason::into_inner);
    let attempt = Attempt::new(principal.caller, "config.rekey").because(reason);
    let configurator = api.configurator.clone();
    let rekey = async move { configurator.rekey().await };
    api.configurator.audited(attempt, |()| Conclusion::done(None, None), rekey).await??;
    Ok(Json(Rekeyed { success: true }))
}

impl From<crate::configure::VersionShown> for VersionAnswer {
    fn from(shown: crate::configure::VersionShown) -> Self {
        let crate::configure::VersionShown { version, difference, snapshot } = shown;
        let (settings, instances) = (snapshot.shown_settings(), snapshot.shown_instances());
        Self { version, difference, settings, instances, provided: snapshot.shown_provided() }
    }
}
