//! `GET /api/events`: what happens, as server-sent events, while it happens; `GET /api/events/recent`: what of it is news.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, stream};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Api;
use super::auth::still_welcome;
use super::feed::{Item, Next, Reader};
use super::problem::Problem;
use crate::engine::Millis;
use crate::security::Principal;

/// How often a silent stream shows that it lives, and whether its reader may still listen is looked at.
const HEARTBEAT: Millis = Millis::from_secs(15);

/// Tells what happens, as server-sent events: changes of state, not every poll. Each has an `id`; whoever gives the last
/// one as `Last-Event-ID` goes on behind it, as far back as the last 4096 events. A reader that is too slow, or was away
/// too long, gets `lagged` with the number that it missed, and goes on with what there is; then the health answer tells
/// how things are. The stream ends when the daemon stops or the credentials do.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "monitoring",
    params(("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was seen")),
    responses(
        (status = 200, description = "Events as they happen: `ready`, `lagged`, `added`, `removed`, `reconfigured`, \
            `paused`, `resumed`, `reading_changed`, `poll_failed`, `breaker_moved`, `dead_lettered`, `recheck_failed`, \
            `revived`, `recovered`, `settings_applied`, `inventory_applied`, `load_changed`", body = String,
            content_type = "text/event-stream"),
    )
)]
pub(super) async fn watch(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 2], Sse<impl Stream<Item = Result<Event, Infallible>>>), Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let too_many = || Problem::unavailable("too many are watching the events already; try again later");
    let reader = api.events.reader(last).ok_or_else(too_many)?;
    let watching = Watching { api, principal, reader, greeted: false };
    let told = [
        // A stream is by itself only not to be kept without asking; what it tells is not to be kept at all.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Unasked, nginx holds events back until there are kilobytes of them.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((told, Sse::new(stream::unfold(watching, Watching::next))))
}

/// How many events are recent.
const RECENT: usize = 60;

/// What happened lately.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecentEvents {
    /// The newest first; each is what `GET /api/events` told, with its name as `event`.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
}

/// Tells the last 60 events that are news: what began or ended a trouble, and what somebody did.
#[utoipa::path(
    get,
    path = "/api/events/recent",
    tag = "monitoring",
    responses((status = 200, description = "What happened lately", body = RecentEvents))
)]
pub(super) async fn recent(State(api): State<Api>) -> Json<RecentEvents> {
    let event = |item: Arc<Item>| {
        let mut event: Value = serde_json::from_str(&item.data).ok()?;
        event["event"] = json!(item.name);
        Some(event)
    };
    Json(RecentEvents { events: api.events.news(RECENT).into_iter().filter_map(event).collect() })
}

/// One reader of the stream. It has no task of its own: whoever leaves drops it with the connection.
struct Watching {
    api: Api,
    principal: Principal,
    reader: Reader,
    greeted: bool,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if !self.greeted {
            self.greeted = true;
            let event = Event::default().id(self.reader.id()).event("ready").data(json!({}).to_string());
            return Some((Ok(event), self));
        }
        let clock = &self.api.clock;
        let event = tokio::select! {
            biased;
            () = self.api.stop.cancelled() => return None,
            next = self.reader.next() => match next? {
                Next::Item(item) => Event::default().event(item.name).data(&item.data),
                Next::Lagged(missed) => Event::default().event("lagged").data(json!({"missed": missed}).to_string()),
            }
            .id(self.reader.id()),
            () = clock.sleep_until(clock.now() + HEARTBEAT) => Event::default().comment(""),
        };
        still_welcome(&self.api, &self.principal).then_some((Ok(event), self))
    }
}
