//! Spans of polls and of API calls, sent to an OpenTelemetry collector.
//!
//! Whoever has a span to tell puts it into a bounded queue and goes on; one task turns what is there into spans and
//! sends them. What finds the queue full is dropped and counted, so that no collector ever holds up a poll.

mod calls;
mod export;
mod options;
mod polls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use calls::trace_call;
pub use options::{OtlpError, OtlpOptions};
pub use polls::PollSpans;

use crate::fleet::Overheard;
use crate::runtime::Clock;
use calls::EndedCall;
use export::Exporter;
use polls::EndedPoll;

/// Polls and calls that may wait to be sent; more are dropped.
const WAITING: usize = 8_192;

/// Takes what is to be told to the collector. Cheap to clone.
#[derive(Clone)]
pub struct Spans {
    inbox: mpsc::Sender<Ended>,
    counts: Arc<Counts>,
    clock: Arc<dyn Clock>,
}

/// Something that is over and becomes a span, or several.
enum Ended {
    Poll(Box<EndedPoll>),
    Call(EndedCall),
}

impl Ended {
    fn spans(&self) -> u64 {
        match self {
            Self::Poll(poll) => poll.spans(),
            Self::Call(_) => 1,
        }
    }
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Spans {
    /// Begins to export, in a task of `tasks` that ends soon after `stop`.
    ///
    /// # Errors
    /// The collector cannot be reached by these options, whatever it answers.
    pub fn start(
        options: &OtlpOptions,
        clock: Arc<dyn Clock>,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Result<Self, OtlpError> {
        let (inbox, ended) = mpsc::channel(WAITING);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(options, ended, Arc::clone(&counts), clock.clone())?;
        tasks.spawn(exporter.run(stop.clone()));
        Ok(Self { inbox, counts, clock })
    }

    /// Listens to the driver and tells of every poll, and of the calls that `overheard` has of it.
    pub fn of_polls(&self, overheard: Overheard) -> PollSpans {
        PollSpans::new(self.clone(), overheard)
    }

    /// Has a scrape show what became of the spans.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Shown(Arc::clone(&self.counts))));
    }

    fn tell(&self, ended: Ended) {
        if let Err(TrySendError::Full(ended) | TrySendError::Closed(ended)) = self.inbox.try_send(ended) {
            self.counts.dropped.fetch_add(ended.spans(), Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Shown(Arc<Counts>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Spans for the OpenTelemetry collector, by what became of them.";
        let mut family = encoder.encode_descriptor("pulse_otel_spans", help, None, MetricType::Counter)?;
        let Counts { exported, failed, dropped } = &*self.0;
        for (result, count) in [("exported", exported), ("failed", failed), ("dropped", dropped)] {
            let count = count.load(Ordering::Relaxed);
            family.encode_family(&[("result", result)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
