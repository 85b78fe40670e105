//! The simulator judged from outside: it repeats itself, agrees with the daemon's driver, and finds what is planted.

use pulse::engine::Millis;
use sim::{
    BUILTIN, CompareWorld, Policy, RunOptions, Scenario, Span, builtin, compare, run, run_stack, run_watched, swarm,
};

mod pinned;

fn named(name: &str) -> Scenario {
    builtin(name).expect("the scenario is built in")
}

fn for_minutes(name: &str, minutes: u64) -> Scenario {
    Scenario { duration: Span(Millis::from_mins(minutes)), ..named(name) }
}

/// If a change of behaviour is meant, run this with `UPDATE_PINS=1` and look at what the difference of the file says.
#[test]
fn every_pinned_run_has_its_pinned_trace() {
    let traces = pinned::traces();
    if std::env::var_os("UPDATE_PINS").is_some() {
        return std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pinned/traces.txt"),
            traces.join("\n") + "\n",
        )
        .unwrap();
    }
    assert_eq!(traces, pinned::pinned());
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    for seed in 1..=40 {
        let scenario = swarm(seed);
        let first = run(&scenario, seed, RunOptions::default());
        let again = run(&scenario, seed, RunOptions { keep_trace: true, ..RunOptions::default() });
        assert_eq!(first.trace_hash, again.trace_hash, "seed {seed}");
        assert_ne!(first.trace_hash, run(&scenario, seed + 1, RunOptions::default()).trace_hash, "seed {seed}");
    }
}

#[test]
fn watching_a_run_changes_nothing_in_it() {
    for seed in 1..=10 {
        let scenario = swarm(seed);
        let mut looks = Vec::new();
        let every = Millis::from_secs(7);
        let watched = run_watched(&scenario, seed, RunOptions::default(), every, |now| looks.push(now));
        assert_eq!(watched.trace_hash, run(&scenario, seed, RunOptions::default()).trace_hash, "seed {seed}");
        assert_eq!(looks.len() as u64, scenario.length().get().div_ceil(every.get()), "seed {seed}");
        assert_eq!(looks.last().map(|now| now.as_millis()), Some(scenario.length().get()), "seed {seed}");
    }
}

#[test]
fn the_daemons_driver_gives_the_same_events_as_the_simulators_loop() {
    for seed in 1..=12 {
        let short = ["integration", "flapping", "slow-host", "inventory-churn"];
        let scenarios = short.map(|name| Scenario { duration: Span(Millis::from_mins(8)), ..named(name) });
        for scenario in scenarios.into_iter().chain([swarm(seed)]) {
            let mut scenario = scenario;
            // The expectations are for the full length.
            scenario.expect = sim::Expect { liveness: scenario.expect.liveness, ..sim::Expect::default() };
            let report = run_stack(&scenario, seed, RunOptions::default());
            assert!(report.passed(), "{} seed {seed}: {:?}", scenario.name, report.violations);
        }
    }
}

#[test]
fn a_wall_clock_that_is_set_changes_nothing_for_the_daemon() {
    let calm = for_minutes("flapping", 8);
    let mut calm = Scenario { expect: sim::Expect::default(), ..calm };
    let trace = |scenario: &Scenario| {
        let report = run_stack(scenario, 3, RunOptions::default());
        assert!(report.passed(), "{:?}", report.violations);
        report.trace_hash
    };
    let before = trace(&calm);
    for kind in [sim::FaultKind::ClockAhead, sim::FaultKind::ClockBehind] {
        let like = calm.faults[0].clone();
        calm.faults.push(sim::Fault { kind, group: None, flapping: None, by: None, ..like });
    }
    assert_eq!(trace(&calm), before);
}

/// A seed that broke a rule once.
fn assert_swarm_passes(seed: u64) {
    let report = run(&swarm(seed), seed, RunOptions::default());
    assert!(report.passed(), "{:?}", report.violations);
}

/// Its hosts were polled close together before the base interval was edited, and are afterwards.
#[test]
fn whoever_keeps_the_moments_that_they_had_is_no_herd() {
    assert_swarm_passes(2_488);
}

#[test]
fn one_eager_host_does_not_stretch_an_idle_fleet() {
    assert_swarm_passes(9_605);
}

#[test]
fn an_interval_is_a_share_of_the_base_in_whole_milliseconds_and_stretched_then() {
    assert_swarm_passes(17_731);
}

#[test]
fn a_panic_is_a_finding_with_a_seed_and_a_moment() {
    let scenario = for_minutes("flapping", 8);
    let every = Millis::from_mins(1);
    let report = run_watched(&scenario, 7, RunOptions::default(), every, |_| panic!("a planted panic"));
    let [violation] = &report.violations[..] else { panic!("{:?}", report.violations) };
    assert_eq!((report.seed, report.verdict, violation.rule), (7, "fail", sim::Rule::Panic));
    assert_eq!(violation.detail, "a planted panic");
    assert!(violation.at > pulse::engine::Timestamp::ZERO);
}

#[test]
fn a_run_that_is_recorded_is_the_run_that_is_not() {
    for seed in 1..=20 {
        let scenario = swarm(seed);
        let bare = run(&scenario, seed, RunOptions::default());
        let recorded = run(&scenario, seed, RunOptions { record: true, ..RunOptions::default() });
        assert_eq!(bare.trace_hash, recorded.trace_hash, "seed {seed}");
        assert!(recorded.recording.is_some() && bare.recording.is_none());
    }
}

#[test]
fn both_documented_scenarios_pass_for_many_seeds() {
    for seed in 1..=25 {
        for scenario in [named("integration"), for_minutes("soak", 4)] {
            let report = run(&scenario, seed, RunOptions::default());
            assert!(report.passed(), "{} seed {seed}: {:?}", scenario.name, report.violations);
        }
    }
}

#[test]
fn a_broken_expectation_is_found_and_shrunk_to_a_smaller_world() {
    let mut scenario = for_minutes("mass-outage", 30);
    scenario.expect = sim::Expect { max_queue_depth: Some(0), ..sim::Expect::default() };
    let shrunk = sim::shrink(&scenario, 1).expect("a live queue is never empty");
    let hosts: u32 = shrunk.scenario.hosts.iter().map(|group| group.count).sum();
    assert_eq!(hosts, 1);
    assert!(shrunk.scenario.faults.is_empty());
    assert_eq!(shrunk.violation.rule, sim::Rule::QueueDepth);
}

#[test]
fn a_saved_scenario_reads_back_as_it_was() {
    for seed in 1..=20 {
        let scenario = swarm(seed);
        let text = serde_json::to_string(&scenario).expect("a scenario is serialisable");
        let back: Scenario = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(scenario, back, "seed {seed}");
    }
}

/// `sim compare` demands more, in many more worlds: here chance moves the mean age by more than a tenth of a percent.
#[test]
fn the_default_policy_is_ahead_of_the_classic_rule_at_the_same_number_of_polls() {
    // In so few worlds the gain in mean age is less than what they differ in; `sim compare` plays more of them.
    const CHANCE: f64 = 0.3;
    let result = compare(CompareWorld::Fleet, 12, 1..5);
    let excess = result.reference.polls as f64 / result.default.polls as f64 - 1.0;
    assert!((0.0..0.001).contains(&excess), "the classic rule makes {excess} more polls");
    let gain = result.gain();
    assert!(gain.mean_age > -CHANCE && gain.p99_age > 0.0 && gain.mean_detection > 5.0, "{gain:?}");
}
