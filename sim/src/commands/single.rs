//! `sim` and `sim run`: a few runs, looked at closely.

use std::path::PathBuf;

use clap::Args;
use pulse::config::parse_span;
use pulse::engine::Millis;
use sim::{Policy, Report, Rule, RunOptions, Scenario, Span, Violation};

use super::output::{Timed, print_table, verdict, write_junit};
use super::stopwatch::Stopwatch;
use super::{Failed, scenario};

/// Swarm seeds of a run without arguments.
const SHORT_SWARM: u64 = 40;

/// Runs one scenario with one seed.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A built-in scenario, swarm, or a TOML file.
    scenario: String,

    /// The seed of the world.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How long after the warm-up, instead of the scenario's own duration: 45s, 240m.
    #[arg(long, value_parser = span)]
    duration: Option<Millis>,

    /// Drive the engine by the simulator's loop, or by the daemon's own driver.
    #[arg(long, default_value = "engine")]
    mode: Mode,

    /// Make the run twice and compare the traces.
    #[arg(long)]
    check: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// Write JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the trace: a line for each effect of the engine.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Engine,
    Stack,
}

pub(super) fn span(text: &str) -> Result<Millis, String> {
    parse_span(text).map_err(|error| error.to_string())
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut scenario = scenario(&self.scenario, self.seed)?;
        if let Some(duration) = self.duration {
            scenario.duration = Span(duration);
        }
        let options = RunOptions { keep_trace: self.trace.is_some(), ..RunOptions::default() };
        let mut timed = self.drive(&scenario, options);
        if self.check {
            let again = self.drive(&scenario, RunOptions::default()).report;
            compare_traces(&mut timed.report, &again);
        }
        if let Some(file) = &self.trace {
            let lines = timed.report.trace.join("\n") + "\n";
            std::fs::write(file, lines)
                .map_err(|error| Failed::Usage(format!("cannot write {}: {error}", file.display())))?;
        }
        let reports = [timed];
        if let Some(file) = &self.junit {
            write_junit(file, &reports)?;
        }
        match self.json {
            true => println!("{:#}", reports[0].to_json()),
            false => print_table(&reports),
        }
        verdict(&reports)
    }

    fn drive(&self, scenario: &Scenario, options: RunOptions) -> Timed {
        let watch = Stopwatch::start();
        let report = match self.mode {
            Mode::Engine => sim::run(scenario, self.seed, options),
            Mode::Stack => sim::run_stack(scenario, self.seed, options),
        };
        Timed { source: self.scenario.clone(), report, took: watch.elapsed() }
    }
}

/// Two runs of one seed must be one and the same.
fn compare_traces(report: &mut Report, again: &Report) {
    if report.trace_hash != again.trace_hash {
        let detail = format!("the trace is {} at first and {} again", report.trace_hash, again.trace_hash);
        report.violations.push(Violation { rule: Rule::Determinism, at: pulse::engine::Timestamp::ZERO, detail });
        report.verdict = "fail";
    }
}

/// Both documented scenarios and a short swarm.
pub(super) fn everything() -> Result<(), Failed> {
    let named = ["integration", "soak"].map(|name| (name, 1));
    let swarm = (1..=SHORT_SWARM).map(|seed| ("swarm", seed));
    let mut reports = Vec::new();
    for (name, seed) in named.into_iter().chain(swarm) {
        let scenario = scenario(name, seed)?;
        let watch = Stopwatch::start();
        let options = RunOptions { policy: Policy::Default, ..RunOptions::default() };
        let report = sim::run(&scenario, seed, options);
        reports.push(Timed { source: name.to_owned(), report, took: watch.elapsed() });
    }
    print_table(&summarised(&reports));
    let broken = reports.iter().filter(|timed| !timed.report.passed()).count();
    println!("\n{} runs, {broken} broken", reports.len());
    verdict(&reports)
}

/// The documented scenarios, every broken run, and the last of the swarm for the rest.
fn summarised(reports: &[Timed]) -> Vec<Timed> {
    let last = reports.len().saturating_sub(1);
    let shown = |(index, timed): &(usize, &Timed)| *index < 2 || *index == last || !timed.report.passed();
    reports.iter().enumerate().filter(shown).map(|(_, timed)| timed.clone()).collect()
}
