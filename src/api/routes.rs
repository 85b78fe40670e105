//! Every call: its path, who may make it, and by which name it is audited. What is not in this list cannot be reached.

use axum::Router;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{Gatekeeper, authorise};
use super::{Api, audit, health, history, meta, nodes, session, settings, state, tokens, users};
use crate::security::Role;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has this role or more.
    Role(Role),
    /// Everybody, even strangers.
    Public,
}

/// One call.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{…}` for what varies.
    pub path: &'static str,
    /// Who may make it.
    pub access: Access,
    /// The action by which it is audited, whether it is carried out or refused; reads are not.
    pub action: Option<&'static str>,
    handler: fn(MethodFilter) -> MethodRouter<Api>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?}, {:?})", self.method, self.path, self.access, self.action)
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $access:expr, $action:expr => $handler:path;)*) => {
        /// Every call of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            access: $access,
            action: $action,
            handler: |filter| on(filter, $handler),
        }),*];
    };
}

const PUBLIC: Access = Access::Public;
const VIEWER: Access = Access::Role(Role::Viewer);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);

routes! {
    GET    "/api/monitoring/scheduler/health" VIEWER, None => health::scheduler_health;
    GET    "/api/state"                       VIEWER, None => state::last_readings;
    GET    "/api/system/settings"             VIEWER, None => settings::show;
    POST   "/api/system/settings/update"      ADMIN, Some("settings.update") => settings::update;
    GET    "/api/config/nodes"                VIEWER, None => nodes::list;
    POST   "/api/config/nodes"                ADMIN, Some("node.add") => nodes::add;
    POST   "/api/config/nodes/test-connection" OPERATOR, Some("node.test") => nodes::test_connection;
    GET    "/api/config/nodes/{key}"          VIEWER, None => nodes::one;
    PUT    "/api/config/nodes/{key}"          ADMIN, Some("node.replace") => nodes::replace;
    DELETE "/api/config/nodes/{key}"          ADMIN, Some("node.remove") => nodes::remove;
    GET    "/api/config/history"              ADMIN, None => history::list;
    GET    "/api/config/history/{version}"    ADMIN, None => history::one;
    POST   "/api/config/rollback"             ADMIN, Some("config.rollback") => history::roll_back;
    POST   "/api/config/export"               ADMIN, Some("config.export") => history::export;
    POST   "/api/config/import"               ADMIN, Some("config.import") => history::import;
    POST   "/api/config/rekey"                ADMIN, Some("config.rekey") => history::rekey;
    GET    "/api/security/tokens"             ADMIN, None => tokens::list;
    POST   "/api/security/tokens"             ADMIN, Some("token.create") => tokens::create;
    DELETE "/api/security/tokens/{name}"      ADMIN, Some("token.revoke") => tokens::revoke;
    POST   "/api/setup"                       PUBLIC, Some("setup.complete") => session::set_up;
    POST   "/api/login"                       PUBLIC, Some("session.sign_in") => session::login;
    POST   "/api/logout"                      VIEWER, Some("session.sign_out") => session::logout;
    GET    "/api/security/me"                 VIEWER, None => session::me;
    POST   "/api/security/me/password"        VIEWER, Some("user.password") => session::change_password;
    GET    "/api/security/me/sessions"        VIEWER, None => session::own_sessions;
    DELETE "/api/security/me/sessions/{id}"   VIEWER, Some("session.end") => session::end_own_session;
    GET    "/api/security/sessions"           ADMIN, None => session::all_sessions;
    DELETE "/api/security/sessions/{id}"      ADMIN, Some("session.end") => session::end_session;
    GET    "/api/security/users"              ADMIN, None => users::list;
    POST   "/api/security/users"              ADMIN, Some("user.add") => users::add;
    PUT    "/api/security/users/{name}/role"  ADMIN, Some("user.role") => users::set_role;
    PUT    "/api/security/users/{name}/password" ADMIN, Some("user.password") => users::set_password;
    DELETE "/api/security/users/{name}"       ADMIN, Some("user.remove") => users::remove;
    GET    "/api/audit"                       ADMIN, None => audit::list;
    GET    "/api/health"                      VIEWER, None => meta::liveness;
    GET    "/api/version"                     VIEWER, None => meta::version;
    GET    "/api/openapi.json"                VIEWER, None => meta::document;
}

/// A router with every call behind its gatekeeper, and nothing else.
pub(super) fn every_route(api: &Api) -> Router<Api> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let filter = MethodFilter::try_from(route.method.clone()).expect("the table has ordinary methods alone");
        let gatekeeper = Gatekeeper { api: api.clone(), route };
        let handler = (route.handler)(filter).route_layer(middleware::from_fn_with_state(gatekeeper, authorise));
        router.route(route.path, handler)
    })
}
