//! The command line of the simulator.

mod compare;
mod diff;
mod farm;
mod harvest;
mod inspect;
mod output;
mod single;
mod stopwatch;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sim::{Scenario, ScenarioError};

const HELP: &str = "\
Examples:
  sim                                     both documented scenarios and a short swarm
  sim run soak --seed 7 --duration 240m   one run
  sim run mass-outage --report page.html  one run, and a page to look at
  sim run my-fleet.toml --check           a scenario of your own, made twice and compared
  sim farm --seeds 10000 --for 60s        many seeds of every scenario, on all cores
  sim replay swarm 4711 --trace           once more, with every event
  sim shrink swarm 4711                   the same fault in a smaller world
  sim compare                             the default interval policy against the classic one

Exit codes:
  0  every rule held
  1  a rule was broken; the output names the command that replays it
  2  the command line or the scenario is wrong";

/// Runs the scheduler of Pulse in seeded worlds and holds it to its rules.
#[derive(Debug, Parser)]
#[command(name = "sim", version, after_help = HELP, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    outputs: single::Outputs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(single::Run),
    Farm(farm::Farm),
    Replay(inspect::Replay),
    Shrink(inspect::ShrinkRun),
    Diff(diff::Diff),
    Compare(compare::Compare),
    List(inspect::List),
}

/// Why a command could not do its work.
#[derive(Debug)]
enum Failed {
    /// A rule was broken; everything about it has been printed.
    Broken,
    /// The command line or a file is wrong.
    Usage(String),
}

impl From<ScenarioError> for Failed {
    fn from(error: ScenarioError) -> Self {
        Self::Usage(error.to_string())
    }
}

pub(crate) fn main() -> ExitCode {
    let Cli { command, outputs } = Cli::parse();
    let done = match command {
        None => single::everything(&outputs),
        Some(Command::Run(command)) => command.run(),
        Some(Command::Farm(command)) => command.run(),
        Some(Command::Replay(command)) => command.run(),
        Some(Command::Shrink(command)) => command.run(),
        Some(Command::Diff(command)) => command.run(),
        Some(Command::Compare(command)) => command.run(),
        Some(Command::List(command)) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Broken) => ExitCode::from(1),
        Err(Failed::Usage(message)) => {
            eprintln!("sim: {message}");
            ExitCode::from(2)
        }
    }
}

/// The scenario of this name with this seed: a built-in one, `swarm`, or a file.
fn scenario(name: &str, seed: u64) -> Result<Scenario, Failed> {
    if name == "swarm" {
        return Ok(sim::swarm(seed));
    }
    if let Some(scenario) = sim::builtin(name) {
        return Ok(scenario);
    }
    Ok(Scenario::read(Path::new(name))?)
}
