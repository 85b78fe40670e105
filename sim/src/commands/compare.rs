//! `sim compare`: interval policies side by side, at the same number of polls.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use sim::{Comparison, compare};

use super::Failed;

/// Compares the default interval policy with the classic one at the same poll budget.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// Sizes of the fleets.
    #[arg(long, value_delimiter = ',', default_values_t = [12, 80, 1_000, 10_000])]
    fleets: Vec<u32>,

    /// The seed of the worlds.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self) -> Result<(), Failed> {
        let results: Vec<Comparison> = self.fleets.iter().map(|hosts| compare((*hosts).max(1), self.seed)).collect();
        if self.json {
            println!("{:#}", serde_json::json!(results));
        } else {
            print(&results);
        }
        match results.iter().all(Comparison::default_is_ahead) {
            true => Ok(()),
            false => Err(Failed::Broken),
        }
    }
}

fn print(results: &[Comparison]) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["FLEET", "POLICY", "POLLS", "MEAN AGE", "P99 AGE", "DETECTION", "P99 DETECTION"]);
    for result in results {
        for (policy, measured) in [("default", &result.default), ("reference", &result.reference)] {
            let secs = |millis: f64| format!("{:.2}s", millis / 1_000.0);
            table.add_row([
                result.hosts.to_string(),
                policy.to_owned(),
                measured.polls.to_string(),
                secs(measured.mean_age),
                secs(measured.p99_age),
                secs(measured.mean_detection),
                secs(measured.p99_detection),
            ]);
        }
    }
    println!("{table}");
    for result in results {
        let ahead = if result.default_is_ahead() { "ahead" } else { "NOT ahead" };
        println!(
            "{} hosts: the default policy is {ahead} at {:.1} % more polls",
            result.hosts,
            result.excess_percent()
        );
    }
}
