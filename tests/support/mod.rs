//! A small event loop around the engine: every poll is answered by a closure, and everything is checked after each
//! step.

use std::collections::BTreeMap;

use pulse::engine::{
    ChangeHash, Command, CommandError, CommandId, Effect, Effects, Engine, Event, Failure, FailureKind, FleetEvent,
    Input, InstanceEvent, InstanceHealth, InstanceSpec, Millis, Outcome, PollOrder, Reply, Settings, SettingsDraft,
    Ticket, Timestamp, What,
};

/// What a poll comes to, and when; `None` is a hang.
pub(crate) type Answer = Option<(Millis, Outcome)>;

type Script<'a> = Box<dyn FnMut(&str, Timestamp) -> Answer + 'a>;

pub(crate) struct Fleet<'a> {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<Event>,
    pub(crate) starts: BTreeMap<String, Vec<Timestamp>>,
    answer: Script<'a>,
    pending: BTreeMap<(Timestamp, Ticket), Outcome>,
    effects: Effects,
    cap: u32,
    steps: u64,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(settings: SettingsDraft, answer: impl FnMut(&str, Timestamp) -> Answer + 'a) -> Self {
        let settings = settings.validate().expect("the test's settings are valid");
        let cap = settings.max_in_flight;
        Self {
            engine: Engine::new(settings, 42, Timestamp::ZERO),
            now: Timestamp::ZERO,
            log: Vec::new(),
            starts: BTreeMap::new(),
            answer: Box::new(answer),
            pending: BTreeMap::new(),
            effects: Effects::new(),
            cap,
            steps: 0,
        }
    }

    pub(crate) fn watch(&mut self, keys: &[&str]) {
        self.inventory(keys.iter().map(|key| InstanceSpec::new(parse(key))).collect());
    }

    pub(crate) fn inventory(&mut self, specs: Vec<InstanceSpec>) {
        self.input(Input::Inventory(specs));
    }

    pub(crate) fn settings(&mut self, settings: SettingsDraft) {
        let settings: Settings = settings.validate().expect("the test's settings are valid");
        self.cap = self.cap.max(settings.max_in_flight);
        self.input(Input::Settings(Box::new(settings)));
    }

    pub(crate) fn command(&mut self, command: Command) -> Result<Reply, CommandError> {
        let from = self.log.len();
        self.input(Input::Command { id: CommandId(from as u64), command });
        self.log[from..]
            .iter()
            .find_map(|event| match &event.what {
                What::Fleet(FleetEvent::CommandDone { result, .. }) => Some(result.clone()),
                _ => None,
            })
            .expect("every command is answered in its own step")
    }

    pub(crate) fn health(&self, key: &str) -> InstanceHealth {
        self.engine.instance_health(&parse(key), self.now).expect("the instance is known")
    }

    /// Runs everything that happens up to `span` from now.
    pub(crate) fn run(&mut self, span: Millis) {
        let end = self.now + span;
        loop {
            let finished = self.pending.first_key_value().map(|((at, _), _)| *at);
            let wakeup = self.engine.next_wakeup();
            let Some(next) = finished.into_iter().chain(wakeup).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let ((_, ticket), outcome) = entry.remove_entry();
                self.input(Input::Finished { ticket, outcome });
            }
            if self.engine.next_wakeup().is_some_and(|at| at <= self.now) {
                self.input(Input::Tick);
                self.engine.verify_after_tick().expect("no slot idles beside one who waits");
            }
        }
        self.now = end;
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.engine.handle(self.now, input, &mut effects);
        self.steps += 1;
        // A full check is linear in the fleet; of a large one every hundredth step is looked at.
        if self.engine.len() < 100 || self.steps.is_multiple_of(100) {
            self.engine.verify(self.cap).expect("every rule holds after every step");
        }
        for effect in effects.drain() {
            match effect {
                Effect::Start(order) => self.start(order),
                Effect::Cancel(ticket) => self.pending.retain(|(_, pending), _| *pending != ticket),
                Effect::Event(event) => self.log.push(event),
            }
        }
        self.effects = effects;
    }

    fn start(&mut self, order: PollOrder) {
        let key = self.engine.key(order.ticket.instance()).expect("a started instance is known").to_string();
        if let Some((latency, outcome)) = (self.answer)(&key, self.now) {
            self.pending.insert((self.now + latency, order.ticket), outcome);
        }
        self.starts.entry(key).or_default().push(self.now);
    }

    /// The times between the starts of the polls of `key`, in seconds.
    pub(crate) fn gaps(&self, key: &str) -> Vec<f64> {
        let starts = self.starts.get(key).map_or(&[][..], Vec::as_slice);
        starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    /// What happened to `key`, in order.
    pub(crate) fn events(&self, key: &str) -> Vec<InstanceEvent> {
        let id = self.engine.id(&parse(key));
        let of_key = |event: &Event| match &event.what {
            What::Instance { instance, what } if Some(*instance) == id => Some(what.clone()),
            _ => None,
        };
        self.log.iter().filter_map(of_key).collect()
    }
}

pub(crate) fn ok(reading: u64) -> Answer {
    Some((Millis::new(100), Outcome::Success { reading: ChangeHash(reading) }))
}

pub(crate) fn fail(kind: FailureKind) -> Answer {
    Some((Millis::new(100), Outcome::Failure(Failure::new(kind, "it failed"))))
}

pub(crate) fn secs(secs: u64) -> Millis {
    Millis::from_secs(secs)
}

fn parse(key: &str) -> pulse::engine::InstanceKey {
    key.parse().expect("the test's key is well formed")
}
