//! `pulse dlq`: the dead-letter queue, by hand.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use url::form_urlencoded;

use super::client::{DaemonOption, segment};
use super::health::plain_table;
use super::{Failed, print_json, print_line};
use crate::api::{HealthAnswer, InstanceRow, RemovalAnswer, RetriesAnswer, RetryAnswer, RetryResultName};
use crate::config::Environment;
use crate::engine::{DeadLetterReason, InstanceType};

const LIST_EXAMPLES: &str = "\
Examples:
  pulse dlq list
  pulse dlq list --json | jq -r '.[].key'";

const RETRY_EXAMPLES: &str = "\
Examples:
  pulse dlq retry pve::rack-1 --reason 'the password is right again'
  pulse dlq retry --all --type pbs --older-than 1h --dry-run
      Show which ones it would be.
  pulse dlq retry --all
      Recheck all of them, spread out.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  pulse dlq remove pve::rack-9 --reason 'decommissioned'
      It is not polled any more until it is enabled, edited or added again.";

/// Shows, retries and removes dead letters.
#[derive(Debug, Args)]
pub(super) struct DlqCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Retry(Retry),
    Remove(Remove),
}

/// Lists the dead letters.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    common: Common,
}

/// Rechecks one dead letter now, or many spread out.
#[derive(Debug, Args)]
#[command(after_help = RETRY_EXAMPLES)]
struct Retry {
    /// The instance, as in pve::rack-1.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,

    /// Recheck all that the filters let through.
    #[arg(long)]
    all: bool,

    /// Only instances of this type.
    #[arg(long = "type", value_name = "TYPE", requires = "all")]
    kind: Option<InstanceType>,

    /// Only those dead-lettered for this reason: max_retry_attempts or permanent_failure.
    #[arg(long, value_name = "REASON", requires = "all", value_parser = dead_letter_reason)]
    dead_lettered_for: Option<DeadLetterReason>,

    /// Only those whose row of failures began longer ago than this, such as 10m.
    #[arg(long, value_name = "TIME", requires = "all")]
    older_than: Option<String>,

    /// Only tell which they are.
    #[arg(long, requires = "all")]
    dry_run: bool,

    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    common: Common,
}

/// Removes a dead letter: its instance is no longer polled until it is enabled, edited or added again.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
struct Remove {
    /// The instance, as in pve::rack-1.
    key: String,

    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl DlqCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::List(command) => command.run(environment),
            Command::Retry(command) => command.run(environment),
            Command::Remove(command) => command.run(environment),
        }
    }
}

impl List {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let health: HealthAnswer = daemon.get(environment, "/api/monitoring/scheduler/health")?;
        let dead: Vec<InstanceRow> = health.instances.into_iter().filter(|it| it.dead_letter.present).collect();
        if *json {
            return print_json(&dead);
        }
        if !health.enabled && health.dead_letter.count > 0 {
            let count = health.dead_letter.count;
            return print_line(&format!("{count} dead letters; they are listed while adaptive polling is on."));
        }
        let mut table = plain_table(&["INSTANCE", "REASON", "SINCE", "RETRIES", "NEXT RETRY", "LAST ERROR"]);
        for row in dead {
            let InstanceRow { key, dead_letter, poll_status, .. } = row;
            table.add_row([
                key.to_string(),
                dead_letter.reason.map_or("", DeadLetterReason::as_str).to_owned(),
                time(dead_letter.first_attempt),
                dead_letter.retry_count.unwrap_or_default().to_string(),
                time(dead_letter.next_retry),
                poll_status.last_error.map(|error| error.message.to_string()).unwrap_or_default(),
            ]);
        }
        print_line(&table.to_string())
    }
}

impl Retry {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let body = json!({"reason": self.reason});
        if let Some(key) = &self.key {
            let path = format!("/api/monitoring/dlq/{}/retry", segment(key));
            let answer: RetryAnswer = daemon.send(environment, Method::POST, &path, Some(&body))?;
            if *json {
                return print_json(&answer);
            }
            let (key, count) = (answer.key, answer.previous_retry_count);
            return print_line(&format!("{key} is rechecked now; {count} rechecks have failed so far."));
        }
        let path = format!("/api/monitoring/dlq/retry?{}", self.query());
        let answer: RetriesAnswer = daemon.send(environment, Method::POST, &path, Some(&body))?;
        if *json {
            return print_json(&answer);
        }
        let mut table = plain_table(&["INSTANCE", "RESULT", "SCHEDULED FOR"]);
        for row in answer.results {
            let result = match row.result {
                RetryResultName::Scheduled => "scheduled",
                RetryResultName::UnderWay => "under way",
                RetryResultName::WouldRetry => "would be retried",
            };
            table.add_row([row.key, result.to_owned(), time(row.scheduled_for)]);
        }
        print_line(&table.to_string())
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("dryRun", if self.dry_run { "true" } else { "false" });
        let filters = [
            ("type", self.kind.map(InstanceType::as_str)),
            ("reason", self.dead_lettered_for.map(DeadLetterReason::as_str)),
            ("olderThan", self.older_than.as_deref()),
        ];
        for (name, value) in filters {
            query.extend_pairs(value.map(|value| (name, value)));
        }
        query.finish()
    }
}

impl Remove {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let path = format!("/api/monitoring/dlq/{}", segment(&self.key));
        let answer: RemovalAnswer =
            daemon.send(environment, Method::DELETE, &path, Some(&json!({"reason": self.reason})))?;
        if *json {
            return print_json(&answer);
        }
        print_line(&format!("{} is no longer polled until it is enabled, edited or added again.", answer.key))
    }
}

fn dead_letter_reason(text: &str) -> Result<DeadLetterReason, String> {
    [DeadLetterReason::MaxRetryAttempts, DeadLetterReason::PermanentFailure]
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| "is max_retry_attempts or permanent_failure".to_owned())
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "now".to_owned(), |at| at.strftime("%F %T UTC").to_string())
}
