//! Staleness as a score between 0 (just seen) and 1 (never, or older than the maximum interval).

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// How stale an instance is: the age of its last success against the maximum interval, 0 to 1.
///
/// ```
/// use pulse::engine::{Millis, Score};
/// let score = Score::of(Millis::from_secs(75), Millis::from_mins(5));
/// assert_eq!(score.get(), 0.25);
/// assert_eq!(Score::of(Millis::MAX, Millis::from_mins(5)), Score::ONE);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(f64);

impl Score {
    /// Just seen.
    pub const ZERO: Self = Self(0.0);
    /// Never seen, or older than the maximum interval.
    pub const ONE: Self = Self(1.0);

    /// The score of a success `age` ago where the longest interval is `max`.
    pub fn of(age: Millis, max: Millis) -> Self {
        if age >= max { Self::ONE } else { Self(age.get() as f64 / max.get() as f64) }
    }

    /// The score as a number between 0 and 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_stays_between_zero_and_one() {
        assert_eq!(Score::of(Millis::ZERO, Millis::new(1)), Score::ZERO);
        assert_eq!(Score::of(Millis::ZERO, Millis::ZERO), Score::ONE);
        assert_eq!(Score::of(Millis::new(5), Millis::new(4)), Score::ONE);
    }
}
