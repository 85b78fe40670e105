//! The overview's first paint: figures and the tiles that fit on a screen, before any script has run.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::frame::{Frame, SignedIn, show};
use crate::api::{Api, FleetState, Glance, OverviewRow};

/// Tiles of the first paint; the scripts show the rest.
const FIRST_TILES: usize = 120;
/// How many characters of a failure a tile holds.
const LONGEST_FAILURE: usize = 120;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    adaptive: bool,
    count: usize,
    figures: Vec<Figure>,
    polls_per_second: String,
    lag: String,
    tiles: Vec<Tile>,
}

/// How many instances are in one state.
struct Figure {
    state: &'static str,
    words: &'static str,
    count: usize,
}

impl Figure {
    /// States that nobody is in only take room, except for the one that all should be in.
    fn is_hidden(&self) -> bool {
        self.count == 0 && self.state != FleetState::Fresh.as_str()
    }
}

struct Tile {
    href: String,
    name: String,
    kind: &'static str,
    state: &'static str,
    words: &'static str,
    about: String,
}

/// Shows the fleet.
pub(super) async fn overview(visitor: SignedIn, State(api): State<Api>) -> Response {
    match Glance::take(&api, FIRST_TILES).await {
        Ok(fleet) => show(&OverviewPage::of(fleet, visitor.frame("overview"))),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is shutting down\n").into_response(),
    }
}

impl OverviewPage {
    fn of(fleet: Glance, frame: Frame) -> Self {
        let count = |state| fleet.counts.get(&state).copied().unwrap_or(0);
        let figure = |state: FleetState| Figure { state: state.as_str(), words: words(state), count: count(state) };
        let now = fleet.figures.updated_at;
        Self {
            frame,
            adaptive: fleet.figures.enabled,
            count: fleet.counts.values().sum(),
            figures: FleetState::ALL.map(figure).into(),
            polls_per_second: format!("{:.1}", fleet.figures.polls_per_second),
            lag: format!("{} ms", fleet.figures.lag_millis),
            tiles: fleet.worst.into_iter().map(|row| Tile::of(row, now)).collect(),
        }
    }
}

impl Tile {
    fn of(row: OverviewRow, now: jiff::Timestamp) -> Self {
        let key = row.key.to_string();
        let read = || match row.last_success {
            Some(at) => format!("{} s ago", now.duration_since(at).as_secs().max(0)),
            None => String::new(),
        };
        let about = row.message.as_deref().map_or_else(read, brief);
        Self {
            href: format!("/instances/{}", utf8_percent_encode(&key, NON_ALPHANUMERIC)),
            name: row.name.to_string(),
            kind: row.key.kind().as_str(),
            state: row.state.as_str(),
            words: words(row.state),
            about,
        }
    }
}

/// Why a poll failed, without the address that was asked: a tile has little room.
fn brief(message: &str) -> String {
    let why = message.split_once(": ").filter(|(asked, _)| asked.contains(" on "));
    why.map_or(message, |(_, why)| why).chars().take(LONGEST_FAILURE).collect()
}

/// The same words as in the page's scripts.
fn words(state: FleetState) -> &'static str {
    match state {
        FleetState::DeadLettered => "dead letter",
        FleetState::Open => "breaker open",
        FleetState::Failing => "failing",
        FleetState::Down => "down",
        FleetState::Late => "late",
        FleetState::Waiting => "not polled yet",
        FleetState::Paused => "paused",
        FleetState::Fresh => "fresh",
    }
}
