//! Events that the simulator plays and judges a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn events(criterion: &mut Criterion) {
    let mut scenario = sim::builtin("soak").expect("it is built in");
    scenario.duration = sim::Span(pulse::engine::Millis::from_mins(10));
    let events = sim::run(&scenario, 1, sim::RunOptions::default()).events;
    let mut group = criterion.benchmark_group("simulator");
    group.sample_size(10);
    group.throughput(Throughput::Elements(events));
    group.bench_function(BenchmarkId::from_parameter(80), |bencher| {
        bencher.iter(|| sim::run(&scenario, 1, sim::RunOptions::default()));
    });
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
