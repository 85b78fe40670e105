//! The command line of `fuzz`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::report::Report;
use crate::{break_files, make_calls, mistake_answers};

const HELP: &str = "\
Examples:
  fuzz --requests 1000000            a million inputs: 70 % calls, 15 % files, 15 % answers of hosts
  fuzz --requests 50000 --only calls --seed 7 --reached

Exit codes:
  0  nothing was found
  1  something was; the output names it, and the input that shows it
  2  the command line is wrong";

/// Hands hostile input to every door of Pulse: calls of the API, configuration files, answers of hosts.
#[derive(Debug, Parser)]
#[command(name = "fuzz", version, after_help = HELP)]
struct Cli {
    /// How many inputs in all.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    requests: u64,

    /// The seed that they are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// One kind of input alone.
    #[arg(long, value_enum)]
    only: Option<Part>,

    /// Print every place that was reached, and how often.
    #[arg(long)]
    reached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Calls,
    Files,
    Answers,
}

/// Hands over inputs of one kind: a seed, and how many.
type Hand = fn(u64, u64) -> Report;

/// Every kind of input, and its share in percent.
const PARTS: [(Part, &str, u64, Hand); 3] = [
    (Part::Calls, "calls", 70, make_calls),
    (Part::Files, "files", 15, break_files),
    (Part::Answers, "answers", 15, mistake_answers),
];

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut clean = true;
    for (part, name, share, hand) in PARTS {
        let count = match cli.only {
            None => cli.requests * share / 100,
            Some(only) if only == part => cli.requests,
            Some(_) => continue,
        };
        let report = hand(cli.seed, count);
        print!("{name}: {report}");
        if cli.reached {
            report.reached.iter().for_each(|(place, count)| println!("  {count:>8}  {place}"));
        }
        clean &= report.is_clean();
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
