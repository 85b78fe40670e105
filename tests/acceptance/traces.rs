//! Polls and calls of the API as spans at a real OpenTelemetry collector, and at one that takes nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Attribute};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus};
use prost::Message;
use pulse::lab::{Auth, FaultKind, HostPlan};
use reqwest::Method;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::support::{Daemon, Folder, PATIENCE, SEED, Stopwatch, client, eventually, free_address, lab};

/// A collector that keeps what it is sent.
struct Collector {
    address: SocketAddr,
    kept: Kept,
    server: JoinHandle<()>,
}

type Kept = Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>;

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind(free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let router = Router::new().route("/v1/traces", post(keep)).with_state(Arc::clone(&kept));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, kept, server }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn spans(&self) -> Vec<Span> {
        let kept = self.kept.lock().unwrap();
        let resources = kept.iter().flat_map(|(_, request)| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    fn polls_of(&self, key: &str) -> Vec<Span> {
        let of_instance = |span: &Span| text(&span.attributes, "pulse.instance.key").as_deref() == Some(key);
        self.spans().into_iter().filter(of_instance).collect()
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let seen = eventually(what, PATIENCE, async || look()).await;
        seen.unwrap_or_else(|late| panic!("{late}, of {:#?}", self.spans()))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keep(State(kept): State<Kept>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    kept.lock().unwrap().push((headers, request));
    StatusCode::OK
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Attribute::StringValue(text) => Some(text.clone()),
        Attribute::IntValue(number) => Some(number.to_string()),
        Attribute::BoolValue(flag) => Some(flag.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

fn attribute(span: &Span, name: &str) -> String {
    text(&span.attributes, name).unwrap_or_else(|| panic!("{name} is not in {span:#?}"))
}

fn has_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == i32::from(SpanStatus::Error))
}

fn took_nanos(span: &Span) -> u64 {
    span.end_time_unix_nano.checked_sub(span.start_time_unix_nano).expect("a span ends after it begins")
}

/// Polls of one instance that ended, as a scrape counts them.
async fn polls_counted(daemon: &Daemon) -> u64 {
    let metrics =
        client().get(format!("http://{}/metrics", daemon.metrics)).send().await.unwrap().text().await.unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("pulse_monitor_poll_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn counted(daemon: &Daemon, result: &str) -> u64 {
    let metrics =
        client().get(format!("http://{}/metrics", daemon.metrics)).send().await.unwrap().text().await.unwrap();
    let line = format!("pulse_otel_spans_total{{result=\"{result}\"}} ");
    let found = metrics.lines().find_map(|metric| metric.strip_prefix(&line));
    found.unwrap_or_else(|| panic!("{line} is not in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn every_poll_is_a_span_with_its_calls_below_it_and_a_stop_sends_what_is_left() {
    let plans = vec![HostPlan::pve(SEED, "sound", 3), HostPlan::pve(SEED, "broken", 3), HostPlan::tcp("door")];
    let secrets: Vec<String> = plans.iter().filter_map(|plan| secret(plan.system.auth()?)).collect();
    let lab = lab(plans).await;
    lab.set_fault("broken", FaultKind::status(503)).await.unwrap();
    let folder = Folder::quick(&lab.instances_json(None));
    let collector = Collector::start().await;
    let variables = [("OTEL_SERVICE_NAME", "night-watch"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-intake=cG9sbHM%3D")];
    let daemon = Daemon::start_with(&folder, &["--otlp-endpoint", &collector.endpoint()], &variables).await;

    let sound = collector.until("a poll that succeeded", || collector.polls_of("pve::sound").pop()).await;
    assert_eq!(sound.name, "poll pve");
    assert!(!has_failed(&sound), "{sound:#?}");
    assert_eq!(attribute(&sound, "pulse.poll.outcome"), "success");
    assert_eq!(attribute(&sound, "pulse.instance.type"), "pve");
    assert_eq!(attribute(&sound, "pulse.breaker.state"), "closed");
    assert_eq!(attribute(&sound, "pulse.poll.attempt"), "1");
    assert!(attribute(&sound, "pulse.poll.schedule_lag_ms").parse::<u64>().unwrap() < 5_000);

    let below: Vec<Span> = collector.spans().into_iter().filter(|span| span.parent_span_id == sound.span_id).collect();
    assert_eq!(below.len().to_string(), attribute(&sound, "pulse.poll.calls"));
    let version = below.iter().find(|span| attribute(span, "url.full").ends_with("/api2/json/version")).unwrap();
    assert_eq!((version.name.as_str(), version.kind), ("GET", i32::from(SpanKind::Client)));
    assert_eq!(version.trace_id, sound.trace_id);
    assert_eq!(attribute(version, "http.response.status_code"), "200");
    assert!(version.start_time_unix_nano >= sound.start_time_unix_nano && took_nanos(version) <= took_nanos(&sound));

    let tripped = |span: &Span| attribute(span, "pulse.breaker.state") == "half_open";
    let broken =
        collector.until("a probe of a breaker", || collector.polls_of("pve::broken").into_iter().find(tripped)).await;
    assert!(has_failed(&broken), "{broken:#?}");
    assert_eq!(attribute(&broken, "error.type"), "server_error");
    assert_eq!(attribute(&broken, "pulse.poll.outcome"), "failure");
    assert!(attribute(&broken, "pulse.poll.attempt").parse::<u32>().unwrap() >= 4, "three failures open a breaker");
    assert!(broken.status.as_ref().unwrap().message.contains("503"), "{broken:#?}");

    daemon.health().await;
    assert_eq!(daemon.request(Method::GET, "/api/no-such-call?password=hunter2").send().await.unwrap().status(), 404);
    let call =
        || collector.spans().into_iter().find(|span| span.kind == i32::from(SpanKind::Server) && is_health(span));
    let call = collector.until("a call of the API", call).await;
    assert_eq!(attribute(&call, "http.response.status_code"), "200");

    let counted = polls_counted(&daemon).await;
    daemon.stop().await;
    let told = collector.spans().iter().filter(|span| span.name.starts_with("poll ")).count() as u64;
    assert!(told >= counted, "{counted} polls had ended, {told} were told");
    let everything =
        format!("{:?}", collector.kept.lock().unwrap().iter().map(|(_, request)| request).collect::<Vec<_>>());
    assert!(secrets.iter().all(|secret| !everything.contains(secret)) && !everything.contains("hunter2"));
    assert!(everything.contains("night-watch"), "the service's name");
    assert!(collector.kept.lock().unwrap().iter().all(|(headers, _)| headers["x-intake"] == "cG9sbHM="));
    assert_eq!(ids(&collector).len(), collector.spans().len(), "each has an id of its own");
    lab.shutdown().await;
}

fn is_health(span: &Span) -> bool {
    span.name == "GET /api/monitoring/scheduler/health"
}

fn ids(collector: &Collector) -> BTreeSet<Vec<u8>> {
    collector.spans().into_iter().map(|span| span.span_id).collect()
}

fn secret(auth: &Auth) -> Option<String> {
    match auth {
        Auth::Token { secret, .. } => Some(secret.clone()),
        Auth::Password { password, .. } => Some(password.clone()),
    }
}

#[tokio::test]
async fn a_collector_that_is_away_is_one_warning_and_a_counter() {
    let lab = lab(vec![HostPlan::pve(SEED, "sound", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let endpoint = format!("http://{}", free_address());
    let daemon = Daemon::start_with(&folder, &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    let mut batches = BTreeSet::new();
    let lost_twice = async || {
        batches.insert(counted(&daemon, "failed").await);
        (batches.len() > 2).then_some(())
    };
    eventually("two batches are lost", PATIENCE, lost_twice).await.unwrap();
    daemon.until_instance("pve::sound", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let warnings = daemon.program.stderr().matches("takes no spans").count();
    assert_eq!(warnings, 1, "{}", daemon.program.stderr());
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_collector_that_hangs_delays_neither_polls_nor_a_stop() {
    let lab = lab(vec![HostPlan::pve(SEED, "sound", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    // The system accepts for a listener; nobody ever answers.
    let silent = TcpListener::bind(free_address()).await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let daemon = Daemon::start_with(&folder, &["--otlp-endpoint", &endpoint], &[]).await;
    let (_held, _) = tokio::time::timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
    let before = polls_counted(&daemon).await;
    let goes_on = async || (polls_counted(&daemon).await >= before + 4).then_some(());
    eventually("polls go on", Duration::from_secs(5), goes_on).await.unwrap();
    assert_eq!((counted(&daemon, "exported").await, counted(&daemon, "failed").await), (0, 0));
    let stopping = Stopwatch::start();
    daemon.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "it took {:?}", stopping.elapsed());
    lab.shutdown().await;
}

#[tokio::test]
async fn an_address_of_a_collector_that_holds_a_secret_is_refused_without_showing_it() {
    let folder = Folder::new();
    let mut command = folder.pulse(["serve", "--otlp-endpoint", "http://pulse:hunter2@127.0.0.1:4318"]);
    let ended = super::support::run(&mut command).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("OTEL_EXPORTER_OTLP_HEADERS") && !ended.stderr.contains("hunter2"), "{ended:?}");
}
