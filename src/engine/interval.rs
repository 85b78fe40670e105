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
    /// Instances that are due and wait, this one included.
    pub waiting: u32,
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
const ALERT_POLLS: u8 = 3;
/// How many readings without news make one step of quiet.
const QUIET_STEP: u32 = 30;
/// A quiet instance is polled at a quarter of the base rate at least, because its interval is also the time that
/// its failure stays unseen.
const QUIET_LIMIT: u64 = 4;

/// The default policy: base interval when healthy, half of it while changing, less than it when late, longer when
/// proven quiet.
///
/// Each 30 readings in a row without news stretch the interval by half, up to four times the base interval; one
/// change brings it back at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive;

impl IntervalPolicy for Adaptive {
    fn choose(&self, settings: &Settings, seen: &Observation, memory: &mut PolicyMemory) -> Choice {
        let base = settings.base_interval;
        let sooner = half(base).max(settings.min_interval);
        if seen.changed || seen.late {
            memory.unchanged = 0;
            memory.alert = ALERT_POLLS;
        } else {
            memory.unchanged = memory.unchanged.saturating_add(1);
            memory.alert = memory.alert.saturating_sub(1);
        }
        let choice = if seen.late {
            Choice { interval: base, earliest: sooner, reason: IntervalReason::CatchingUp }
        } else if memory.alert > 0 {
            Choice::exactly(sooner, IntervalReason::Changing)
        } else {
            self.quiet(base, settings.max_interval, memory)
        };
        memory.interval = choice.interval;
        choice
    }
}

impl Adaptive {
    fn quiet(self, base: Millis, max: Millis, memory: &PolicyMemory) -> Choice {
        let limit = Millis::new(base.get().saturating_mul(QUIET_LIMIT)).min(max);
        let mut interval = base;
        for _ in 0..memory.unchanged / QUIET_STEP {
            if interval >= limit {
                break;
            }
            interval = (interval + half(interval)).min(limit);
        }
        if interval == base {
            return Choice::exactly(base, IntervalReason::Base);
        }
        let grew = interval > memory.interval;
        let earliest = if grew { half(memory.interval) } else { interval };
        Choice { interval, earliest, reason: IntervalReason::Quiet }
    }
}

const fn half(span: Millis) -> Millis {
    Millis::new(span.get() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Observation {
        Observation { changed: false, late: false, staleness: Score::ZERO, failures: 0, waiting: 1 }
    }

    fn choose(seen: Observation, memory: &mut PolicyMemory) -> Choice {
        Adaptive.choose(&Settings::default(), &seen, memory)
    }

    #[test]
    fn lesson_10_a_healthy_instance_is_polled_at_the_base_interval() {
        let mut memory = PolicyMemory::default();
        for poll in 0..29 {
            let choice = choose(calm(), &mut memory);
            assert_eq!(choice, Choice::exactly(Millis::from_secs(10), IntervalReason::Base), "{poll}");
        }
    }

    #[test]
    fn only_those_that_prove_quiet_are_polled_later_and_never_beyond_four_times_base() {
        let mut memory = PolicyMemory::default();
        let intervals: Vec<u64> = (0..200).map(|_| choose(calm(), &mut memory).interval.get()).collect();
        assert!(intervals.is_sorted());
        assert_eq!((intervals[28], intervals[29], intervals[199]), (10_000, 15_000, 40_000));
    }

    #[test]
    fn one_change_brings_a_quiet_instance_back_at_once() {
        let mut memory = PolicyMemory { unchanged: 500, ..PolicyMemory::default() };
        let changed = Observation { changed: true, ..calm() };
        let sooner = Choice::exactly(Millis::from_secs(5), IntervalReason::Changing);
        assert_eq!(choose(changed, &mut memory), sooner);
        let after: Vec<u64> = (0..3).map(|_| choose(calm(), &mut memory).interval.get()).collect();
        assert_eq!(after, [5_000, 5_000, 10_000], "sooner for three polls, then base again");
    }

    #[test]
    fn a_late_one_comes_sooner_but_never_below_the_minimum() {
        let mut memory = PolicyMemory::default();
        let late = Observation { late: true, ..calm() };
        let (interval, earliest) = (Millis::from_secs(10), Millis::from_secs(5));
        assert_eq!(choose(late, &mut memory), Choice { interval, earliest, reason: IntervalReason::CatchingUp });
    }
}
