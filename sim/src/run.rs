//! One run of a scenario, and what came of it.

use std::collections::BTreeMap;

use pulse::engine::{InstanceKey, InstanceSpec, Millis, Timestamp};
use serde::Serialize;

use crate::freshness::Ages;
use crate::host::Host;
use crate::judge::SOMETIMES;
use crate::operators::Script;
use crate::report::Recording;
use crate::scenario::{Expect, Others, Scenario};
use crate::violation::{Rule, Violation};
use crate::world::{Policy, World};

/// Time for the last penalties to pass, beyond the longest of them.
const GRACE: Millis = Millis::from_mins(2);
/// A row of failures that is this young at its end makes a dead letter earned.
const EARNED_WITHIN: Millis = Millis::from_mins(30);

/// How to run a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Which interval policy the engine has.
    pub policy: Policy,
    /// Keep the trace's lines.
    pub keep_trace: bool,
    /// Keep [`Ages`].
    pub keep_ages: bool,
    /// Keep what [`crate::report::run_page`] shows.
    pub record: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which scenario.
    pub scenario: String,
    /// Which seed.
    pub seed: u64,
    /// How it was driven.
    pub mode: &'static str,
    /// `pass` or `fail`.
    pub verdict: &'static str,
    /// Events of the engine.
    pub events: u64,
    /// Polls started.
    pub polls: u64,
    /// Virtual time.
    pub virtual_seconds: f64,
    /// The trace's hash, in hexadecimal.
    pub trace_hash: String,
    /// What was wrong.
    pub violations: Vec<Violation>,
    /// How often each rare state was reached.
    #[serde(skip)]
    pub sometimes: [u64; SOMETIMES.len()],
    /// How old readings were and how long things stayed unseen, if that was asked for.
    #[serde(skip)]
    pub ages: Option<Ages>,
    /// How often the router answered a call with each status, if there was one.
    #[serde(skip)]
    pub answers: BTreeMap<u16, u64>,
    /// How often each kind of caller came to it.
    #[serde(skip)]
    pub callers: BTreeMap<&'static str, u64>,
    /// How often it did what was asked for, by the action's name in the audit log.
    #[serde(skip)]
    pub done: BTreeMap<String, u64>,
    /// The trace's lines, if they were kept.
    #[serde(skip)]
    pub trace: Vec<String>,
    /// What a page of the run is made of, if it was recorded.
    #[serde(skip)]
    pub recording: Option<Box<Recording>>,
}

impl Report {
    /// Whether every rule held.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs `scenario` with `seed`. The same arguments give the same report.
///
/// ```
/// let scenario = sim::builtin("integration").expect("it is built in");
/// let report = sim::run(&scenario, 1, sim::RunOptions::default());
/// assert!(report.passed(), "{:?}", report.violations);
/// assert_eq!(report.trace_hash, sim::run(&scenario, 1, sim::RunOptions::default()).trace_hash);
/// ```
pub fn run(scenario: &Scenario, seed: u64, options: RunOptions) -> Report {
    run_watched(scenario, seed, options, Millis::MAX, |_| {})
}

/// The same, with somebody who looks on every so often in virtual time, and at the end. Watching changes nothing.
pub fn run_watched(
    scenario: &Scenario,
    seed: u64,
    options: RunOptions,
    every: Millis,
    watch: impl FnMut(Timestamp),
) -> Report {
    run_in(World::new(scenario, seed, options), (scenario, seed, options), every, watch)
}

/// The same with a fleet that begins with `specs`, and operators who ask for exactly what `script` says.
pub(crate) fn run_script(
    scenario: &Scenario,
    seed: u64,
    options: RunOptions,
    specs: &[InstanceSpec],
    script: Script,
) -> Report {
    let specs: BTreeMap<&InstanceKey, &InstanceSpec> = specs.iter().map(|spec| (&spec.key, spec)).collect();
    let mut hosts = Host::all(scenario, seed);
    for host in &mut hosts {
        if let Some(spec) = specs.get(&host.key) {
            host.spec = InstanceSpec::clone(spec);
        }
    }
    let mut world = World::with_hosts(hosts, scenario, seed, options);
    world.follow(script);
    run_in(world, (scenario, seed, options), Millis::MAX, |_| {})
}

fn run_in(
    mut world: World<'_>,
    (scenario, seed, options): (&Scenario, u64, RunOptions),
    every: Millis,
    watch: impl FnMut(Timestamp),
) -> Report {
    let mut ages = None;
    // A panic is a finding like any other: it has a seed, a moment, and a smaller world that panics too.
    let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.run(every, watch);
        ages = options.keep_ages.then(|| world.ages());
        if world.judge.violations.is_empty() {
            expect(scenario, &mut world);
        }
        if scenario.expect.liveness && world.judge.violations.is_empty() {
            liveness(scenario, &mut world);
        }
    }));
    if let Err(panic) = whole {
        let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        world.judge.accuse(Rule::Panic, || words.unwrap_or("a panic without words").to_owned());
    }
    let violations = std::mem::take(&mut world.judge.violations);
    Report {
        scenario: scenario.name.clone(),
        seed,
        mode: "engine",
        verdict: if violations.is_empty() { "pass" } else { "fail" },
        events: world.trace.events(),
        polls: world.polls,
        virtual_seconds: world.now().as_millis() as f64 / 1_000.0,
        trace_hash: format!("{:016x}", world.trace.hash()),
        sometimes: world.judge.sometimes,
        ages,
        answers: BTreeMap::new(),
        callers: BTreeMap::new(),
        done: BTreeMap::new(),
        recording: world.recorder.take().map(|recorder| Box::new(recorder.finish(world.now(), &violations))),
        violations,
        trace: world.trace.into_lines(),
    }
}

/// Holds the end of a run against what the scenario expects.
fn expect(scenario: &Scenario, world: &mut World<'_>) {
    let expect = &scenario.expect;
    let (deepest, last) = (world.deepest_queue, world.queue_depth());
    if let Some(most) = expect.max_queue_depth.filter(|most| deepest > *most) {
        world.judge.accuse(Rule::QueueDepth, || format!("{deepest} at its deepest, {most} are allowed"));
    }
    if let Some(most) = expect.final_queue_depth.filter(|most| last > *most) {
        world.judge.accuse(Rule::QueueDepth, || format!("{last} at the end, {most} are allowed"));
    }
    for host in 0..world.hosts.len() {
        expect_of_host(scenario, expect, world, host);
    }
}

fn expect_of_host(scenario: &Scenario, expect: &Expect, world: &mut World<'_>, host: usize) {
    let now = world.now();
    let key = world.hosts[host].key.clone();
    let group = &scenario.hosts[world.hosts[host].group].group;
    let truth = world.judge.truths[host].clone();
    if let Some(expected) = &expect.dead_letters {
        let must = expected.groups.contains(group);
        let since = Timestamp::from_millis(now.as_millis().saturating_sub(EARNED_WITHIN.get()));
        let threshold = world.settings().dead_letter.after_transient_failures;
        let may = expected.others == Others::Earned && truth.fails_in_a_row(threshold, since);
        match truth.dead {
            None if must => world.judge.accuse(Rule::DeadLetters, || format!("{key} is not dead-lettered")),
            Some(_) if !must && !may => {
                world.judge.accuse(Rule::DeadLetters, || format!("{key} is dead-lettered, which it did not earn"));
            }
            _ => {}
        }
    }
    let Some(wanted) = expect.groups.get(group) else { return };
    let mut wrong = |detail: String| world.judge.accuse(Rule::Group, || format!("{key}: {detail}"));
    if let Some(least) = wanted.min_successes.filter(|least| truth.successes_after_warm_up < *least) {
        wrong(format!("{} successes after the warm-up, expected {least}", truth.successes_after_warm_up));
    }
    if let Some(least) = wanted.min_failures.filter(|least| truth.failed < *least) {
        wrong(format!("{} failures, expected {least}", truth.failed));
    }
    if wanted.recovers && truth.recoveries == 0 {
        wrong("it never recovered".to_owned());
    }
    let age = truth.last_success.map_or(Millis::MAX, |at| now - at);
    if let Some(most) = wanted.max_age.filter(|most| age > most.0 && truth.dead.is_none()) {
        wrong(format!("the last success is {age} old, {most} are allowed"));
    }
}

/// The longest that a run of the scenario takes, with the time for liveness.
pub(crate) fn longest_run(scenario: &Scenario) -> Millis {
    let liveness = if scenario.expect.liveness { longest_penalty(scenario) } else { Millis::ZERO };
    scenario.length() + liveness
}

/// After the last fault everybody must be well within this time: the longest penalty, an interval, and its turn.
pub(crate) fn longest_penalty(scenario: &Scenario) -> Millis {
    let settings = scenario.valid_settings();
    let rules = settings.dead_letter;
    let penalties =
        [rules.permanent_recheck, rules.transient_recheck_max, settings.backoff.max, settings.breaker.open_max];
    penalties.into_iter().max().unwrap_or_default() + oldest_age(scenario)
}

/// The oldest that a reading may be in a calm world: two intervals, and two rounds of a fleet that is short of slots.
fn oldest_age(scenario: &Scenario) -> Millis {
    let settings = scenario.valid_settings();
    let slot_time: u64 =
        scenario.hosts.iter().map(|group| u64::from(group.count) * group.usual_latency().0.get()).sum();
    let on_one_machine =
        scenario.hosts.iter().map(|group| u64::from(group.per_machine) * group.usual_latency().0.get()).max();
    let round = (slot_time / u64::from(settings.max_in_flight))
        .max(on_one_machine.unwrap_or_default() / u64::from(settings.max_in_flight_per_host));
    let fixed = scenario.hosts.iter().filter_map(|group| group.interval).map(|span| span.0).max();
    let types = settings.types.iter().filter_map(|(_, its)| its.interval).max();
    let interval = settings.max_interval.max(fixed.unwrap_or_default()).max(types.unwrap_or_default());
    interval + interval + Millis::new(round * 2) + GRACE
}

/// Everything answers from now on: within the longest penalty everybody must be well.
fn liveness(scenario: &Scenario, world: &mut World<'_>) {
    let longest = longest_penalty(scenario);
    let oldest = oldest_age(scenario);
    world.calm_down(longest);
    let now = world.now();
    for host in 0..world.hosts.len() {
        let truth = world.judge.truths[host].clone();
        let key = world.hosts[host].key.clone();
        let fresh = truth.last_success.is_some_and(|at| now - at <= oldest);
        if truth.dead.is_some() || truth.failures > 0 || !fresh || !truth.present || truth.paused {
            let dead = truth.dead;
            let detail = || format!("{key} is not well {longest} after the last fault: {dead:?}, fresh {fresh}");
            world.judge.accuse(Rule::Liveness, detail);
        }
    }
}
