//! `sim replay`, `sim shrink` and `sim list`: looking at one finding.

use std::path::PathBuf;

use clap::Args;
use pulse::engine::Millis;
use serde::{Deserialize, Serialize};
use sim::report::run_page;
use sim::{BUILTIN, RunOptions, Scenario, Span};

use super::output::{print_table, verdict, write_file, write_page};
use super::single::{Variation, span};
use super::{Failed, scenario};

/// Makes a run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sim replay soak 7 --trace     the scenario soak with seed 7, every event
  sim replay 4711               the swarm of seed 4711
  sim replay found.json         what `sim shrink --save found.json` wrote")]
pub(super) struct Replay {
    /// A scenario, a saved finding, or the seed of a swarm
    scenario: String,

    /// The seed [default: 1; a saved finding has its own]
    seed: Option<u64>,

    /// Print every event: milliseconds, and the event as JSON
    #[arg(long)]
    trace: bool,

    #[command(flatten)]
    variation: Variation,

    /// Write a page about the run: hosts, queue, staleness and poll rate over time
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// A finding as it is saved.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    seed: u64,
    scenario: Scenario,
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut finding = self.finding()?;
        self.variation.apply(&mut finding.scenario);
        let options = RunOptions { keep_trace: self.trace, record: self.report.is_some(), ..RunOptions::default() };
        // A seed alone is that of a swarm.
        let source = if self.is_seed() { "swarm" } else { self.scenario.as_str() };
        let mut timed = self.variation.drive(source, &finding.scenario, finding.seed, options);
        for line in std::mem::take(&mut timed.report.trace) {
            println!("{line}");
        }
        if let Some(file) = &self.report {
            write_page(file, &run_page(&finding.scenario, &timed.report, &timed.replay_command(), timed.took))?;
        }
        let reports = [timed];
        print_table(&reports);
        verdict(&reports)
    }

    fn is_seed(&self) -> bool {
        self.seed.is_none() && self.scenario.parse::<u64>().is_ok()
    }

    fn finding(&self) -> Result<Finding, Failed> {
        match (self.seed, self.scenario.parse()) {
            (None, Ok(seed)) => Ok(Finding { seed, scenario: sim::swarm(seed) }),
            (None, _) if self.scenario.ends_with(".json") => saved(&self.scenario),
            (seed, _) => {
                let seed = seed.unwrap_or(1);
                Ok(Finding { seed, scenario: scenario(&self.scenario, seed)? })
            }
        }
    }
}

fn saved(file: &str) -> Result<Finding, Failed> {
    let wrong =
        |error: String| Failed::Usage(format!("{file}: {error}; give a seed, or a file that `sim shrink` saved"));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// Finds a smaller world that breaks the same rule with the same seed.
#[derive(Debug, Args)]
pub(super) struct ShrinkRun {
    /// A scenario.
    scenario: String,

    /// The seed that breaks a rule.
    seed: u64,

    /// How long after the warm-up, as in the run that broke it: 45s, 240m
    #[arg(long, value_parser = span)]
    duration: Option<Millis>,

    /// Write the finding here, for `sim replay`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl ShrinkRun {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut scenario = scenario(&self.scenario, self.seed)?;
        if let Some(duration) = self.duration {
            scenario.duration = Span(duration);
        }
        let Some(shrunk) = sim::shrink(&scenario, self.seed) else {
            println!("{} seed {} breaks no rule; there is nothing to shrink", scenario.name, self.seed);
            return Ok(());
        };
        let size = |it: &Scenario| {
            let hosts: u32 = it.hosts.iter().map(|group| group.count).sum();
            format!("{hosts} hosts, {} faults, {} operators, {}", it.faults.len(), it.operators.len(), it.duration)
        };
        println!("before: {}", size(&scenario));
        println!("after:  {} ({} runs)", size(&shrunk.scenario), shrunk.runs);
        println!("{}", shrunk.violation);
        if let Some(file) = &self.save {
            let finding = Finding { seed: self.seed, scenario: shrunk.scenario };
            let text = serde_json::to_string_pretty(&finding).map_err(|error| Failed::Usage(error.to_string()))?;
            write_file(file, &text)?;
            println!("replay it: cargo run --release --bin sim -- replay {} --trace", file.display());
        }
        Err(Failed::Broken)
    }
}

/// Lists the built-in scenarios.
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) fn run(self) -> Result<(), Failed> {
        for (name, _) in BUILTIN {
            let description = sim::builtin(name).map(|it| it.description).unwrap_or_default();
            println!("{name:20} {description}");
        }
        println!("{:20} Every seed draws a world of its own: its fleet, settings, faults and operators", "swarm");
        Ok(())
    }
}
