//! The values of a scenario file that carry a rule of their own: spans, rates, counts.

use std::fmt;

use pulse::config::parse_span;
use pulse::engine::Millis;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written as in `system.json`: `750ms`, `10s`, `5m`, `4h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Millis);

/// A year: longer spans are slips of the pen, and sums of them stay far from the end of time.
const LONGEST: Millis = Millis::from_mins(366 * 24 * 60);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl serde::de::Visitor<'_> for Written {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as \"750ms\", \"10s\" or \"5m\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                match parse_span(text).map_err(E::custom)? {
                    span if span > LONGEST => Err(E::custom(format!("{text} is longer than a year"))),
                    span => Ok(Span(span)),
                }
            }
        }

        deserializer.deserialize_str(Written)
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

/// How long answers take, as a histogram of a real fleet tells it: between two of these, each time is as likely.
///
/// The tail may be as heavy as the last two say; no other shape is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    /// The shortest.
    pub min: Span,
    /// Half of the answers are quicker.
    pub p50: Span,
    /// Nine of ten.
    pub p90: Span,
    /// 99 of 100.
    pub p99: Span,
    /// The longest.
    pub max: Span,
}

impl Quantiles {
    /// The time of an answer, given a draw.
    pub fn at(self, draw: u32) -> Millis {
        // Whole numbers, so that every machine draws the same.
        let steps = [(0, self.min), (500, self.p50), (900, self.p90), (990, self.p99), (1_000, self.max)];
        let permille_fraction = u128::from(draw) * 1_000;
        let place = |permille: u64| u128::from(permille) << 32;
        let pair = steps.windows(2).find(|pair| permille_fraction < place(pair[1].0));
        let Some([(from, low), (to, high)]) = pair.and_then(|pair| <[_; 2]>::try_from(pair).ok()) else {
            return self.max.0;
        };
        let (low, high) = (u128::from(low.0.get()), u128::from(high.0.get()));
        let above = (high - low) * (permille_fraction - place(from)) / (place(to) - place(from));
        Millis::new(u64::try_from(low + above).unwrap_or(u64::MAX)).max(Millis::new(1))
    }
}

impl<'de> Deserialize<'de> for Quantiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Written {
            min: Option<Span>,
            p50: Span,
            p90: Span,
            p99: Span,
            max: Span,
        }
        let Written { min, p50, p90, p99, max } = Written::deserialize(deserializer)?;
        let min = min.unwrap_or(Span(Millis::new(p50.0.get() / 2)));
        match [min, p50, p90, p99, max].is_sorted() {
            true => Ok(Self { min, p50, p90, p99, max }),
            false => Err(D::Error::custom("the quantiles of a latency rise: min, p50, p90, p99, max")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_kept_by_what_is_drawn_from_them() {
        let span = |millis| Span(Millis::new(millis));
        let quantiles =
            Quantiles { min: span(50), p50: span(100), p90: span(300), p99: span(2_000), max: span(30_000) };
        let mut drawn: Vec<u64> = (0..10_000_u32).map(|n| quantiles.at(n * 429_496).get()).collect();
        drawn.sort_unstable();
        let near = |place: usize, wanted: u64| assert!(drawn[place].abs_diff(wanted) <= wanted / 50, "{place}");
        for (place, wanted) in [(0, 50), (5_000, 100), (9_000, 300), (9_900, 2_000), (9_999, 30_000)] {
            near(place, wanted);
        }
        assert!(quantiles.at(u32::MAX) <= Millis::new(30_000));
    }

    #[test]
    fn a_rate_hits_as_often_as_it_says() {
        let hits = |rate: f64| (0..1_000_u32).filter(|n| Rate::clamped(rate).hits(n * 4_294_967)).count();
        assert_eq!((hits(0.0), hits(1.0)), (0, 1_000));
        assert!((240..=260).contains(&hits(0.25)));
    }
}
