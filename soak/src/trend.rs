//! Whether a series grows: Theil–Sen for how fast, Mann–Kendall for whether that could be chance.
//!
//! Samples a second apart are no independent witnesses, so medians of blocks are tested, and what correlation is left
//! between neighbouring blocks widens the test.

use serde::Serialize;

/// A series is cut into so many blocks at the most.
const MAX_BLOCKS: usize = 24;
/// Fewer say nothing.
const MIN_BLOCKS: usize = 8;
/// A block has so many samples at least.
const MIN_IN_BLOCK: usize = 4;
/// The most correlation between neighbouring blocks that is granted: a bent line would else pass for noise.
const MAX_CORRELATION: f64 = 0.5;
/// One-sided: chance alone gives a larger one once in a thousand series.
const SIGNIFICANT: f64 = 3.09;

/// How a series went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The median of the first block.
    pub first: f64,
    /// The median of the last block.
    pub last: f64,
    /// The slope of Theil and Sen, a second.
    pub slope: f64,
    /// By how much the series rose in the whole time, going by the slope.
    pub rise: f64,
    /// How many standard deviations the test of Mann and Kendall is above chance.
    pub score: f64,
}

impl Trend {
    /// Whether the rise is more than chance.
    pub fn is_significant(&self) -> bool {
        self.score > SIGNIFICANT
    }
}

/// The trend of `series`, pairs of seconds and values in the order of time; `None` if it is too short to tell.
///
/// ```
/// let steady: Vec<(f64, f64)> = (0..200).map(|n| (f64::from(n), f64::from(n * 7 % 5))).collect();
/// assert!(!soak::trend(&steady).unwrap().is_significant());
/// let leaking: Vec<(f64, f64)> = steady.iter().map(|(at, value)| (*at, value + at / 10.0)).collect();
/// let trend = soak::trend(&leaking).unwrap();
/// assert!(trend.is_significant());
/// assert!((18.0..22.0).contains(&trend.rise));
/// ```
pub fn trend(series: &[(f64, f64)]) -> Option<Trend> {
    let blocks = blocks(series);
    let (first, last) = (blocks.first()?, blocks.last()?);
    if blocks.len() < MIN_BLOCKS {
        return None;
    }
    let slope = median(slopes(&blocks).collect());
    Some(Trend {
        first: first.1,
        last: last.1,
        slope,
        rise: slope * (series.last()?.0 - series.first()?.0),
        score: score(&blocks, slope),
    })
}

/// The middle of each block in time, and the median of its values.
fn blocks(series: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let count = (series.len() / MIN_IN_BLOCK).clamp(1, MAX_BLOCKS);
    let bound = |block: usize| block * series.len() / count;
    let block = |number: usize| {
        let samples = &series[bound(number)..bound(number + 1)];
        let middle = samples.iter().map(|(at, _)| at).sum::<f64>() / samples.len().max(1) as f64;
        (middle, median(samples.iter().map(|(_, value)| *value).collect()))
    };
    (0..count).map(block).collect()
}

/// The slope between each block and each later one.
fn slopes(blocks: &[(f64, f64)]) -> impl Iterator<Item = f64> + '_ {
    blocks.iter().enumerate().flat_map(move |(index, (at, value))| {
        blocks[index + 1..].iter().map(move |(later, other)| (other - value) / (later - at).max(f64::EPSILON))
    })
}

fn score(blocks: &[(f64, f64)], slope: f64) -> f64 {
    let signs = slopes(blocks).map(|slope| if slope == 0.0 { 0.0 } else { slope.signum() });
    let concordance: f64 = signs.sum();
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<f64> = blocks.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    let residuals: Vec<f64> = blocks.iter().map(|(at, value)| value - slope * at).collect();
    let kept = correlation(&residuals).clamp(0.0, MAX_CORRELATION);
    let variance = (term(blocks.len() as f64) - ties) / 18.0 * (1.0 + kept) / (1.0 - kept);
    if variance <= 0.0 { 0.0 } else { (concordance - concordance.signum()) / variance.sqrt() }
}

/// The correlation of each value with the next.
fn correlation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let together: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

/// The median; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Noise that remembers itself: each value keeps `memory` of the one before.
    fn noise(rng: &mut ChaCha8Rng, length: usize, memory: f64) -> Vec<(f64, f64)> {
        let mut value = 0.0;
        let mut next = |_| {
            // The sum of twelve uniform numbers is as good as normal.
            let fresh = (0..12).map(|_| f64::from(rng.next_u32()) / 4_294_967_296.0).sum::<f64>() - 6.0;
            value = memory * value + (1.0 - memory * memory).sqrt() * fresh;
            value
        };
        (0..length).map(|second| (second as f64, next(second))).collect()
    }

    fn alarms(length: usize, memory: f64, slope: f64) -> usize {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let alarm = |_: &usize| {
            let mut series = noise(&mut rng, length, memory);
            series.iter_mut().for_each(|(at, value)| *value += slope * *at);
            trend(&series).is_some_and(|it| it.is_significant())
        };
        (0..2_000).filter(alarm).count()
    }

    /// The rates that docs/soak.md states: of 2,000 series each.
    #[test]
    fn false_alarms_are_as_rare_as_documented() {
        // Memory of a second, of ten seconds; two minutes, fifteen minutes.
        let seen =
            [(120, 0.0), (120, 0.37), (120, 0.90), (900, 0.90), (900, 0.98)].map(|(n, memory)| alarms(n, memory, 0.0));
        assert_eq!(seen, [0, 4, 14, 2, 8]);
    }

    #[test]
    fn a_rise_of_a_few_spreads_is_found() {
        assert_eq!([5.0, 8.0].map(|spreads| alarms(900, 0.9, spreads / 900.0)), [1_975, 2_000]);
    }

    #[test]
    fn a_bent_line_and_a_staircase_are_growth_too() {
        let bent: Vec<_> = (0..900).map(|n| (f64::from(n), f64::from(n).powi(2))).collect();
        let stairs: Vec<_> = (0..900).map(|n| (f64::from(n), f64::from(n / 100))).collect();
        assert!(trend(&bent).unwrap().is_significant());
        assert!(trend(&stairs).unwrap().is_significant());
    }

    #[test]
    fn a_constant_a_fall_and_a_lone_spike_are_none() {
        let series = |value: fn(i32) -> f64| (0..200).map(|n| (f64::from(n), value(n))).collect::<Vec<_>>();
        for harmless in [series(|_| 3.0), series(|n| f64::from(-n)), series(|n| if n == 100 { 1e9 } else { 0.0 })] {
            assert!(!trend(&harmless).unwrap().is_significant());
        }
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        let series: Vec<_> = (0..31).map(|n| (f64::from(n), f64::from(n))).collect();
        assert_eq!(trend(&series), None);
    }
}
