//! A fleet on the scheduler alone, for what measures a cycle: a poll that is due, started, finished and planned again.

use pulse::engine::{
    ChangeHash, Effect, Effects, Engine, Input, InstanceSpec, Millis, Outcome, Settings, SettingsDraft, Ticket,
    Timestamp,
};

/// The defaults, with this base interval and slots for everybody.
pub(crate) fn settings(base: Millis) -> Settings {
    let draft = SettingsDraft { base_interval: base, max_in_flight: 100_000, ..SettingsDraft::default() };
    draft.validate().expect("the settings are valid")
}

fn specs(size: usize) -> Vec<InstanceSpec> {
    let spec = |n: usize| InstanceSpec::new(format!("pve::host-{n:07}").parse().expect("the key is well formed"));
    (0..size).map(spec).collect()
}

/// A fleet in its steady rhythm, whose polls are answered in the millisecond of their start.
pub(crate) struct Fleet {
    pub(crate) engine: Engine,
    pub(crate) effects: Effects,
    orders: Vec<Ticket>,
}

impl Fleet {
    /// Every instance has been polled about three times.
    pub(crate) fn new(size: usize) -> Self {
        let mut engine = Engine::new(settings(Millis::from_secs(10)), 42, Timestamp::ZERO);
        let mut effects = Effects::new();
        engine.handle(Timestamp::ZERO, Input::Inventory(specs(size)), &mut effects);
        let mut fleet = Self { engine, effects, orders: Vec::new() };
        fleet.cycle(size * 3);
        fleet
    }

    /// Goes on until so many more polls are done.
    pub(crate) fn cycle(&mut self, polls: usize) {
        let mut done = 0;
        while done < polls {
            let now = self.engine.next_wakeup().unwrap_or(Timestamp::MAX);
            self.engine.handle(now, Input::Tick, &mut self.effects);
            for effect in self.effects.iter() {
                if let Effect::Start(order) = effect {
                    self.orders.push(order.ticket);
                }
            }
            self.effects.clear();
            for ticket in self.orders.drain(..) {
                // Something changes every minute, so that nobody proves quiet and the rhythm stays.
                let outcome = Outcome::Success { reading: ChangeHash(now.as_millis() / 60_000) };
                self.engine.handle(now, Input::Finished { ticket, outcome }, &mut self.effects);
                done += 1;
            }
            self.effects.clear();
        }
    }
}
