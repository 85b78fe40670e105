//! `pulse breaker`: circuit breakers, by hand.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::{DaemonOption, segment};
use super::{Failed, print_json, print_line};
use crate::api::BreakerResetAnswer;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  pulse breaker reset pve::rack-1 --reason 'the switch is replaced'
  pulse health --problems
      Shows which breakers are open.";

/// Resets circuit breakers.
#[derive(Debug, Args)]
pub(super) struct BreakerCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Reset(Reset),
}

/// Closes the circuit breaker of an instance, forgets its failures, and has it polled soon.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Reset {
    /// The instance, as in pve::rack-1.
    key: String,

    /// Why, for the audit log.
    #[arg(long)]
    reason: String,

    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl BreakerCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Command::Reset(Reset { key, reason, json, daemon }) = self.command;
        let path = format!("/api/monitoring/breakers/{}/reset", segment(&key));
        let answer: BreakerResetAnswer =
            daemon.send(environment, Method::POST, &path, Some(&json!({"reason": reason})))?;
        if json {
            return print_json(&answer);
        }
        let BreakerResetAnswer { key, previous_state, new_state, .. } = answer;
        print_line(&format!("The circuit breaker of {key} was {previous_state} and is {new_state}."))
    }
}
