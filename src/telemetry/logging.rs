//! Where log lines go: to the standard error stream, as text for people or as JSON for machines, or to systemd's journal.
//!
//! A thread of its own writes them, so that nobody who logs waits for whoever reads. What a reader does not take in
//! time is dropped and counted.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use thiserror::Error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::journal::{self, Journal, JournalLayer};

/// Lines that may wait to be written; more are dropped.
const WAITING_LINES: usize = 10_000;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How to log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// What to log: a level, or a filter such as `pulse=debug`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
    /// What systemd says of the stream that it put up (`JOURNAL_STREAM`). If that is the error stream, text goes to the
    /// journal with its fields.
    pub journal_stream: Option<String>,
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

/// Keeps the log going. Dropped, it writes what is left, for a second at the most.
#[derive(Debug)]
#[must_use = "dropped, it ends the log"]
pub struct Logging {
    _writer: WorkerGuard,
}

/// Begins to log. Once a process.
///
/// # Errors
/// The filter is not understood, or logging has begun already.
pub fn init_logging(options: &LogOptions) -> Result<Logging, LogError> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|error| LogError::Filter { filter: options.filter.clone(), reason: error.to_string() })?;
    let in_journal = options.format == LogFormat::Text && is_journal(options.journal_stream.as_deref());
    let journal = in_journal.then(|| Journal::open(Path::new(journal::SOCKET))).and_then(Result::ok);
    let threads = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("log");
    if let Some(journal) = journal {
        let (entries, guard) = threads.finish(journal);
        let dropped = entries.error_counter();
        let begun = tracing_subscriber::registry().with(filter).with(JournalLayer(entries)).try_init();
        return begin(begun, dropped, guard);
    }
    let (lines, guard) = threads.finish(io::stderr());
    let dropped = lines.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(OneLineEach(lines))
        .with_ansi(io::stderr().is_terminal());
    let begun = match options.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text if in_journal => builder.without_time().try_init(),
        LogFormat::Text => builder.try_init(),
    };
    begin(begun, dropped, guard)
}

fn begin<E>(begun: Result<(), E>, dropped: ErrorCounter, writer: WorkerGuard) -> Result<Logging, LogError> {
    begun.map_err(|_| LogError::Twice)?;
    DROPPED.get_or_init(|| dropped);
    Ok(Logging { _writer: writer })
}

/// Lines that were dropped because nobody took them in time.
pub(super) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Whether the error stream is the one that systemd names, `device:inode`; it may have been redirected since.
fn is_journal(stream: Option<&str>) -> bool {
    let named = stream.and_then(|stream| stream.split_once(':'));
    let own = io::stderr().as_fd().try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    match (named, own) {
        (Some((device, inode)), Ok(own)) => device.parse() == Ok(own.dev()) && inode.parse() == Ok(own.ino()),
        _ => false,
    }
}

/// Makes of each event one line, whatever its values hold, so that none can forge another.
#[derive(Clone, Debug)]
struct OneLineEach<W>(W);

impl<W: Write> Write for OneLineEach<W> {
    /// Takes one event, as the formatter hands it out: a text and the newline that ends it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let mut line = Vec::with_capacity(event.len() + 8);
            for byte in text {
                match byte {
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    byte => line.push(*byte),
                }
            }
            line.push(b'\n');
            self.0.write_all(&line)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<'a> MakeWriter<'a> for OneLineEach<NonBlocking> {
    type Writer = OneLineEach<NonBlocking>;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_a_line() {
        let mut written = OneLineEach(Vec::new());
        written.write_all(b"WARN poll failed reason=bad\r\nERROR forged\n").unwrap();
        written.write_all(b"INFO fine\n").unwrap();
        assert_eq!(written.0, b"WARN poll failed reason=bad\\r\\nERROR forged\nINFO fine\n");
    }

    #[test]
    fn a_redirected_error_stream_is_not_the_journal() {
        let own = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
        assert!(is_journal(Some(&format!("{}:{}", own.dev(), own.ino()))));
        assert!(!is_journal(Some(&format!("{}:{}", own.dev(), own.ino() + 1))));
        assert!(!is_journal(Some("nonsense")) && !is_journal(None));
    }
}
