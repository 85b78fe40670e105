//! Metrics that are derived: made anew from the scheduler's health at each scrape.
//!
//! Nothing is stored, so nothing can be forgotten: staleness grows while nobody polls (lesson 24), and the series of an
//! instance that was removed are gone (lesson 25).

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{InstanceLabels, ReasonLabels, TypeLabels};
use crate::engine::{BreakerState, InstanceHealth, InstanceType, SchedulerHealth};
use crate::runtime::Calendar;

type Real = Gauge<f64, AtomicU64>;

/// Every derived metric, as the scheduler stands.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    staleness: Family<InstanceLabels, Real>,
    last_success: Family<InstanceLabels, Real>,
    breaker_state: Family<InstanceLabels, Gauge>,
    in_flight: Family<TypeLabels, Gauge>,
    late: Family<TypeLabels, Gauge>,
    dead_letters: Family<ReasonLabels, Gauge>,
    queue_depth: Gauge,
    load_lag: Real,
    load_slots_used: Real,
    load_stretch: Real,
}

impl Gauges {
    pub(super) fn of(health: &SchedulerHealth, calendar: Calendar) -> Self {
        let gauges = Self::default();
        for kind in InstanceType::ALL {
            let labels = TypeLabels::of(kind);
            gauges.in_flight.get_or_create(&labels).set(i64::from(health.in_flight[kind]));
            gauges.late.get_or_create(&labels).set(0);
        }
        for instance in &health.instances {
            gauges.add(instance, calendar);
        }
        gauges.queue_depth.set(i64::from(health.queue.depth));
        gauges.load_lag.set(health.load.lag.as_secs_f64());
        gauges.load_slots_used.set(health.load.slots_used);
        gauges.load_stretch.set(health.load.stretch);
        gauges
    }

    fn add(&self, instance: &InstanceHealth, calendar: Calendar) {
        let kind = instance.key.kind();
        let labels = InstanceLabels::of(&instance.key);
        self.staleness.get_or_create(&labels).set(instance.age.as_secs_f64());
        if let Some(at) = instance.last_success {
            self.last_success.get_or_create(&labels).set(calendar.at(at).as_millisecond() as f64 / 1_000.0);
        }
        if let Some(breaker) = instance.breaker {
            self.breaker_state.get_or_create(&labels).set(match breaker.state {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Open => 2,
            });
        }
        if instance.late {
            self.late.get_or_create(&TypeLabels::of(kind)).inc();
        }
        if let Some(entry) = instance.dead_letter {
            let labels = ReasonLabels { instance_type: kind.as_str(), reason: entry.reason.as_str() };
            self.dead_letters.get_or_create(&labels).inc();
        }
    }

    pub(super) fn register(self, registry: &mut Registry) {
        let help = "Seconds since the last successful poll, or since the instance is known if there was none";
        registry.register("pulse_monitor_poll_staleness_seconds", help, self.staleness);
        let help = "When a poll last succeeded, in seconds since 1970";
        registry.register("pulse_monitor_poll_last_success_timestamp", help, self.last_success);
        registry.register("pulse_monitor_poll_queue_depth", "Instances in the live queue", self.queue_depth);
        registry.register("pulse_monitor_poll_inflight", "Polls under way", self.in_flight);
        let help = "Circuit breaker: 0 closed, 1 half-open, 2 open";
        registry.register("pulse_monitor_breaker_state", help, self.breaker_state);
        registry.register("pulse_monitor_dead_letters", "Instances in the dead-letter queue", self.dead_letters);
        let help = "Instances whose last success is older than twice their planned interval plus the timeout";
        registry.register("pulse_monitor_late_instances", help, self.late);
        let help = "Mean seconds from due to start, over the last window of measurement";
        registry.register("pulse_monitor_load_lag_seconds", help, self.load_lag);
        let help = "Share of poll slots in use, over the last window of measurement";
        registry.register("pulse_monitor_load_slots_used_ratio", help, self.load_slots_used);
        let help = "By how much every interval is stretched because slots or time are short; 1 is not at all";
        registry.register("pulse_monitor_load_stretch_ratio", help, self.load_stretch);
    }
}
