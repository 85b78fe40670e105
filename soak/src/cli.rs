//! The command line of `soak`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pulse::config::parse_span;
use pulse::engine::Millis;
use sim::Span;

use crate::conductor::{Orders, RunError, conduct};
use crate::format::{self, Summary};
use crate::judged::Judged;
use crate::leak::Leak;
use crate::page;
use crate::plan::Plan;
use crate::virtual_run;

const HELP: &str = "\
Examples:
  soak --minutes 15                   the documented fleet for 15 minutes after its warm-up
  soak --minutes 240 --out soak-240   with all samples, the daemon's log and a page with plots
  soak --scenario my-fleet.toml       a fleet of your own, as `sim` reads it
  soak --virtual 240m                 the scheduler alone, on virtual time, in seconds

Ctrl-C ends a run early, with everything that is known by then.

Exit codes:
  0  every rule held
  1  a rule was broken, or the daemon broke; the output names it, and where memory grew
  2  the command line, the scenario or the folder is wrong";

/// Runs the daemon of Pulse for long on real sockets and TLS, and finds what it leaks.
#[derive(Debug, Parser)]
#[command(name = "soak", version, after_help = HELP, args_conflicts_with_subcommands = true)]
struct Cli {
    /// How long after the warm-up.
    #[arg(long, value_name = "MINUTES", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=525_600))]
    minutes: u64,

    /// The same as a span, for short runs: 45s, 90m.
    #[arg(long = "for", value_name = "SPAN", value_parser = span, conflicts_with = "minutes")]
    length: Option<Millis>,

    /// Run the scheduler alone, in the simulator, for this long on virtual time: 240m.
    #[arg(long = "virtual", value_name = "SPAN", value_parser = span, conflicts_with_all = ["minutes", "length"])]
    virtual_length: Option<Millis>,

    /// A scenario: soak, integration, another that `sim list` names, or a TOML file.
    #[arg(long, value_name = "SCENARIO", default_value = "soak")]
    scenario: String,

    /// How long to warm up, instead of the scenario's own time.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    warm_up: Option<Millis>,

    /// The seed of the fleet and of the daemon's jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Nobody calls the daemon meanwhile.
    #[arg(long)]
    no_callers: bool,

    /// Write report, samples, the daemon's log and the heap's profile into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// Leak on purpose, to see that it is found.
    #[arg(long, hide = true)]
    leak: Option<Leak>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(hide = true)]
    Judged(Judged),
}

/// Why there is no success.
enum Failed {
    /// A rule was broken; everything about it has been printed.
    Broken,
    /// The daemon could not be judged to the end.
    Lost(String),
    /// The command line, the scenario or the folder is wrong.
    Usage(String),
}

/// The program.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if let Some(Command::Judged(judged)) = cli.command.take() {
        return match judged.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Broken) => ExitCode::from(1),
        Err(Failed::Lost(message)) => {
            eprintln!("soak: {message}");
            ExitCode::from(1)
        }
        Err(Failed::Usage(message)) => {
            eprintln!("soak: {message}");
            ExitCode::from(2)
        }
    }
}

fn span(text: &str) -> Result<Millis, String> {
    match parse_span(text) {
        Ok(Millis::ZERO) => Err("a run takes some time".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(error.to_string()),
    }
}

fn usage(error: impl ToString) -> Failed {
    Failed::Usage(error.to_string())
}

impl Cli {
    fn run(self) -> Result<(), Failed> {
        let mut scenario = Plan::find(&self.scenario).map_err(usage)?;
        let length = self.virtual_length.or(self.length).unwrap_or(Millis::from_mins(self.minutes));
        scenario.duration = Span(length);
        scenario.warm_up = self.warm_up.map_or(scenario.warm_up, Span);
        let temporary = tempfile::tempdir().map_err(usage)?;
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => temporary.path().to_owned(),
        };
        make(&folder)?;
        let bar = format::progress_bar(scenario.length(), self.json);
        let summary = match self.virtual_length {
            Some(_) => {
                let profile = folder.join("heap.dhat.json");
                virtual_run::run(&scenario, self.seed, self.leak, &profile, &bar).map_err(usage)
            }
            None => self.in_real_time(Plan::of(scenario, self.seed), &folder, bar),
        };
        if matches!(summary, Err(Failed::Lost(_))) {
            // The message names the daemon's log in it.
            let _ = temporary.keep();
        }
        let summary = summary?;
        if let Some(folder) = &self.out {
            write(&folder.join("report.json"), &json(&summary))?;
            write(&folder.join("report.txt"), &format!("{}\n", format::table(&summary)))?;
            write(&folder.join("report.html"), &page::html(&summary))?;
        }
        match self.json {
            true => println!("{}", json(&summary)),
            false => println!("{}", format::table(&summary)),
        }
        if summary.passed() { Ok(()) } else { Err(Failed::Broken) }
    }

    fn in_real_time(&self, plan: Plan, folder: &Path, bar: indicatif::ProgressBar) -> Result<Summary, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(usage)?;
        let orders = Orders {
            plan,
            seed: self.seed,
            leak: self.leak,
            with_callers: !self.no_callers,
            folder: folder.to_owned(),
            bar,
        };
        runtime.block_on(conduct(orders)).map_err(|error| match error {
            RunError::Judged(_) => Failed::Lost(error.to_string()),
            RunError::Lab(_) | RunError::Write { .. } => usage(error),
        })
    }
}

fn json(summary: &Summary) -> String {
    serde_json::to_string_pretty(summary).unwrap_or_else(|error| error.to_string())
}

/// Makes the folder if it is not there; it must take files.
fn make(folder: &Path) -> Result<(), Failed> {
    let unwritable =
        |error| Failed::Usage(format!("{} takes no files: {error}; choose another --out", folder.display()));
    fs::create_dir_all(folder).map_err(unwritable)?;
    write(&folder.join("report.txt"), "the run is under way\n")
}

fn write(file: &Path, text: &str) -> Result<(), Failed> {
    fs::write(file, text).map_err(|error| Failed::Usage(format!("cannot write {}: {error}", file.display())))
}
