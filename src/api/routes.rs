//! Every call: its path, who may make it, and by which name it is audited. What is not in this list cannot be reached.

use axum::Router;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{Gatekeeper, authorise};
use super::{
    Api, audit, cluster, events, health, history, instance, manage, meta, nodes, notifications, overview, session,
    settings, state, tokens, troubles, updates, users,
};
use crate::security::Role;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has this role or more.
    Role(Role),
    /// Everybody, even strangers.
    Public,
}

/// What a call is: whether it is audited, and what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads; it is not audited.
    Read,
    /// It changes something, and is audited by this name whether it is carried out or refused.
    Change(&'static str),
    /// The same, and it counts as a management call.
    Management(&'static str),
}

impl Kind {
    /// The name by which it is audited.
    pub const fn action(self) -> Option<&'static str> {
        match self {
            Self::Read => None,
            Self::Change(action) | Self::Management(action) => Some(action),
        }
    }
}

/// One call.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{…}` for what varies.
    pub path: &'static str,
    /// Who may make it.
    pub access: Access,
    /// What it is.
    pub kind: Kind,
    handler: fn(MethodFilter) -> MethodRouter<Api>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?}, {:?})", self.method, self.path, self.access, self.kind)
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $access:expr, $kind:expr => $handler:path;)*) => {
        /// Every call of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            access: $access,
            kind: $kind,
            handler: |filter| on(filter, $handler),
        }),*];
    };
}

const PUBLIC: Access = Access::Public;
const VIEWER: Access = Access::Role(Role::Viewer);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);
use Kind::{Change, Management, Read};

routes! {
    GET    "/api/monitoring/scheduler/health" VIEWER, Read => health::scheduler_health;
    GET    "/api/events"                      VIEWER, Read => events::watch;
    GET    "/api/events/recent"               VIEWER, Read => events::recent;
    GET    "/api/monitoring/overview"         VIEWER, Read => overview::show;
    GET    "/api/monitoring/instances/{key}"  VIEWER, Read => instance::show;
    GET    "/api/monitoring/troubles"         VIEWER, Read => troubles::show;
    GET    "/api/state"                       VIEWER, Read => state::last_readings;
    POST   "/api/monitoring/breakers/{key}/reset"   ADMIN, Management("breaker.reset") => manage::reset_breaker;
    POST   "/api/monitoring/dlq/retry"              ADMIN, Management("dlq.retry_many") => manage::retry_dead_letters;
    POST   "/api/monitoring/dlq/{key}/retry"        ADMIN, Management("dlq.retry") => manage::retry_dead_letter;
    DELETE "/api/monitoring/dlq/{key}"              ADMIN, Management("dlq.remove") => manage::remove_dead_letter;
    POST   "/api/monitoring/instances/{key}/poll"   ADMIN, Management("instance.poll") => manage::poll_now;
    POST   "/api/monitoring/instances/{key}/pause"  ADMIN, Management("instance.pause") => manage::pause;
    POST   "/api/monitoring/instances/{key}/resume" ADMIN, Management("instance.resume") => manage::resume;
    GET    "/api/system/settings"             VIEWER, Read => settings::show;
    POST   "/api/system/settings/update"      ADMIN, Change("settings.update") => settings::update;
    GET    "/api/config/nodes"                VIEWER, Read => nodes::list;
    POST   "/api/config/nodes"                ADMIN, Change("node.add") => nodes::add;
    POST   "/api/config/nodes/test-connection" OPERATOR, Change("node.test") => nodes::test_connection;
    GET    "/api/config/nodes/{key}"          VIEWER, Read => nodes::one;
    PUT    "/api/config/nodes/{key}"          ADMIN, Change("node.replace") => nodes::replace;
    DELETE "/api/config/nodes/{key}"          ADMIN, Change("node.remove") => nodes::remove;
    GET    "/api/config/nodes/{key}/cluster"  ADMIN, Read => cluster::show;
    POST   "/api/config/nodes/{key}/cluster"  ADMIN, Change("node.add_cluster") => cluster::add;
    GET    "/api/config/history"              ADMIN, Read => history::list;
    GET    "/api/config/history/{version}"    ADMIN, Read => history::one;
    POST   "/api/config/rollback"             ADMIN, Change("config.rollback") => history::roll_back;
    POST   "/api/config/export"               ADMIN, Change("config.export") => history::export;
    POST   "/api/config/import"               ADMIN, Change("config.import") => history::import;
    POST   "/api/config/rekey"                ADMIN, Change("config.rekey") => history::rekey;
    GET    "/api/notifications"               VIEWER, Read => notifications::show;
    POST   "/api/notifications/test"          ADMIN, Management("notifications.test") => notifications::test;
    GET    "/api/security/tokens"             ADMIN, Read => tokens::list;
    POST   "/api/security/tokens"             ADMIN, Change("token.create") => tokens::create;
    DELETE "/api/security/tokens/{name}"      ADMIN, Change("token.revoke") => tokens::revoke;
    POST   "/api/setup"                       PUBLIC, Change("setup.complete") => session::set_up;
    POST   "/api/login"                       PUBLIC, Change("session.sign_in") => session::login;
    POST   "/api/logout"                      VIEWER, Change("session.sign_out") => session::logout;
    GET    "/api/security/me"                 VIEWER, Read => session::me;
    POST   "/api/security/me/password"        VIEWER, Change("user.password") => session::change_password;
    GET    "/api/security/me/sessions"        VIEWER, Read => session::own_sessions;
    DELETE "/api/security/me/sessions/{id}"   VIEWER, Change("session.end") => session::end_own_session;
    GET    "/api/security/sessions"           ADMIN, Read => session::all_sessions;
    DELETE "/api/security/sessions/{id}"      ADMIN, Change("session.end") => session::end_session;
    GET    "/api/security/users"              ADMIN, Read => users::list;
    POST   "/api/security/users"              ADMIN, Change("user.add") => users::add;
    PUT    "/api/security/users/{name}/role"  ADMIN, Change("user.role") => users::set_role;
    PUT    "/api/security/users/{name}/password" ADMIN, Change("user.password") => users::set_password;
    DELETE "/api/security/users/{name}"       ADMIN, Change("user.remove") => users::remove;
    GET    "/api/audit"                       ADMIN, Read => audit::list;
    POST   "/api/audit/verify"                ADMIN, Read => audit::verify;
    GET    "/api/updates/history"             VIEWER, Read => updates::history;
    GET    "/api/health"                      VIEWER, Read => meta::liveness;
    GET    "/api/version"                     VIEWER, Read => meta::version;
    GET    "/api/openapi.json"                VIEWER, Read => meta::document;
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
