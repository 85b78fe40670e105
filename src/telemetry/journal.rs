//! The native protocol of systemd's journal: each event with its fields, so that `journalctl PULSE_INSTANCE=pve::a`,
//! `PRIORITY=4` and `PULSE_EVENT=audit` find it.
//!
//! The message holds the fields too, for who reads it without asking for them.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// Where the journal takes entries.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest value of a field, in bytes; a datagram holds several.
const LONGEST_VALUE: usize = 16 * 1024;
/// The journal takes no longer names.
const LONGEST_NAME: usize = 64;
/// What is said in more words than this is no name of an event.
const LONGEST_EVENT: usize = 64;

/// The journal's socket as a place to write to: one write, one entry.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let journal = UnixDatagram::unbound()?;
        journal.connect(socket)?;
        Ok(Self(journal))
    }
}

impl Write for Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        if self.0.send(entry).is_err() {
            // The journal's own stream is another way to it; the entry is plain text.
            io::stderr().write_all(message_of(entry))?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message_of(entry: &[u8]) -> &[u8] {
    const MESSAGE: &[u8] = b"MESSAGE=";
    entry.split_inclusive(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(MESSAGE)).unwrap_or_default()
}

/// Makes of each event one entry.
pub(super) struct JournalLayer<W>(pub(super) W);

impl<S: Subscriber, W: for<'a> MakeWriter<'a> + 'static> Layer<S> for JournalLayer<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Whoever takes lines too slowly is told how many were dropped, by a metric.
        let _ = self.0.make_writer().write_all(entry(event.metadata(), &fields).as_bytes());
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    /// ` name=value` for people.
    told: String,
    /// `PULSE_NAME=value` for the journal.
    entry: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value[..value.floor_char_boundary(LONGEST_VALUE)].replace('\n', "\\n").replace('\r', "\\r");
        match field.name() {
            "message" => self.message = value,
            name => {
                self.told.extend([" ", name, "=", &value]);
                self.entry.extend([&journal_name(name), "=", &value, "\n"]);
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn entry(event: &Metadata<'_>, fields: &Fields) -> String {
    let Fields { message, told, entry } = fields;
    let (priority, target) = (priority(*event.level()), event.target());
    let mut text =
        format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=pulse\nMESSAGE={message}{told}\nPULSE_TARGET={target}\n");
    if let Some(name) = event_name(message) {
        text.extend(["PULSE_EVENT=", &name, "\n"]);
    }
    text + entry
}

/// What syslog calls the level.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// `circuit_breaker_opened`: a message that is made of nothing but words names what happened.
fn event_name(message: &str) -> Option<String> {
    let is_words = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b' ' | b'-');
    let named = (1..=LONGEST_EVENT).contains(&message.len()) && message.bytes().all(is_words);
    named.then(|| message.replace([' ', '-'], "_"))
}

/// `PULSE_RETRY_COUNT` for `retry_count`.
fn journal_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    "PULSE_".chars().chain(name.chars().map(plain)).take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use tracing_appender::non_blocking::NonBlockingBuilder;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The entries that come of what `logs` logs, by the same way as in the daemon.
    fn entries(logs: impl FnOnce()) -> Vec<Vec<(String, String)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let taken = UnixDatagram::bind(&path).unwrap();
        let (writer, guard) = NonBlockingBuilder::default().finish(Journal::open(&path).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(JournalLayer(writer)), logs);
        drop(guard);
        taken.set_nonblocking(true).unwrap();
        let mut entries = Vec::new();
        let mut datagram = vec![0; 256 * 1024];
        while let Ok(length) = taken.recv(&mut datagram) {
            let text = std::str::from_utf8(&datagram[..length]).unwrap();
            let field = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            entries.push(text.lines().map(|line| field(line).unwrap()).collect());
        }
        entries
    }

    fn value<'a>(entry: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut found = entry.iter().filter(|(field, _)| field == name);
        let (value, again) = (found.next().map(|(_, value)| value.as_str()), found.next());
        assert_eq!(again, None, "a field stands once");
        value
    }

    #[test]
    fn an_entry_has_the_fields_that_an_operator_asks_for() {
        let entries = entries(|| {
            tracing::warn!(instance = "pve::rack-1", from = "closed", failures = 3, "circuit breaker opened");
            tracing::info!(target: "pulse::audit", seq = 7, "audit");
            tracing::error!("it broke: {}", "a reason");
            tracing::debug!("detail");
        });
        let [breaker, audit, broke, detail] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(value(breaker, "PRIORITY"), Some("4"));
        assert_eq!(value(breaker, "PULSE_INSTANCE"), Some("pve::rack-1"));
        assert_eq!(value(breaker, "PULSE_EVENT"), Some("circuit_breaker_opened"));
        assert_eq!(value(breaker, "PULSE_FAILURES"), Some("3"));
        let told = "circuit breaker opened instance=pve::rack-1 from=closed failures=3";
        assert_eq!(value(breaker, "MESSAGE"), Some(told));
        assert_eq!(value(breaker, "SYSLOG_IDENTIFIER"), Some("pulse"));
        assert_eq!((value(audit, "PRIORITY"), value(audit, "PULSE_EVENT")), (Some("6"), Some("audit")));
        assert_eq!(value(audit, "PULSE_TARGET"), Some("pulse::audit"));
        assert_eq!((value(broke, "PRIORITY"), value(broke, "PULSE_EVENT")), (Some("3"), None));
        assert_eq!(value(detail, "PRIORITY"), Some("7"));
    }

    #[test]
    fn a_value_can_neither_forge_a_field_nor_outgrow_an_entry() {
        let long = "ä".repeat(LONGEST_VALUE);
        let entries = entries(|| {
            tracing::info!(reason = "bad\r\nPULSE_EVENT=audit", "poll failed\nMESSAGE=forged");
            tracing::info!(reason = %long, "long");
        });
        assert_eq!(value(&entries[0], "PULSE_EVENT"), None);
        assert_eq!(value(&entries[0], "PULSE_REASON"), Some("bad\\r\\nPULSE_EVENT=audit"));
        assert_eq!(
            value(&entries[0], "MESSAGE").map(|told| told.starts_with("poll failed\\nMESSAGE=forged")),
            Some(true)
        );
        assert_eq!(value(&entries[1], "PULSE_REASON").map(str::len), Some(LONGEST_VALUE));
    }

    #[test]
    fn what_the_journal_does_not_take_is_told_by_its_message() {
        assert_eq!(
            message_of(b"PRIORITY=4\nMESSAGE=poll failed instance=a\nPULSE_INSTANCE=a\n"),
            b"poll failed instance=a\n"
        );
    }
}
