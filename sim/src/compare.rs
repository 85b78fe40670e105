//! Interval policies side by side: how fresh a fleet is and how soon an outage is seen, for the same number of polls.
//!
//! The default policy runs with the default settings. The reference rule gets the maximum interval, found by bisection,
//! at which it makes at least as many polls: where it is behind, that is not for want of polls.

use pulse::engine::{Millis, SettingsDraft};
use serde::Serialize;

use crate::run::{Report, RunOptions, run};
use crate::scenario::{Answer, Expect, Fault, FaultKind, HostGroup, Scenario};
use crate::values::{Rate, Span};
use crate::world::Policy;

/// Outages in one world, one after the other, each of one host in twenty.
const OUTAGES: u64 = 12;
const OUTAGE: Millis = Millis::from_mins(4);
const BISECTIONS: u32 = 18;

/// What one policy came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Polls made.
    pub polls: u64,
    /// Mean age of readings over time and fleet, in milliseconds.
    pub mean_age: f64,
    /// The age that one percent of moments exceed, in milliseconds.
    pub p99_age: f64,
    /// Mean time from an outage to the first failed poll, in milliseconds.
    pub mean_detection: f64,
    /// The time that one outage in a hundred takes longer to be seen, in milliseconds.
    pub p99_detection: f64,
}

/// Both policies in the same world.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// How many hosts.
    pub hosts: u32,
    /// The default policy.
    pub default: Measured,
    /// The classic rule.
    pub reference: Measured,
}

impl Comparison {
    /// Whether the default policy is ahead in every figure without making more polls.
    pub fn default_is_ahead(&self) -> bool {
        let (ours, theirs) = (&self.default, &self.reference);
        ours.polls <= theirs.polls
            && ours.mean_age < theirs.mean_age
            && ours.p99_age < theirs.p99_age
            && ours.mean_detection < theirs.mean_detection
    }

    /// How many more polls the default policy made, in percent of the other's.
    pub fn excess_percent(&self) -> f64 {
        (self.default.polls as f64 / self.reference.polls.max(1) as f64 - 1.0) * 100.0
    }
}

/// Compares both policies for a fleet of `hosts`.
pub fn compare(hosts: u32, seed: u64) -> Comparison {
    let settings = SettingsDraft { max_in_flight: 4_096, ..SettingsDraft::default() };
    let default = measure(&world(hosts, settings.clone()), seed, Policy::Default);
    let (mut low, mut high) = (settings.base_interval.get(), settings.max_interval.get());
    let mut reference = Measured::default();
    for _ in 0..BISECTIONS {
        let middle = Millis::new(u64::midpoint(low, high));
        let draft = SettingsDraft { max_interval: middle, ..settings.clone() };
        let measured = measure(&world(hosts, draft), seed, Policy::Reference);
        if measured.polls >= default.polls {
            reference = measured;
            low = middle.get();
        } else {
            high = middle.get();
        }
    }
    Comparison { hosts, default, reference }
}

fn measure(scenario: &Scenario, seed: u64, policy: Policy) -> Measured {
    let report = run(scenario, seed, RunOptions { policy, keep_ages: true, ..RunOptions::default() });
    let Report { polls, freshness, .. } = report;
    let freshness = freshness.unwrap_or_default();
    Measured {
        polls,
        mean_age: freshness.mean_age,
        p99_age: freshness.p99_age,
        mean_detection: freshness.mean_detection,
        p99_detection: freshness.p99_detection,
    }
}

/// A fleet in which a quarter changes every minute and the rest now and then, with outages of a few hosts at a time.
fn world(hosts: u32, settings: SettingsDraft) -> Scenario {
    let group = |name: &str, count: u32, changes_every: u64| HostGroup {
        group: name.to_owned(),
        kind: pulse::engine::InstanceType::Pve,
        count: count.max(1),
        first: Vec::new(),
        then_success: Rate::ONE,
        otherwise: Answer::Transient,
        latency: Span(Millis::new(200)),
        latency_jitter: Rate::clamped(0.3),
        heavy_tail: Rate::clamped(0.005),
        latency_quantiles: None,
        changes_every: Some(Span(Millis::from_secs(changes_every))),
        per_machine: 1,
        interval: None,
    };
    let outage = |number: u64| Fault {
        kind: FaultKind::Refuse,
        group: None,
        share: Rate::clamped(0.05),
        from: Span(Millis::from_mins(10 + number * 5)),
        lasts: Span(OUTAGE),
        rate: Rate::ONE,
        by: None,
        flapping: None,
    };
    Scenario {
        name: "compare".to_owned(),
        description: String::new(),
        warm_up: Span(Millis::from_mins(10)),
        duration: Span(Millis::from_mins(OUTAGES * 5)),
        settings,
        hosts: vec![group("busy", hosts / 4, 60), group("calm", hosts - hosts / 4, 600)],
        faults: (0..OUTAGES).map(outage).collect(),
        operators: Vec::new(),
        expect: Expect::default(),
    }
}
