//! Makes a failing run smaller while it still breaks the same rule: fewer faults, fewer operators, fewer hosts, less time.

use pulse::engine::Millis;

use crate::run::{RunOptions, run};
use crate::scenario::Scenario;
use crate::values::Span;
use crate::violation::{Rule, Violation};

/// A smaller scenario that breaks the same rule with the same seed.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// What it breaks.
    pub violation: Violation,
    /// How many runs it took.
    pub runs: u32,
}

/// Shrinks a failing run; `None` if it does not fail. Greedy, so that the result is small and not the smallest.
pub fn shrink(scenario: &Scenario, seed: u64) -> Option<Shrunk> {
    let first = first_violation(scenario, seed)?;
    let rule = first.rule;
    let mut shrunk = Shrunk { scenario: scenario.clone(), violation: first, runs: 1 };
    loop {
        let before = shrunk.runs;
        let mut smaller = false;
        for candidate in candidates(&shrunk.scenario, &shrunk.violation) {
            shrunk.runs += 1;
            if let Some(violation) = breaks(&candidate, seed, rule) {
                (shrunk.scenario, shrunk.violation) = (candidate, violation);
                smaller = true;
                break;
            }
        }
        if !smaller || shrunk.runs - before > 1_000 {
            return Some(shrunk);
        }
    }
}

fn first_violation(scenario: &Scenario, seed: u64) -> Option<Violation> {
    run(scenario, seed, RunOptions::default()).violations.into_iter().next()
}

fn breaks(scenario: &Scenario, seed: u64, rule: Rule) -> Option<Violation> {
    first_violation(scenario, seed).filter(|violation| violation.rule == rule)
}

/// Smaller scenarios, the boldest first.
fn candidates(scenario: &Scenario, violation: &Violation) -> Vec<Scenario> {
    let mut smaller = Vec::new();
    let mut push = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        if candidate != *scenario {
            smaller.push(candidate);
        }
    };
    push(&|it| it.operators.clear());
    push(&|it| it.faults.clear());
    for index in 0..scenario.operators.len() {
        push(&|it| {
            it.operators.remove(index);
        });
    }
    for index in 0..scenario.hosts.len() {
        if scenario.hosts.len() > 1 && scenario.expect.groups.is_empty() {
            push(&|it| {
                it.hosts.remove(index);
            });
        }
        push(&|it| it.hosts[index].count = 1);
        push(&|it| it.hosts[index].count = (it.hosts[index].count / 2).max(1));
        push(&|it| it.hosts[index].count = (it.hosts[index].count - 1).max(1));
    }
    let enough = Millis::new(violation.at.as_millis() + 1).saturating_sub(scenario.warm_up.0);
    push(&|it| it.duration = Span(it.duration.0.min(enough)));
    push(&|it| it.duration = Span(Millis::new(it.duration.0.get() / 2)));
    // A fault that goes renumbers those after it and so their draws; it may break the rule all the same.
    for index in (0..scenario.faults.len()).rev() {
        push(&|it| {
            it.faults.remove(index);
        });
    }
    smaller
}
