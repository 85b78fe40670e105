//! The daemon's clock in a world where somebody sets the wall clock: monotonic time goes on, wall time jumps.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::SignedDuration;
use pulse::engine::{Millis, Timestamp};
use pulse::runtime::{Clock, TokioClock};

use crate::host::is_active;
use crate::scenario::{Fault, FaultKind, Scenario};

/// By how much a clock is wrong if the scenario does not say.
const AN_HOUR: Millis = Millis::from_mins(60);

/// A clock whose wall time is wrong while a fault of the scenario says so.
#[derive(Debug)]
pub(crate) struct SteppedClock {
    clock: Arc<TokioClock>,
    steps: Vec<Fault>,
}

impl SteppedClock {
    pub(crate) fn new(clock: Arc<TokioClock>, scenario: &Scenario) -> Self {
        let steps = scenario.faults.iter().filter(|fault| step(fault).is_some()).cloned().collect();
        Self { clock, steps }
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn nanos(&self) -> u64 {
        self.clock.nanos()
    }

    fn wall(&self) -> jiff::Timestamp {
        let now = self.clock.now();
        let active = self.steps.iter().filter(|fault| is_active(fault, now)).filter_map(step);
        active.fold(self.clock.wall(), |wall, step| wall.checked_add(step).unwrap_or(wall))
    }

    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// By how much the fault moves the wall clock.
fn step(fault: &Fault) -> Option<SignedDuration> {
    let by = fault.by.map_or(AN_HOUR, |span| span.0);
    let by = SignedDuration::from_millis(i64::try_from(by.get()).unwrap_or(i64::MAX));
    match fault.kind {
        FaultKind::ClockAhead => Some(by),
        FaultKind::ClockBehind => Some(-by),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_jumps_there_and_back_and_monotonic_time_does_not_notice() {
        let scenario = r#"
            name = "clocks"
            duration = "10m"
            hosts = [{ group = "a", count = 1 }]
            faults = [
                { kind = "clock_ahead", from = "1m", for = "1m" },
                { kind = "clock_behind", from = "3m", for = "1m", by = "90s" },
            ]
        "#;
        let scenario = Scenario::parse(scenario, "clocks.toml".as_ref()).unwrap();
        let clock = SteppedClock::new(Arc::new(TokioClock::start_at(jiff::Timestamp::UNIX_EPOCH)), &scenario);
        let mut seen = Vec::new();
        for half_minutes in [0, 3, 5, 7, 9] {
            let at = Timestamp::from_millis(half_minutes * 30_000);
            clock.sleep_until(at).await;
            assert_eq!(clock.now(), at);
            seen.push(clock.wall().as_second() - i64::try_from(half_minutes * 30).unwrap());
            // All moments move together, so that what is shown stays in order.
            assert_eq!(
                clock.wall_at(at).as_second() - clock.wall_at(Timestamp::ZERO).as_second(),
                (half_minutes * 30) as i64
            );
        }
        assert_eq!(seen, [0, 3_600, 0, -90, 0]);
    }
}
