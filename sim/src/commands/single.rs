//! `sim` and `sim run`: a few runs, looked at closely.

use std::path::PathBuf;

use clap::Args;
use pulse::config::parse_span;
use pulse::engine::Millis;
use sim::report::run_page;
use sim::{Report, Rule, RunOptions, Scenario, Span, Violation};

use super::harvest::Harvest;
use super::output::{Timed, print_table, verdict, write_file, write_junit, write_page};
use super::stopwatch::Stopwatch;
use super::{Failed, scenario};

/// Swarm seeds of a run without arguments.
const SHORT_SWARM: u64 = 40;

/// Runs one scenario with one seed.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A built-in scenario (`sim list` names them), swarm, or a TOML file
    scenario: String,

    /// The seed of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    variation: Variation,

    /// Make the run twice and compare the traces
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    outputs: Outputs,

    /// Write the trace: a line for each event, milliseconds and the event as JSON
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// What may differ from the scenario as it is written.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Variation {
    /// How long after the warm-up, instead of the scenario's own duration: 45s, 240m
    #[arg(long, value_parser = span)]
    duration: Option<Millis>,

    /// engine: by the simulator's loop, fast; stack: also by the daemon's own driver, and the traces compared
    #[arg(long, default_value = "engine", hide_possible_values = true)]
    mode: Mode,
}

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Outputs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Write JUnit XML, for a CI to show
    #[arg(long, value_name = "FILE.xml")]
    pub(super) junit: Option<PathBuf>,

    /// Write a page to look at: verdict, figures and plots in one HTML file that loads nothing
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Engine,
    Stack,
    Router,
}

pub(super) fn span(text: &str) -> Result<Millis, String> {
    match parse_span(text).map_err(|error| error.to_string())? {
        Millis::ZERO => Err("no time is too short".to_owned()),
        span => Ok(span),
    }
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut scenario = scenario(&self.scenario, self.seed)?;
        self.variation.apply(&mut scenario);
        let record = self.outputs.report.is_some();
        let options = RunOptions { keep_trace: self.trace.is_some(), record, ..RunOptions::default() };
        let mut timed = self.variation.drive(&self.scenario, &scenario, self.seed, options);
        if self.check {
            let again = self.variation.drive(&self.scenario, &scenario, self.seed, RunOptions::default());
            compare_traces(&mut timed.report, &again.report);
        }
        if let Some(file) = &self.trace {
            write_file(file, &(timed.report.trace.join("\n") + "\n"))?;
        }
        if let Some(file) = &self.outputs.report {
            write_page(file, &run_page(&scenario, &timed.report, &timed.replay_command(), timed.took))?;
        }
        let reports = [timed];
        if let Some(file) = &self.outputs.junit {
            write_junit(file, &reports, &[])?;
        }
        match self.outputs.json {
            true => println!("{:#}", reports[0].to_json()),
            false => print_table(&reports),
        }
        verdict(&reports)
    }
}

impl Variation {
    pub(super) fn apply(self, scenario: &mut Scenario) {
        if let Some(duration) = self.duration {
            scenario.duration = Span(duration);
        }
    }

    pub(super) fn drive(self, source: &str, scenario: &Scenario, seed: u64, options: RunOptions) -> Timed {
        let watch = Stopwatch::start();
        let report = match self.mode {
            Mode::Engine => sim::run(scenario, seed, options),
            Mode::Stack => sim::run_stack(scenario, seed, options),
            Mode::Router => sim::run_router(scenario, seed, options),
        };
        Timed { source: source.to_owned(), report, took: watch.elapsed(), options: self.words() }
    }

    /// As it is written on the command line.
    fn words(self) -> String {
        let duration = self.duration.map_or(String::new(), |span| format!(" --duration {span}"));
        let mode = match self.mode {
            Mode::Engine => "",
            Mode::Stack => " --mode stack",
            Mode::Router => " --mode router",
        };
        duration + mode
    }
}

/// Two runs of one seed must be one and the same.
pub(super) fn compare_traces(report: &mut Report, again: &Report) {
    if report.trace_hash != again.trace_hash {
        let detail = format!("the trace is {} at first and {} again", report.trace_hash, again.trace_hash);
        report.violations.push(Violation { rule: Rule::Determinism, at: pulse::engine::Timestamp::ZERO, detail });
        report.verdict = "fail";
    }
}

/// Both documented scenarios and a short swarm.
pub(super) fn everything(outputs: &Outputs) -> Result<(), Failed> {
    let named = ["integration", "soak"].map(|name| (name, 1));
    let swarm = (1..=SHORT_SWARM).map(|seed| ("swarm", seed));
    let (mut reports, mut harvest) = (Vec::new(), Harvest::default());
    let all = Stopwatch::start();
    for (name, seed) in named.into_iter().chain(swarm) {
        let scenario = scenario(name, seed)?;
        let watch = Stopwatch::start();
        let report = sim::run(&scenario, seed, RunOptions::default());
        let timed = Timed { source: name.to_owned(), report, took: watch.elapsed(), options: String::new() };
        harvest.add(&timed);
        reports.push(timed);
    }
    if let Some(file) = &outputs.junit {
        write_junit(file, &reports, &[])?;
    }
    if let Some(file) = &outputs.report {
        write_page(file, &harvest.page("The documented scenarios and a short swarm", all.elapsed())?)?;
    }
    if outputs.json {
        println!("{:#}", serde_json::Value::from_iter(reports.iter().map(Timed::to_json)));
        return verdict(&reports);
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
