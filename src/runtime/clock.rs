//! Time: monotonic for scheduling, wall time for display.
//!
//! This file owns the real clocks; everything else is handed a [`Clock`].

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::engine::{Millis, Timestamp};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time in whole milliseconds.
    fn now(&self) -> Timestamp;

    /// Monotonic time in nanoseconds, for measuring how long a step takes.
    fn nanos(&self) -> u64;

    /// Wall time, for display only: it may jump.
    fn wall(&self) -> jiff::Timestamp;

    /// Returns once [`Self::now`] has reached `deadline`. Cancel-safe.
    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'static, ()>;

    /// The wall time of a moment on the monotonic clock, by what the wall clock says now.
    fn wall_at(&self, at: Timestamp) -> jiff::Timestamp {
        self.calendar().at(at)
    }

    /// What tells the wall time of moments, as both clocks stand now.
    fn calendar(&self) -> Calendar {
        Calendar { now: self.now(), wall: self.wall() }
    }
}

/// Tells the wall time of moments on the monotonic clock. All answers of one calendar fit together, even if the wall
/// clock jumps meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    now: Timestamp,
    wall: jiff::Timestamp,
}

impl Calendar {
    /// The wall time at `at`.
    pub fn at(self, at: Timestamp) -> jiff::Timestamp {
        let shift = |span: Millis| jiff::SignedDuration::from_millis(i64::try_from(span.get()).unwrap_or(i64::MAX));
        let shifted = if at <= self.now {
            self.wall.checked_sub(shift(self.now - at))
        } else {
            self.wall.checked_add(shift(at - self.now))
        };
        shifted.unwrap_or(self.wall)
    }
}

/// The clock of a tokio runtime; virtual where the runtime's time is paused.
///
/// ```
/// use pulse::engine::Millis;
/// use pulse::runtime::{Clock, TokioClock};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let clock = TokioClock::start();
/// let deadline = clock.now() + Millis::new(5);
/// clock.sleep_until(deadline).await;
/// assert!(clock.now() >= deadline);
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Instant,
    wall: Wall,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    /// Wall time began here with the clock and runs with it.
    Origin(jiff::Timestamp),
}

impl TokioClock {
    /// A clock that begins now and shows the system's wall time. Needs a tokio runtime.
    pub fn start() -> Self {
        Self { start: instant_now(), wall: Wall::System }
    }

    /// A clock that begins now and whose wall time begins at `origin`, so that a run can be repeated.
    pub fn start_at(origin: jiff::Timestamp) -> Self {
        Self { start: instant_now(), wall: Wall::Origin(origin) }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = instant_now().saturating_duration_since(self.start).as_millis();
        Timestamp::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn nanos(&self) -> u64 {
        u64::try_from(instant_now().saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> jiff::Timestamp {
        match self.wall {
            Wall::System => system_now(),
            Wall::Origin(origin) => {
                let elapsed = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
                origin.checked_add(jiff::SignedDuration::from_millis(elapsed)).unwrap_or(origin)
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else sleeps through")]
    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'static, ()> {
        match self.start.checked_add(Duration::from_millis(deadline.as_millis())) {
            Some(at) => tokio::time::sleep_until(at).boxed(),
            // Further away than the system can tell time.
            None => std::future::pending().boxed(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one read of the monotonic clock")]
fn instant_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one read of the wall clock")]
fn system_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_times_of_past_and_future_follow_the_monotonic_clock() {
        let origin: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = TokioClock::start_at(origin);
        clock.sleep_until(Timestamp::from_millis(90_000)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(90_000));
        assert_eq!(clock.wall().to_string(), "2026-01-01T00:01:30Z");
        assert_eq!(clock.wall_at(Timestamp::from_millis(30_000)).to_string(), "2026-01-01T00:00:30Z");
        assert_eq!(clock.wall_at(Timestamp::from_millis(150_000)).to_string(), "2026-01-01T00:02:30Z");
        assert_eq!(clock.wall_at(Timestamp::MAX), clock.wall(), "beyond the calendar: now");
    }
}
