//! `sim farm`: many seeds of many scenarios on all cores, and which rare states were never reached.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pulse::engine::Millis;
use sim::{BUILTIN, Report, RunOptions, SOMETIMES};

use super::output::{Timed, print_violations, write_junit};
use super::single::span;
use super::stopwatch::Stopwatch;
use super::{Failed, scenario};

/// Broken runs that are told in full.
const TOLD: usize = 10;

/// Runs many seeds.
#[derive(Debug, Args)]
pub(super) struct Farm {
    /// Which scenarios; every built-in one and swarm if none is named.
    scenarios: Vec<String>,

    /// How many seeds of each.
    #[arg(long, default_value_t = 100)]
    seeds: u64,

    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,

    /// How many runs at once [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,

    /// Stop after this time, whatever is left: 60s, 10m.
    #[arg(long = "for", value_parser = span)]
    time: Option<Millis>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// Write JUnit XML of the broken runs.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// What all runs together came to.
#[derive(Debug, Default)]
struct Harvest {
    runs: u64,
    events: u64,
    polls: u64,
    virtual_seconds: f64,
    sometimes: [u64; SOMETIMES.len()],
    broken: Vec<Timed>,
}

impl Farm {
    pub(super) fn run(self) -> Result<(), Failed> {
        let names = self.names();
        for name in &names {
            scenario(name, self.from)?;
        }
        let total = self.seeds * names.len() as u64;
        let bar = self.progress_bar(total);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let harvest = Mutex::new(Harvest::default());
        let watch = Stopwatch::start();
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| self.work(&names, total, &next, &stop, &harvest, &bar, watch));
            }
        });
        bar.finish_and_clear();
        let harvest = harvest.into_inner().unwrap_or_default();
        self.tell(&harvest, watch.elapsed())?;
        match harvest.broken.is_empty() {
            true => Ok(()),
            false => Err(Failed::Broken),
        }
    }

    fn names(&self) -> Vec<String> {
        match self.scenarios.is_empty() {
            true => BUILTIN.iter().map(|(name, _)| (*name).to_owned()).chain(["swarm".to_owned()]).collect(),
            false => self.scenarios.clone(),
        }
    }

    fn progress_bar(&self, total: u64) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {per_sec}, {eta} left");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    #[expect(clippy::too_many_arguments, reason = "what the threads of one farm share, borrowed for its length")]
    fn work(
        &self,
        names: &[String],
        total: u64,
        next: &AtomicU64,
        stop: &AtomicBool,
        harvest: &Mutex<Harvest>,
        bar: &ProgressBar,
        watch: Stopwatch,
    ) {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return;
            }
            // Seeds come one after the other and scenarios in turn, so that a short farm sees all of them.
            let (seed, name) = (self.from + number / names.len() as u64, &names[number as usize % names.len()]);
            let Ok(scenario) = scenario(name, seed) else { return };
            let begun = Stopwatch::start();
            let report = sim::run(&scenario, seed, RunOptions::default());
            if let Ok(mut harvest) = harvest.lock() {
                harvest.add(Timed { source: name.clone(), report, took: begun.elapsed() });
            }
            bar.inc(1);
            if self.time.is_some_and(|time| watch.elapsed() >= Duration::from(time)) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn tell(&self, harvest: &Harvest, took: Duration) -> Result<(), Failed> {
        if let Some(file) = &self.junit {
            write_junit(file, &harvest.broken)?;
        }
        let reached: Vec<(&str, u64)> = SOMETIMES.into_iter().zip(harvest.sometimes).collect();
        let never: Vec<&str> = reached.iter().filter(|(_, count)| *count == 0).map(|(state, _)| *state).collect();
        if self.json {
            let broken: Vec<_> = harvest.broken.iter().map(Timed::to_json).collect();
            let summary = serde_json::json!({
                "runs": harvest.runs, "events": harvest.events, "polls": harvest.polls,
                "virtualSeconds": harvest.virtual_seconds, "wallSeconds": took.as_secs_f64(),
                "broken": broken, "neverReached": never,
            });
            println!("{summary:#}");
            return Ok(());
        }
        for timed in harvest.broken.iter().take(TOLD) {
            print_violations(timed);
        }
        println!(
            "{} runs, {} broken; {} polls in {:.0} virtual hours; {:.1} s, {:.1} M events/s",
            harvest.runs,
            harvest.broken.len(),
            harvest.polls,
            harvest.virtual_seconds / 3_600.0,
            took.as_secs_f64(),
            harvest.events as f64 / took.as_secs_f64() / 1e6,
        );
        match never.is_empty() {
            true => println!("every rare state was reached"),
            false => println!("never reached: {}", never.join(", ")),
        }
        Ok(())
    }
}

impl Harvest {
    fn add(&mut self, timed: Timed) {
        let report: &Report = &timed.report;
        self.runs += 1;
        self.events += report.events;
        self.polls += report.polls;
        self.virtual_seconds += report.virtual_seconds;
        for (sum, count) in self.sometimes.iter_mut().zip(report.sometimes) {
            *sum += count;
        }
        if !report.passed() {
            self.broken.push(timed);
        }
    }
}
