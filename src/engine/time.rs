//! The engine's own time: points and spans in whole milliseconds that saturate instead of failing.
//!
//! A millisecond is the tick of the schedule because it is the finest step that the usual timers keep.
//! The origin is whatever the driver's clock says; only differences have a meaning.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point of monotonic time, in milliseconds since the driver's clock began.
///
/// Arithmetic saturates at both ends.
///
/// ```
/// use pulse::engine::{Millis, Timestamp};
/// let start = Timestamp::from_millis(1_500);
/// assert_eq!(start + Millis::from_secs(2), Timestamp::from_millis(3_500));
/// assert_eq!(Timestamp::ZERO - start, Millis::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the driver's clock.
    pub const ZERO: Self = Self(0);
    /// The far end of time; arithmetic stops here.
    pub const MAX: Self = Self(u64::MAX);

    /// The point that lies `millis` after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to this point; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Self;

    fn add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Millis;

    fn sub(self, earlier: Self) -> Millis {
        self.since(earlier)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t+{}", Millis(self.0))
    }
}

/// A span of time in whole milliseconds. Arithmetic saturates.
///
/// ```
/// use pulse::engine::Millis;
/// assert_eq!(Millis::from_secs(5).to_string(), "5s");
/// assert_eq!(Millis::new(1_500).to_string(), "1500ms");
/// assert_eq!(Millis::from_mins(5).doubled(40), Millis::MAX.min(Millis::from_mins(5).doubled(40)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest span there is.
    pub const MAX: Self = Self(u64::MAX);

    /// A span of `millis` milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// A span of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// A span of `mins` minutes.
    pub const fn from_mins(mins: u64) -> Self {
        Self::from_secs(mins.saturating_mul(60))
    }

    /// The number of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This span in seconds, for ratios and metrics.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// This span doubled `times` times, saturating.
    pub const fn doubled(self, times: u32) -> Self {
        match 1_u64.checked_shl(times) {
            Some(factor) => Self(self.0.saturating_mul(factor)),
            None if self.0 == 0 => Self(0),
            None => Self::MAX,
        }
    }

    /// This span times `factor`; a factor that is negative or no number gives zero.
    pub fn scaled(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        // A float cast saturates at both ends and turns NaN into zero.
        Self((self.0 as f64 * factor).round() as u64)
    }

    /// `self - other`, at least zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<Duration> for Millis {
    /// Rounds up, so that a deadline is never early.
    fn from(duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

impl fmt::Display for Millis {
    /// The largest unit that divides the span: `24h`, `5m`, `90s`, `1500ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            millis if millis % 3_600_000 == 0 => write!(f, "{}h", millis / 3_600_000),
            millis if millis % 60_000 == 0 => write!(f, "{}m", millis / 60_000),
            millis if millis % 1_000 == 0 => write!(f, "{}s", millis / 1_000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::MAX + Millis::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO - Timestamp::MAX, Millis::ZERO);
        assert_eq!(Millis::MAX + Millis::new(1), Millis::MAX);
        assert_eq!(Millis::new(5).doubled(64), Millis::MAX);
        assert_eq!(Millis::ZERO.doubled(64), Millis::ZERO);
        assert_eq!(Millis::new(5).scaled(f64::NAN), Millis::ZERO);
        assert_eq!(Millis::new(5).scaled(-1.0), Millis::ZERO);
        assert_eq!(Millis::new(5).scaled(f64::INFINITY), Millis::MAX);
    }

    #[test]
    fn a_span_prints_in_the_largest_unit_that_divides_it() {
        for (millis, text) in
            [(0, "0s"), (750, "750ms"), (1_000, "1s"), (90_000, "90s"), (300_000, "5m"), (86_400_000, "24h")]
        {
            assert_eq!(Millis::new(millis).to_string(), text);
        }
    }

    #[test]
    fn a_duration_is_rounded_up() {
        assert_eq!(Millis::from(Duration::from_nanos(1)), Millis::new(1));
        assert_eq!(Millis::from(Duration::from_millis(3)), Millis::new(3));
    }
}
