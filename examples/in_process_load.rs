//! Measures a daemon that polls a large fleet in this process: schedule lag while dashboards ask for health and
//! Prometheus scrapes. Prints the figures of `docs/benchmarks.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use pulse::engine::{Event, InstanceEvent, InstanceKey, Millis, SettingsDraft, Timestamp, What};
use pulse::runtime::{Clock, PollReport, Subscriber, TokioClock};
use pulse::targets::Reading;
use pulse::telemetry::{LogFormat, LogOptions, init_logging};

#[path = "../benches/support/in_process.rs"]
mod in_process;

use in_process::{Daemon, HEALTH, cpu_time};

/// Measures a daemon that polls a large fleet in this process.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many instances.
    #[arg(long, default_value_t = 100_000)]
    instances: usize,
    /// How many polls a second are wanted.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// How long a poll takes, in milliseconds.
    #[arg(long, default_value_t = 20)]
    latency: u64,
    /// How long to measure, after a warm-up of one round of the fleet and a second.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Nobody asks for health or scrapes.
    #[arg(long)]
    alone: bool,
}

/// How many of something took how many milliseconds or microseconds.
#[derive(Clone, Debug, Default)]
struct Tally(Vec<u64>);

impl Tally {
    const LONGEST: usize = 100_000;

    fn add(&mut self, value: u64) {
        let place = usize::try_from(value).unwrap_or(usize::MAX).min(Self::LONGEST);
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] += 1;
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The value that this share of all does not exceed.
    fn share(&self, share: f64) -> usize {
        let wanted = (self.total() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        self.0.iter().position(reaches).unwrap_or(0)
    }

    fn show(&self, unit: &str) -> String {
        let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|share| self.share(share));
        let longest = self.0.len().saturating_sub(1);
        format!("median {half} {unit}, 99 % {most} {unit}, 99.9 % {nearly_all} {unit}, longest {longest} {unit}")
    }
}

#[derive(Clone, Debug, Default)]
struct Figures {
    lag: Tally,
    steps: Tally,
    failed: u64,
}

/// Notes lag and steps.
struct Watcher(Arc<Mutex<Figures>>);

impl Subscriber<Reading> for Watcher {
    fn event(&mut self, event: &Event, _key: Option<&InstanceKey>) {
        let What::Instance { what, .. } = &event.what else { return };
        let mut figures = self.0.lock().expect("nobody panics while holding it");
        match what {
            InstanceEvent::PollStarted { lag, .. } => figures.lag.add(lag.get()),
            InstanceEvent::PollFailed { .. } => figures.failed += 1,
            _ => {}
        }
    }

    fn report(&mut self, _key: &InstanceKey, _at: Timestamp, _report: &PollReport<Reading>) {}

    fn step(&mut self, _inputs: usize, nanos: u64) {
        self.0.lock().expect("nobody panics while holding it").steps.add(nanos / 1_000);
    }
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let options = LogOptions { filter: "info".to_owned(), format: LogFormat::Text, journal_stream: None };
    let _logging = init_logging(&options).expect("nobody else logs");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = TokioClock::start();
    let base = Millis::new(arguments.instances as u64 * 1_000 / arguments.rate);
    let draft = SettingsDraft {
        base_interval: base,
        min_interval: Millis::new(base.get() / 2),
        // Hosts that prove quiet are polled no more rarely.
        max_interval: base,
        max_in_flight: 4_000,
        ..SettingsDraft::default()
    };
    let settings = draft.validate().expect("the settings are valid");
    let figures: Arc<Mutex<Figures>> = Arc::default();
    let before = resident();
    let watcher = Watcher(Arc::clone(&figures));
    let daemon = Daemon::start(arguments.instances, settings, Millis::new(arguments.latency), watcher).await;
    clock.sleep_until(clock.now() + base + Millis::from_secs(1)).await;

    *figures.lock().expect("nobody panics while holding it") = Figures::default();
    let (began, cpu_before) = (clock.now(), cpu_time());
    let end = began + Millis::from_secs(arguments.seconds);
    let asked = if arguments.alone {
        clock.sleep_until(end).await;
        Asked::default()
    } else {
        ask(&daemon, &clock, end).await
    };
    let spent = Duration::from(clock.now() - began).as_secs_f64();
    let cpu = (cpu_time() - cpu_before).as_secs_f64();
    let measured = figures.lock().expect("nobody panics while holding it").clone();
    report(&arguments, &measured, &asked, spent, cpu);
    let memory = resident();
    let each = memory.saturating_sub(before) as f64 / arguments.instances as f64;
    println!("memory:         {} MiB resident, {each:.0} bytes an instance", memory >> 20);
    println!("health answer:  {:.2} ms of CPU, nothing else going on", health_cost(&daemon, &clock).await);
    daemon.stop().await;
}

/// Milliseconds of CPU that one health answer takes while nothing is polled.
async fn health_cost(daemon: &Daemon, clock: &TokioClock) -> f64 {
    const ANSWERS: u32 = 20;
    let day = Millis::from_mins(24 * 60);
    let draft = SettingsDraft { base_interval: day, min_interval: day, max_interval: day, ..SettingsDraft::default() };
    daemon.handle.replace_settings(draft.validate().expect("the settings are valid")).await.expect("the driver runs");
    // Polls under way end.
    clock.sleep_until(clock.now() + Millis::from_secs(12)).await;
    let before = cpu_time();
    for _ in 0..ANSWERS {
        Daemon::get(&daemon.api, HEALTH).await;
    }
    (cpu_time() - before).as_secs_f64() * 1e3 / f64::from(ANSWERS)
}

fn report(arguments: &Arguments, measured: &Figures, asked: &Asked, spent: f64, cpu: f64) {
    let polls = measured.lag.total();
    println!("instances:      {}, {} polls/s wanted", arguments.instances, arguments.rate);
    println!("polls/s:        {:.0} over {spent:.0} s, {} failed", polls as f64 / spent, measured.failed);
    println!("schedule lag:   {}", measured.lag.show("ms"));
    println!("driver's steps: {}", measured.steps.show("µs"));
    println!("health answers: {}: {} ({} bytes)", asked.health.total(), asked.health.show("ms"), asked.bytes);
    println!("scrapes:        {}: {}", asked.scrapes.total(), asked.scrapes.show("ms"));
    println!("CPU:            {:.0} % of one core, {:.1} µs a poll", cpu / spent * 100.0, cpu * 1e6 / polls as f64);
}

/// How long calls took, in milliseconds, and how long the last health answer was.
#[derive(Debug, Default)]
struct Asked {
    health: Tally,
    bytes: usize,
    scrapes: Tally,
}

/// Asks for health every two seconds and scrapes every five.
async fn ask(daemon: &Daemon, clock: &TokioClock, end: Timestamp) -> Asked {
    let health = async {
        let (mut took, mut bytes) = (Tally::default(), 0);
        while clock.now() + Millis::from_secs(2) < end {
            let began = clock.now();
            bytes = Daemon::get(&daemon.api, HEALTH).await;
            took.add((clock.now() - began).get());
            clock.sleep_until(began + Millis::from_secs(2)).await;
        }
        (took, bytes)
    };
    let scrapes = async {
        let mut took = Tally::default();
        while clock.now() + Millis::from_secs(5) < end {
            let began = clock.now();
            Daemon::get(&daemon.metrics, "/metrics").await;
            took.add((clock.now() - began).get());
            clock.sleep_until(began + Millis::from_secs(5)).await;
        }
        took
    };
    let ((health, bytes), scrapes, ()) = tokio::join!(health, scrapes, clock.sleep_until(end));
    Asked { health, bytes, scrapes }
}

/// Memory of this process that is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1_024
}
