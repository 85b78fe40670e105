//! The pinned traces: what the scheduler does today, run by run. A change of one is a change of its behaviour.

use super::*;

/// Of each built-in scenario so much is pinned.
const LENGTH: Millis = Millis::from_mins(10);
/// Seeds of the swarm that are pinned.
const SWARM: u64 = 40;

/// Each pinned run: scenario, policy, seed, hash of the trace.
pub(crate) fn traces() -> Vec<String> {
    let trace = |scenario: &Scenario, seed: u64, policy: Policy| {
        let hash = run(scenario, seed, RunOptions { policy, ..RunOptions::default() }).trace_hash;
        format!("{} {policy:?} {seed} {hash}", scenario.name)
    };
    let built_in = BUILTIN.iter().flat_map(|(name, _)| {
        let mut scenario = builtin(name).expect("the scenario is built in");
        scenario.duration = Span(scenario.duration.0.min(LENGTH));
        [Policy::Default, Policy::Reference].map(|policy| trace(&scenario, 1, policy))
    });
    built_in.chain((1..=SWARM).map(|seed| trace(&swarm(seed), seed, Policy::Default))).collect()
}

/// The same, as they are pinned.
pub(crate) fn pinned() -> Vec<&'static str> {
    include_str!("traces.txt").lines().collect()
}
