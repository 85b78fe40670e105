//! What is read of the engine: each way of reading tells the same, and a bulk retry takes exactly those that its filter names.

use std::time::Duration;

use proptest::prelude::*;
use pulse::engine::{
    Adaptive, BreakerState, ChangeHash, Command, CommandId, DeadLetterReason, Effect, Effects, Engine, Event, Failure,
    FailureClass, FailureKind, FleetEvent, Input, InstanceEvent, InstanceHealth, InstanceKey, InstanceSpec,
    InstanceType, IntervalPolicy, IntervalReason, Millis, Outcome, Place, Reference, Reply, Retry, RetryFilter,
    RetryResult, Settings, SettingsDraft, Ticket, Timestamp, What,
};

/// A fleet of every type, some of which fails for good or now and then, after `minutes`.
fn grown(failing: &[Option<bool>], minutes: u64) -> (Engine, Timestamp) {
    let mut engine = Engine::new(Settings::default(), 7, Timestamp::ZERO);
    let mut effects = Effects::new();
    let specs = (0..failing.len()).map(|n| InstanceSpec::new(key(n))).collect();
    engine.handle(Timestamp::ZERO, Input::Inventory(specs), &mut effects);
    let end = Timestamp::ZERO + Millis::from_mins(minutes);
    let mut now = Timestamp::ZERO;
    while let Some(at) = engine.next_wakeup().filter(|at| *at <= end) {
        now = at;
        engine.handle(now, Input::Tick, &mut effects);
        for ticket in started(&mut effects) {
            let outcome = match failing[ticket.instance().index()] {
                None => Outcome::Success { reading: ChangeHash(1) },
                Some(permanent) => {
                    let kind = if permanent { FailureKind::Unauthorized } else { FailureKind::Refused };
                    Outcome::Failure(Failure::new(kind, "it failed"))
                }
            };
            engine.handle(now, Input::Finished { ticket, outcome }, &mut effects);
        }
    }
    (engine, now)
}

fn key(n: usize) -> InstanceKey {
    format!("{}::{n}", InstanceType::ALL[n % InstanceType::ALL.len()]).parse().expect("the key is well formed")
}

fn pve(n: usize) -> InstanceKey {
    format!("pve::{n}").parse().expect("the key is well formed")
}

fn started(effects: &mut Effects) -> Vec<Ticket> {
    let starts = effects.drain().filter_map(|effect| match effect {
        Effect::Start(order) => Some(order.ticket),
        _ => None,
    });
    starts.collect()
}

fn filter() -> impl Strategy<Value = RetryFilter> {
    let keys = proptest::option::of(proptest::collection::btree_set((0usize..12).prop_map(key), 0..6));
    let kind = proptest::option::of((0..InstanceType::ALL.len()).prop_map(|n| InstanceType::ALL[n]));
    let reasons = [DeadLetterReason::MaxRetryAttempts, DeadLetterReason::PermanentFailure];
    let reason = proptest::option::of(proptest::sample::select(reasons.to_vec()));
    let older_than = proptest::option::of((0u64..30).prop_map(Millis::from_mins));
    (keys, kind, reason, older_than).prop_map(|(keys, kind, reason, older_than)| RetryFilter {
        keys,
        kind,
        reason,
        older_than,
    })
}

/// Whether `filter` names this dead letter.
fn is_named(filter: &RetryFilter, health: &InstanceHealth, now: Timestamp) -> bool {
    health.dead_letter.is_some_and(|entry| {
        filter.keys.as_ref().is_none_or(|keys| keys.contains(&health.key))
            && filter.kind.is_none_or(|kind| health.key.kind() == kind)
            && filter.reason.is_none_or(|reason| entry.reason == reason)
            && filter.older_than.is_none_or(|age| now - entry.first_attempt > age)
    })
}

fn retried(engine: &mut Engine, now: Timestamp, filter: RetryFilter, dry_run: bool) -> Vec<Retry> {
    let mut effects = Effects::new();
    let command = Command::RetryDeadLetters { filter, dry_run };
    engine.handle(now, Input::Command { id: CommandId(1), command }, &mut effects);
    let answer = effects.drain().find_map(|effect| match effect {
        Effect::Event(Event { what: What::Fleet(FleetEvent::CommandDone { result, .. }), .. }) => Some(result),
        _ => None,
    });
    match answer {
        Some(Ok(Reply::RetriesScheduled { retries })) => retries,
        other => panic!("answered with {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bulk_retry_takes_exactly_those_that_its_filter_names(
        failing in proptest::collection::vec(proptest::option::weighted(0.7, any::<bool>()), 1..12),
        minutes in 1u64..90, filter in filter(),
    ) {
        let (mut engine, now) = grown(&failing, minutes);
        let before = engine.health(now).instances;
        let named: Vec<&InstanceKey> = before.iter().filter(|it| is_named(&filter, it, now)).map(|it| &it.key).collect();
        let would = retried(&mut engine, now, filter.clone(), true);
        prop_assert!(would.iter().all(|retry| retry.result == RetryResult::WouldRetry));
        prop_assert_eq!(would.iter().map(|retry| &retry.key).collect::<Vec<_>>(), named.clone());
        let untouched = |engine: &Engine| serde_json::to_value(engine.health(now).instances).unwrap();
        prop_assert_eq!(untouched(&engine), serde_json::to_value(&before).unwrap(), "a dry run changes nothing");

        let retries = retried(&mut engine, now, filter, false);
        prop_assert_eq!(retries.iter().map(|retry| &retry.key).collect::<Vec<_>>(), named);
        for retry in &retries {
            let due = engine.instance_health(&retry.key, now).and_then(|health| health.due);
            let told = match retry.result {
                RetryResult::ScheduledFor(at) => Some(at),
                _ => None,
            };
            prop_assert_eq!(due, told, "{} is rechecked when it was told", retry.key);
        }
        for health in before.iter().filter(|it| retries.iter().all(|retry| retry.key != it.key)) {
            let after = engine.instance_health(&health.key, now).map(|after| after.due);
            prop_assert_eq!(after, Some(health.due), "{} was not named", health.key);
        }
    }

    #[test]
    fn every_way_of_reading_tells_the_same(
        failing in proptest::collection::vec(proptest::option::weighted(0.5, any::<bool>()), 1..12), minutes in 0u64..90,
    ) {
        let (engine, now) = grown(&failing, minutes);
        let (health, overview) = (engine.health(now), engine.overview(now));
        let depth = health.instances.iter().filter(|it| it.place == Place::Queued).count() as u32;
        prop_assert_eq!(overview.depth(), depth);
        prop_assert_eq!((health.queue.depth, engine.queue_depth()), (depth, depth));
        prop_assert_eq!(overview.instances, health.instances.len());
        prop_assert_eq!((overview.queued, overview.in_flight), (health.queue.per_type, health.in_flight));
        prop_assert_eq!((overview.at, overview.waiting, overview.totals), (now, health.queue.waiting, health.totals));
        prop_assert_eq!((overview.load.lag, overview.load.stretch), (health.load.lag, health.load.stretch));
        for it in &health.instances {
            let id = engine.id(&it.key).expect("whom health tells of has a number");
            prop_assert_eq!(engine.key(id), Some(&it.key));
            let view = engine.instances_after(None, now).find(|view| *view.key() == it.key).expect("it is one of all");
            prop_assert_eq!((view.place(), view.due(), view.last_success()), (it.place, it.due, it.last_success));
            prop_assert_eq!((view.failures(), view.last_error()), (it.consecutive_failures, it.last_error.as_ref()));
        }
    }

    #[test]
    fn load_tells_how_late_polls_start_and_how_many_slots_they_take(late in 100u64..1_000, took in 100u64..1_000) {
        // Eight hosts and a slot for each, a base interval of ten seconds, and a daemon that always wakes up late.
        let settings = SettingsDraft { max_in_flight: 8, ..SettingsDraft::default() }.validate().expect("they are valid");
        let mut engine = Engine::new(settings, 7, Timestamp::ZERO);
        let mut effects = Effects::new();
        engine.handle(Timestamp::ZERO, Input::Inventory((0..8).map(pve).map(InstanceSpec::new).collect()), &mut effects);
        let (mut now, mut polls) = (Timestamp::ZERO, 0);
        while now < Timestamp::ZERO + Millis::from_mins(10) {
            now = now.max(engine.next_wakeup().expect("somebody waits")) + Millis::new(late);
            engine.handle(now, Input::Tick, &mut effects);
            let tickets = started(&mut effects);
            now = now + Millis::new(if tickets.is_empty() { 0 } else { took });
            for ticket in tickets {
                polls += 1;
                let outcome = Outcome::Success { reading: ChangeHash(1) };
                engine.handle(now, Input::Finished { ticket, outcome }, &mut effects);
            }
        }
        let load = engine.overview(now).load;
        // Who falls due while the others are polled starts later by as long as that takes.
        prop_assert!((1..=late + took).contains(&load.lag.get()), "a lag of {}", load.lag);
        let share = f64::from(polls) * took as f64 / now.as_millis() as f64 / 8.0;
        prop_assert!((share / 4.0..=share * 4.0).contains(&load.slots_used), "{} of the slots, {share} on average", load.slots_used);
    }
}

#[test]
fn effects_are_there_until_they_are_taken_or_dropped() {
    let mut engine = Engine::new(Settings::default(), 7, Timestamp::ZERO);
    let mut effects = Effects::new();
    assert!(effects.is_empty());
    let fleet = || Input::Inventory(vec![InstanceSpec::new(pve(1))]);
    engine.handle(Timestamp::ZERO, fleet(), &mut effects);
    assert!(!effects.is_empty());
    assert_eq!(effects.len(), effects.iter().count());
    effects.clear();
    assert_eq!((effects.is_empty(), effects.len(), effects.drain().count()), (true, 0, 0));
    engine.handle(Timestamp::ZERO, fleet(), &mut effects);
    assert_ne!(effects.drain().count(), 0);
    assert!(effects.is_empty());
}

#[test]
fn spans_are_those_of_the_standard_library() {
    for span in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(90)] {
        assert_eq!(Duration::from(Millis::from(span)), span);
    }
    assert_eq!(Millis::from(Duration::from_micros(1)), Millis::new(1), "a deadline is never early");
    assert_eq!(Duration::from(Millis::from_mins(2)), Duration::from_secs(120));
}

#[test]
fn doubling_is_multiplication_that_stops_at_the_longest_span() {
    for (span, times) in [(0, 0), (0, 63), (0, 64), (0, 200), (1, 0), (1, 63), (1, 64), (3, 5), (3, 63), (u64::MAX, 1)]
    {
        let exact = 2_u128.checked_pow(times).and_then(|factor| factor.checked_mul(u128::from(span)));
        let nearest = if span == 0 { 0 } else { exact.and_then(|it| u64::try_from(it).ok()).unwrap_or(u64::MAX) };
        assert_eq!(Millis::new(span).doubled(times), Millis::new(nearest), "{span} doubled {times} times");
    }
    assert_eq!(Millis::new(1_500).as_secs_f64(), 1.5);
}

#[test]
fn a_status_is_the_failure_that_the_rules_call_it() {
    for status in 0..=999 {
        let class = match status {
            0..400 => None,
            408 | 429 | 500.. => Some(FailureClass::Transient),
            _ => Some(FailureClass::Permanent),
        };
        assert_eq!(FailureKind::of_status(status).map(FailureKind::class), class, "{status}");
    }
    let named = [401, 403, 404, 429].map(FailureKind::of_status);
    let kinds =
        [FailureKind::Unauthorized, FailureKind::Forbidden, FailureKind::NotFound, FailureKind::RateLimited].map(Some);
    assert_eq!(named, kinds);
}

#[test]
fn the_classic_policy_plans_each_instance_by_itself() {
    let told = |policy: Box<dyn IntervalPolicy>| {
        let mut engine = Engine::with_policy(Settings::default(), policy, 7, Timestamp::ZERO);
        let mut effects = Effects::new();
        let specs = (0..4).map(|n| InstanceSpec { host: "one".into(), ..InstanceSpec::new(pve(n)) }).collect();
        engine.handle(Timestamp::ZERO, Input::Inventory(specs), &mut effects);
        let end = Timestamp::ZERO + Millis::from_mins(10);
        let mut doubted = 0;
        while let Some(now) = engine.next_wakeup().filter(|at| *at <= end) {
            engine.handle(now, Input::Tick, &mut effects);
            for ticket in started(&mut effects) {
                let outcome = match ticket.instance().index() {
                    0 if now.as_millis() > 60_000 => Outcome::Failure(Failure::new(FailureKind::Refused, "gone")),
                    _ => Outcome::Success { reading: ChangeHash(1) },
                };
                engine.handle(now, Input::Finished { ticket, outcome }, &mut effects);
                let reason = IntervalReason::NeighbourFailed;
                doubted += effects.drain().filter(|it| planned(it).is_some_and(|found| found == reason)).count();
            }
        }
        doubted
    };
    assert_eq!(told(Box::new(Reference)), 0);
    assert_ne!(told(Box::new(Adaptive)), 0, "which the other does not");
}

fn planned(effect: &Effect) -> Option<IntervalReason> {
    match effect {
        Effect::Event(Event { what: What::Instance { what: InstanceEvent::Scheduled { reason, .. }, .. }, .. }) => {
            Some(*reason)
        }
        _ => None,
    }
}

/// What an answer, a log and a metric call it is one name.
#[test]
fn every_name_is_the_one_of_its_json() {
    let name = |value: serde_json::Value| value.as_str().expect("a name").to_owned();
    for state in [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen] {
        assert_eq!(name(serde_json::to_value(state).unwrap()), state.as_str());
    }
    for reason in [DeadLetterReason::MaxRetryAttempts, DeadLetterReason::PermanentFailure] {
        assert_eq!(name(serde_json::to_value(reason).unwrap()), reason.as_str());
    }
    for kind in FailureKind::ALL {
        assert_eq!(name(serde_json::to_value(kind).unwrap()), kind.as_str());
        assert_eq!(FailureKind::ALL[kind.index()], kind);
    }
    for kind in InstanceType::ALL {
        assert_eq!(name(serde_json::to_value(kind).unwrap()), kind.as_str());
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}
