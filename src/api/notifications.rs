//! `GET /api/notifications` and `POST /api/notifications/test`: whom the daemon tells what happens, and whether that works.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, Reason};
use super::problem::Problem;
use crate::notify::{ChannelState, Tested};
use crate::runtime::Calendar;
use crate::security::Principal;
use crate::security::audit::{Attempt, Conclusion};

/// The channels of `system.json`, in its order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelsAnswer {
    /// How each does.
    pub channels: Vec<ChannelRow>,
}

/// How one channel does. Counts are since the daemon started.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelRow {
    /// Its name.
    pub name: String,
    /// `webhook` or `mail`.
    #[serde(rename = "type")]
    pub route: String,
    /// What is told there: `breaker_open`, `dead_letter`, `down`, `late`, `recovery`.
    pub events: Vec<String>,
    /// Messages that were delivered.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Events that no message tells: they had no room, or their message could not be delivered.
    pub dropped: u64,
    /// Events that wait to be delivered.
    pub waiting: u64,
    /// When a message was last delivered. RFC 3339, UTC.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_sent: Option<jiff::Timestamp>,
    /// When the message on its way is tried again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<jiff::Timestamp>,
    /// Why the last try failed; `null` if it did not.
    pub last_error: Option<String>,
}

/// Which channel to test.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChannelTestRequest {
    /// The channel's name; without it, each is tested.
    #[serde(default)]
    channel: Option<String>,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// What came of a test.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTestsAnswer {
    /// Whether every receiver took the message.
    pub success: bool,
    /// What came of each channel.
    pub results: Vec<ChannelTestRow>,
}

/// What came of the test of one channel.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTestRow {
    /// The channel's name.
    pub channel: String,
    /// Whether its receiver took the message.
    pub delivered: bool,
    /// Why not; `null` if it did.
    pub error: Option<String>,
}

/// Tells how each channel of notifications does.
#[utoipa::path(
    get,
    path = "/api/notifications",
    tag = "notifications",
    responses(
        (status = 200, description = "The channels; none if nobody is told anything", body = ChannelsAnswer),
        (status = 401, description = "Valid credentials are needed", body = Problem),
    )
)]
pub(super) async fn show(State(api): State<Api>) -> Json<ChannelsAnswer> {
    let calendar = api.clock.calendar();
    let states = api.notifications.board().read();
    Json(ChannelsAnswer { channels: states.iter().map(|state| row(state, calendar)).collect() })
}

/// Sends a test message by one channel, or by each, and tells whether it was taken.
#[utoipa::path(
    post,
    path = "/api/notifications/test",
    tag = "notifications",
    request_body(content = Option<ChannelTestRequest>),
    responses(
        (status = 200, description = "What came of it, by channel", body = ChannelTestsAnswer),
        (status = 401, description = "Valid credentials are needed", body = Problem),
        (status = 404, description = "There is no such channel, or none at all", body = Problem),
    )
)]
pub(super) async fn test(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<Option<ChannelTestRequest>>,
) -> Result<Json<ChannelTestsAnswer>, Problem> {
    let ChannelTestRequest { channel, reason } = request.unwrap_or(ChannelTestRequest { channel: None, reason: None });
    let system = api.config.system();
    let known = |name: &str| system.notifications().channels.iter().any(|channel| &*channel.name == name);
    match &channel {
        Some(name) if !known(name) => {
            return Err(Problem::not_found("there is no channel of this name; GET /api/notifications lists them"));
        }
        None if system.notifications().channels.is_empty() => {
            return Err(Problem::not_found("no channel is configured; see `notifications` of system.json"));
        }
        _ => {}
    }
    let attempt = Attempt::new(principal.caller, "notifications.test").because(reason.map(Reason::into_inner));
    let notifications = api.notifications.clone();
    let effect = async move {
        let answer = answer(notifications.test(channel.as_deref()).await);
        let told = serde_json::to_value(&answer.results).unwrap_or_default();
        (answer, Conclusion::done(None, Some(told)))
    };
    Ok(Json(api.audit.carry_out(attempt, effect).await?))
}

fn answer(tests: Vec<Tested>) -> ChannelTestsAnswer {
    let row = |Tested { channel, result }: Tested| ChannelTestRow {
        channel: channel.to_string(),
        delivered: result.is_ok(),
        error: result.err().map(|error| error.to_string()),
    };
    let results: Vec<ChannelTestRow> = tests.into_iter().map(row).collect();
    ChannelTestsAnswer { success: results.iter().all(|result| result.delivered), results }
}

fn row(state: &ChannelState, calendar: Calendar) -> ChannelRow {
    ChannelRow {
        name: state.name.to_string(),
        route: state.route.to_owned(),
        events: state.kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        sent: state.sent,
        failed: state.failed,
        dropped: state.dropped,
        waiting: state.waiting,
        last_sent: state.last_sent.map(|at| calendar.at(at)),
        next_try: state.next_try.map(|at| calendar.at(at)),
        last_error: state.last_error.as_ref().map(|(_, error)| error.to_string()),
    }
}
