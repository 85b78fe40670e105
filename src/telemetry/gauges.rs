//! Metrics that are derived: made anew from the scheduler's state at each scrape.
//!
//! Nothing is stored, so nothing can be forgotten: staleness grows while nobody polls (lesson 24), and the series of an
//! instance that was removed are gone (lesson 25).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::labels::{of_instance, of_reason, of_type};
use crate::engine::{
    BreakerState, DeadLetterReason, InstanceHealth, InstanceKey, LoadHealth, Millis, PerType, SchedulerHealth,
    Timestamp,
};
use crate::runtime::Calendar;

/// Every derived metric, as the scheduler stood when it was read.
#[derive(Debug)]
pub(super) struct Gauges {
    calendar: Calendar,
    queue_depth: u32,
    in_flight: PerType<u32>,
    load: LoadHealth,
    /// Sorted by key, as are the series.
    rows: Vec<Row>,
}

/// What the metrics need of one instance.
#[derive(Debug)]
pub(super) struct Row {
    key: InstanceKey,
    age: Millis,
    last_success: Option<Timestamp>,
    breaker: Option<BreakerState>,
    dead_letter: Option<DeadLetterReason>,
    late: bool,
}

impl Row {
    pub(super) fn of(instance: &InstanceHealth) -> Self {
        Self {
            key: instance.key.clone(),
            age: instance.age,
            last_success: instance.last_success,
            breaker: instance.breaker.map(|breaker| breaker.state),
            dead_letter: instance.dead_letter.map(|entry| entry.reason),
            late: instance.late,
        }
    }
}

impl Gauges {
    pub(super) fn of(health: &SchedulerHealth, calendar: Calendar) -> Self {
        let rows = health.instances.iter().map(Row::of).collect();
        Self::new(health.queue.depth, health.in_flight, health.load, rows, calendar)
    }

    pub(super) fn new(
        queue_depth: u32,
        in_flight: PerType<u32>,
        load: LoadHealth,
        rows: Vec<Row>,
        calendar: Calendar,
    ) -> Self {
        Self { calendar, queue_depth, in_flight, load, rows }
    }

    fn encode_instances(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds since the last successful poll, or since the instance is known if there was none.";
        let mut family = gauge(encoder, "pulse_monitor_poll_staleness_seconds", help)?;
        for row in &self.rows {
            series(&mut family, &of_instance(&row.key), &row.age.as_secs_f64())?;
        }
        let help = "When a poll last succeeded, in seconds since 1970.";
        let mut family = gauge(encoder, "pulse_monitor_poll_last_success_timestamp", help)?;
        for (row, at) in self.rows.iter().filter_map(|row| Some((row, row.last_success?))) {
            let seconds = self.calendar.at(at).as_millisecond() as f64 / 1_000.0;
            series(&mut family, &of_instance(&row.key), &seconds)?;
        }
        let mut family =
            gauge(encoder, "pulse_monitor_breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open.")?;
        for (row, state) in self.rows.iter().filter_map(|row| Some((row, row.breaker?))) {
            let state: i64 = match state {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Open => 2,
            };
            series(&mut family, &of_instance(&row.key), &state)?;
        }
        let mut family = gauge(
            encoder,
            "pulse_monitor_instance_late",
            "1 for each instance that is late; the others have no series.",
        )?;
        self.rows.iter().filter(|row| row.late).try_for_each(|row| series(&mut family, &of_instance(&row.key), &1_i64))
    }

    fn encode_types(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = gauge(encoder, "pulse_monitor_poll_inflight", "Polls under way.")?;
        for (kind, count) in self.in_flight.iter() {
            series(&mut family, &of_type(kind), &i64::from(*count))?;
        }
        let help = "Instances whose last success is older than twice their planned interval plus the timeout.";
        let mut family = gauge(encoder, "pulse_monitor_late_instances", help)?;
        let late = self.count(|row| row.late);
        late.iter().try_for_each(|(kind, count)| series(&mut family, &of_type(kind), count))?;
        let mut family = gauge(encoder, "pulse_monitor_dead_letters", "Instances in the dead-letter queue.")?;
        for reason in [DeadLetterReason::MaxRetryAttempts, DeadLetterReason::PermanentFailure] {
            let dead = self.count(|row| row.dead_letter == Some(reason));
            for (kind, count) in dead.iter().filter(|(kind, _)| !kind.is_availability_check()) {
                series(&mut family, &of_reason(kind, reason), count)?;
            }
        }
        Ok(())
    }

    fn count(&self, is_counted: impl Fn(&Row) -> bool) -> PerType<i64> {
        let mut counts = PerType::default();
        self.rows.iter().filter(|row| is_counted(row)).for_each(|row| counts[row.key.kind()] += 1);
        counts
    }

    fn encode_daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut single = |name, help, value: f64| gauge(encoder, name, help)?.encode_gauge(&value);
        single("pulse_monitor_poll_queue_depth", "Instances in the live queue.", f64::from(self.queue_depth))?;
        let help = "Mean seconds from due to start, over the last window of measurement.";
        single("pulse_monitor_load_lag_seconds", help, self.load.lag.as_secs_f64())?;
        let help = "Share of poll slots in use, over the last window of measurement.";
        single("pulse_monitor_load_slots_used_ratio", help, self.load.slots_used)?;
        let help = "By how much every interval is stretched because slots or time are short; 1 is not at all.";
        single("pulse_monitor_load_stretch_ratio", help, self.load.stretch)
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_instances(&mut encoder)?;
        self.encode_types(&mut encoder)?;
        self.encode_daemon(&mut encoder)
    }
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn series<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(value)
}
