//! What the daemon tells of itself: Prometheus metrics and logs, both fed from the engine's events.

mod counters;
mod gauges;
mod journal;
mod labels;
mod log_events;
mod logging;
mod metrics;
#[cfg(feature = "otel")]
mod otel;
mod poll_log;

pub use counters::MetricsSubscriber;
pub use log_events::LogSubscriber;
pub use logging::{LogError, LogFormat, LogOptions, Logging, init_logging};
pub use metrics::Metrics;
#[cfg(feature = "otel")]
pub use otel::{OtlpError, OtlpOptions, PollSpans, Spans, trace_call};
pub use poll_log::{Entry, Happening, PollLog, PollLogKeeper, PollLogWriter};
