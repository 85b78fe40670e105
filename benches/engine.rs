//! The scheduler by itself: one cycle, the plan of a whole fleet, and a health answer, for fleets of several sizes.

#![expect(clippy::disallowed_types, reason = "the naive scheduler takes what one would take first")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pulse::engine::{Input, Millis, Timestamp};

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/sizes.rs"]
mod sizes;

use fleet::{Fleet, settings};
use sizes::sizes;

/// The largest fleet.
const MOST: usize = 1_000_000;

/// What one would write first: a heap of due times and a table by name. It knows no failures, no slots, no jitter, no
/// load, and tells nobody what it does; a measure for what a cycle may cost.
struct Naive {
    queue: BinaryHeap<Reverse<(u64, String)>>,
    table: HashMap<String, NaiveInstance>,
}

struct NaiveInstance {
    last_success: u64,
    reading: u64,
    polls: u64,
}

impl Naive {
    fn new(size: usize) -> Self {
        let keys = (0..size).map(|n| format!("pve::host-{n:07}"));
        let queue = keys.clone().zip(0_u64..).map(|(key, n)| Reverse((n * 10_000 / size as u64, key))).collect();
        let instance = || NaiveInstance { last_success: 0, reading: 0, polls: 0 };
        let mut naive = Self { queue, table: keys.map(|key| (key, instance())).collect() };
        naive.cycle(size * 3);
        naive
    }

    fn cycle(&mut self, polls: usize) {
        for _ in 0..polls {
            let Some(Reverse((now, key))) = self.queue.pop() else { return };
            if let Some(instance) = self.table.get_mut(&key) {
                instance.last_success = now;
                instance.reading = now / 60_000;
                instance.polls += 1;
                // Spread a little, as jitter would.
                let interval = 9_500 + (now ^ instance.polls.wrapping_mul(0x9E37_79B9)) % 1_000;
                self.queue.push(Reverse((now + interval, key)));
            }
        }
    }
}

fn cycle(criterion: &mut Criterion) {
    const POLLS: usize = 10_000;
    for (name, is_naive) in [("engine cycle", false), ("naive cycle", true)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(POLLS as u64));
        for size in sizes(MOST) {
            let id = BenchmarkId::from_parameter(size);
            if is_naive {
                let mut naive = Naive::new(size);
                group.bench_function(id, |bencher| bencher.iter(|| naive.cycle(POLLS)));
            } else {
                let mut fleet = Fleet::new(size);
                group.bench_function(id, |bencher| bencher.iter(|| fleet.cycle(POLLS)));
            }
        }
        group.finish();
    }
}

/// A new base interval, which plans every instance anew.
fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan of a fleet");
    group.sample_size(10);
    for size in sizes(MOST) {
        group.throughput(Throughput::Elements(size as u64));
        let mut fleet = Fleet::new(size);
        let mut rounds = [10, 20].into_iter().cycle();
        let mut next = || Box::new(settings(Millis::from_secs(rounds.next().unwrap_or(10))));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                &mut next,
                |settings| {
                    let now = fleet.engine.next_wakeup().unwrap_or(Timestamp::ZERO);
                    fleet.engine.handle(now, Input::Settings(settings), &mut fleet.effects);
                    fleet.effects.clear();
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Everything that a health answer reads, at once.
fn health(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("health of a fleet");
    group.sample_size(10);
    for size in sizes(MOST) {
        group.throughput(Throughput::Elements(size as u64));
        let fleet = Fleet::new(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(fleet.engine.health(Timestamp::ZERO)));
        });
    }
    group.finish();
}

criterion_group!(benches, cycle, plan, health);
criterion_main!(benches);
