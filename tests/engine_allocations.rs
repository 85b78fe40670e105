//! The steady path of the engine allocates nothing. In a file of its own, because it counts for the whole process.

use pulse::engine::{ChangeHash, Effect, Effects, Engine, Input, InstanceSpec, Outcome, Settings, Ticket, Timestamp};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Lets the engine do `polls` polls, each answered in the millisecond of its start.
fn cycle(engine: &mut Engine, effects: &mut Effects, orders: &mut Vec<Ticket>, polls: usize) {
    let mut done = 0;
    while done < polls {
        let now = engine.next_wakeup().unwrap_or(Timestamp::MAX);
        engine.handle(now, Input::Tick, effects);
        orders.extend(effects.drain().filter_map(|effect| match effect {
            Effect::Start(order) => Some(order.ticket),
            _ => None,
        }));
        for ticket in orders.drain(..) {
            let outcome = Outcome::Success { reading: ChangeHash(now.as_millis() / 60_000) };
            engine.handle(now, Input::Finished { ticket, outcome }, effects);
            done += 1;
        }
        effects.clear();
    }
}

#[test]
fn a_cycle_of_due_started_finished_and_rescheduled_allocates_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut engine = Engine::new(Settings::default(), 42, Timestamp::ZERO);
    let (mut effects, mut orders) = (Effects::new(), Vec::new());
    let keys = (0..1_000).map(|n| format!("pve::{n}").parse().expect("the key is well formed"));
    engine.handle(Timestamp::ZERO, Input::Inventory(keys.map(InstanceSpec::new).collect()), &mut effects);
    cycle(&mut engine, &mut effects, &mut orders, 10_000);

    let before = dhat::HeapStats::get();
    cycle(&mut engine, &mut effects, &mut orders, 100_000);
    let after = dhat::HeapStats::get();
    dhat::assert_eq!(after.total_blocks - before.total_blocks, 0, "allocations in 100,000 cycles");
}
