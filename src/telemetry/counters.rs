//! Metrics that count: written by one subscriber, from the driver's events alone.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::labels::{CategoryLabels, ResultLabels, TypeLabels};
use crate::engine::{
    Event, FailureKind, FleetEvent, InstanceEvent, InstanceId, InstanceKey, InstanceType, Millis, PerType, Timestamp,
    What,
};
use crate::runtime::{PollReport, Subscriber};

const SUCCESS: &str = "success";
const FAILURE: &str = "failure";
const CANCELLED: &str = "cancelled";

type Durations = Family<TypeLabels, Histogram, fn() -> Histogram>;

/// Every counter and histogram. Clones share their values.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    polls: Family<ResultLabels, Counter>,
    errors: Family<CategoryLabels, Counter>,
    durations: Durations,
    lag: Histogram,
    steps: Histogram,
    host_calls: Family<TypeLabels, Counter>,
    host_bytes: Family<TypeLabels, Counter>,
    stale_tickets: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            polls: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(poll_durations),
            lag: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            steps: Histogram::new(exponential_buckets(0.000_001, 4.0, 10)),
            host_calls: Family::default(),
            host_bytes: Family::default(),
            stale_tickets: Counter::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        // The encoder appends `_total` to the names of counters.
        registry.register("pulse_monitor_poll", "Polls that ended", self.polls.clone());
        registry.register("pulse_monitor_poll_errors", "Polls that failed, by kind of failure", self.errors.clone());
        let help = "Seconds from the order of a poll to its end";
        registry.register("pulse_monitor_poll_duration_seconds", help, self.durations.clone());
        let help = "Seconds from the time a poll was due to its start";
        registry.register("pulse_monitor_schedule_lag_seconds", help, self.lag.clone());
        let help = "Seconds that the scheduler took for one step";
        registry.register("pulse_monitor_engine_step_seconds", help, self.steps.clone());
        let help = "Requests sent to hosts by polls";
        registry.register("pulse_monitor_host_calls", help, self.host_calls.clone());
        let help = "Bytes of answers read from hosts by polls";
        registry.register("pulse_monitor_host_bytes", help, self.host_bytes.clone());
        let help = "Answers that came too late or twice, and were dropped";
        registry.register("pulse_monitor_stale_tickets", help, self.stale_tickets.clone());
    }
}

fn poll_durations() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

/// Counts what the driver tells. The only writer of the counters.
#[derive(Debug)]
pub struct MetricsSubscriber {
    counters: Counters,
    /// By number, so that counting looks up no labels.
    instances: Vec<Option<InstanceCounters>>,
    types: PerType<TypeCounters>,
}

#[derive(Debug)]
struct InstanceCounters {
    successes: Counter,
    failures: Counter,
}

#[derive(Debug)]
struct TypeCounters {
    durations: Histogram,
    host_calls: Counter,
    host_bytes: Counter,
}

impl MetricsSubscriber {
    pub(super) fn new(counters: Counters) -> Self {
        let types = PerType::from_fn(|kind: InstanceType| {
            let labels = TypeLabels::of(kind);
            TypeCounters {
                durations: counters.durations.get_or_create_owned(&labels),
                host_calls: counters.host_calls.get_or_create_owned(&labels),
                host_bytes: counters.host_bytes.get_or_create_owned(&labels),
            }
        });
        Self { counters, instances: Vec::new(), types }
    }

    fn added(&mut self, id: InstanceId, key: &InstanceKey) {
        let polls = &self.counters.polls;
        let counters = InstanceCounters {
            successes: polls.get_or_create_owned(&ResultLabels::of(key, SUCCESS)),
            failures: polls.get_or_create_owned(&ResultLabels::of(key, FAILURE)),
        };
        if self.instances.len() <= id.index() {
            self.instances.resize_with(id.index() + 1, || None);
        }
        self.instances[id.index()] = Some(counters);
    }

    fn removed(&mut self, id: InstanceId, key: &InstanceKey) {
        if let Some(place) = self.instances.get_mut(id.index()) {
            *place = None;
        }
        for result in [SUCCESS, FAILURE, CANCELLED] {
            self.counters.polls.remove(&ResultLabels::of(key, result));
        }
        for kind in FailureKind::ALL {
            self.counters.errors.remove(&CategoryLabels::of(key, kind.as_str()));
        }
    }

    fn ended(&self, key: &InstanceKey, took: Millis) {
        self.types[key.kind()].durations.observe(took.as_secs_f64());
    }

    fn instance_event(&mut self, id: InstanceId, what: &InstanceEvent, key: &InstanceKey) {
        let counters = self.instances.get(id.index()).and_then(Option::as_ref);
        match what {
            InstanceEvent::Added { key } => self.added(id, key),
            InstanceEvent::Removed { key } => self.removed(id, key),
            InstanceEvent::PollStarted { lag, .. } => self.counters.lag.observe(lag.as_secs_f64()),
            InstanceEvent::PollSucceeded { took, .. } => {
                if let Some(counters) = counters {
                    counters.successes.inc();
                }
                self.ended(key, *took);
            }
            InstanceEvent::PollFailed { took, failure, .. } => {
                if let Some(counters) = counters {
                    counters.failures.inc();
                }
                let labels = CategoryLabels::of(key, failure.kind.as_str());
                self.counters.errors.get_or_create(&labels).inc();
                self.ended(key, *took);
            }
            InstanceEvent::PollCancelled { .. } => {
                self.counters.polls.get_or_create(&ResultLabels::of(key, CANCELLED)).inc();
            }
            InstanceEvent::StaleTicket { .. } => drop(self.counters.stale_tickets.inc()),
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
        let counters = &self.types[key.kind()];
        counters.host_calls.inc_by(u64::from(report.cost.calls));
        counters.host_bytes.inc_by(report.cost.bytes);
    }

    fn step(&mut self, _inputs: usize, nanos: u64) {
        self.counters.steps.observe(nanos as f64 / 1e9);
    }
}
