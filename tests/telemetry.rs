//! Metrics and log lines, fed by a real engine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

use pulse::config::{Config, DataDir, Environment, LiveConfig};
use pulse::engine::{
    ChangeHash, Effect, Effects, Engine, Failure, FailureKind, Input, InstanceSpec, Millis, Outcome, Settings,
    Timestamp, What,
};
use pulse::fleet::Fleet;
use pulse::notify::Notifications;
use pulse::runtime::{Clock, PollCost, PollReport, Subscriber, TokioClock};
use pulse::security::RefusalCounts;
use pulse::telemetry::{LogSubscriber, Metrics, MetricsSubscriber};

/// An engine whose events go to metrics and log, and whose polls all end with one outcome.
struct Rig {
    engine: Engine,
    metrics: Metrics,
    subscriber: MetricsSubscriber,
    clock: TokioClock,
    now: Timestamp,
    /// Whether somebody captures the log; what nobody captures would be switched off for everybody.
    logs: bool,
}

impl Rig {
    fn new(keys: &[&str]) -> Self {
        Self::with_log(keys, false)
    }

    fn with_log(keys: &[&str], logs: bool) -> Self {
        let metrics = Metrics::with(|registry| {
            let (channel, settings) = one_channel();
            registry.register_collector(Box::new(channel));
            registry.register_collector(Box::new(settings));
            registry.register_collector(Box::new(RefusalCounts::default()));
        });
        let clock = TokioClock::start_at("2026-01-01T00:00:00Z".parse().expect("the time is well formed"));
        let engine = Engine::new(Settings::default(), 42, Timestamp::ZERO);
        let mut rig = Self { engine, subscriber: metrics.subscriber(), metrics, clock, now: Timestamp::ZERO, logs };
        rig.inventory(keys);
        rig
    }

    fn inventory(&mut self, keys: &[&str]) {
        let specs = keys.iter().map(|key| InstanceSpec::new(key.parse().expect("the key is well formed"))).collect();
        self.handle(Input::Inventory(specs));
    }

    /// Lets every poll of the next `span` end with what `outcome` says for its key.
    fn run(&mut self, span: Millis, outcome: impl Fn(&str) -> Outcome) {
        let end = self.now + span;
        while let Some(at) = self.engine.next_wakeup().filter(|at| *at <= end) {
            self.now = at;
            for ticket in self.handle(Input::Tick) {
                let key = self.engine.key(ticket.instance()).expect("a polled instance is known").clone();
                let outcome = outcome(key.name());
                let cost = PollCost { calls: 4, bytes: 1_000, ..PollCost::default() };
                let report = PollReport::<()> { outcome: outcome.clone(), reading: None, cost };
                self.subscriber.report(&key, self.now, &report);
                self.handle(Input::Finished { ticket, outcome });
            }
        }
        self.now = end;
    }

    fn handle(&mut self, input: Input) -> Vec<pulse::engine::Ticket> {
        let mut effects = Effects::new();
        self.engine.handle(self.now, input, &mut effects);
        let mut tickets = Vec::new();
        for effect in effects.drain() {
            match effect {
                Effect::Start(order) => tickets.push(order.ticket),
                Effect::Cancel(_) => {}
                Effect::Event(event) => {
                    let key = match &event.what {
                        What::Instance { instance, .. } => self.engine.key(*instance),
                        What::Fleet(_) => None,
                    };
                    Subscriber::<()>::event(&mut self.subscriber, &event, key);
                    if self.logs {
                        Subscriber::<()>::event(&mut LogSubscriber, &event, key);
                    }
                }
            }
        }
        tickets
    }

    fn text(&self) -> String {
        self.metrics.encode(&self.engine.health(self.now), self.clock.calendar())
    }

    fn value(&self, series: &str) -> Option<f64> {
        let text = self.text();
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

fn ok(_: &str) -> Outcome {
    Outcome::Success { reading: ChangeHash(1) }
}

fn refused(_: &str) -> Outcome {
    Outcome::Failure(Failure::new(FailureKind::Refused, "the connection was refused"))
}

fn broken_or_ok(name: &str) -> Outcome {
    match name {
        "broken" => Outcome::Failure(Failure::new(FailureKind::Unauthorized, "the token was refused")),
        "down" => refused(name),
        name => ok(name),
    }
}

/// Name, type and label names of each metric in an exposition.
fn served(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut metrics: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type line has a name and a type");
        let suffix = if kind == "counter" { "_total" } else { "" };
        metrics.insert(format!("{name}{suffix}"), (kind.to_owned(), BTreeSet::new()));
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.split(' ').next().expect("a line has a series");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let (_, names) = metrics.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        names.extend(labels.filter(|name| name != "le"));
    }
    metrics
}

/// The figures of one channel of notifications, and of the settings that have it.
fn one_channel() -> (pulse::notify::Board, LiveConfig) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let channel = r#"{"type": "webhook", "name": "chat", "url": "http://127.0.0.1:9/"}"#;
    let settings = format!(r#"{{"notifications": {{"channels": [{channel}]}}}}"#);
    std::fs::write(folder.path().join("system.json"), settings).expect("there is room for a file");
    let data_dir = DataDir::open(folder.path()).expect("the folder can be used");
    let config = Config::load(data_dir, &Environment::default()).expect("the settings are valid");
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::start());
    let settings = LiveConfig::new(config.system);
    let (notifications, ..) = Notifications::new(settings.clone(), clock.clone(), Fleet::new(clock));
    (notifications.board().clone(), settings)
}

/// The same, as the documentation has it.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `pulse_"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels.filter(|it| !it.is_empty()).collect()))
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn names_types_and_labels_are_the_documented_ones() {
    let mut rig = Rig::new(&["pve::fine", "pve::broken", "pbs::down", "tcp::check"]);
    rig.run(Millis::from_mins(1), broken_or_ok);
    assert_eq!(served(&rig.text()), documented());
}

#[tokio::test]
async fn polls_are_counted_by_result_and_kind_of_failure() {
    let mut rig = Rig::new(&["pve::fine", "pve::down"]);
    rig.run(Millis::from_mins(1), broken_or_ok);
    let totals = rig.engine.totals();
    let successes = rig.value("pulse_monitor_poll_total{instance_type=\"pve\",instance=\"fine\",result=\"success\"}");
    assert_eq!(successes, Some(totals.succeeded as f64));
    let series = "pulse_monitor_poll_errors_total{instance_type=\"pve\",instance=\"down\",category=\"refused\"}";
    assert_eq!(rig.value(series), Some(totals.failed as f64));
    let calls = rig.value("pulse_monitor_host_calls_total{instance_type=\"pve\"}");
    assert_eq!(calls, Some((totals.succeeded + totals.failed) as f64 * 4.0));
}

#[tokio::test]
async fn lesson_24_staleness_is_computed_when_read() {
    let mut rig = Rig::new(&["pve::a"]);
    rig.run(Millis::from_secs(15), ok);
    let series = "pulse_monitor_poll_staleness_seconds{instance_type=\"pve\",instance=\"a\"}";
    let before = rig.value(series).expect("the series is there");
    rig.now = rig.now + Millis::from_secs(100);
    assert_eq!(rig.value(series), Some(before + 100.0), "nothing was polled meanwhile");
}

#[tokio::test]
async fn lesson_25_series_of_a_removed_instance_go() {
    let mut rig = Rig::new(&["pve::stays", "pve::goes", "pve::broken"]);
    rig.run(Millis::from_mins(1), |name| if name == "goes" { refused(name) } else { ok(name) });
    assert!(rig.text().contains("instance=\"goes\""));
    rig.inventory(&["pve::stays"]);
    let text = rig.text();
    let has = |name: &str| text.contains(&format!("instance=\"{name}\""));
    assert!(!has("goes") && !has("broken") && has("stays"), "{text}");
}

#[tokio::test]
async fn dead_letters_have_their_series_before_there_are_any() {
    let rig = Rig::new(&["pve::fine"]);
    let series = "pulse_monitor_dead_letters{instance_type=\"pbs\",reason=\"permanent_failure\"}";
    assert_eq!(rig.value(series), Some(0.0));
}

#[tokio::test]
async fn late_instances_are_named_while_they_are_late() {
    let mut rig = Rig::new(&["pve::a", "pve::b"]);
    rig.run(Millis::from_secs(15), ok);
    assert_eq!(rig.value("pulse_monitor_instance_late{instance_type=\"pve\",instance=\"a\"}"), None);
    rig.now = rig.now + Millis::from_mins(5);
    assert_eq!(rig.value("pulse_monitor_instance_late{instance_type=\"pve\",instance=\"a\"}"), Some(1.0));
    assert_eq!(rig.value("pulse_monitor_late_instances{instance_type=\"pve\"}"), Some(2.0));
}

#[tokio::test]
async fn series_are_sorted_by_instance() {
    let keys: Vec<String> = (0..50).rev().map(|n| format!("pve::{n:02}")).collect();
    let mut rig = Rig::new(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    rig.run(Millis::from_mins(1), ok);
    let text = rig.text();
    for name in ["pulse_monitor_poll_total", "pulse_monitor_poll_staleness_seconds"] {
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
        let instances: Vec<&str> = series.iter().filter_map(|line| line.split('"').nth(3)).collect();
        assert!(instances.len() >= 50 && instances.is_sorted(), "{name}: {instances:?}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn lines_about_breakers_and_dead_letters_hold_the_words_and_the_key() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut rig = Rig::with_log(&["pve::rack-1"], true);
        rig.run(Millis::from_mins(2), refused);
        rig.run(Millis::from_mins(10), ok);
    });
    let text = String::from_utf8(lines.0.lock().expect("nobody panicked while writing").clone()).expect("UTF-8");
    let with = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(with(&["circuit breaker opened", "pve::rack-1"]), "{text}");
    assert!(with(&["circuit breaker closed", "pve::rack-1"]), "{text}");
    assert!(with(&["moved to the dead-letter queue", "pve::rack-1"]), "{text}");
    assert!(with(&["left the dead-letter queue", "pve::rack-1"]), "{text}");
    let first_failures = text.lines().filter(|line| line.contains("poll failed")).count();
    assert_eq!(first_failures, 1, "the first of a row is told, the rest is not: {text}");
}

#[tokio::test]
async fn control_characters_cannot_break_a_log_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut rig = Rig::with_log(&["pve::a"], true);
        rig.run(Millis::from_secs(11), |_| {
            Outcome::Failure(Failure::new(FailureKind::Unauthorized, "bad\nFORGED line \u{1b}[31mred"))
        });
    });
    let text = String::from_utf8(lines.0.lock().expect("nobody panicked while writing").clone()).expect("UTF-8");
    assert!(text.contains("bad"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")) && !text.contains('\u{1b}'), "{text}");
}
