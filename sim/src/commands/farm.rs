//! `sim farm`: many seeds of many scenarios on all cores, and which rare states were never reached.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pulse::engine::Millis;
use sim::{BUILTIN, RunOptions};

use super::harvest::Harvest;
use super::output::{Timed, write_junit, write_page};
use super::single::{Outputs, compare_traces, span};
use super::stopwatch::Stopwatch;
use super::{Failed, scenario};

/// Seeds of each scenario if neither a number nor a time is asked for.
const SEEDS: u64 = 100;

/// Runs many seeds of many scenarios, on all cores.
#[derive(Debug, Args)]
pub(super) struct Farm {
    /// Which scenarios: built-in names, swarm, TOML files [default: every built-in one and swarm]
    scenarios: Vec<String>,

    /// How many seeds of each [default: 100, or as many as there is time for]
    #[arg(long)]
    seeds: Option<NonZeroU64>,

    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,

    /// How many runs at once [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,

    /// Stop after this time, whatever is left: 60s, 10m
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    time: Option<Millis>,

    /// Make every run twice and compare the traces
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    outputs: Outputs,
}

/// What the threads of one farm share.
struct Field<'a> {
    names: &'a [String],
    total: u64,
    next: AtomicU64,
    stop: AtomicBool,
    harvest: Mutex<Harvest>,
    bar: ProgressBar,
    watch: Stopwatch,
}

impl Farm {
    pub(super) fn run(self) -> Result<(), Failed> {
        let names = self.names();
        for name in &names {
            scenario(name, self.from)?;
        }
        let seeds = match (self.seeds, self.time) {
            (Some(seeds), _) => seeds.get(),
            (None, None) => SEEDS,
            (None, Some(_)) => u64::MAX,
        };
        let total = seeds.saturating_mul(names.len() as u64);
        let field = Field {
            names: &names,
            total,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            harvest: Mutex::default(),
            bar: self.progress_bar(total),
            watch: Stopwatch::start(),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.map_or_else(cores, usize::from) {
                scope.spawn(|| self.work(&field));
            }
        });
        field.bar.finish_and_clear();
        let mut harvest = field.harvest.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        harvest.sort();
        self.tell(&harvest, field.watch.elapsed())
    }

    fn names(&self) -> Vec<String> {
        match self.scenarios.is_empty() {
            true => BUILTIN.iter().map(|(name, _)| (*name).to_owned()).chain(["swarm".to_owned()]).collect(),
            false => self.scenarios.clone(),
        }
    }

    /// Runs of those that were asked for, or seconds of the time that there is.
    fn progress_bar(&self, total: u64) -> ProgressBar {
        if self.outputs.json {
            return ProgressBar::hidden();
        }
        let (length, template) = match self.time {
            Some(time) => (time.get() / 1_000, "{bar:40} {pos} of {len} s, {msg}"),
            None => (total, "{bar:40} {pos}/{len} runs, {per_sec}, {eta} left, {msg}"),
        };
        let style = ProgressStyle::with_template(template);
        ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn work(&self, field: &Field<'_>) {
        while !field.stop.load(Ordering::Relaxed) {
            let number = field.next.fetch_add(1, Ordering::Relaxed);
            if number >= field.total {
                return;
            }
            // Seeds come one after the other and scenarios in turn, so that a short farm sees all of them.
            let many = field.names.len() as u64;
            let (seed, name) = (self.from.wrapping_add(number / many), &field.names[(number % many) as usize]);
            let Ok(scenario) = scenario(name, seed) else { return };
            let begun = Stopwatch::start();
            let report = sim::run(&scenario, seed, RunOptions::default());
            let mut timed = Timed { source: name.clone(), report, took: begun.elapsed(), options: String::new() };
            if self.check {
                compare_traces(&mut timed.report, &sim::run(&scenario, seed, RunOptions::default()));
            }
            if let Ok(mut harvest) = field.harvest.lock() {
                harvest.add(&timed);
                field.bar.set_message(harvest.progress());
            }
            let elapsed = field.watch.elapsed();
            match self.time.map(Duration::from) {
                None => field.bar.inc(1),
                Some(time) => {
                    field.bar.set_position(elapsed.as_secs());
                    field.stop.fetch_or(elapsed >= time, Ordering::Relaxed);
                }
            }
        }
    }

    fn tell(&self, harvest: &Harvest, took: Duration) -> Result<(), Failed> {
        if let Some(file) = &self.outputs.junit {
            write_junit(file, harvest.broken(), &harvest.passed())?;
        }
        if let Some(file) = &self.outputs.report {
            write_page(file, &harvest.page("A farm", took)?)?;
        }
        match self.outputs.json {
            true => println!("{:#}", harvest.to_json(took)),
            false => harvest.print(took),
        }
        match harvest.is_broken() {
            false => Ok(()),
            true => Err(Failed::Broken),
        }
    }
}
