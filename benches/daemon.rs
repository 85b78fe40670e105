//! The daemon around the scheduler: calls of the real router, and what it costs to tell everybody of an event.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pulse::engine::{
    Event, InstanceEvent, InstanceId, InstanceKey, IntervalReason, Millis, SettingsDraft, Ticket, Timestamp, What,
};
use pulse::runtime::{PollCost, PollReport, Subscriber};
use pulse::targets::Reading;
use pulse::telemetry::{LogSubscriber, Metrics};
use tokio::runtime::Runtime;

#[path = "support/in_process.rs"]
mod in_process;
#[path = "support/sizes.rs"]
mod sizes;

use in_process::{Daemon, HEALTH, cpu_time};
use sizes::sizes;

/// The largest fleet.
const MOST: usize = 100_000;

const METRICS: &str = "/metrics";

struct Nobody;

impl Subscriber<Reading> for Nobody {
    fn event(&mut self, _event: &Event, _key: Option<&InstanceKey>) {}
}

/// What a call of the real router costs, without a socket, from the request to the last byte.
fn calls(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be made");
    // So rarely that polls do not show in the figures.
    let span = Millis::from_mins(24 * 60);
    let draft =
        SettingsDraft { base_interval: span, min_interval: span, max_interval: span, ..SettingsDraft::default() };
    let settings = draft.validate().expect("the settings are valid");
    for size in sizes(MOST) {
        let daemon = runtime.block_on(Daemon::start(size, settings.clone(), Millis::ZERO, Nobody));
        for (name, path) in [("router call", "/api/version"), ("health answer", HEALTH), ("scrape", METRICS)] {
            let router = if path == METRICS { &daemon.metrics } else { &daemon.api };
            let mut group = criterion.benchmark_group(name);
            group.sample_size(10);
            group.throughput(Throughput::Elements(if name == "router call" { 1 } else { size as u64 }));
            // CPU time of the whole process, so that neither waiting nor other programs count.
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let before = cpu_time();
                    runtime.block_on(async {
                        for _ in 0..rounds {
                            Daemon::get(router, path).await;
                        }
                    });
                    cpu_time() - before
                });
            });
            group.finish();
        }
        runtime.block_on(daemon.stop());
    }
}

/// The four events and the report of one successful poll, told to metrics and log.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event fan-out");
    for size in sizes(MOST) {
        let mut counters = Metrics::new().subscriber();
        let keys: Vec<InstanceKey> =
            (0..size).map(|n| format!("pve::host-{n:07}").parse().expect("the key is well formed")).collect();
        let told = |instance: InstanceId, what| Event { at: Timestamp::ZERO, what: What::Instance { instance, what } };
        for (n, key) in keys.iter().enumerate() {
            let added = told(InstanceId::from_index(n as u32), InstanceEvent::Added { key: key.clone() });
            Subscriber::<Reading>::event(&mut counters, &added, Some(key));
        }
        let mut next = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                // A stride that is prime to every size, so that neighbours do not follow each other.
                next = (next + 7_919) % size;
                let (id, key) = (InstanceId::from_index(next as u32), &keys[next]);
                let ticket = Ticket::new(id, 1);
                let cost = PollCost { calls: 4, bytes: 2_000, ..PollCost::default() };
                let outcome = pulse::engine::Outcome::Success { reading: pulse::engine::ChangeHash(1) };
                let report = PollReport::<Reading> { outcome, reading: None, cost };
                counters.report(key, Timestamp::ZERO, &report);
                let span = Millis::from_secs(10);
                for what in [
                    InstanceEvent::PollStarted { ticket, lag: Millis::new(1) },
                    InstanceEvent::PollSucceeded { ticket, took: Millis::new(20), changed: false },
                    InstanceEvent::Scheduled { due: Timestamp::MAX, interval: span, reason: IntervalReason::Base },
                ] {
                    let event = told(id, what);
                    Subscriber::<Reading>::event(&mut counters, &event, Some(key));
                    Subscriber::<Reading>::event(&mut LogSubscriber, &event, Some(key));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls, fan_out);
criterion_main!(benches);
