//! Metrics that count: written by one subscriber, from the driver's events alone.
//!
//! Counting takes no lock. A scrape copies the table of instances a page at a time, so that the driver never waits for
//! longer than that when an instance comes or goes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::labels::{of_category, of_result, of_type};
use crate::engine::{
    Event, FailureKind, FleetEvent, InstanceEvent, InstanceId, InstanceKey, InstanceType, Millis, PerType, Timestamp,
    What,
};
use crate::runtime::{PollReport, Subscriber};

/// Instances that a scrape copies under one lock.
const PAGE: usize = 256;

/// Every counter and histogram. Clones share their values.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    instances: Ledger,
    types: Arc<PerType<TypeCounters>>,
    lag: Histogram,
    steps: Histogram,
    stale_tickets: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            instances: Ledger::default(),
            types: Arc::new(PerType::from_fn(|_| TypeCounters::new())),
            lag: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            steps: Histogram::new(exponential_buckets(0.000_001, 4.0, 10)),
            stale_tickets: Counter::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.instances.clone()));
        registry.register_collector(Box::new(ByType(Arc::clone(&self.types))));
        let help = "Seconds from the time a poll was due to its start";
        registry.register("pulse_monitor_schedule_lag_seconds", help, self.lag.clone());
        let help = "Seconds that the scheduler took for one step";
        registry.register("pulse_monitor_engine_step_seconds", help, self.steps.clone());
        let help = "Answers that came too late or twice, and were dropped";
        // The encoder appends `_total` to the names of counters.
        registry.register("pulse_monitor_stale_tickets", help, self.stale_tickets.clone());
    }
}

/// What is counted of one instance.
#[derive(Debug, Default)]
struct InstanceCounters {
    successes: AtomicU64,
    failures: AtomicU64,
    cancelled: AtomicU64,
    /// By kind, in the order of [`FailureKind::ALL`].
    errors: [AtomicU64; FailureKind::ALL.len()],
}

impl InstanceCounters {
    /// The polls by their result; those that were called off only if there were any.
    fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cancelled = Some(("cancelled", read(&self.cancelled))).filter(|(_, count)| *count > 0);
        [("success", read(&self.successes)), ("failure", read(&self.failures))].into_iter().chain(cancelled)
    }

    /// The failures by kind, of those kinds that there were.
    fn categories(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = FailureKind::ALL.iter().zip(&self.errors);
        counts.map(|(kind, count)| (kind.as_str(), count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}

type Table = BTreeMap<InstanceKey, Arc<InstanceCounters>>;

/// The counters of every instance, sorted by key.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<Table>>);

impl Ledger {
    fn add(&self, key: &InstanceKey) -> Arc<InstanceCounters> {
        let counters = Arc::<InstanceCounters>::default();
        self.table().insert(key.clone(), Arc::clone(&counters));
        counters
    }

    fn remove(&self, key: &InstanceKey) {
        self.table().remove(key);
    }

    /// Nobody panics while holding the lock, and a table is whole between any two of its calls.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `each` every instance in the order of keys, with the lock held only while a page is copied.
    fn visit(&self, mut each: impl FnMut(&InstanceKey, &InstanceCounters) -> fmt::Result) -> fmt::Result {
        let mut after = Bound::Unbounded;
        loop {
            let page: Vec<_> = {
                let table = self.table();
                let rows = table.range((after, Bound::Unbounded)).take(PAGE);
                rows.map(|(key, counters)| (key.clone(), Arc::clone(counters))).collect()
            };
            for (key, counters) in &page {
                each(key, counters)?;
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Bound::Excluded(key),
                None => return Ok(()),
            }
        }
    }
}

impl Collector for Ledger {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut polls =
            encoder.encode_descriptor("pulse_monitor_poll", "Polls that ended.", None, MetricType::Counter)?;
        self.visit(|key, counters| {
            counters.results().try_for_each(|(result, count)| counter(&mut polls, &of_result(key, result), count))
        })?;
        let help = "Polls that failed, by kind of failure.";
        let mut errors = encoder.encode_descriptor("pulse_monitor_poll_errors", help, None, MetricType::Counter)?;
        self.visit(|key, counters| {
            let mut categories = counters.categories();
            categories.try_for_each(|(category, count)| counter(&mut errors, &of_category(key, category), count))
        })
    }
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    count: u64,
) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

/// What is counted of one type of instance.
#[derive(Debug)]
struct TypeCounters {
    durations: Histogram,
    host_calls: AtomicU64,
    host_bytes: AtomicU64,
}

impl TypeCounters {
    fn new() -> Self {
        let bounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        Self { durations: Histogram::new(bounds), host_calls: AtomicU64::new(0), host_bytes: AtomicU64::new(0) }
    }
}

#[derive(Debug)]
struct ByType(Arc<PerType<TypeCounters>>);

impl Collector for ByType {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds from the order of a poll to its end.";
        let name = "pulse_monitor_poll_duration_seconds";
        let mut durations = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (kind, counters) in self.0.iter() {
            counters.durations.encode(durations.encode_family(&of_type(kind))?)?;
        }
        let help = "Requests sent to hosts by polls.";
        let mut calls = encoder.encode_descriptor("pulse_monitor_host_calls", help, None, MetricType::Counter)?;
        for (kind, counters) in self.0.iter() {
            counter(&mut calls, &of_type(kind), counters.host_calls.load(Ordering::Relaxed))?;
        }
        let help = "Bytes of answers read from hosts by polls.";
        let mut bytes = encoder.encode_descriptor("pulse_monitor_host_bytes", help, None, MetricType::Counter)?;
        for (kind, counters) in self.0.iter() {
            counter(&mut bytes, &of_type(kind), counters.host_bytes.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// Counts what the driver tells. The only writer of the counters.
#[derive(Debug)]
pub struct MetricsSubscriber {
    counters: Counters,
    /// By number, so that counting looks up no keys.
    instances: Vec<Option<Arc<InstanceCounters>>>,
}

impl MetricsSubscriber {
    pub(super) fn new(counters: Counters) -> Self {
        Self { counters, instances: Vec::new() }
    }

    fn added(&mut self, id: InstanceId, key: &InstanceKey) {
        if self.instances.len() <= id.index() {
            self.instances.resize_with(id.index() + 1, || None);
        }
        self.instances[id.index()] = Some(self.counters.instances.add(key));
    }

    fn removed(&mut self, id: InstanceId, key: &InstanceKey) {
        if let Some(place) = self.instances.get_mut(id.index()) {
            *place = None;
        }
        self.counters.instances.remove(key);
    }

    fn ended(&self, kind: InstanceType, took: Millis) {
        self.counters.types[kind].durations.observe(took.as_secs_f64());
    }

    fn instance_event(&mut self, id: InstanceId, what: &InstanceEvent, key: &InstanceKey) {
        match what {
            InstanceEvent::Added { key } => return self.added(id, key),
            InstanceEvent::Removed { key } => return self.removed(id, key),
            InstanceEvent::PollStarted { lag, .. } => self.counters.lag.observe(lag.as_secs_f64()),
            InstanceEvent::StaleTicket { .. } => drop(self.counters.stale_tickets.inc()),
            _ => {}
        }
        let Some(counters) = self.instances.get(id.index()).and_then(Option::as_ref) else { return };
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match what {
            InstanceEvent::PollSucceeded { took, .. } => {
                count(&counters.successes);
                self.ended(key.kind(), *took);
            }
            InstanceEvent::PollFailed { took, failure, .. } => {
                count(&counters.failures);
                count(&counters.errors[failure.kind.index()]);
                self.ended(key.kind(), *took);
            }
            InstanceEvent::PollCancelled { .. } => count(&counters.cancelled),
            _ => {}
        }
    }
}

impl<R> Subscriber<R> for MetricsSubscriber {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        match (&event.what, key) {
            (What::Instance { instance, what }, Some(key)) => self.instance_event(*instance, what, key),
            (What::Fleet(FleetEvent::UnknownTicket { .. }), _) => drop(self.counters.stale_tickets.inc()),
            _ => {}
        }
    }

    fn report(&mut self, key: &InstanceKey, _at: Timestamp, report: &PollReport<R>) {
        let counters = &self.counters.types[key.kind()];
        counters.host_calls.fetch_add(u64::from(report.cost.calls), Ordering::Relaxed);
        counters.host_bytes.fetch_add(report.cost.bytes, Ordering::Relaxed);
    }

    fn step(&mut self, _inputs: usize, nanos: u64) {
        self.counters.steps.observe(nanos as f64 / 1e9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_encodes_holds_no_lock_that_a_change_of_the_fleet_needs() {
        let ledger = Ledger::default();
        let key = |n: usize| InstanceKey::new(InstanceType::Pve, &format!("{n:04}")).unwrap();
        for n in 0..2 * PAGE {
            ledger.add(&key(n));
        }
        let mut seen = Vec::new();
        let visited = ledger.visit(|shown, _| {
            // Somebody comes and somebody goes while a slow reader looks.
            ledger.add(&key(9_000 + seen.len()));
            ledger.remove(&key(2 * PAGE - 1));
            seen.push(shown.clone());
            if seen.len() > 4 * PAGE { Err(fmt::Error) } else { Ok(()) }
        });
        assert!(visited.is_err(), "new ones sort last here, so there would be no end of them");
        assert!(seen.is_sorted() && seen[..2 * PAGE - 1].iter().enumerate().all(|(n, shown)| *shown == key(n)));
        assert!(!seen.contains(&key(2 * PAGE - 1)));
    }
}
