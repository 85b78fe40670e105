//! Random streams: one for each concern of each host, so that taking a host or a fault away moves nothing else.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The draws of one concern.
#[derive(Clone, Debug)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `concern` about `subject` in the world of `seed`.
    pub(crate) fn new(seed: u64, concern: &str, subject: &str) -> Self {
        let bytes = concern.bytes().chain([0]).chain(subject.bytes());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // FNV-1a: the same on every machine.
        rng.set_stream(
            bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        );
        Self(rng)
    }

    pub(crate) fn draw(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(end)) >> 64) as u64
    }
}
