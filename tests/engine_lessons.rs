//! The faults that schedulers of this kind had in production, one test each; the numbers are those of the list that
//! the project was founded on (`docs/lessons.md`).

mod support;

use pulse::engine::{
    BreakerState, Command, CommandError, DeadLetterReason, Failure, FailureKind, Input, InstanceEvent, InstanceSpec,
    InstanceType, IntervalReason, Millis, Outcome, Place, Reply, Retry, RetryFilter, RetryResult, Score, SettingsDraft,
    Timestamp,
};
use support::{Fleet, fail, ok, secs};

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn lesson_06_a_hung_call_holds_its_own_slot_until_its_timeout_and_nobody_elses_time() {
    let draft = SettingsDraft { max_in_flight: 4, ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |key, _| if key.starts_with("pve::hang") { None } else { ok(1) });
    let hanging: Vec<String> = (0..10).map(|n| format!("pve::hang-{n}")).collect();
    let mut keys: Vec<&str> = hanging.iter().map(String::as_str).collect();
    keys.push("pve::fine");
    fleet.watch(&keys);
    fleet.run(Millis::from_mins(30));
    let late = fleet.gaps("pve::fine").into_iter().skip(20).fold(0.0, f64::max);
    assert!(late < 15.0, "the healthy one waited {late} s once everybody else was known to hang");
    assert!(fleet.events("pve::hang-0").iter().any(|event| matches!(
        event,
        InstanceEvent::PollFailed { failure, .. } if failure.kind == FailureKind::Timeout
    )));
}

#[test]
fn lesson_08_planning_is_idempotent_and_anchored_on_what_happened() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&["pve::a"]);
    for _ in 0..600 {
        fleet.run(secs(1));
        fleet.settings(SettingsDraft::default());
        fleet.watch(&["pve::a"]);
    }
    let gaps = fleet.gaps("pve::a");
    assert!(gaps.len() >= 40, "{} polls in ten minutes", gaps.len() + 1);
    assert!(gaps[..25].iter().all(|gap| (9.5..=10.5).contains(gap)), "{gaps:?}");
}

#[test]
fn lesson_09_an_instance_in_flight_or_dead_lettered_is_not_queued_again() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |key, _| match key {
        "pve::dead" => fail(FailureKind::Unauthorized),
        _ => None,
    });
    fleet.watch(&["pve::dead", "pve::slow"]);
    fleet.run(secs(11));
    let starts = fleet.starts.clone();
    assert_eq!((starts["pve::dead"].len(), starts["pve::slow"].len()), (1, 1));
    for _ in 0..50 {
        fleet.watch(&["pve::dead", "pve::slow"]);
        fleet.settings(SettingsDraft::default());
        fleet.input(Input::Tick);
    }
    assert_eq!(fleet.starts, starts, "one poll at once, and the dead-letter queue is not bypassed");
    assert_eq!(fleet.health("pve::dead").place, Place::DeadLettered);
}

#[test]
fn lesson_10_the_median_gap_of_a_healthy_instance_is_the_base_interval() {
    let mut reading = 0;
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, at| {
        // Something changes about every four minutes, as in a cluster that is used.
        reading = at.as_millis() / 240_000;
        ok(reading)
    });
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(120));
    let median = median(fleet.gaps("pve::a"));
    assert!((9.5..=10.5).contains(&median), "{median}");
}

#[test]
fn lesson_11_one_never_polled_is_the_stalest_and_comes_first() {
    let draft = SettingsDraft { max_in_flight: 1, ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |_, _| Some((secs(2), ok(1).unwrap().1)));
    let old: Vec<String> = (0..50).map(|n| format!("pve::old-{n:02}")).collect();
    let mut keys: Vec<&str> = old.iter().map(String::as_str).collect();
    fleet.watch(&keys);
    fleet.run(Millis::from_mins(5));
    keys.push("pve::new");
    fleet.watch(&keys);
    assert_eq!(fleet.health("pve::new").staleness, Score::ONE);
    let added = fleet.now;
    fleet.run(secs(14));
    let first = fleet.starts["pve::new"][0];
    assert!(first - added <= secs(12), "polled after {} in a fleet with a queue of minutes", first - added);
}

#[test]
fn lesson_12_queue_depth_is_no_load() {
    let keys: Vec<String> = (0..5_000).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&keys);
    fleet.run(secs(120));
    assert_eq!(fleet.engine.health(fleet.now).load.stretch, 1.0);
    let gaps = fleet.gaps("pve::17");
    assert!(gaps.iter().all(|gap| (9.5..=10.5).contains(gap)), "{gaps:?}");
}

#[test]
fn lesson_12_slots_in_use_stretch_the_whole_fleet_in_proportion() {
    // 100 instances × 2 s every 10 s need 20 slots; there are 10.
    let draft = SettingsDraft { max_in_flight: 10, ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |_, _| ok(1).map(|(_, outcome)| (secs(2), outcome)));
    let spec = |n| InstanceSpec { interval: Some(secs(10)), ..InstanceSpec::new(format!("pve::{n}").parse().unwrap()) };
    fleet.inventory((0..100).map(spec).collect());
    fleet.run(Millis::from_mins(30));
    let health = fleet.engine.health(fleet.now);
    assert!((2.3..2.8).contains(&health.load.stretch), "20 slots against 80 % of 10: {}", health.load.stretch);
    assert!(health.load.lag < secs(2), "{} of lag after the stretch", health.load.lag);
    let medians: Vec<f64> = ["pve::3", "pve::50", "pve::97"].map(|key| median(fleet.gaps(key)[20..].to_vec())).into();
    assert!(medians.iter().all(|gap| (gap / medians[0] - 1.0).abs() < 0.3), "{medians:?}");
}

#[test]
fn lesson_13_a_changed_reading_is_seen_and_polled_sooner() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, at| ok(at.as_millis() / 300_000));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(10));
    let events = fleet.events("pve::a");
    let change = events.iter().position(|event| matches!(event, InstanceEvent::PollSucceeded { changed: true, .. }));
    let next = &events[change.expect("the reading changed after five minutes") + 1];
    assert!(
        matches!(next, InstanceEvent::Scheduled { interval, reason: IntervalReason::Changing, .. } if *interval <= Millis::new(7_875)),
        "{next:?}"
    );
}

#[test]
fn lesson_14_backoff_decides_for_failures_and_a_failing_host_is_polled_ever_slower() {
    let mut draft = SettingsDraft::default();
    draft.breaker.failure_threshold = 1_000;
    draft.dead_letter.after_transient_failures = 1_000;
    let mut fleet = Fleet::new(draft, |_, _| fail(FailureKind::Refused));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(60));
    let gaps = fleet.gaps("pve::a");
    for (nominal, gap) in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0].into_iter().zip(&gaps) {
        let (low, high) = (nominal * 0.8, f64::min(nominal * 1.2, 300.0) + 0.2);
        assert!((low..=high).contains(gap), "{gap} s where {nominal} s ± 20 % are due: {gaps:?}");
    }
}

#[test]
fn lesson_15_first_polls_are_spread_over_the_base_interval() {
    let keys: Vec<String> = (0..1_000).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&keys);
    fleet.run(secs(11));
    let mut per_second = [0; 10];
    for starts in fleet.starts.values() {
        per_second[(starts[0].as_millis() / 1_000).min(9) as usize] += 1;
    }
    assert!(per_second.iter().all(|count| (60..=140).contains(count)), "{per_second:?}");
}

#[test]
fn lesson_15_jitter_stays_inside_the_bounds_without_meeting_there() {
    let draft = SettingsDraft { base_interval: secs(5), ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |_, at| ok(at.as_millis() / 60_000));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(60));
    let gaps = fleet.gaps("pve::a");
    assert!(gaps.iter().all(|gap| (5.0..=5.25).contains(gap)), "{gaps:?}");
    let at_the_bound = gaps.iter().filter(|gap| **gap == 5.0).count();
    assert!(at_the_bound * 20 < gaps.len(), "{at_the_bound} of {} at the minimum", gaps.len());
}

#[test]
fn lesson_15_after_an_outage_of_many_recovery_is_spread() {
    let keys: Vec<String> = (0..500).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (from, to) = (Timestamp::from_millis(60_000), Timestamp::from_millis(90_000));
    let mut fleet =
        Fleet::new(
            SettingsDraft::default(),
            |_, at| {
                if (from..to).contains(&at) { fail(FailureKind::Refused) } else { ok(1) }
            },
        );
    fleet.watch(&keys);
    fleet.run(Millis::from_mins(10));
    let end = fleet.now.as_millis() - 20_000;
    let mut per_second = [0; 20];
    for at in fleet.starts.values().flatten().map(|at| at.as_millis()).filter(|at| *at >= end) {
        per_second[((at - end) / 1_000).min(19) as usize] += 1;
    }
    let most = per_second.iter().max().copied().unwrap_or(0);
    assert!(most <= 90, "50 a second are the mean: {per_second:?}");
}

#[test]
fn lesson_16_slots_are_a_setting_and_not_a_census() {
    let slow = |_: &str, _| ok(1).map(|(_, outcome)| (secs(9), outcome));
    let mut fleet = Fleet::new(SettingsDraft { max_in_flight: 2, ..SettingsDraft::default() }, slow);
    let keys: Vec<String> = (0..20).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    fleet.watch(&keys);
    fleet.run(Millis::from_mins(3));
    assert_eq!(fleet.engine.in_flight(), 2);
    fleet.settings(SettingsDraft { max_in_flight: 7, ..SettingsDraft::default() });
    fleet.run(Millis::new(500));
    assert!((3..=7).contains(&fleet.engine.in_flight()), "{}", fleet.engine.in_flight());
}

#[test]
fn lesson_17_an_interval_of_a_type_and_one_of_an_instance_are_what_is_used() {
    let mut draft = SettingsDraft::default();
    draft.types.pbs.interval = Some(secs(30));
    let mut fleet = Fleet::new(draft, |_, _| ok(1));
    let mut fixed = InstanceSpec::new("pve::fixed".parse().unwrap());
    fixed.interval = Some(secs(45));
    let adaptive = InstanceSpec::new("pve::adaptive".parse().unwrap());
    let typed = InstanceSpec::new("pbs::typed".parse().unwrap());
    let check = InstanceSpec::new("http::check".parse().unwrap());
    fleet.inventory(vec![fixed, adaptive, typed, check]);
    fleet.run(Millis::from_mins(4));
    for (key, nominal) in [("pve::fixed", 45.0), ("pve::adaptive", 10.0), ("pbs::typed", 30.0), ("http::check", 60.0)] {
        let gaps = fleet.gaps(key);
        assert!(gaps.iter().all(|gap| (nominal * 0.95..=nominal * 1.05).contains(gap)), "{key}: {gaps:?}");
        assert!(!gaps.is_empty());
    }
}

#[test]
fn lesson_18_late_is_relative_to_the_plan() {
    let mut healthy = true;
    let mut slow = InstanceSpec::new("pve::slow".parse().unwrap());
    slow.interval = Some(Millis::from_mins(60));
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, at| {
        healthy = at < Timestamp::from_millis(100_000);
        if healthy { ok(1) } else { None }
    });
    fleet.inventory(vec![slow, InstanceSpec::new("pve::fast".parse().unwrap())]);
    fleet.run(secs(100));
    assert!(!fleet.health("pve::fast").late);
    fleet.run(secs(60));
    assert!(fleet.health("pve::fast").late, "no success for six intervals");
    assert!(!fleet.health("pve::slow").late, "a long interval is no alarm by itself");
}

#[test]
fn lesson_19_breaker_delays_double_from_five_seconds_to_five_minutes() {
    let mut draft = SettingsDraft::default();
    draft.dead_letter.after_transient_failures = 1_000;
    let mut fleet = Fleet::new(draft, |_, _| fail(FailureKind::ServerError));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(180));
    let gaps = fleet.gaps("pve::a");
    let open: Vec<u64> = gaps[2..].iter().map(|gap| (gap - 0.1).round() as u64).collect();
    assert_eq!(open[..9], [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert!(open[9..].iter().all(|gap| *gap == 300), "protected for ever: {open:?}");
}

#[test]
fn lesson_20_success_in_between_starts_the_failure_count_anew() {
    let mut poll = 0;
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| {
        poll += 1;
        if poll % 3 == 0 { ok(1) } else { fail(FailureKind::Timeout) }
    });
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(60));
    let moved = fleet.events("pve::a").iter().any(|event| matches!(event, InstanceEvent::BreakerMoved { .. }));
    assert!(!moved, "two in a row never open it, however many there are");
}

#[test]
fn lesson_21_an_open_breaker_is_probed_exactly_at_retry_at_and_waiting_is_no_failure() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Reset));
    fleet.watch(&["pve::a"]);
    fleet.run(secs(30));
    let events = fleet.events("pve::a");
    let retry_at = events.iter().find_map(|event| match event {
        InstanceEvent::BreakerMoved { to: BreakerState::Open, retry_at, failures, .. } => Some((*retry_at, *failures)),
        _ => None,
    });
    let (retry_at, failures) = retry_at.expect("three failures opened it");
    assert_eq!(failures, 3);
    assert_eq!(fleet.starts["pve::a"].get(3).copied(), retry_at);
}

#[test]
fn lesson_22_dead_letters_are_rechecked_by_a_real_poll_and_success_clears_them() {
    let mended = Timestamp::from_millis(3_700_000);
    let mut fleet =
        Fleet::new(SettingsDraft::default(), |_, at| if at < mended { fail(FailureKind::Forbidden) } else { ok(1) });
    fleet.watch(&["pve::a"]);
    fleet.run(secs(20));
    let entry = fleet.health("pve::a").dead_letter.expect("one permanent failure is enough");
    assert_eq!(entry.reason, DeadLetterReason::PermanentFailure);
    fleet.run(Millis::from_mins(120));
    let gaps = fleet.gaps("pve::a");
    assert!(gaps[..2].iter().all(|gap| (1_710.0..=1_801.0).contains(gap)), "every 30 minutes: {gaps:?}");
    let health = fleet.health("pve::a");
    assert!(health.dead_letter.is_none() && health.last_error.is_none());
    assert_eq!(health.breaker.map(|breaker| breaker.state), Some(BreakerState::Closed));
    assert_eq!(health.place, Place::Queued);
}

#[test]
fn lesson_22_transient_dead_letters_are_rechecked_after_five_minutes_doubling_to_thirty() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Timeout));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(240));
    let health = fleet.health("pve::a");
    let entry = health.dead_letter.expect("five in a row");
    assert_eq!(entry.reason, DeadLetterReason::MaxRetryAttempts);
    let rechecks: Vec<f64> = fleet.gaps("pve::a")[4..].to_vec();
    for (minutes, gap) in [5.0, 10.0, 20.0, 30.0, 30.0].into_iter().zip(&rechecks) {
        assert!((minutes * 57.0 - 1.0..=minutes * 60.0 + 1.0).contains(gap), "{minutes} min: {rechecks:?}");
    }
}

#[test]
fn lesson_23_thresholds_are_the_documented_ones_whatever_the_maximum_interval() {
    for max_interval in [secs(10), secs(30), Millis::from_mins(5), Millis::from_mins(60)] {
        let mut fleet =
            Fleet::new(SettingsDraft { max_interval, ..SettingsDraft::default() }, |_, _| fail(FailureKind::Dns));
        fleet.watch(&["pve::a"]);
        fleet.run(Millis::from_mins(3));
        let events = fleet.events("pve::a");
        let opened = events.iter().find_map(|event| match event {
            InstanceEvent::BreakerMoved { to: BreakerState::Open, failures, .. } => Some(*failures),
            _ => None,
        });
        let dead = events.iter().find_map(|event| match event {
            InstanceEvent::DeadLettered { failures, .. } => Some(*failures),
            _ => None,
        });
        assert_eq!((opened, dead), (Some(3), Some(5)), "max interval {max_interval}");
    }
}

#[test]
fn lesson_24_staleness_grows_while_nothing_ends() {
    let mut fleet =
        Fleet::new(SettingsDraft::default(), |_, at| if at < Timestamp::from_millis(30_000) { ok(1) } else { None });
    fleet.watch(&["pve::a"]);
    fleet.run(secs(30));
    let before = fleet.health("pve::a").staleness;
    let polls = fleet.starts["pve::a"].len();
    fleet.run(secs(9));
    assert!(fleet.starts["pve::a"].len() <= polls + 1);
    assert!(fleet.health("pve::a").staleness > before, "computed when read");
}

#[test]
fn lesson_28_editing_one_instance_leaves_the_breakers_of_the_others_alone() {
    let mut draft = SettingsDraft::default();
    draft.breaker.failure_threshold = 1;
    draft.breaker.open_initial = draft.breaker.open_max;
    let mut fleet = Fleet::new(draft, |_, _| fail(FailureKind::Refused));
    let spec = |name: &str, revision| InstanceSpec { revision, ..InstanceSpec::new(name.parse().unwrap()) };
    fleet.inventory(vec![spec("pve::a", 1), spec("pve::b", 1)]);
    fleet.run(secs(11));
    let open = |fleet: &Fleet, key| fleet.health(key).breaker.map(|breaker| breaker.state) == Some(BreakerState::Open);
    assert!(open(&fleet, "pve::a") && open(&fleet, "pve::b"));
    fleet.inventory(vec![spec("pve::a", 1), spec("pve::b", 2), spec("pve::c", 1)]);
    assert!(open(&fleet, "pve::a"));
    assert_eq!(fleet.health("pve::b").consecutive_failures, 0, "the edited one starts afresh");
}

#[test]
fn retry_after_is_honoured_up_to_the_maximum() {
    let mut asked = [secs(60), Millis::from_mins(60)].into_iter();
    let mut fleet = Fleet::new(SettingsDraft::default(), move |_, _| {
        let retry_after = asked.next();
        let failure = Failure { retry_after, ..Failure::new(FailureKind::RateLimited, "slow down") };
        Some((Millis::new(100), Outcome::Failure(failure)))
    });
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(10));
    let gaps = fleet.gaps("pve::a");
    assert_eq!((gaps[0].round(), gaps[1].round()), (60.0, 300.0), "{gaps:?}");
}

#[test]
fn a_paused_instance_is_silent_and_starts_afresh_when_enabled() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Unauthorized));
    fleet.watch(&["pve::a"]);
    fleet.run(secs(20));
    let key: pulse::engine::InstanceKey = "pve::a".parse().unwrap();
    let removed = fleet.command(Command::RemoveDeadLetter { key: key.clone() });
    assert_eq!(removed, Ok(Reply::DeadLetterRemoved { reason: DeadLetterReason::PermanentFailure }));
    fleet.run(Millis::from_mins(120));
    assert_eq!(fleet.starts["pve::a"].len(), 1);
    fleet.watch(&["pve::a"]);
    assert_eq!(fleet.health("pve::a").place, Place::Paused, "the same inventory again enables nobody");
    assert_eq!(fleet.command(Command::PollNow { key: key.clone() }), Err(CommandError::Paused));
    assert_eq!(fleet.command(Command::SetEnabled { key, enabled: true }), Ok(Reply::EnabledSet { changed: true }));
    fleet.run(secs(11));
    assert_eq!(fleet.starts["pve::a"].len(), 2);
}

#[test]
fn whoever_was_paused_and_is_polled_again_because_of_an_edit_is_told_to_resume() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    let spec = |revision| InstanceSpec { revision, ..InstanceSpec::new("pve::a".parse().unwrap()) };
    fleet.inventory(vec![spec(1)]);
    let key: pulse::engine::InstanceKey = "pve::a".parse().unwrap();
    fleet.command(Command::SetEnabled { key, enabled: false }).unwrap();
    fleet.inventory(vec![spec(2)]);
    assert_eq!(fleet.health("pve::a").place, Place::Queued);
    let events = fleet.events("pve::a");
    assert!(events.contains(&InstanceEvent::Resumed), "{events:?}");
    fleet.inventory(vec![InstanceSpec { enabled: false, ..spec(3) }]);
    assert_eq!(fleet.events("pve::a").last(), Some(&InstanceEvent::Paused));
}

#[test]
fn hosts_that_fail_slowly_neither_stretch_nor_starve_the_healthy_ones() {
    let draft = SettingsDraft { max_in_flight: 16, ..SettingsDraft::default() };
    let broken = || fail(FailureKind::Timeout).map(|(_, outcome)| (Millis::new(9_900), outcome));
    let mut fleet = Fleet::new(draft, |key, _| if key.starts_with("pve::slow") { broken() } else { ok(1) });
    let healthy: Vec<String> = (0..20).map(|n| format!("pve::healthy-{n}")).collect();
    let slow: Vec<String> = (0..64).map(|n| format!("pve::slow-{n}")).collect();
    fleet.watch(&healthy.iter().map(String::as_str).collect::<Vec<_>>());
    fleet.run(Millis::from_mins(2));
    fleet.watch(&healthy.iter().chain(&slow).map(String::as_str).collect::<Vec<_>>());
    fleet.run(Millis::from_mins(30));
    assert_eq!(fleet.engine.health(fleet.now).load.stretch, 1.0);
    let longest = healthy.iter().flat_map(|key| fleet.gaps(key)).fold(0.0, f64::max);
    assert!(longest < 15.0, "a healthy one waited {longest} s, and quiet ones wait 11 s");
}

#[test]
fn many_hanging_newcomers_leave_slots_to_those_that_are_known() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |key, at| match key.starts_with("pve::new") {
        true => None,
        false => ok(at.as_millis() / 30_000),
    });
    let known: Vec<String> = (0..20).map(|n| format!("pve::known-{n}")).collect();
    let new: Vec<String> = (0..3_000).map(|n| format!("pve::new-{n}")).collect();
    fleet.watch(&known.iter().map(String::as_str).collect::<Vec<_>>());
    fleet.run(Millis::from_mins(2));
    fleet.watch(&known.iter().chain(&new).map(String::as_str).collect::<Vec<_>>());
    fleet.run(Millis::from_mins(5));
    let longest = known.iter().flat_map(|key| fleet.gaps(key)).fold(0.0, f64::max);
    assert!(longest < 25.0, "a known one waited {longest} s");
}

#[test]
fn slots_in_use_are_measured_to_the_end_of_each_poll() {
    let draft = SettingsDraft { max_in_flight: 1, ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |_, at| Some((secs(5), ok(at.as_millis() / 20_000).unwrap().1)));
    let spec = InstanceSpec { interval: Some(secs(10)), ..InstanceSpec::new("pve::a".parse().unwrap()) };
    fleet.inventory(vec![spec]);
    fleet.run(Millis::from_mins(10));
    let used = fleet.engine.health(fleet.now).load.slots_used;
    assert!((0.4..0.6).contains(&used), "five seconds in ten: {used}");
}

#[test]
fn one_that_is_paused_while_its_host_lets_it_through_passes_its_turn_on() {
    let draft = SettingsDraft { max_in_flight_per_host: 1, ..SettingsDraft::default() };
    let mut fleet = Fleet::new(draft, |_, _| None);
    let spec = |name: &str| InstanceSpec { host: "shared".into(), ..InstanceSpec::new(name.parse().unwrap()) };
    fleet.inventory(vec![spec("pve::a"), spec("pve::b"), spec("pve::c")]);
    fleet.run(secs(10));
    let (waiting, running): (Vec<&str>, Vec<&str>) =
        ["pve::a", "pve::b", "pve::c"].into_iter().partition(|key| fleet.health(key).place == Place::Queued);
    let pause = |fleet: &mut Fleet, key: &str| {
        fleet.command(Command::SetEnabled { key: key.parse().unwrap(), enabled: false }).unwrap();
    };
    pause(&mut fleet, running[0]);
    pause(&mut fleet, waiting[0]);
    fleet.run(secs(1));
    assert_eq!(fleet.health(waiting[1]).place, Place::InFlight);
}

#[test]
fn a_setting_that_has_nothing_to_do_with_intervals_leaves_the_rhythm_alone() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(90));
    let before = fleet.health("pve::a");
    let mut draft = SettingsDraft::default();
    draft.dead_letter.permanent_recheck = Millis::from_mins(10);
    fleet.settings(draft);
    let after = fleet.health("pve::a");
    assert_eq!((before.due, before.interval), (after.due, after.interval), "it has proven quiet");
}

#[test]
fn a_check_that_is_down_follows_its_own_interval_at_once() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Internal));
    let spec = |secs| InstanceSpec { interval: Some(secs), ..InstanceSpec::new("tcp::db".parse().unwrap()) };
    fleet.inventory(vec![spec(Millis::from_mins(4))]);
    fleet.run(secs(70));
    fleet.inventory(vec![spec(secs(10))]);
    let due = fleet.health("tcp::db").due.unwrap();
    assert!(due - fleet.now <= secs(11), "{}", due - fleet.now);
}

#[test]
fn one_that_was_paused_is_not_late_for_the_time_of_its_pause() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&["pve::a"]);
    fleet.run(secs(15));
    let set = |enabled| Command::SetEnabled { key: "pve::a".parse().unwrap(), enabled };
    fleet.command(set(false)).unwrap();
    fleet.run(Millis::from_mins(60));
    fleet.command(set(true)).unwrap();
    assert!(!fleet.health("pve::a").late);
}

#[test]
fn retry_after_holds_for_dead_letters_too() {
    let mut draft = SettingsDraft::default();
    draft.dead_letter.transient_recheck_initial = secs(60);
    let mut fleet = Fleet::new(draft, |_, _| {
        let failure = Failure { retry_after: Some(secs(300)), ..Failure::new(FailureKind::RateLimited, "slow down") };
        Some((Millis::new(100), Outcome::Failure(failure)))
    });
    fleet.watch(&["pve::a"]);
    fleet.run(Millis::from_mins(40));
    let gaps = fleet.gaps("pve::a");
    assert!(gaps.iter().all(|gap| *gap >= 300.0), "{gaps:?}");
}

#[test]
fn resetting_a_breaker_closes_it_and_polls_at_once() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Refused));
    fleet.watch(&["pve::a"]);
    fleet.run(secs(24));
    let key: pulse::engine::InstanceKey = "pve::a".parse().unwrap();
    assert_eq!(fleet.command(Command::PollNow { key: key.clone() }), Err(CommandError::BreakerOpen));
    assert_eq!(
        fleet.command(Command::ResetBreaker { key: key.clone() }),
        Ok(Reply::BreakerReset { previous: BreakerState::Open })
    );
    let polls = fleet.starts["pve::a"].len();
    fleet.run(Millis::new(5));
    assert_eq!(fleet.starts["pve::a"].len(), polls + 1);
    let unknown = "pve::nobody".parse().unwrap();
    assert_eq!(fleet.command(Command::ResetBreaker { key: unknown }), Err(CommandError::UnknownInstance));
}

#[test]
fn retrying_all_dead_letters_spreads_them() {
    let keys: Vec<String> = (0..1_000).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mended = Timestamp::from_millis(60_000);
    let mut fleet =
        Fleet::new(SettingsDraft::default(), |_, at| if at < mended { fail(FailureKind::NotFound) } else { ok(1) });
    fleet.watch(&keys);
    fleet.run(secs(60));
    let retry_all = Command::RetryDeadLetters { filter: RetryFilter::default(), dry_run: false };
    let Ok(Reply::RetriesScheduled { retries }) = fleet.command(retry_all) else {
        panic!("the retry of all is never refused");
    };
    assert_eq!(retries.len(), 1_000);
    fleet.run(secs(20));
    let mut per_second = [0; 20];
    for at in fleet.starts.values().filter_map(|starts| starts.get(1)) {
        per_second[((at.as_millis() - 60_000) / 1_000).min(19) as usize] += 1;
    }
    assert!(per_second.iter().all(|count| *count <= 70), "{per_second:?}");
    assert_eq!(per_second.iter().sum::<i32>(), 1_000);
}

#[test]
fn switching_adaptive_polling_off_and_on_loses_and_doubles_no_poll() {
    let keys: Vec<String> = (0..200).map(|n| format!("pve::{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| ok(1));
    fleet.watch(&keys);
    for round in 0..30 {
        fleet.run(secs(7));
        fleet.settings(SettingsDraft { adaptive: round % 2 == 0, ..SettingsDraft::default() });
    }
    for key in &keys {
        let gaps = fleet.gaps(key);
        assert!(gaps.iter().all(|gap| (9.5..=10.5).contains(gap)), "{key}: {gaps:?}");
    }
}

#[test]
fn an_availability_check_has_no_breaker_and_goes_on_at_its_interval() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |_, _| fail(FailureKind::Internal));
    fleet.watch(&["tcp::db"]);
    fleet.run(Millis::from_mins(20));
    let gaps = fleet.gaps("tcp::db");
    assert!(gaps.len() >= 18 && gaps.iter().all(|gap| (57.0..=63.1).contains(gap)), "{gaps:?}");
    let health = fleet.health("tcp::db");
    assert!(health.breaker.is_none() && health.dead_letter.is_none());
    let key = "tcp::db".parse().unwrap();
    assert_eq!(fleet.command(Command::ResetBreaker { key }), Err(CommandError::NoBreaker));
}

#[test]
fn one_host_takes_no_more_polls_at_once_than_its_cap() {
    let mut fleet = Fleet::new(SettingsDraft { max_in_flight_per_host: 2, ..SettingsDraft::default() }, |_, _| None);
    let spec = |n: u32, host: &str| InstanceSpec {
        host: host.into(),
        ..InstanceSpec::new(format!("pve::{host}-{n}").parse().unwrap())
    };
    fleet.inventory((0..8).map(|n| spec(n, "busy")).chain([spec(0, "calm")]).collect());
    fleet.run(secs(9));
    assert!(fleet.engine.in_flight() <= 3, "{}", fleet.engine.in_flight());
    fleet.run(Millis::from_mins(2));
    assert!((0..8).all(|n| fleet.starts.contains_key(&format!("pve::busy-{n}"))), "everybody gets a turn");
}

#[test]
fn a_retry_of_many_takes_those_that_its_filter_lets_through_and_a_dry_run_changes_nothing() {
    let mut fleet = Fleet::new(SettingsDraft::default(), |key, _| {
        fail(if key == "pve::gone" { FailureKind::NotFound } else { FailureKind::Refused })
    });
    fleet.watch(&["pve::gone", "pbs::down"]);
    fleet.run(secs(200));
    let mut retried = |filter: RetryFilter, dry_run| -> Vec<(String, bool)> {
        let Ok(Reply::RetriesScheduled { retries }) = fleet.command(Command::RetryDeadLetters { filter, dry_run })
        else {
            panic!("a retry of many is never refused");
        };
        let would = |retry: Retry| (retry.key.to_string(), retry.result == RetryResult::WouldRetry);
        retries.into_iter().map(would).collect()
    };
    let named = |keys: &[&str]| keys.iter().map(|key| key.parse().unwrap()).collect();
    let all = RetryFilter::default();
    let both = ["pbs::down", "pve::gone"];
    assert_eq!(retried(all.clone(), true), both.map(|key| (key.to_owned(), true)));
    for (filter, keys) in [
        (RetryFilter { kind: Some(InstanceType::Pve), ..all.clone() }, &both[1..]),
        (RetryFilter { reason: Some(DeadLetterReason::MaxRetryAttempts), ..all.clone() }, &both[..1]),
        (RetryFilter { older_than: Some(secs(3_600)), ..all.clone() }, &[]),
        (RetryFilter { older_than: Some(secs(1)), ..all.clone() }, &both[..]),
        (RetryFilter { keys: Some(named(&["pve::gone", "pve::nobody"])), ..all.clone() }, &both[1..]),
        (RetryFilter { keys: Some(named(&[])), ..all }, &[]),
    ] {
        let keys: Vec<_> = keys.iter().map(|key| (String::from(*key), false)).collect();
        assert_eq!(retried(filter.clone(), false), keys, "{filter:?}");
    }
}

/// When instances of one machine (`pve::a` to `pve::d`) and another one (`pve::z`) are polled.
fn on_one_machine<'a>(draft: SettingsDraft, answer: impl FnMut(&str, Timestamp) -> support::Answer + 'a) -> Fleet<'a> {
    let mut fleet = Fleet::new(draft, answer);
    let spec = |(key, host): (&str, &str)| InstanceSpec {
        host: host.into(),
        ..InstanceSpec::new(key.parse().expect("the key is well formed"))
    };
    let keys = [("pve::a", "m"), ("pve::b", "m"), ("pve::c", "m"), ("pve::d", "m"), ("pve::z", "other")];
    fleet.inventory(keys.map(spec).into());
    fleet
}

fn slow_rhythm() -> SettingsDraft {
    SettingsDraft { base_interval: Millis::from_mins(2), ..SettingsDraft::default() }
}

fn neighbour_polls(fleet: &Fleet<'_>, key: &str) -> usize {
    let is_one = |event: &&InstanceEvent| {
        matches!(event, InstanceEvent::Scheduled { reason: IntervalReason::NeighbourFailed, .. })
    };
    fleet.events(key).iter().filter(is_one).count()
}

#[test]
fn when_one_instance_stops_answering_the_others_of_its_machine_are_asked_at_once() {
    let down = Timestamp::ZERO + Millis::from_mins(30);
    let mut fleet = on_one_machine(slow_rhythm(), move |key, at| match at >= down && key != "pve::z" {
        true => fail(FailureKind::Refused),
        false => ok(1),
    });
    fleet.run(Millis::from_mins(33));
    let seen = |key: &str| *fleet.starts[key].iter().find(|at| **at >= down).unwrap();
    let all = ["pve::a", "pve::b", "pve::c", "pve::d"].map(seen);
    let (first, last) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
    assert!(last - first <= secs(6), "the first at {first:?}, the last at {last:?}; the minimum interval is 5 s");
    assert_eq!(neighbour_polls(&fleet, "pve::z"), 0);
}

#[test]
fn a_failure_that_a_live_machine_answered_with_leaves_its_neighbours_alone() {
    let mut fleet =
        on_one_machine(slow_rhythm(), |key, at| match key == "pve::a" && at.as_millis() % 600_000 > 300_000 {
            true => fail(FailureKind::ServerError),
            false => ok(1),
        });
    fleet.run(Millis::from_mins(60));
    assert!(fleet.events("pve::a").iter().any(|event| matches!(event, InstanceEvent::PollFailed { .. })));
    assert!(["pve::b", "pve::c", "pve::d"].iter().all(|key| neighbour_polls(&fleet, key) == 0));
}

#[test]
fn with_adaptive_polling_off_nobody_is_asked_before_its_time() {
    let draft = SettingsDraft { adaptive: false, ..slow_rhythm() };
    let mut fleet = on_one_machine(draft, |key, _| if key == "pve::a" { fail(FailureKind::Timeout) } else { ok(1) });
    fleet.run(Millis::from_mins(60));
    assert!(["pve::b", "pve::c", "pve::d"].iter().all(|key| neighbour_polls(&fleet, key) == 0));
}

#[test]
fn one_broken_instance_among_a_thousand_on_its_machine_moves_a_handful() {
    let down = Timestamp::ZERO + Millis::from_mins(30);
    let mut fleet = Fleet::new(slow_rhythm(), move |key, at| match at >= down && key == "pve::7" {
        true => fail(FailureKind::Reset),
        false => ok(1),
    });
    let spec = |n| InstanceSpec { host: "m".into(), ..InstanceSpec::new(format!("pve::{n}").parse().unwrap()) };
    fleet.inventory((0..1_000).map(spec).collect());
    fleet.run(Millis::from_mins(40));
    let moved: usize = (0..1_000).map(|n| neighbour_polls(&fleet, &format!("pve::{n}"))).sum();
    assert!((1..=8).contains(&moved), "{moved} polls were brought forward");
}
