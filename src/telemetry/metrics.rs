//! `GET /metrics`: what the daemon tells to Prometheus, in the OpenMetrics text format.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, Stream};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::{Counters, MetricsSubscriber};
use super::gauges::{Gauges, Row};
use super::logging::dropped_lines;
use crate::engine::{Millis, SchedulerHealth};
use crate::runtime::{Calendar, Clock, DriverGone, Handle};

/// Scrapes at once: each holds all of its text, some 600 bytes an instance. Others wait.
const MAX_SCRAPES: usize = 2;
/// In pieces of this size the text is handed to the connection.
const PIECE: usize = 64 * 1024;
/// How long a scrape may wait for its turn.
const PATIENCE: Millis = Millis::from_secs(20);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    counters: Counters,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, and what others have registered besides.
    pub fn with(register: impl FnOnce(&mut Registry)) -> Self {
        let counters = Counters::new();
        let mut registry = Registry::default();
        counters.register(&mut registry);
        register(&mut registry);
        Self { counters, registry: Arc::new(registry) }
    }

    /// Who counts what the driver tells; there should be one.
    pub fn subscriber(&self) -> MetricsSubscriber {
        MetricsSubscriber::new(self.counters.clone())
    }

    /// Serves `GET /metrics`.
    pub fn router(&self, handle: Handle, clock: Arc<dyn Clock>) -> Router {
        let turns = Arc::new(Semaphore::new(MAX_SCRAPES));
        Router::new().route("/metrics", get(scrape)).with_state(Scrape { metrics: self.clone(), handle, clock, turns })
    }

    /// Everything as text. Linear in the fleet.
    pub fn encode(&self, health: &SchedulerHealth, calendar: Calendar) -> String {
        self.text(Gauges::of(health, calendar))
    }

    fn text(&self, gauges: Gauges) -> String {
        let mut derived = Registry::default();
        derived.register_collector(Box::new(gauges));
        let dropped = ConstCounter::new(dropped_lines());
        derived.register("pulse_log_lines_dropped", "Log lines that nobody took in time", dropped);
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &derived))
            .and_then(|()| encode_eof(&mut text));
        written.expect("writing to a String never fails");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone)]
struct Scrape {
    metrics: Metrics,
    handle: Handle,
    clock: Arc<dyn Clock>,
    turns: Arc<Semaphore>,
}

impl Scrape {
    /// What is derived, read a page at a time, so that polls go on meanwhile.
    async fn gauges(&self) -> Result<Gauges, DriverGone> {
        let overview = self.handle.overview().await?;
        let mut rows = Vec::with_capacity(overview.instances);
        let mut after = None;
        loop {
            let page = self
                .handle
                .page(after, |_, views| views.map(|view| Row::of(&view.health())).collect::<Vec<_>>())
                .await?;
            rows.extend(page.found);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let (depth, in_flight) = (overview.depth(), overview.in_flight);
        Ok(Gauges::new(depth, in_flight, overview.load, rows, self.clock.calendar()))
    }
}

async fn scrape(State(scrape): State<Scrape>) -> Response {
    let late = scrape.clock.sleep_until(scrape.clock.now() + PATIENCE);
    let turn = tokio::select! {
        turn = Arc::clone(&scrape.turns).acquire_owned() => turn,
        () = late => return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response(),
    };
    let (Ok(turn), Ok(gauges)) = (turn, scrape.gauges().await) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the scheduler has stopped\n").into_response();
    };
    // A large fleet takes a while to encode, and other tasks want their turn meanwhile.
    let metrics = scrape.metrics.clone();
    match tokio::task::spawn_blocking(move || metrics.text(gauges)).await {
        Ok(text) => {
            let body = Body::from_stream(pieces(text.into(), turn));
            ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Hands out the text piece by piece, and keeps the turn until all of it is taken or the connection is gone.
fn pieces(text: Bytes, turn: OwnedSemaphorePermit) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((text, turn), |(mut text, turn)| async move {
        let piece = text.split_to(text.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok(piece), (text, turn)))
    })
}
