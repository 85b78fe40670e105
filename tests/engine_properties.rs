//! Any sequence of inputs, however odd, leaves the engine valid and its effects reproducible.

use proptest::prelude::*;
use pulse::engine::{
    ChangeHash, Command, CommandId, Effect, Effects, Engine, Failure, FailureKind, Input, InstanceId, InstanceKey,
    InstanceSpec, Millis, Outcome, RetryFilter, SettingsDraft, Ticket, Timestamp,
};

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    TimeGoesBack(u64),
    Tick,
    TickAtWakeup,
    Finish { pick: usize, outcome: Outcome },
    FinishAgain { pick: usize, outcome: Outcome },
    FinishUnknown { instance: u32, serial: u32 },
    Inventory(Vec<(u8, u8, bool, Option<u16>)>),
    Settings { adaptive: bool, base: u64, cap: u32, per_host: u32, threshold: u32, dead_after: u32 },
    Command(u8, Option<bool>, u8),
}

fn key(n: u8) -> InstanceKey {
    let kind = ["pve", "pbs", "pmg", "http", "tcp"][usize::from(n) % 5];
    format!("{kind}::{n}").parse().expect("the key is well formed")
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let failure = (0..FailureKind::ALL.len(), proptest::option::of(0u64..1_000_000)).prop_map(|(kind, after)| {
        let failure = Failure::new(FailureKind::ALL[kind], "it failed");
        Outcome::Failure(Failure { retry_after: after.map(Millis::new), ..failure })
    });
    prop_oneof![(0u64..3).prop_map(|hash| Outcome::Success { reading: ChangeHash(hash) }), failure]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0u64..50, 0u64..20_000, 0u64..4_000_000].prop_map(Step::Advance),
        1 => (0u64..100_000).prop_map(Step::TimeGoesBack),
        3 => Just(Step::Tick),
        8 => Just(Step::TickAtWakeup),
        10 => (any::<usize>(), outcome()).prop_map(|(pick, outcome)| Step::Finish { pick, outcome }),
        1 => (any::<usize>(), outcome()).prop_map(|(pick, outcome)| Step::FinishAgain { pick, outcome }),
        1 => (0u32..20, any::<u32>()).prop_map(|(instance, serial)| Step::FinishUnknown { instance, serial }),
        2 => proptest::collection::vec((0u8..12, 0u8..3, proptest::bool::weighted(0.8),
            proptest::option::weighted(0.2, 5_000u16..)), 0..12).prop_map(Step::Inventory),
        1 => (any::<bool>(), 5_000u64..60_000, 1u32..6, 1u32..3, 1u32..5, 1u32..8).prop_map(
            |(adaptive, base, cap, per_host, threshold, dead_after)| Step::Settings {
                adaptive, base, cap, per_host, threshold, dead_after,
            }),
        3 => (0u8..6, proptest::option::of(any::<bool>()), 0u8..13).prop_map(|(c, e, n)| Step::Command(c, e, n)),
    ]
}

struct Rig {
    engine: Engine,
    now: Timestamp,
    cap: u32,
    in_flight: Vec<Ticket>,
    ended: Vec<Ticket>,
    trace: Vec<String>,
    commands: u64,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let settings = SettingsDraft { max_in_flight: 3, max_in_flight_per_host: 2, ..SettingsDraft::default() };
        let settings = settings.validate().expect("the settings are valid");
        let engine = Engine::new(settings, seed, Timestamp::ZERO);
        Self {
            engine,
            now: Timestamp::ZERO,
            cap: 3,
            in_flight: Vec::new(),
            ended: Vec::new(),
            trace: Vec::new(),
            commands: 0,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Advance(by) => self.now = self.now + Millis::new(*by),
            Step::TimeGoesBack(by) => {
                let back = Timestamp::from_millis(self.now.as_millis().saturating_sub(*by));
                self.handle(back, Input::Tick);
            }
            Step::Tick => self.tick(),
            Step::TickAtWakeup => {
                if let Some(at) = self.engine.next_wakeup() {
                    self.now = self.now.max(at);
                    self.tick();
                }
            }
            Step::Finish { pick, outcome } => {
                if !self.in_flight.is_empty() {
                    let ticket = self.in_flight.remove(pick % self.in_flight.len());
                    self.ended.push(ticket);
                    self.handle(self.now, Input::Finished { ticket, outcome: outcome.clone() });
                }
            }
            Step::FinishAgain { pick, outcome } => {
                if !self.ended.is_empty() {
                    let ticket = self.ended[pick % self.ended.len()];
                    let before = self.engine.totals();
                    self.handle(self.now, Input::Finished { ticket, outcome: outcome.clone() });
                    let after = self.engine.totals();
                    assert_eq!(
                        after.stale_tickets,
                        before.stale_tickets + 1,
                        "a doubled answer is dropped and counted"
                    );
                    assert_eq!((after.succeeded, after.failed), (before.succeeded, before.failed));
                }
            }
            Step::FinishUnknown { instance, serial } => {
                let id = InstanceId::from_index(*instance);
                let ticket = Ticket::new(id, *serial);
                if !self.in_flight.contains(&ticket) {
                    let outcome = Outcome::Success { reading: ChangeHash(0) };
                    self.handle(self.now, Input::Finished { ticket, outcome });
                }
            }
            Step::Inventory(specs) => self.inventory(specs),
            Step::Settings { adaptive, base, cap, per_host, threshold, dead_after } => {
                let mut draft = SettingsDraft {
                    adaptive: *adaptive,
                    base_interval: Millis::new(*base),
                    max_in_flight: *cap,
                    max_in_flight_per_host: *per_host,
                    ..SettingsDraft::default()
                };
                draft.breaker.failure_threshold = *threshold;
                draft.dead_letter.after_transient_failures = *dead_after;
                let settings = draft.validate().expect("the settings are valid");
                self.cap = self.cap.max(*cap);
                self.handle(self.now, Input::Settings(Box::new(settings)));
            }
            Step::Command(kind, enabled, n) => self.command(*kind, *enabled, *n),
        }
    }

    fn tick(&mut self) {
        self.handle(self.now, Input::Tick);
        self.engine.verify_after_tick().expect("no slot idles beside one who waits");
        let next = self.engine.next_wakeup();
        assert!(next.is_none_or(|at| at > self.now), "a tick settles everything due: {next:?} at {:?}", self.now);
    }

    fn inventory(&mut self, specs: &[(u8, u8, bool, Option<u16>)]) {
        let specs = specs.iter().map(|(n, revision, enabled, interval)| InstanceSpec {
            host: if n % 2 == 0 { "shared".into() } else { "".into() },
            enabled: *enabled,
            interval: interval.map(|millis| Millis::new(u64::from(millis))),
            revision: u64::from(*revision),
            ..InstanceSpec::new(key(*n))
        });
        self.handle(self.now, Input::Inventory(specs.collect()));
    }

    fn command(&mut self, kind: u8, enabled: Option<bool>, n: u8) {
        let key = key(n);
        let command = match kind {
            0 => Command::ResetBreaker { key },
            1 => Command::RetryDeadLetter { key },
            2 => Command::RetryDeadLetters { filter: RetryFilter::default(), dry_run: enabled.is_none() },
            3 => Command::RemoveDeadLetter { key },
            4 => Command::PollNow { key },
            _ => Command::SetEnabled { key, enabled: enabled.unwrap_or(true) },
        };
        self.commands += 1;
        self.handle(self.now, Input::Command { id: CommandId(self.commands), command });
    }

    fn handle(&mut self, now: Timestamp, input: Input) {
        let mut effects = Effects::new();
        let before = serde_json::to_value(self.engine.health(now)).expect("health is serialisable");
        let again = serde_json::to_value(self.engine.health(now)).expect("health is serialisable");
        assert_eq!(before, again, "a read changes nothing");
        self.engine.handle(now, input, &mut effects);
        for effect in effects.drain() {
            self.trace.push(serde_json::to_string(&effect).expect("effects are serialisable"));
            match effect {
                Effect::Start(order) => {
                    let id = order.ticket.instance();
                    assert!(self.in_flight.iter().all(|ticket| ticket.instance() != id), "one poll at once");
                    self.in_flight.push(order.ticket);
                }
                Effect::Cancel(ticket) => {
                    assert!(self.in_flight.contains(&ticket), "only what is under way is cancelled");
                    self.in_flight.retain(|other| *other != ticket);
                    self.ended.push(ticket);
                }
                Effect::Event(_) => {}
            }
        }
        assert_eq!(self.engine.in_flight() as usize, self.in_flight.len());
        self.engine.verify(self.cap).expect("every rule holds after every step");
    }
}

fn run(steps: &[Step], seed: u64) -> Vec<String> {
    let mut rig = Rig::new(seed);
    for step in steps {
        rig.apply(step);
    }
    rig.trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_inputs_leaves_the_engine_valid(steps in proptest::collection::vec(step(), 1..200), seed: u64) {
        let trace = run(&steps, seed);
        prop_assert_eq!(trace, run(&steps, seed), "same seed and inputs, same effects");
    }

    #[test]
    fn every_state_that_failures_leave_has_a_way_back_without_an_operator(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut rig = Rig::new(7);
        for step in &steps {
            rig.apply(step);
        }
        // From here on everything answers; three hours are longer than every penalty.
        let end = rig.now + Millis::from_mins(180);
        while rig.now < end {
            while let Some(ticket) = rig.in_flight.pop() {
                rig.handle(rig.now, Input::Finished { ticket, outcome: Outcome::Success { reading: ChangeHash(1) } });
            }
            match rig.engine.next_wakeup() {
                Some(at) => rig.now = rig.now.max(at),
                None => break,
            }
            rig.tick();
        }
        for instance in rig.engine.instances_health(rig.now) {
            prop_assert!(instance.place == pulse::engine::Place::Paused || instance.consecutive_failures == 0);
            prop_assert!(instance.dead_letter.is_none(), "{} stayed dead-lettered", instance.key);
        }
    }

    #[test]
    fn adding_a_host_moves_nobody_elses_schedule(seed: u64, others in 1u8..10) {
        let schedule = |count: u8| {
            let mut engine = Engine::new(SettingsDraft::default().validate().expect("valid"), seed, Timestamp::ZERO);
            let mut effects = Effects::new();
            let specs = (0..count).map(|n| InstanceSpec::new(key(n * 5))).collect();
            engine.handle(Timestamp::ZERO, Input::Inventory(specs), &mut effects);
            let mut starts = Vec::new();
            for _ in 0..300 {
                let now = engine.next_wakeup().expect("somebody is queued");
                engine.handle(now, Input::Tick, &mut effects);
                let orders: Vec<Ticket> = effects.drain().filter_map(|effect| match effect {
                    Effect::Start(order) => Some(order.ticket),
                    _ => None,
                }).collect();
                for ticket in orders {
                    if engine.key(ticket.instance()) == Some(&key(0)) {
                        starts.push(now);
                    }
                    let outcome = Outcome::Success { reading: ChangeHash(1) };
                    engine.handle(now, Input::Finished { ticket, outcome }, &mut effects);
                }
            }
            starts
        };
        let alone = schedule(1);
        let among = schedule(1 + others);
        prop_assert_eq!(&alone[..among.len().min(alone.len())], &among[..among.len().min(alone.len())]);
    }
}
