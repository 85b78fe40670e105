//! The HTTP API: routes, and what every call passes through before it reaches its handler.
//!
//! It knows of the scheduler only what its handle tells, and of instances what the fleet keeps.

mod audit;
mod auth;
mod body;
mod change;
mod cluster;
mod cookie;
mod events;
mod feed;
mod headers;
mod health;
mod health_stream;
mod history;
mod instance;
mod manage;
mod meta;
mod nodes;
mod notifications;
mod overview;
mod peer;
mod problem;
mod reference;
mod routes;
mod schema;
mod session;
mod settings;
mod state;
mod tokens;
mod troubles;
mod updates;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

pub use audit::AuditAnswer;
pub use body::{GivenReason, NeededReason, Reason};
pub use cluster::{ClusterAdded, ClusterAnswer, ClusterNodeShown, FingerprintSource, NodeOffer};
pub use feed::{EventFeed, FeedPump, FeedSubscriber};
pub use headers::{Encrypted, with_security_headers};
pub use health::{BreakerStateName, HealthAnswer, InstanceRow};
pub use history::{ConfigurationChanged, History, Rekeyed, RollbackRequest, VersionAnswer};
pub use manage::{
    BreakerResetAnswer, PauseAnswer, PollAnswer, RemovalAnswer, RetriesAnswer, RetryAnswer, RetryResultName, RetryRow,
};
pub use meta::openapi;
pub use notifications::{ChannelRow, ChannelTestRow, ChannelTestsAnswer, ChannelsAnswer};
pub use overview::{Figures, FleetState, Glance, OverviewRow};
pub use peer::Peer;
pub use problem::Problem;
pub use reference::reference_markdown;
pub use routes::{Access, Kind, ROUTES, Route};
pub use tokens::{TokenIssued, TokenList, TokenRequest};
pub use updates::Updates;
pub use users::UserList;

use crate::config::LiveConfig;
use crate::configure::Configurator;
use crate::fleet::Fleet;
use crate::notify::Notifications;
use crate::runtime::{Clock, Handle};
use crate::security::audit::AuditLog;
use crate::security::{Accounts, Books, Principal, RateLimits, TokenStore, TrustedProxies};
use crate::telemetry::PollLog;
use crate::update::Program;

/// The largest body that a request may have, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// The longest time that a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers work with. Cheap to clone.
///
/// An API has to have a scheduler, a configuration and [`Books`]; what else it can do is added by `with_…`, and stays
/// silent until then.
#[derive(Clone)]
pub struct Api {
    /// Talks to the scheduler.
    pub(crate) handle: Handle,
    /// Tells the wall time of moments.
    pub(crate) clock: Arc<dyn Clock>,
    /// The instances and their last readings.
    pub(crate) fleet: Fleet,
    /// The settings in force.
    pub(crate) config: LiveConfig,
    /// Changes the settings and the fleet.
    pub(crate) configurator: Configurator,
    /// Who may come in.
    pub(crate) tokens: TokenStore,
    /// Users and their sessions.
    pub(crate) accounts: Accounts,
    /// Where everything that changes something is written down first.
    pub(crate) audit: AuditLog,
    /// How often somebody may call.
    pub(crate) limits: RateLimits,
    /// Whose word is taken for where a call came from.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// What happened to each instance lately.
    pub(crate) poll_log: PollLog,
    /// Whom operators have told what happens.
    pub(crate) notifications: Notifications,
    /// What happens.
    pub(crate) events: EventFeed,
    /// Cancelled when answers that take their time have to end.
    pub(crate) stop: CancellationToken,
    /// The program that the daemon runs.
    pub(crate) program: Program,
}

impl Api {
    /// An API of the scheduler behind `handle`, for everybody in `books`. It trusts no proxy, has no events and no past
    /// of any instance to tell, and does not end the answers that take their time.
    pub fn new(
        handle: Handle,
        fleet: Fleet,
        clock: Arc<dyn Clock>,
        configurator: Configurator,
        Books { audit, tokens, accounts }: Books,
    ) -> Self {
        let config = configurator.live().clone();
        Self {
            handle,
            configurator,
            tokens,
            accounts,
            audit,
            limits: RateLimits::new(Arc::clone(&clock)),
            proxies: Arc::default(),
            poll_log: PollLog::new().0,
            notifications: Notifications::new(config.clone(), Arc::clone(&clock), fleet.clone()).0,
            events: EventFeed::new(Arc::clone(&clock)).0,
            stop: CancellationToken::new(),
            program: Program::alone(env!("CARGO_PKG_VERSION")),
            clock,
            fleet,
            config,
        }
    }

    /// The same, taking the word of `proxies` for where a call came from.
    #[must_use]
    pub fn with_proxies(self, proxies: TrustedProxies) -> Self {
        Self { proxies: Arc::new(proxies), ..self }
    }

    /// The same, telling what `events` is fed with and what `poll_log` keeps.
    #[must_use]
    pub fn with_events(self, events: EventFeed, poll_log: PollLog) -> Self {
        Self { events, poll_log, ..self }
    }

    /// The same, telling how the channels of `notifications` do.
    #[must_use]
    pub fn with_notifications(self, notifications: Notifications) -> Self {
        Self { notifications, ..self }
    }

    /// The same, ending the answers that take their time when `stop` is cancelled.
    #[must_use]
    pub fn with_stop(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// The same for a daemon that runs `program`.
    #[must_use]
    pub fn with_program(self, program: Program) -> Self {
        Self { program, ..self }
    }
}

/// The whole API, and `pages` behind the same checks. Each request has to carry the [`Peer`] that sent it, and
/// [`Encrypted`] if it came over TLS; of one that a trusted proxy brought, the proxy's word is taken for that.
pub fn router(api: Api, pages: Router<Api>) -> Router {
    let router = routes::every_route(&api)
        .merge(pages)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), auth::identify))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, CALL_TIMEOUT))
        .layer(CatchPanicLayer::custom(|_| -> Response { Problem::internal().into_response() }))
        .with_state(api.clone());
    // Outside of the headers, which depend on it.
    with_security_headers(router).layer(middleware::from_fn_with_state(api.proxies, auth::hear_of_encryption))
}

/// Strangers do not learn which paths there are.
async fn unknown_path(known: Result<Principal, Problem>) -> Problem {
    let unknown = |_| Problem::not_found("no call has this path; /api/openapi.json lists all of them");
    known.map_or_else(|stranger| stranger, unknown)
}

async fn wrong_method(known: Result<Principal, Problem>) -> Problem {
    known.map_or_else(|stranger| stranger, |_| Problem::method_not_allowed())
}
