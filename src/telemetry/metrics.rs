//! `GET /metrics`: what the daemon tells to Prometheus, in the OpenMetrics text format.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::counters::{Counters, MetricsSubscriber};
use super::gauges::Gauges;
use crate::engine::SchedulerHealth;
use crate::runtime::{Calendar, Clock, Handle};

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
        let counters = Counters::new();
        let mut registry = Registry::default();
        counters.register(&mut registry);
        Self { counters, registry: Arc::new(registry) }
    }

    /// Who counts what the driver tells; there should be one.
    pub fn subscriber(&self) -> MetricsSubscriber {
        MetricsSubscriber::new(self.counters.clone())
    }

    /// Serves `GET /metrics`.
    pub fn router(&self, handle: Handle, clock: Arc<dyn Clock>) -> Router {
        Router::new().route("/metrics", get(scrape)).with_state(Scrape { metrics: self.clone(), handle, clock })
    }

    /// Everything as text. Linear in the fleet.
    pub fn encode(&self, health: &SchedulerHealth, calendar: Calendar) -> String {
        let mut derived = Registry::default();
        Gauges::of(health, calendar).register(&mut derived);
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
}

async fn scrape(State(scrape): State<Scrape>) -> Response {
    let Ok(health) = scrape.handle.health().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the scheduler has stopped\n").into_response();
    };
    let calendar = scrape.clock.calendar();
    // A large fleet takes a while to encode, and other tasks want their turn meanwhile.
    let encoded = tokio::task::spawn_blocking(move || scrape.metrics.encode(&health, calendar)).await;
    match encoded {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
