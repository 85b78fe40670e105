//! Where log lines go: to the standard error stream, as text for people or as JSON for machines.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How to log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// What to log: a level, or a filter such as `pulse=debug`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
    /// Whether the journal listens, which puts a time of its own before each line.
    pub journald: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error("the log filter {filter:?} is not understood: {reason}; write a level such as info, or pulse=debug")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        reason: String,
    },
    /// Somebody logs already.
    #[error("logging was begun twice")]
    Twice,
}

/// Begins to log. Once a process.
///
/// # Errors
/// The filter is not understood, or logging has begun already.
pub fn init_logging(options: &LogOptions) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|error| LogError::Filter { filter: options.filter.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = match (options.format, options.journald) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Text, false) => builder.try_init(),
    };
    begun.map_err(|_| LogError::Twice)
}
