//! How long a healthy instance rests between two polls: the policy, and the default one.
//!
//! A policy chooses; the engine then stretches for load, adds jitter and keeps the bounds. Failures are not its
//! business: backoff decides for those.

use serde::{Deserialize, Serialize};

use super::score::Score;
use super::settings::Settings;
use super::time::Millis;

/// Chooses the interval of an instance that has just been polled with success.
pub trait IntervalPolicy: Send + Sync + std::fmt::Debug {
    /// The interval from the start of this poll to the start of the next, before load, jitter and bounds.
    ///
    /// `memory` is this instance's own and starts as its default; the policy alone writes it.
    fn choose(&self, settings: &Settings, seen: &Observation, memory: &mut PolicyMemory) -> Choice;

    /// Whether the first failure of an instance brings forward the polls of the others on its machine.
    fn doubts_neighbours(&self) -> bool {
        false
    }
}

/// What the engine saw of an instance at the end of a successful poll.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// The reading differs from the one before. The first reading of all is no change.
    pub changed: bool,
    /// The poll came late, or ended a row of failures.
    pub late: bool,
    /// Age of the success before this one, against the maximum interval; 1 if there was none.
    pub staleness: Score,
    /// Failures in a row before this success.
    pub failures: u32,
    /// Depth of the live queue: instances that wait for their time or for a slot.
    pub queue_depth: u32,
}

/// What a policy remembers of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyMemory {
    /// Successes in a row that brought nothing new.
    pub unchanged: u32,
    /// How many more polls come sooner.
    pub alert: u8,
    /// The interval chosen last; zero before the first.
    pub interval: Millis,
}

/// An interval and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// From the start of one poll to the start of the next.
    pub interval: Millis,
    /// The next poll is drawn evenly from between here and the interval, where that is wider than the usual jitter.
    /// It keeps a fleet that changes its rhythm together from moving in step.
    pub earliest: Millis,
    /// Why.
    pub reason: IntervalReason,
}

impl Choice {
    /// Exactly this interval, but for the usual jitter.
    pub const fn exactly(interval: Millis, reason: IntervalReason) -> Self {
        Self { interval, earliest: interval, reason }
    }
}

/// Why an instance is polled next when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalReason {
    /// Newly known: its first poll is spread over the base interval.
    First,
    /// Healthy: the base interval.
    Base,
    /// Its reading changed lately: sooner.
    Changing,
    /// It was late or comes back from failures: sooner, and spread.
    CatchingUp,
    /// Another instance of its machine has just failed: as soon as the minimum interval allows.
    NeighbourFailed,
    /// Nothing new for long: later.
    Quiet,
    /// The instance or its type has a fixed interval.
    Fixed,
    /// A policy other than the default chose.
    Policy,
    /// It failed: backoff.
    Backoff,
    /// It failed and said itself when to come back.
    RetryAfter,
    /// Its breaker is open until then.
    BreakerOpen,
    /// It is dead-lettered: a recheck.
    Recheck,
    /// An operator asked for it.
    Operator,
    /// The settings changed.
    Replanned,
}

/// How many polls after a change come sooner, the next one included.
const ALERT_POLLS: u8 = 12;
/// How many readings in a row without news prove quiet: an hour of them at the default base interval.
const QUIET_AFTER: u32 = 360;

/// The default policy: base interval when healthy, three quarters of it for a while after a change, less than it once
/// when late, a sixteenth more when proven quiet. When an instance stops answering, the others of its machine are asked at
/// once.
///
/// The steps are small on purpose: at a given number of polls an uneven rhythm makes readings older on average. They
/// are taken where they pay for that (`docs/decisions/0001`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive;

impl IntervalPolicy for Adaptive {
    fn choose(&self, settings: &Settings, seen: &Observation, memory: &mut PolicyMemory) -> Choice {
        let base = settings.base_interval;
        memory.alert = if seen.changed { ALERT_POLLS } else { memory.alert.saturating_sub(1) };
        memory.unchanged = if seen.changed || seen.late { 0 } else { memory.unchanged.saturating_add(1) };
        let choice = if seen.late {
            let earliest = half(base).max(settings.min_interval);
            Choice { interval: base, earliest, reason: IntervalReason::CatchingUp }
        } else if memory.alert > 0 {
            let sooner = Millis::new(base.get() - base.get() / 4).max(settings.min_interval);
            Choice::exactly(sooner, IntervalReason::Changing)
        } else if memory.unchanged >= QUIET_AFTER {
            let later = (base + Millis::new(base.get() / 16)).min(settings.max_interval);
            Choice::exactly(later, IntervalReason::Quiet)
        } else {
            Choice::exactly(base, IntervalReason::Base)
        };
        memory.interval = choice.interval;
        choice
    }

    fn doubts_neighbours(&self) -> bool {
        true
    }
}

const fn half(span: Millis) -> Millis {
    Millis::new(span.get() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Observation {
        Observation { changed: false, late: false, staleness: Score::ZERO, failures: 0, queue_depth: 1 }
    }

    fn choose(seen: Observation, memory: &mut PolicyMemory) -> Choice {
        Adaptive.choose(&Settings::default(), &seen, memory)
    }

    #[test]
    fn lesson_10_a_healthy_instance_is_polled_at_the_base_interval() {
        let mut memory = PolicyMemory::default();
        for poll in 1..QUIET_AFTER {
            let choice = choose(calm(), &mut memory);
            assert_eq!(choice, Choice::exactly(Millis::from_secs(10), IntervalReason::Base), "{poll}");
        }
    }

    #[test]
    fn only_those_that_prove_quiet_are_polled_later_and_by_a_sixteenth() {
        let mut memory = PolicyMemory::default();
        let intervals: Vec<u64> = (0..2_000).map(|_| choose(calm(), &mut memory).interval.get()).collect();
        assert!(intervals.is_sorted());
        assert_eq!((intervals[358], intervals[359], intervals[1_999]), (10_000, 10_625, 10_625));
    }

    #[test]
    fn one_change_brings_a_quiet_instance_back_at_once() {
        let mut memory = PolicyMemory { unchanged: 500, ..PolicyMemory::default() };
        let changed = Observation { changed: true, ..calm() };
        let sooner = Choice::exactly(Millis::new(7_500), IntervalReason::Changing);
        assert_eq!(choose(changed, &mut memory), sooner);
        let after: Vec<u64> = (0..12).map(|_| choose(calm(), &mut memory).interval.get()).collect();
        assert!(after[..11].iter().all(|interval| *interval == 7_500), "sooner for 12 polls: {after:?}");
        assert_eq!(after[11], 10_000, "then base again");
    }

    #[test]
    fn a_late_one_comes_sooner_but_never_below_the_minimum() {
        let mut memory = PolicyMemory::default();
        let late = Observation { late: true, ..calm() };
        let (interval, earliest) = (Millis::from_secs(10), Millis::from_secs(5));
        assert_eq!(choose(late, &mut memory), Choice { interval, earliest, reason: IntervalReason::CatchingUp });
    }
}
