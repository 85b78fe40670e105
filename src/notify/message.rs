//! A message: what happened, to whom, since when, and what to do, as text and as values for a template.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use super::news::{News, NewsKind};
use crate::engine::InstanceKey;
use crate::runtime::Calendar;

/// How many instances a title names.
const NAMED: usize = 3;

/// What operators are told at once. Serialised it is what webhooks get and templates use.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Names this message: equal where it is sent again.
    pub id: String,
    /// One line: how many of what, and to whom.
    pub title: String,
    /// All of it as plain text.
    pub text: String,
    /// When it was put together. RFC 3339, UTC.
    pub sent_at: jiff::Timestamp,
    /// Whether somebody asked for it to test the channel.
    pub test: bool,
    /// What happened, in order.
    pub events: Vec<Row>,
    /// What happened beyond that and had no room.
    pub omitted: u64,
}

/// What happened to one instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `breaker_open`, `dead_letter`, `down`, `late` or `recovery`.
    pub event: &'static str,
    /// `type::name`.
    pub key: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What operators call it.
    pub display_name: Arc<str>,
    /// Where it is, free of secrets.
    pub connection: Arc<str>,
    /// When it happened.
    pub at: jiff::Timestamp,
    /// When the trouble began.
    pub since: jiff::Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure: its category.
    pub category: Option<&'static str>,
    /// The last failure in words, free of secrets.
    pub error: Option<Arc<str>>,
    /// When it is tried again.
    pub next_try: Option<jiff::Timestamp>,
    /// What an operator can do.
    pub action: &'static str,
}

/// What people call an instance, and where it is.
pub type Names = (Arc<str>, Arc<str>);

impl Message {
    /// Puts a message together; `names` tells what an instance is called and where it is.
    pub fn of(
        id: String,
        news: &[News],
        omitted: u64,
        calendar: Calendar,
        sent_at: jiff::Timestamp,
        names: impl Fn(&InstanceKey) -> Option<Names>,
    ) -> Self {
        let events: Vec<Row> = news.iter().map(|news| Row::of(news, calendar, &names)).collect();
        let title = title(news, omitted);
        let text = text(&title, &events, omitted);
        Self { id, title, text, sent_at, test: false, events, omitted }
    }

    /// Messages of both kinds, for trying a template.
    pub fn samples() -> [Self; 2] {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut sample = Self::test("pulse-sample".to_owned(), at);
        sample.events.push(Row {
            event: NewsKind::BreakerOpen.as_str(),
            key: "pve::sample".to_owned(),
            kind: "pve",
            display_name: "Sample \"host\"".into(),
            connection: "https://sample:8006".into(),
            at,
            since: at,
            failures: 3,
            category: Some("refused"),
            error: Some("connection refused".into()),
            next_try: Some(at),
            action: "Nothing.",
        });
        [Self::test("pulse-sample".to_owned(), at), sample]
    }

    /// A message that only shows that the channel works.
    pub fn test(id: String, sent_at: jiff::Timestamp) -> Self {
        let title = "Pulse: a test message".to_owned();
        let text = format!(
            "{title}\n\nSomebody asked for this with `pulse notify test`. Nothing happened, and there is nothing to do: \
             messages of this daemon arrive here.\n"
        );
        Self { id, title, text, sent_at, test: true, events: Vec::new(), omitted: 0 }
    }
}

impl Row {
    fn of(news: &News, calendar: Calendar, names: &impl Fn(&InstanceKey) -> Option<Names>) -> Self {
        let unnamed = || (news.key.shared_name(), Arc::from(""));
        let (display_name, connection) = names(&news.key).unwrap_or_else(unnamed);
        Self {
            event: news.kind.as_str(),
            key: news.key.to_string(),
            kind: news.key.kind().as_str(),
            display_name,
            connection,
            at: calendar.at(news.at),
            since: calendar.at(news.since),
            failures: news.failures,
            category: news.error.as_ref().map(|cause| cause.category),
            error: news.error.as_ref().map(|cause| Arc::clone(&cause.message)),
            next_try: news.next_try.map(|at| calendar.at(at)),
            action: news.action(),
        }
    }
}

fn title(news: &[News], omitted: u64) -> String {
    let mut counts: BTreeMap<NewsKind, usize> = BTreeMap::new();
    for news in news {
        *counts.entry(news.kind).or_default() += 1;
    }
    let what = |(kind, count): (&NewsKind, &usize)| match (kind, count) {
        (NewsKind::BreakerOpen, 1) => "1 circuit breaker open".to_owned(),
        (NewsKind::BreakerOpen, count) => format!("{count} circuit breakers open"),
        (NewsKind::DeadLetter, count) => format!("{count} dead-lettered"),
        (NewsKind::Down, count) => format!("{count} down"),
        (NewsKind::Late, count) => format!("{count} late"),
        (NewsKind::Recovery, count) => format!("{count} recovered"),
    };
    let whats: Vec<String> = counts.iter().map(what).collect();
    let mut keys: Vec<String> = Vec::new();
    for key in news.iter().map(|news| news.key.to_string()) {
        if !keys.contains(&key) && keys.len() <= NAMED {
            keys.push(key);
        }
    }
    let more = if keys.len() > NAMED || omitted > 0 { " and more" } else { "" };
    keys.truncate(NAMED);
    format!("Pulse: {} ({}{more})", whats.join(", "), keys.join(", "))
}

fn text(title: &str, events: &[Row], omitted: u64) -> String {
    let mut text = format!("{title}\n");
    for Row { event, key, display_name, connection, at, since, failures, error, next_try, action, .. } in events {
        let what = match *event {
            "breaker_open" => "circuit breaker opened",
            "dead_letter" => "moved to the dead-letter queue",
            "down" => "is down",
            "late" => "is late: no poll succeeded in time",
            _ => "recovered",
        };
        let told = (|| {
            writeln!(text, "\n{key} {what}")?;
            writeln!(text, "  where: {display_name}, {connection}")?;
            writeln!(text, "  when:  {at:.0}; the trouble began at {since:.0}")?;
            if let Some(error) = error {
                writeln!(text, "  why:   {error} ({failures} in a row)")?;
            }
            if let Some(next_try) = next_try {
                writeln!(text, "  next:  tried again at {next_try:.0}")?;
            }
            writeln!(text, "  to do: {action}")
        })();
        told.expect("writing to a String cannot fail");
    }
    if omitted > 0 {
        writeln!(text, "\n… and {omitted} more events; `pulse health --problems` shows what is wrong now.")
            .expect("writing to a String cannot fail");
    }
    text
}
