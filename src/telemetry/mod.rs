//! What the daemon tells of itself: Prometheus metrics and logs, both fed from the engine's events.

mod counters;
mod gauges;
mod labels;
mod log_events;
mod logging;
mod metrics;
mod poll_log;

pub use counters::MetricsSubscriber;
pub use log_events::LogSubscriber;
pub use logging::{LogError, LogFormat, LogOptions, Logging, init_logging};
pub use metrics::Metrics;
pub use poll_log::{Entry, Happening, PollLog, PollLogKeeper, PollLogWriter};
