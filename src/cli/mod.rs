//! The command line: one file a subcommand.
//!
//! Every command that prints has `--json`; exit codes are the same for all of them.

mod audit;
mod backup;
mod breaker;
mod client;
mod completions;
mod config;
mod demo;
mod dlq;
mod health;
mod instances;
mod notify;
mod offline;
mod serve;
mod token;
mod update;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::{ConfigError, DataDir, Environment};
use crate::runtime::{Clock, TokioClock};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed; the message says why
  2  the command line is wrong
  3  the configuration is wrong
  4  no daemon answers, or it refused the call";

const EXAMPLES: &str = "\
Examples:
  pulse serve --demo        watch an emulated fleet on this machine
  pulse serve               watch the fleet of instances.json
  pulse health              show what the running daemon sees
  pulse config validate     check the configuration before it is used";

/// Polls Proxmox fleets and plain endpoints, adapts how often, and contains what is broken.
#[derive(Debug, Parser)]
#[command(name = "pulse", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Health(health::Health),
    Breaker(breaker::BreakerCommand),
    Dlq(dlq::DlqCommand),
    Audit(audit::AuditCommand),
    Backup(backup::Backup),
    Restore(backup::RestoreCommand),
    Config(config::ConfigCommand),
    Instances(instances::InstancesCommand),
    User(user::UserCommand),
    Notify(notify::NotifyCommand),
    Token(token::TokenCommand),
    Update(update::UpdateCommand),
    Completions(completions::Completions),
}

/// Where the daemon keeps its files.
#[derive(Clone, Debug, Args)]
struct DataDirOption {
    /// The data folder [default: $PULSE_DATA_DIR, $STATE_DIRECTORY, or ~/.local/state/pulse]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl DataDirOption {
    fn choose(&self, environment: &Environment) -> Result<PathBuf, ConfigError> {
        DataDir::choose(self.data_dir.as_deref(), environment)
    }
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
struct Failed {
    message: String,
    code: u8,
}

impl Failed {
    fn because(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    fn configuration(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: 3 }
    }

    fn daemon(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: 4 }
    }
}

/// Runs the command line of this process, as the program of this version.
pub fn run(version: &'static str) -> ExitCode {
    let matches = Cli::command().version(version).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let environment = Environment::of_process();
    let done = match cli.command {
        Command::Serve(command) => command.run(environment, version),
        Command::Health(command) => command.run(&environment),
        Command::Breaker(command) => command.run(&environment),
        Command::Dlq(command) => command.run(&environment),
        Command::Audit(command) => command.run(&environment),
        Command::Backup(command) => command.run(&environment, version),
        Command::Restore(command) => command.run(&environment),
        Command::Config(command) => command.run(&environment),
        Command::Instances(command) => command.run(&environment),
        Command::User(command) => command.run(&environment),
        Command::Notify(command) => command.run(&environment),
        Command::Token(command) => command.run(&environment),
        Command::Update(command) => command.run(&environment, version),
        Command::Completions(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("pulse: {}", failed.message);
            ExitCode::from(failed.code)
        }
    }
}

/// What a command that waits for something runs on.
fn runtime() -> Result<Runtime, Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)
}

/// The time of day.
fn wall_time() -> Result<jiff::Timestamp, Failed> {
    let runtime = runtime()?;
    let _inside = runtime.enter();
    Ok(TokioClock::start().wall())
}

/// Prints a value as JSON for programs.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(Failed::because)?;
    print_line(&text)
}

/// Prints a line. Whoever closes the pipe early, as `head` does, has seen enough.
fn print_line(line: &str) -> Result<(), Failed> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failed::because(error)),
        _ => Ok(()),
    }
}
