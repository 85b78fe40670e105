//! The task that sends spans: batches by size and age, one at a time, each within its time.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::options::{OtlpError, OtlpOptions};
use super::{Counts, Ended};
use crate::engine::{Millis, Timestamp};
use crate::runtime::Clock;

/// Polls and calls in a batch.
const BATCH: usize = 256;
/// How long a span may wait for others.
const DELAY: Millis = Millis::from_secs(1);
/// How long one batch may take, tries included.
const PATIENCE: Millis = Millis::from_secs(10);
/// How long a stopping daemon goes on sending.
const LAST_WORDS: Millis = Millis::from_secs(2);
/// How often a collector that takes nothing is told of.
const SILENCE: Millis = Millis::from_mins(10);

/// A span before OpenTelemetry has numbered it, with those below it.
pub(super) struct Span {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) start: jiff::Timestamp,
    pub(super) end: jiff::Timestamp,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) status: Status,
    pub(super) children: Vec<Self>,
}

/// Turns what ended into spans and sends them.
pub(super) struct Exporter {
    ended: mpsc::Receiver<Ended>,
    counts: Arc<Counts>,
    clock: Arc<dyn Clock>,
    otlp: OtlpExporter,
    tracer: SdkTracer,
    finished: Finished,
    trouble: Option<Trouble>,
}

/// A collector that takes nothing.
struct Trouble {
    told: Timestamp,
    lost: u64,
}

impl Exporter {
    pub(super) fn new(
        options: &OtlpOptions,
        ended: mpsc::Receiver<Ended>,
        counts: Arc<Counts>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OtlpError> {
        // Fails only if a provider is there already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from(PATIENCE))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| OtlpError::Exporter(error.to_string()))?;
        let mut otlp = OtlpExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(options.traces())
            .build()
            .map_err(|error| OtlpError::Exporter(error.to_string()))?;
        let resource = resource();
        otlp.set_resource(&resource);
        let finished = Finished::default();
        let provider = SdkTracerProvider::builder().with_resource(resource).with_span_processor(finished.clone());
        let tracer = provider.build().tracer("pulse");
        Ok(Self { ended, counts, clock, otlp, tracer, finished, trouble: None })
    }

    /// Sends what comes until `stop`, and then what is there.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut time = TimeToSend { clock: self.clock.clone(), stop: stop.clone(), end: None };
        while stop.run_until_cancelled(self.gather(&mut batch)).await == Some(true) {
            self.send(&mut batch, &mut time).await;
        }
        self.ended.close();
        loop {
            while batch.len() < BATCH
                && let Ok(ended) = self.ended.try_recv()
            {
                batch.push(ended);
            }
            if batch.is_empty() {
                return;
            }
            self.send(&mut batch, &mut time).await;
        }
    }

    /// Fills a batch until it is full or old enough; `false` if nobody is left to tell anything. Cancel-safe.
    async fn gather(&mut self, batch: &mut Vec<Ended>) -> bool {
        let Some(first) = self.ended.recv().await else { return false };
        batch.push(first);
        let old_enough = self.clock.now() + DELAY;
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                Some(ended) = self.ended.recv() => batch.push(ended),
                () = self.clock.sleep_until(old_enough) => break,
            }
        }
        true
    }

    /// Sends a batch, once or as often as the exporter tries, and empties it.
    async fn send(&mut self, batch: &mut Vec<Ended>, time: &mut TimeToSend) {
        let calendar = self.clock.calendar();
        for ended in batch.drain(..) {
            let span = match ended {
                Ended::Poll(poll) => poll.into_span(calendar),
                Ended::Call(call) => call.into_span(calendar),
            };
            self.finish(span, &Context::new());
        }
        let spans = self.finished.take();
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        let sent = tokio::select! {
            biased;
            sent = self.otlp.export(spans) => sent.map_err(|error| error.to_string()),
            () = time.is_up() => Err("it took too long".to_owned()),
        };
        match sent {
            Ok(()) => self.taken(count),
            Err(problem) => self.lost(count, &problem),
        }
    }

    fn finish(&self, span: Span, parent: &Context) {
        let builder = SpanBuilder::from_name(span.name)
            .with_kind(span.kind)
            .with_start_time(system_time(span.start))
            .with_attributes(span.attributes);
        let context = parent.with_span(self.tracer.build_with_context(builder, parent));
        for child in span.children {
            self.finish(child, &context);
        }
        context.span().set_status(span.status);
        context.span().end_with_timestamp(system_time(span.end));
    }

    fn taken(&mut self, count: u64) {
        self.counts.exported.fetch_add(count, Ordering::Relaxed);
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(lost = trouble.lost, "the OpenTelemetry collector takes spans again");
        }
    }

    /// One line for a collector that takes nothing, and then one now and then.
    fn lost(&mut self, count: u64, problem: &str) {
        self.counts.failed.fetch_add(count, Ordering::Relaxed);
        let now = self.clock.now();
        let trouble = self.trouble.get_or_insert(Trouble { told: now, lost: 0 });
        let is_news = trouble.lost == 0 || now - trouble.told >= SILENCE;
        trouble.lost += count;
        if is_news {
            trouble.told = now;
            let lost = trouble.lost;
            tracing::warn!(lost, problem, "the OpenTelemetry collector takes no spans; polls go on, spans are lost");
        }
    }
}

/// The end of a batch, and that of all batches once the daemon stops.
struct TimeToSend {
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    end: Option<Timestamp>,
}

impl TimeToSend {
    async fn is_up(&mut self) {
        let out_of_patience = self.clock.now() + PATIENCE;
        if self.stop.run_until_cancelled(self.clock.sleep_until(out_of_patience)).await.is_none() {
            let end = *self.end.get_or_insert(self.clock.now() + LAST_WORDS);
            self.clock.sleep_until(end.min(out_of_patience)).await;
        }
    }
}

/// Keeps the spans that ended until they are sent.
#[derive(Clone, Debug, Default)]
struct Finished(Arc<Mutex<Vec<SpanData>>>);

impl Finished {
    fn take(&self) -> Vec<SpanData> {
        // A list is whole after any panic.
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SpanProcessor for Finished {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn system_time(at: jiff::Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(at.as_nanosecond()).unwrap_or_default())
}

/// Who the daemon is: what the environment says, and `pulse` if that names no service.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = || Resource::builder().with_attribute(version.clone());
    let named = builder().build();
    let name = named.get_ref(&Key::from_static_str("service.name")).map(ToString::to_string);
    match name {
        Some(name) if !name.starts_with("unknown_service") => named,
        _ => builder().with_service_name("pulse").build(),
    }
}
