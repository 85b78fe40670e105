//! The steady path of the engine allocates nothing. In a file of its own, because it counts for the whole process.

use pulse::engine::Effects;

#[path = "../benches/support/fleet.rs"]
#[allow(dead_code, reason = "the benches have a use for the rest")]
mod fleet;

use fleet::Fleet;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Both in one test, because what is counted is counted for the whole process.
#[test]
fn a_cycle_allocates_nothing_and_an_instance_takes_600_bytes_at_the_most() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut fleet = Fleet::new(1_000);
    // Buffers grow to what the busiest millisecond takes, and then stay.
    fleet.cycle(100_000);
    let before = dhat::HeapStats::get();
    fleet.cycle(100_000);
    let after = dhat::HeapStats::get();
    dhat::assert_eq!(after.total_blocks - before.total_blocks, 0, "allocations in 100,000 cycles");

    const LARGE: usize = 100_000;
    let before = dhat::HeapStats::get().curr_bytes;
    let mut large = Fleet::new(LARGE);
    large.effects = Effects::new();
    let each = (dhat::HeapStats::get().curr_bytes - before) / LARGE;
    println!("{each} bytes an instance");
    dhat::assert!(each <= 600, "{} bytes an instance", each);
    drop(large);
}
