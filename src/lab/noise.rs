//! Figures that look alive and are a function of a seed and of time: the same arguments, the same fleet.

use crate::engine::Timestamp;

/// A gauge moves from one value to the next in this many milliseconds.
const GAUGE_PERIOD_MS: u64 = 60_000;

/// A stream of repeatable numbers, addressed by position instead of drawn in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent stream for `label`.
    pub(super) fn of(self, label: &str) -> Self {
        Self(label.bytes().fold(self.0, |state, byte| mix(state ^ u64::from(byte))))
    }

    /// The number at `position`.
    pub(super) const fn number(self, position: u64) -> u64 {
        mix(self.0 ^ mix(position))
    }

    /// The number at `position`, at least `low` and below `high`.
    pub(super) const fn between(self, position: u64, low: u64, high: u64) -> u64 {
        low + self.number(position) % (high - low)
    }

    /// The number at `position` as a fraction, 0 to 1 (excluded).
    pub(super) fn fraction(self, position: u64) -> f64 {
        // 53 bits fill a double's mantissa.
        (self.number(position) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A value that wanders between `low` and `high`, by small steps.
    pub(super) fn gauge(self, now: Timestamp, low: f64, high: f64) -> f64 {
        let (step, phase) = (now.as_millis() / GAUGE_PERIOD_MS, now.as_millis() % GAUGE_PERIOD_MS);
        let phase = phase as f64 / GAUGE_PERIOD_MS as f64;
        let value = self.fraction(step) * (1.0 - phase) + self.fraction(step + 1) * phase;
        low + value * (high - low)
    }

    /// A share of `total` that wanders between the fractions `low` and `high`.
    pub(super) fn share(self, now: Timestamp, total: u64, low: f64, high: f64) -> u64 {
        (self.gauge(now, low, high) * total as f64) as u64
    }
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_moves_by_small_steps_inside_its_bounds() {
        let gauge = |millis| Noise::new(1).of("cpu").gauge(Timestamp::from_millis(millis), 0.2, 0.6);
        for second in 0..600 {
            let (now, next) = (gauge(second * 1_000), gauge(second * 1_000 + 1_000));
            assert!((0.2..0.6).contains(&now));
            assert!((now - next).abs() < 0.01);
        }
        assert_ne!(gauge(0), gauge(90_000));
    }

    #[test]
    fn streams_of_different_labels_differ() {
        assert_ne!(Noise::new(1).of("a").number(0), Noise::new(1).of("b").number(0));
        assert_ne!(Noise::new(1).of("a").number(0), Noise::new(2).of("a").number(0));
    }
}
