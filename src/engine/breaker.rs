//! The circuit breaker of one instance: closed, open for a delay that doubles, half-open for one probe.
//!
//! When an open breaker may be probed is the instance's due time; the breaker keeps no second copy of it.

use serde::{Deserialize, Serialize};

use super::settings::BreakerSettings;
use super::time::{Millis, Timestamp};

/// Whether polls may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Polls pass.
    Closed,
    /// No poll passes before the next try is due.
    Open,
    /// One probe is under way.
    HalfOpen,
}

impl BreakerState {
    /// The name in answers, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of a breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: BreakerState,
    pub(super) to: BreakerState,
}

/// The breaker of one instance. It counts failures in a row; that count also drives backoff and dead-lettering.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    failures: u32,
    trips: u32,
    /// Whether the state ever changed.
    has_moved: bool,
    since: Timestamp,
}

impl Breaker {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { state: BreakerState::Closed, failures: 0, trips: 0, has_moved: false, since: now }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when the breaker is in its state.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// When the breaker last changed its state; `None` if it never did.
    pub(super) fn last_transition(&self) -> Option<Timestamp> {
        self.has_moved.then_some(self.since)
    }

    /// A poll is about to start: an open breaker lets it pass as the one probe.
    pub(super) fn start(&mut self, now: Timestamp) -> Option<Transition> {
        match self.state {
            BreakerState::Open => self.moved(BreakerState::HalfOpen, now),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// The poll succeeded: every penalty is forgotten.
    pub(super) fn succeeded(&mut self, now: Timestamp) -> Option<Transition> {
        self.failures = 0;
        self.trips = 0;
        self.moved(BreakerState::Closed, now)
    }

    /// The poll failed: opens at the threshold, and again after each failed probe.
    pub(super) fn failed(&mut self, now: Timestamp, settings: &BreakerSettings) -> Option<Transition> {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            BreakerState::Closed => self.failures >= settings.failure_threshold,
            BreakerState::Open | BreakerState::HalfOpen => true,
        };
        if !opens {
            return None;
        }
        self.trips = self.trips.saturating_add(1);
        self.moved(BreakerState::Open, now)
    }

    /// Counts a failure of an instance that has no breaker, for its lane and for operators.
    pub(super) fn count_failure(&mut self) -> Option<Transition> {
        self.failures = self.failures.saturating_add(1);
        None
    }

    /// How long the breaker stays open this time: doubled with each trip in a row.
    pub(super) fn open_delay(&self, settings: &BreakerSettings) -> Millis {
        settings.open_initial.doubled(self.trips.saturating_sub(1)).min(settings.open_max)
    }

    fn moved(&mut self, to: BreakerState, now: Timestamp) -> Option<Transition> {
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return None;
        }
        self.since = now;
        self.has_moved = true;
        Some(Transition { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;

    fn settings() -> BreakerSettings {
        Settings::default().breaker
    }

    fn fail(breaker: &mut Breaker) -> Option<Transition> {
        breaker.start(Timestamp::ZERO);
        breaker.failed(Timestamp::ZERO, &settings())
    }

    #[test]
    fn lesson_20_success_in_between_starts_the_failure_count_anew() {
        let mut breaker = Breaker::new(Timestamp::ZERO);
        for _ in 0..10 {
            assert_eq!(fail(&mut breaker), None);
            assert_eq!(fail(&mut breaker), None);
            breaker.succeeded(Timestamp::ZERO);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker);
        fail(&mut breaker);
        assert!(fail(&mut breaker).is_some(), "three in a row open it");
    }

    #[test]
    fn lesson_19_the_open_delay_doubles_saturates_and_is_forgotten_after_a_success() {
        let mut breaker = Breaker::new(Timestamp::ZERO);
        let mut delays = Vec::new();
        for failure in 1..=200 {
            fail(&mut breaker);
            if failure >= 3 {
                delays.push(breaker.open_delay(&settings()).get() / 1_000);
            }
        }
        assert_eq!(delays[..8], [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(delays[8..].iter().all(|secs| *secs == 300), "no overflow, however long the row");
        breaker.succeeded(Timestamp::ZERO);
        for _ in 0..3 {
            fail(&mut breaker);
        }
        assert_eq!(breaker.open_delay(&settings()), Millis::from_secs(5));
    }

    #[test]
    fn an_open_breaker_lets_one_probe_pass_and_a_failed_probe_opens_it_again() {
        let mut breaker = Breaker::new(Timestamp::ZERO);
        for _ in 0..3 {
            fail(&mut breaker);
        }
        let later = Timestamp::from_millis(5_000);
        let (open, half_open) = (BreakerState::Open, BreakerState::HalfOpen);
        assert_eq!(breaker.start(later), Some(Transition { from: open, to: half_open }));
        assert_eq!(breaker.start(later), None);
        assert_eq!(breaker.failed(later, &settings()), Some(Transition { from: half_open, to: open }));
        assert_eq!((breaker.since(), breaker.last_transition()), (later, Some(later)));
    }
}
