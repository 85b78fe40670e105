//! The real router in the simulated world, called by operators of every kind while its audit database fails.

use std::collections::BTreeMap;

use sim::{RunOptions, run_router, swarm};

#[test]
fn no_operator_oversteps_their_role_and_each_call_that_is_carried_out_is_audited_once() {
    let (mut answers, mut callers, mut done) = (BTreeMap::new(), BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    for seed in 1..=24 {
        let report = run_router(&swarm(seed), seed, RunOptions::default());
        assert!(report.passed(), "`sim run swarm --mode router --seed {seed}`: {:#?}", report.violations);
        for (status, count) in report.answers {
            *answers.entry(status).or_insert(0) += count;
        }
        for (kind, count) in report.callers {
            *callers.entry(kind).or_default() += count;
        }
        for (action, count) in report.done {
            *done.entry(action).or_default() += count;
        }
    }
    for status in [200, 201, 401, 403, 404, 409, 412, 429, 503] {
        assert!(answers.get(&status).is_some_and(|count| *count > 4), "{status} was hardly answered: {answers:?}");
    }
    assert!(callers.len() == 13 && callers.values().all(|count| *count > 4), "somebody hardly came: {callers:?}");
    for action in ["node.add", "node.replace", "node.remove", "settings.update", "instance.pause"] {
        assert!(done.get(action).is_some_and(|count| *count > 20), "{action} was hardly done: {done:?}");
    }
}

#[test]
fn one_seed_is_one_run_through_the_router_too() {
    let run = || {
        let report = run_router(&swarm(3), 3, RunOptions::default());
        (report.trace_hash, report.answers, report.done)
    };
    assert_eq!(run(), run());
}
