//! `pulse notify`: whether operators are told what happens.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::DaemonOption;
use super::health::plain_table;
use super::{Failed, print_json, print_line};
use crate::api::{ChannelTestsAnswer, ChannelsAnswer};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  pulse notify test
      Send a test message by each channel; fails if any receiver does not take it.
  pulse notify test ops-mail
      The same by one channel.
  pulse notify status
      Show what was delivered, what waits, and what went wrong.";

/// Tests the channels of `notifications` in system.json, and shows how they do.
#[derive(Debug, Args)]
pub(super) struct NotifyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(Test),
    Status(Status),
}

/// Sends a test message.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Test {
    /// The channel's name; without it, each is tested.
    channel: Option<String>,

    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

/// Shows how each channel does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Status {
    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl NotifyCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::Test(test) => test.run(environment),
            Command::Status(status) => status.run(environment),
        }
    }
}

impl Test {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let body = json!({"channel": self.channel, "reason": self.reason});
        let answer: ChannelTestsAnswer =
            self.daemon.send(environment, Method::POST, "/api/notifications/test", Some(&body))?;
        if self.json {
            print_json(&answer)?;
        } else {
            for result in &answer.results {
                let channel = &result.channel;
                match &result.error {
                    None => print_line(&format!("{channel}: delivered"))?,
                    Some(error) => print_line(&format!("{channel}: not delivered: {error}"))?,
                }
            }
        }
        if answer.success { Ok(()) } else { Err(Failed::because("not every message was delivered")) }
    }
}

impl Status {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let answer: ChannelsAnswer = self.daemon.get(environment, "/api/notifications")?;
        if self.json {
            return print_json(&answer);
        }
        if answer.channels.is_empty() {
            return print_line("No channel is configured: nobody is told anything. See docs/notifications.md.");
        }
        let mut table = plain_table(&["CHANNEL", "TYPE", "SENT", "FAILED", "DROPPED", "WAITING", "LAST ERROR"]);
        for channel in &answer.channels {
            let counts =
                [channel.sent, channel.failed, channel.dropped, channel.waiting].map(|count| count.to_string());
            let [sent, failed, dropped, waiting] = counts;
            let error = channel.last_error.clone().unwrap_or_else(|| "–".to_owned());
            table.add_row([channel.name.clone(), channel.route.clone(), sent, failed, dropped, waiting, error]);
        }
        print_line(&table.to_string())
    }
}
