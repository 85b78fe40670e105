//! The dead-letter queue: why an instance is in it, and its entry there.
//!
//! The queue itself is the place of an instance; it waits on the same wheel as everybody else.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Why an instance is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// Too many transient failures in a row.
    MaxRetryAttempts,
    /// A failure that somebody has to mend.
    PermanentFailure,
}

impl DeadLetterReason {
    /// The name in answers, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxRetryAttempts => "max_retry_attempts",
            Self::PermanentFailure => "permanent_failure",
        }
    }
}

/// The entry of an instance in the dead-letter queue. It stays during a recheck and goes with the first success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeadLetter {
    pub(super) reason: DeadLetterReason,
    /// The first of the failures in a row that led here.
    pub(super) first_attempt: Timestamp,
    /// The last failure.
    pub(super) last_attempt: Timestamp,
    /// Rechecks that failed.
    pub(super) retry_count: u32,
}
