//! Randomness that nobody can reproduce: the one place that asks the system for it.

use rand::TryRng;
use thiserror::Error;

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

/// 256 random bits.
pub(crate) fn random_bytes() -> Result<[u8; 32], NoRandomness> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}
