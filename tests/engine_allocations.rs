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

fn engine(instances: usize) -> (Engine, Effects) {
    let mut engine = Engine::new(Settings::default(), 42, Timestamp::ZERO);
    let mut effects = Effects::new();
    let keys = (0..instances).map(|n| format!("pve::host-{n:06}").parse().expect("the key is well formed"));
    engine.handle(Timestamp::ZERO, Input::Inventory(keys.map(InstanceSpec::new).collect()), &mut effects);
    (engine, effects)
}

/// Both in one test, because what is counted is counted for the whole process.
#[test]
fn a_cycle_allocates_nothing_and_an_instance_takes_600_bytes_at_the_most() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let (mut engine, mut effects) = engine(1_000);
    let mut orders = Vec::with_capacity(64);
    // Buffers grow to what the busiest millisecond takes, and then stay.
    cycle(&mut engine, &mut effects, &mut orders, 100_000);
    let before = dhat::HeapStats::get();
    cycle(&mut engine, &mut effects, &mut orders, 100_000);
    let after = dhat::HeapStats::get();
    dhat::assert_eq!(after.total_blocks - before.total_blocks, 0, "allocations in 100,000 cycles");

    const LARGE: usize = 100_000;
    let before = dhat::HeapStats::get().curr_bytes;
    let (large, effects) = crate::engine(LARGE);
    drop(effects);
    let each = (dhat::HeapStats::get().curr_bytes - before) / LARGE;
    println!("{each} bytes an instance");
    dhat::assert!(each <= 600, "{} bytes an instance", each);
    drop(large);
}
