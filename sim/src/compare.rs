//! Interval policies side by side: how fresh a fleet is and how soon an outage is seen, for the same number of polls.
//!
//! The default policy runs with the default settings. The classic rule gets the longest maximum interval at which it
//! still makes at least as many polls in the same worlds: where it is behind, that is not for want of polls.

use std::ops::Range;

use pulse::engine::{InstanceType, Millis, SettingsDraft};
use serde::Serialize;

use crate::freshness::{Ages, Freshness};
use crate::life::Outages;
use crate::run::{RunOptions, run};
use crate::scenario::{Answer, Expect, HostGroup, Scenario};
use crate::values::{Rate, Span};
use crate::world::Policy;

/// By how much more polls the classic rule may make than the default policy.
const TOLERANCE: f64 = 0.000_5;
/// How often its maximum interval is corrected at the most.
const ATTEMPTS: u32 = 10;
/// Enough for the default policy to have learnt what it learns.
const WARM_UP: Millis = Millis::from_mins(60);

/// What the fleet is like. `docs/simulation.md` says why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CompareWorld {
    /// A fleet: one host in five is unsteady, half of them share a machine, most outages are maintenance.
    #[default]
    Fleet,
    /// Alike hosts, half of which share a machine.
    Machines,
    /// Alike hosts on their own, whose outages nothing foretells: there is nothing to learn.
    Uniform,
}

/// What one policy came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Polls made after the warm-up.
    pub polls: u64,
    /// The maximum interval that it was given.
    pub max_interval: Millis,
    /// Outages seen: the same ones for both policies.
    pub outages: usize,
    /// How fresh the fleet was, over all worlds.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The same for each world.
    pub by_world: Vec<Freshness>,
}

/// Both policies in the same worlds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// What the fleet is like.
    pub world: CompareWorld,
    /// How many hosts.
    pub hosts: u32,
    /// How many worlds, each with a seed of its own.
    pub worlds: u64,
    /// The default policy.
    pub default: Measured,
    /// The classic rule.
    pub reference: Measured,
}

impl Comparison {
    /// Whether the default policy is ahead in every figure that counts without making more polls.
    pub fn default_is_ahead(&self) -> bool {
        let gain = self.gain();
        self.default.polls <= self.reference.polls
            && gain.mean_age > 0.0
            && gain.p99_age > 0.0
            && gain.mean_detection > 0.0
    }

    /// By how many percent the figures of the default policy are below those of the classic rule.
    pub fn gain(&self) -> Freshness {
        self.default.freshness.gain_over(&self.reference.freshness)
    }

    /// The standard error of the gain, in percentage points, as the worlds differ in it; zero for a single world.
    pub fn error(&self) -> Freshness {
        let pairs = self.default.by_world.iter().zip(&self.reference.by_world);
        let gains: Vec<Freshness> = pairs.map(|(ours, theirs)| ours.gain_over(theirs)).collect();
        let error = |figure: fn(&Freshness) -> f64| {
            let count = gains.len() as f64;
            let mean = gains.iter().map(figure).sum::<f64>() / count;
            let squares: f64 = gains.iter().map(|gain| (figure(gain) - mean).powi(2)).sum();
            (squares / (count - 1.0).max(1.0) / count.max(1.0)).sqrt()
        };
        Freshness {
            mean_age: error(|it| it.mean_age),
            p99_age: error(|it| it.p99_age),
            mean_detection: error(|it| it.mean_detection),
            p99_detection: error(|it| it.p99_detection),
            mean_news: error(|it| it.mean_news),
        }
    }
}

/// In how many worlds a fleet of `hosts` is compared usually: small ones in more, so that chance does not decide.
pub fn usual_worlds(hosts: u32) -> u64 {
    match hosts {
        0..50 => 100,
        50..500 => 16,
        500..5_000 => 4,
        _ => 3,
    }
}

/// Compares both policies for a fleet of `hosts`, in a world of its own for each of `seeds`.
pub fn compare(world: CompareWorld, hosts: u32, seeds: Range<u64>) -> Comparison {
    let minutes = match hosts {
        0..500 => 360,
        500..5_000 => 120,
        _ => 60,
    };
    let measure = |policy, max_interval: Option<Millis>| {
        let mut settings = SettingsDraft { max_in_flight: 4_096, ..SettingsDraft::default() };
        if let Some(max) = max_interval {
            settings.max_interval = max;
            settings.base_interval = settings.base_interval.min(max);
        }
        let max_interval = settings.max_interval;
        let scenario = scenario(world, hosts, Millis::from_mins(minutes), settings);
        measure(&scenario, seeds.clone(), policy, max_interval)
    };
    let default = measure(Policy::Default, None);
    let reference = with_budget(default.polls, |max| measure(Policy::Reference, Some(max)));
    Comparison { world, hosts, worlds: seeds.count() as u64, default, reference }
}

/// The fewest polls found that are not fewer than `budget`, by correcting the maximum interval in proportion.
fn with_budget(budget: u64, measure: impl Fn(Millis) -> Measured) -> Measured {
    let mut best: Option<Measured> = None;
    let mut max_interval = SettingsDraft::default().base_interval;
    for _ in 0..ATTEMPTS {
        let measured = measure(max_interval);
        let ratio = measured.polls as f64 / budget.max(1) as f64;
        if ratio >= 1.0 && best.as_ref().is_none_or(|best| measured.polls < best.polls) {
            best = Some(measured);
        }
        if (1.0..1.0 + TOLERANCE).contains(&ratio) {
            break;
        }
        max_interval = max_interval.scaled(ratio - TOLERANCE / 2.0);
    }
    best.unwrap_or_default()
}

fn measure(scenario: &Scenario, seeds: Range<u64>, policy: Policy, max_interval: Millis) -> Measured {
    let mut all = Ages::default();
    let mut by_world = Vec::new();
    for seed in seeds {
        let report = run(scenario, seed, RunOptions { policy, keep_ages: true, ..RunOptions::default() });
        let mut ages = report.ages.unwrap_or_default();
        by_world.push(ages.freshness());
        all.add(ages);
    }
    Measured { polls: all.polls(), max_interval, outages: all.outages(), freshness: all.freshness(), by_world }
}

fn scenario(world: CompareWorld, hosts: u32, duration: Millis, settings: SettingsDraft) -> Scenario {
    Scenario {
        name: "compare".to_owned(),
        description: String::new(),
        warm_up: Span(WARM_UP),
        duration: Span(duration),
        settings,
        hosts: groups(world, hosts),
        faults: Vec::new(),
        operators: Vec::new(),
        expect: Expect::default(),
    }
}

/// The hosts of a world. In each of them a host is down once in two hours on average.
fn groups(world: CompareWorld, hosts: u32) -> Vec<HostGroup> {
    const RARE_CHANGES: u64 = 2 * 60 * 60;
    const FREQUENT_CHANGES: u64 = 2 * 60;
    let alike = Life { outage_every: 120, of_machine: 0.0, announced: 0.0, changes_every: RARE_CHANGES };
    let in_pairs = Life { of_machine: 2.0 / 3.0, ..alike };
    let groups = match world {
        CompareWorld::Uniform => vec![group("alike", hosts, 1, alike)],
        CompareWorld::Machines => {
            let paired = half_in_pairs(hosts);
            vec![group("paired", paired, 2, in_pairs), group("alone", hosts - paired, 1, in_pairs)]
        }
        CompareWorld::Fleet => {
            let steady = Life { outage_every: 8 * 60, announced: 0.6, ..in_pairs };
            let unsteady = Life { outage_every: 30, ..steady };
            let busy = Life { changes_every: FREQUENT_CHANGES, ..steady };
            let (shaky, restless) = (hosts / 5, hosts.div_ceil(20));
            let calm = hosts - shaky - restless;
            let (paired_shaky, paired_calm) = (half_in_pairs(shaky), half_in_pairs(calm));
            vec![
                group("unsteady-paired", paired_shaky, 2, unsteady),
                group("unsteady", shaky - paired_shaky, 1, unsteady),
                group("steady-paired", paired_calm, 2, steady),
                group("steady", calm - paired_calm, 1, steady),
                group("busy", restless, 1, busy),
            ]
        }
    };
    groups.into_iter().filter(|group| group.count > 0).collect()
}

/// Half of `hosts`, in whole pairs.
fn half_in_pairs(hosts: u32) -> u32 {
    (hosts.div_ceil(4) * 2).min(hosts / 2 * 2)
}

/// How the hosts of a group live: minutes from outage to outage, seconds from change to change.
#[derive(Clone, Copy)]
struct Life {
    outage_every: u64,
    of_machine: f64,
    announced: f64,
    changes_every: u64,
}

fn group(name: &str, count: u32, per_machine: u32, life: Life) -> HostGroup {
    let outages = Outages {
        every: Span(Millis::from_mins(life.outage_every)),
        // Between a restart and a reboot with updates. It ends before the first recheck of a dead letter, so that it
        // is not the length of the rechecks that is measured.
        shortest: Span(Millis::from_mins(1)),
        longest: Span(Millis::from_mins(4)),
        of_machine: Rate::clamped(life.of_machine),
        announced: Rate::clamped(life.announced),
    };
    HostGroup {
        group: name.to_owned(),
        kind: InstanceType::Pve,
        count,
        first: Vec::new(),
        then_success: Rate::ONE,
        otherwise: Answer::Transient,
        latency: Span(Millis::new(200)),
        latency_jitter: Rate::clamped(0.3),
        heavy_tail: Rate::clamped(0.005),
        latency_quantiles: None,
        changes_every: Some(Span(Millis::from_secs(life.changes_every))),
        per_machine,
        interval: None,
        outages: Some(outages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_has_the_hosts_it_should_have_and_a_host_is_down_once_in_two_hours() {
        for hosts in [1, 2, 3, 12, 80, 1_000, 10_000] {
            for world in [CompareWorld::Fleet, CompareWorld::Machines, CompareWorld::Uniform] {
                let groups = groups(world, hosts);
                assert_eq!(groups.iter().map(|group| group.count).sum::<u32>(), hosts, "{world:?}");
                let a_minute = |group: &HostGroup| {
                    group.outages.map_or(0.0, |it| f64::from(group.count) / it.every.0.get() as f64 * 60_000.0)
                };
                let every = f64::from(hosts) / groups.iter().map(a_minute).sum::<f64>();
                assert!(hosts < 12 || (100.0..=140.0).contains(&every), "{world:?} of {hosts}: every {every} minutes");
            }
        }
    }
}
