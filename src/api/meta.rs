//! About the daemon itself: that it lives, which version it is, and what calls there are.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use serde::Serialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, ToSchema};

use super::Api;
use super::problem::Problem;
use super::routes::{Access, ROUTES};
use super::schema::SettingsRequest;
use crate::security::Role;

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
#[schema(as = DaemonVersion)]
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
        (status = 401, description = "Valid credentials are needed", body = Problem),
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
        (status = 401, description = "Valid credentials are needed", body = Problem),
    )
)]
pub(super) async fn version(State(api): State<Api>) -> Json<Version> {
    Json(Version { version: api.program.version })
}

/// Tells every call.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "daemon",
    responses(
        (status = 200, description = "This document", body = Object),
        (status = 401, description = "Valid credentials are needed", body = Problem),
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
        super::overview::show,
        super::instance::show,
        super::troubles::show,
        super::state::last_readings,
        super::events::watch,
        super::events::recent,
        super::manage::reset_breaker,
        super::manage::retry_dead_letter,
        super::manage::retry_dead_letters,
        super::manage::remove_dead_letter,
        super::manage::poll_now,
        super::manage::pause,
        super::manage::resume,
        super::settings::show,
        super::settings::update,
        super::nodes::list,
        super::nodes::one,
        super::nodes::add,
        super::nodes::replace,
        super::nodes::remove,
        super::nodes::test_connection,
        super::cluster::show,
        super::cluster::add,
        super::history::list,
        super::history::one,
        super::history::roll_back,
        super::history::export,
        super::history::import,
        super::history::rekey,
        super::notifications::show,
        super::notifications::test,
        super::tokens::list,
        super::tokens::create,
        super::tokens::revoke,
        super::session::set_up,
        super::session::login,
        super::session::logout,
        super::session::me,
        super::session::change_password,
        super::session::own_sessions,
        super::session::end_own_session,
        super::session::all_sessions,
        super::session::end_session,
        super::users::list,
        super::users::add,
        super::users::set_role,
        super::users::set_password,
        super::users::remove,
        super::audit::list,
        super::audit::verify,
        super::updates::history,
        liveness,
        version,
        document,
    ),
    components(schemas(SettingsRequest)),
    modifiers(&Credentials, &Refusals),
    security(("bearer" = []), ("token" = []), ("session" = []))
)]
struct Document;

/// Tokens come as bearer or in a header of their own, sessions in a cookie.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Token")));
        components.add_security_scheme("bearer", bearer);
        components.add_security_scheme("token", token);
        let about = "POST /api/login sets it; over TLS its name is `__Host-pulse_session`. A call that changes \
                     something needs the session's `csrfToken` as `X-CSRF-Token` too.";
        let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description("pulse_session", about)));
        components.add_security_scheme("session", session);
    }
}

/// Whatever every call may answer, by its entry in the table of routes.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for route in ROUTES {
            let Some(operation) =
                openapi.paths.paths.get_mut(route.path).and_then(|item| operation(item, &route.method))
            else {
                continue;
            };
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response
                    && response.content.get("application/json").is_some_and(is_problem)
                    && let Some(content) = response.content.swap_remove("application/json")
                {
                    response.content.insert("application/problem+json".to_owned(), content);
                }
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                without_null(parameter);
            }
            let mut also = |status: &str, description: &str| {
                let json = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let response =
                    ResponseBuilder::new().description(description).content("application/problem+json", json);
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
            };
            if let Access::Role(role) = route.access {
                also("401", "Valid credentials are needed (`unauthorized`)");
                let by_session = "the session's CSRF token is missing or wrong (`csrf_token_wrong`)";
                match (role > Role::Viewer, route.method.is_safe()) {
                    (true, true) => also("403", &format!("The role {role} is needed (`forbidden`)")),
                    (true, false) => also("403", &format!("The role {role} is needed (`forbidden`), or {by_session}")),
                    (false, false) => also("403", by_session),
                    (false, true) => {}
                }
            }
            if route.kind.action().is_some() {
                also("400", "The request could not be read (`malformed_request`)");
                also("408", "The body did not come in time (`body_too_slow`)");
                also("413", "The body is too large (`body_too_large`)");
            }
            also("429", "Too many calls; `Retry-After` tells when the next may come (`too_many_calls`)");
            also(
                "503",
                "The daemon cannot answer now (`unavailable`), or not write down what it has to \
                         (`storage_unavailable`); nothing was changed",
            );
        }
    }
}

/// A parameter is left out; it is never `null`.
fn without_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(parameter) = parameter
        && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
        && let SchemaType::Array(types) = &object.schema_type
        && let [kind, Type::Null] = &types[..]
    {
        object.schema_type = SchemaType::new(kind.clone());
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location.ends_with("/Problem"))
}

fn operation<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}
