//! The values of a scenario file that carry a rule of their own: spans, rates, counts.

use std::fmt;

use pulse::config::parse_span;
use pulse::engine::Millis;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written as in `system.json`: `750ms`, `10s`, `5m`, `4h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Millis);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often something happens: 0 is never, 1 always.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Rate(f64);

impl Rate {
    /// Always.
    pub const ONE: Self = Self(1.0);

    /// A rate of `share`, brought into 0 to 1.
    pub fn clamped(share: f64) -> Self {
        Self(share.clamp(0.0, 1.0))
    }

    /// The rate as a number between 0 and 1.
    pub fn share(self) -> f64 {
        self.0
    }

    /// Whether it happens, given a draw.
    pub fn hits(self, draw: u32) -> bool {
        f64::from(draw) < self.0 * 4_294_967_296.0
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::ONE
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rate = f64::deserialize(deserializer)?;
        match (0.0..=1.0).contains(&rate) {
            true => Ok(Self(rate)),
            false => Err(D::Error::custom(format!("a rate is between 0 and 1, and this is {rate}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_hits_as_often_as_it_says() {
        let hits = |rate: f64| (0..1_000_u32).filter(|n| Rate::clamped(rate).hits(n * 4_294_967)).count();
        assert_eq!((hits(0.0), hits(1.0)), (0, 1_000));
        assert!((240..=260).contains(&hits(0.25)));
    }
}
