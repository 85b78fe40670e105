//! Random draws, each instance from its own ChaCha stream.
//!
//! The stream follows from the instance's key, so adding a host moves nobody else's schedule.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::key::InstanceKey;
use super::time::Millis;

/// As many draws as fit a cache line.
const WORDS: usize = 32;

/// Where the streams of one engine come from.
#[derive(Clone, Debug)]
pub(super) struct JitterSource(ChaCha8Rng);

impl JitterSource {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn stream(key: &InstanceKey) -> Jitter {
        Jitter { block: 0, used: WORDS as u8, words: [0; WORDS], stream: stream_of(key) }
    }
}

/// The draws of one instance. Many are made at a time, so that a draw is a read. What each draw needs comes first.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Jitter {
    block: u32,
    used: u8,
    words: [u16; WORDS],
    stream: u64,
}

impl Jitter {
    /// A span between `low` and `high`, both included; `low` where they are the wrong way round.
    #[inline]
    pub(super) fn between(&mut self, source: &JitterSource, low: Millis, high: Millis) -> Millis {
        let width = u128::from(high.saturating_sub(low).get());
        let part = ((width + 1) * u128::from(self.draw(source))) >> 16;
        low + Millis::new(u64::try_from(part).unwrap_or(u64::MAX))
    }

    #[inline]
    fn draw(&mut self, source: &JitterSource) -> u16 {
        if usize::from(self.used) == WORDS {
            self.refill(source);
        }
        let word = self.words[usize::from(self.used)];
        self.used += 1;
        word
    }

    fn refill(&mut self, source: &JitterSource) {
        let mut stream = source.0.clone();
        stream.set_stream(self.stream);
        stream.set_word_pos(u128::from(self.block) * WORDS as u128 / 2);
        for pair in self.words.chunks_exact_mut(2) {
            let word = stream.next_u32();
            pair[0] = word as u16;
            pair[1] = (word >> 16) as u16;
        }
        self.block = self.block.wrapping_add(1);
        self.used = 0;
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every run.
fn stream_of(key: &InstanceKey) -> u64 {
    let bytes = key.kind().as_str().bytes().chain([b':']).chain(key.name().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, key: &str, count: usize) -> Vec<u64> {
        let source = JitterSource::new(seed);
        let mut jitter = JitterSource::stream(&key.parse().unwrap());
        (0..count).map(|_| jitter.between(&source, Millis::new(950), Millis::new(1_050)).get()).collect()
    }

    #[test]
    fn a_stream_is_a_function_of_seed_and_key() {
        assert_eq!(draws(7, "pve::a", 100), draws(7, "pve::a", 100));
        assert_ne!(draws(7, "pve::a", 100), draws(8, "pve::a", 100));
        assert_ne!(draws(7, "pve::a", 100), draws(7, "pve::b", 100));
    }

    #[test]
    fn draws_fill_their_bounds_evenly_and_never_leave_them() {
        let draws = draws(1, "pbs::a", 20_000);
        assert!(draws.iter().all(|draw| (950..=1_050).contains(draw)));
        assert!(draws.contains(&950) && draws.contains(&1_050));
        let mean = draws.iter().sum::<u64>() as f64 / draws.len() as f64;
        assert!((mean - 1_000.0).abs() < 1.0, "{mean}");
        let at_the_ends = draws.iter().filter(|draw| **draw == 950 || **draw == 1_050).count();
        assert!(at_the_ends < 600, "{at_the_ends} of 20000 draws met at the bounds");
    }

    #[test]
    fn bounds_the_wrong_way_round_give_the_lower_one() {
        let source = JitterSource::new(0);
        let mut jitter = JitterSource::stream(&"tcp::a".parse().unwrap());
        assert_eq!(jitter.between(&source, Millis::new(5), Millis::new(1)), Millis::new(5));
        assert_eq!(jitter.between(&source, Millis::MAX, Millis::MAX), Millis::MAX);
    }
}
