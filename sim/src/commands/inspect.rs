//! `sim replay`, `sim shrink` and `sim list`: looking at one finding.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use sim::{BUILTIN, RunOptions, Scenario};

use super::output::{Timed, print_table, verdict};
use super::stopwatch::Stopwatch;
use super::{Failed, scenario};

/// Makes a run again: SCENARIO SEED, or the file that `sim shrink --save` wrote.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// A scenario, or a saved finding.
    scenario: String,

    /// The seed; a saved finding has its own.
    seed: Option<u64>,

    /// Print every effect of the engine.
    #[arg(long)]
    trace: bool,
}

/// A finding as it is saved.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    seed: u64,
    scenario: Scenario,
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failed> {
        let finding = match self.seed {
            Some(seed) => Finding { seed, scenario: scenario(&self.scenario, seed)? },
            None => saved(&self.scenario)?,
        };
        let watch = Stopwatch::start();
        let options = RunOptions { keep_trace: self.trace, ..RunOptions::default() };
        let mut report = sim::run(&finding.scenario, finding.seed, options);
        for line in std::mem::take(&mut report.trace) {
            println!("{line}");
        }
        let reports = [Timed { source: self.scenario, report, took: watch.elapsed() }];
        print_table(&reports);
        verdict(&reports)
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

    /// Write the finding here, for `sim replay`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl ShrinkRun {
    pub(super) fn run(self) -> Result<(), Failed> {
        let scenario = scenario(&self.scenario, self.seed)?;
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
            std::fs::write(file, text)
                .map_err(|error| Failed::Usage(format!("cannot write {}: {error}", file.display())))?;
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
