//! The simulator as a judge of mutants: short runs of every scenario, and a short swarm. The first finding ends it.

#![allow(dead_code, reason = "the simulator's command line has no part in this")]

#[path = "../../../sim/src/builtin.rs"]
mod builtin;
#[path = "../../../sim/src/check.rs"]
mod check;
#[path = "../../../sim/src/file.rs"]
mod file;
#[path = "../../../sim/src/freshness.rs"]
mod freshness;
#[path = "../../../sim/src/host.rs"]
mod host;
#[path = "../../../sim/src/judge/mod.rs"]
mod judge;
#[path = "../../../sim/src/life.rs"]
mod life;
#[path = "../../../sim/src/operators.rs"]
mod operators;
mod pins;
mod report;
#[path = "../../../sim/src/run.rs"]
mod run;
#[path = "../../../sim/src/scenario.rs"]
mod scenario;
#[path = "../../../sim/src/streams.rs"]
mod streams;
#[path = "../../../sim/src/swarm.rs"]
mod swarm;
#[path = "../../../sim/src/told.rs"]
mod told;
#[path = "../../../sim/src/trace.rs"]
mod trace;
#[path = "../../../sim/src/values.rs"]
mod values;
#[path = "../../../sim/src/violation.rs"]
mod violation;
#[path = "../../../sim/src/world.rs"]
mod world;

use pulse::engine::Millis;
use run::RunOptions;
use scenario::Scenario;
use values::Span;

/// Seeds of the swarm, and of each built-in scenario.
const SWARM_SEEDS: u64 = 300;
const SEEDS: u64 = 1;
/// The longest that a built-in scenario runs here.
const LONGEST: Millis = Millis::from_mins(60);

/// Ends everything at the first finding: one is enough for a mutant.
fn hold(mut scenario: Scenario, seed: u64) {
    scenario.duration = Span(scenario.duration.0.min(LONGEST));
    let report = run::run(&scenario, seed, RunOptions::default());
    if let Some(violation) = report.violations.first() {
        eprintln!("{} seed {seed}: {violation}", scenario.name);
        std::process::exit(1);
    }
}

/// The traces come first, since they take a tenth of the time and see the most. A mutant that they do not see may still
/// break a rule in a run that is not pinned.
#[test]
fn every_pinned_run_has_its_pinned_trace_and_every_rule_holds() {
    assert_eq!(pins::traces(), pins::pinned());
    for seed in 1..=SWARM_SEEDS {
        hold(swarm::swarm(seed), seed);
    }
    for seed in 1..=SEEDS {
        for (name, _) in builtin::BUILTIN {
            hold(builtin::builtin(name).expect("the scenario is built in"), seed);
        }
    }
}
