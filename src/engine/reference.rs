//! The classic interval rule, kept so that the simulator can show what the default policy gains.
//!
//! target = min + (max − min)·(1 − staleness); divided by 1 + 0.6·errors; times 1 + 0.1·(depth − 1); smoothed with
//! α = 0.6. It is what the predecessor did, with its faults: right after a success staleness is low, so healthy
//! instances drift to the maximum, and queue depth counts as load.

use super::interval::{Choice, IntervalPolicy, IntervalReason, Observation, PolicyMemory};
use super::settings::Settings;
use super::time::Millis;

const ERROR_WEIGHT: f64 = 0.6;
const DEPTH_WEIGHT: f64 = 0.1;
const SMOOTHING: f64 = 0.6;

/// The predecessor's rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl IntervalPolicy for Reference {
    fn choose(&self, settings: &Settings, seen: &Observation, memory: &mut PolicyMemory) -> Choice {
        let (min, max) = (settings.min_interval, settings.max_interval);
        let span = max.saturating_sub(min).get() as f64;
        let target = min.get() as f64 + span * (1.0 - seen.staleness.get());
        let target = target / (1.0 + ERROR_WEIGHT * f64::from(seen.failures));
        let target = target * (1.0 + DEPTH_WEIGHT * f64::from(seen.queue_depth.saturating_sub(1)));
        let before = match memory.interval {
            Millis::ZERO => settings.base_interval,
            interval => interval,
        };
        let smoothed = SMOOTHING * target + (1.0 - SMOOTHING) * before.get() as f64;
        let interval = Millis::new(1).scaled(smoothed).clamp(min, max);
        memory.interval = interval;
        Choice::exactly(interval, IntervalReason::Policy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::score::Score;
    use super::*;

    #[test]
    fn the_rule_is_the_documented_formula() {
        let settings = Settings::default();
        let mut memory = PolicyMemory::default();
        let seen = Observation { changed: false, late: false, staleness: Score::ZERO, failures: 0, queue_depth: 1 };
        let first = Reference.choose(&settings, &seen, &mut memory);
        assert_eq!(first.interval, Millis::new(184_000), "0.6 · 300 s + 0.4 · 10 s");
        let seen = Observation { staleness: Score::ONE, failures: 2, queue_depth: 3, ..seen };
        let second = Reference.choose(&settings, &seen, &mut memory);
        // 5 s / 2.2 · 1.2 = 2.727 s, smoothed with the 184 s before.
        assert_eq!(second.interval, Millis::new(75_236));
    }

    #[test]
    fn healthy_instances_drift_to_the_maximum() {
        let settings = Settings::default();
        let mut memory = PolicyMemory::default();
        let seen = Observation {
            changed: false,
            late: false,
            staleness: Score::of(Millis::from_secs(10), settings.max_interval),
            failures: 0,
            queue_depth: 1,
        };
        let last = (0..20).map(|_| Reference.choose(&settings, &seen, &mut memory).interval).last();
        assert!(last > Some(Millis::from_secs(285)), "{last:?}");
    }
}
