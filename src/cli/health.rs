//! `pulse health`: what a running daemon sees, as a table.

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table};
use jiff::{SignedDuration, Timestamp};

use super::client::DaemonOption;
use super::{Failed, print_json, print_line};
use crate::api::{BreakerStateName, HealthAnswer, InstanceRow};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  pulse health
      Ask the daemon on this machine; no token is needed.
  pulse health --problems
      Show only what needs a look.
  pulse health --url https://pulse.example:7655 --token-file ~/.pulse-token
      Ask a daemon elsewhere.
  pulse health --json | jq '.deadLetter.count'";

/// Shows what a running daemon sees: every instance, its polls, its breaker and dead letters.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Health {
    /// Show only instances that failed, are never polled with success, or are dead-lettered.
    #[arg(long)]
    problems: bool,

    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl Health {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        const PATH: &str = "/api/monitoring/scheduler/health";
        if self.json {
            return print_json(&self.daemon.get::<serde_json::Value>(environment, PATH)?);
        }
        let health: HealthAnswer = self.daemon.get(environment, PATH)?;
        print_line(&summary(&health))?;
        if !health.enabled {
            return print_line("Adaptive polling is off: everything is polled at the base interval.");
        }
        let mut table = plain_table(&["INSTANCE", "LAST SUCCESS", "FAILURES", "BREAKER", "DEAD LETTER", "LAST ERROR"]);
        for instance in health.instances.iter().filter(|it| !self.problems || is_a_problem(it)) {
            table.add_row(row(instance, health.updated_at));
        }
        print_line(&table.to_string())
    }
}

fn summary(health: &HealthAnswer) -> String {
    let open = health.breakers.iter().filter(|breaker| breaker.state != BreakerStateName::Closed).count();
    format!(
        "{} queued, {} due soon; {open} breakers open; {} dead letters; {}\n",
        health.queue.depth,
        health.queue.due_within_seconds,
        health.dead_letter.count,
        health.updated_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
}

fn is_a_problem(instance: &InstanceRow) -> bool {
    instance.poll_status.consecutive_failures > 0
        || instance.poll_status.last_success.is_none()
        || instance.dead_letter.present
}

fn row(instance: &InstanceRow, now: Timestamp) -> Vec<Cell> {
    let polls = &instance.poll_status;
    let breaker = match (instance.breaker.state, instance.breaker.retry_at) {
        (BreakerStateName::Closed, _) => "closed".to_owned(),
        (BreakerStateName::HalfOpen, _) => "half-open".to_owned(),
        (BreakerStateName::Unknown, _) => "–".to_owned(),
        (BreakerStateName::Open, None) => "open".to_owned(),
        (BreakerStateName::Open, Some(at)) => format!("open, retry {}", until(now, at)),
    };
    let dead_letter = match (instance.dead_letter.reason, instance.dead_letter.next_retry) {
        (None, _) => "–".to_owned(),
        (Some(reason), None) => format!("{}, rechecking", reason.as_str()),
        (Some(reason), Some(at)) => format!("{}, retry {}", reason.as_str(), until(now, at)),
    };
    let error = polls.last_error.as_ref().map_or("–".to_owned(), |error| error.message.to_string());
    vec![
        Cell::new(&instance.key),
        Cell::new(polls.last_success.map_or("never".to_owned(), |at| ago(at, now))),
        Cell::new(polls.consecutive_failures),
        Cell::new(breaker),
        Cell::new(dead_letter),
        Cell::new(error),
    ]
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now.duration_since(at)))
}

fn until(now: Timestamp, at: Timestamp) -> String {
    format!("in {}", span(at.duration_since(now)))
}

fn span(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        secs @ 0..120 => format!("{secs}s"),
        secs @ 120..7_200 => format!("{}m", secs / 60),
        secs => format!("{}h", secs / 3_600),
    }
}

/// A table without lines, that fits the terminal.
pub(super) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_one_unit_and_never_negative() {
        for (secs, text) in [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h")] {
            assert_eq!(span(SignedDuration::from_secs(secs)), text);
        }
    }
}
