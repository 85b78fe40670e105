//! `sim compare`: interval policies side by side, at the same number of polls.

use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use sim::{CompareWorld, Comparison, compare, usual_worlds};

use super::Failed;

/// Compares the default interval policy with the classic one at the same poll budget.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The policies.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Policy::Default, Policy::Reference])]
    policy: Vec<Policy>,

    /// What the fleets are like.
    #[arg(long, value_enum, default_value_t)]
    world: World,

    /// Sizes of the fleets.
    #[arg(long, value_delimiter = ',', default_values_t = [12, 80, 1_000, 10_000])]
    fleets: Vec<u32>,

    /// The seed of the first world of each fleet; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// In how many worlds each fleet is compared [default: the more, the smaller the fleet]
    #[arg(long)]
    worlds: Option<u64>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    Default,
    Reference,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum World {
    /// One host in five is unsteady, half of them share a machine, most outages are maintenance
    #[default]
    Fleet,
    /// Alike hosts, half of which share a machine
    Machines,
    /// Alike hosts on their own: there is nothing to learn
    Uniform,
}

impl World {
    const fn meant(self) -> CompareWorld {
        match self {
            Self::Fleet => CompareWorld::Fleet,
            Self::Machines => CompareWorld::Machines,
            Self::Uniform => CompareWorld::Uniform,
        }
    }
}

impl Compare {
    pub(super) fn run(self) -> Result<(), Failed> {
        if !self.policy.contains(&Policy::Default) || !self.policy.contains(&Policy::Reference) {
            let message = "there are two policies to compare: --policy default,reference";
            return Err(Failed::Usage(message.to_owned()));
        }
        let compared = self.fleets.iter().map(|hosts| {
            let worlds = self.worlds.unwrap_or_else(|| usual_worlds(*hosts));
            compare(self.world.meant(), (*hosts).max(1), self.seed..self.seed.saturating_add(worlds.max(1)))
        });
        let results: Vec<Comparison> = compared.collect();
        if self.json {
            println!("{:#}", serde_json::json!(results));
        } else {
            print(&results);
        }
        // The other worlds are there to show where there is less to gain, or nothing.
        match !matches!(self.world, World::Fleet) || results.iter().all(Comparison::default_is_ahead) {
            true => Ok(()),
            false => Err(Failed::Broken),
        }
    }
}

fn print(results: &[Comparison]) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["FLEET", "POLICY", "POLLS", "MEAN AGE", "P99 AGE", "DETECTION", "P99 DETECTION", "NEWS DELAY"]);
    for result in results {
        for (policy, measured) in [("default", &result.default), ("reference", &result.reference)] {
            let secs = |millis: f64| format!("{:.2}s", millis / 1_000.0);
            let freshness = &measured.freshness;
            table.add_row([
                result.hosts.to_string(),
                policy.to_owned(),
                measured.polls.to_string(),
                secs(freshness.mean_age),
                secs(freshness.p99_age),
                secs(freshness.mean_detection),
                secs(freshness.p99_detection),
                secs(freshness.mean_news),
            ]);
        }
    }
    println!("{table}");
    for result in results {
        let ahead = if result.default_is_ahead() { "ahead" } else { "NOT ahead" };
        let (gain, error) = (result.gain(), result.error());
        println!(
            "{} hosts, {} worlds, {} outages: the default policy is {ahead}: mean age {:+.2} ± {:.2} %, p99 age {:+.2} ± {:.2} %, \
             detection {:+.1} ± {:.1} %, news {:+.1} ± {:.1} %",
            result.hosts,
            result.worlds,
            result.default.outages,
            -gain.mean_age,
            error.mean_age,
            -gain.p99_age,
            error.p99_age,
            -gain.mean_detection,
            error.mean_detection,
            -gain.mean_news,
            error.mean_news
        );
    }
}
