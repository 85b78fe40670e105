//! A share of the nightly million, small enough for every change.

use std::collections::BTreeSet;

use fuzz::{Report, break_files, make_calls, mistake_answers};
use pulse::api::ROUTES;

const SEED: u64 = 1;

#[track_caller]
fn assert_clean(report: &Report) {
    assert!(report.is_clean(), "{report}");
    assert!(report.log_bytes > 0, "the log was seen");
}

/// One test, since a process has one panic hook and one log.
#[test]
fn no_hostile_input_panics_breaks_a_call_or_is_told_a_secret() {
    let calls = make_calls(SEED, 12_000);
    assert_clean(&calls);
    assert!(calls.audit_entries > 1_000, "the audit log was seen: {calls}");
    let succeeded: BTreeSet<&str> =
        calls.reached.keys().filter_map(|place| place.rsplit_once(" 20")).map(|(call, _)| call).collect();
    // A channel would send to somebody, so there is none to be tested; and no host tells of a cluster, until answers are
    // mistaken below.
    let asks_others = ["/api/notifications/test", "/api/config/nodes/{key}/cluster"];
    for route in ROUTES.iter().filter(|route| !asks_others.contains(&route.path)) {
        let reached = succeeded.contains(format!("{} {}", route.method, route.path).as_str());
        assert!(reached, "no call of {route:?} succeeded, so its handler was hardly seen");
    }
    assert!(calls.reached.len() > 500, "few pairs of call and status were reached: {:#?}", calls.reached);

    let files = break_files(SEED, 3_000);
    assert_clean(&files);
    assert!(files.reached.len() > 20, "few verdicts were reached: {:#?}", files.reached);

    let answers = mistake_answers(SEED, 3_000);
    assert_clean(&answers);
    assert!(answers.reached.len() > 12, "few outcomes were reached: {:#?}", answers.reached);
}
