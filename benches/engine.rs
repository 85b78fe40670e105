//! One cycle of the scheduler – due, started, finished, rescheduled – for fleets of several sizes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pulse::engine::{
    ChangeHash, Effect, Effects, Engine, Input, InstanceSpec, Outcome, SettingsDraft, Ticket, Timestamp,
};

/// A fleet in its steady rhythm, whose polls are answered in the millisecond of their start.
struct Fleet {
    engine: Engine,
    effects: Effects,
    orders: Vec<Ticket>,
}

impl Fleet {
    fn new(size: usize) -> Self {
        let draft = SettingsDraft { max_in_flight: 100_000, ..SettingsDraft::default() };
        let settings = draft.validate().expect("the settings are valid");
        let mut engine = Engine::new(settings, 42, Timestamp::ZERO);
        let mut effects = Effects::new();
        let specs = (0..size).map(|n| InstanceSpec::new(format!("pve::{n}").parse().expect("the key is well formed")));
        engine.handle(Timestamp::ZERO, Input::Inventory(specs.collect()), &mut effects);
        let mut fleet = Self { engine, effects, orders: Vec::new() };
        fleet.cycle(size * 3);
        fleet
    }

    fn cycle(&mut self, polls: usize) {
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

fn engine_cycle(criterion: &mut Criterion) {
    const POLLS: usize = 10_000;
    let mut group = criterion.benchmark_group("engine cycle");
    group.throughput(Throughput::Elements(POLLS as u64));
    for size in [12, 80, 1_000, 10_000, 100_000, 1_000_000] {
        let mut fleet = Fleet::new(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| bencher.iter(|| fleet.cycle(POLLS)));
    }
    group.finish();
}

criterion_group!(benches, engine_cycle);
criterion_main!(benches);
