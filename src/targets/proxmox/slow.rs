//! Parts of a reading that are costly for the host and so have their own, slower rhythm.

use crate::engine::{Millis, Timestamp};
use crate::targets::fault::{CallFailure, FailedCall};
use crate::targets::reading::Dated;

/// How often a costly part is read.
pub(super) const SLOW_RHYTHM: Millis = Millis::from_mins(5);

/// A costly part: when it was last asked for, its last good data, and what failed since.
#[derive(Debug)]
pub(super) struct SlowPart<T> {
    asked: Option<Timestamp>,
    good: Option<(Timestamp, T)>,
    failed: Option<FailedCall>,
}

impl<T> Default for SlowPart<T> {
    fn default() -> Self {
        Self { asked: None, good: None, failed: None }
    }
}

impl<T: Clone> SlowPart<T> {
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.asked.is_none_or(|asked| now - asked >= SLOW_RHYTHM)
    }

    /// Notes that the part is being asked for, whatever comes of it: a call that hangs is not repeated at each poll.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.asked = Some(now);
    }

    /// When it was last asked for; never comes first.
    pub(super) fn asked(&self) -> Option<Timestamp> {
        self.asked
    }

    pub(super) fn finish(&mut self, now: Timestamp, answer: Result<T, CallFailure>) {
        match answer {
            Ok(data) => {
                self.good = Some((now, data));
                self.failed = None;
            }
            Err(failure) => self.failed = Some(FailedCall::from(&failure)),
        }
    }

    /// The last good data, with its age.
    pub(super) fn dated(&self, now: Timestamp) -> Option<Dated<T>> {
        self.good.as_ref().map(|(read, value)| Dated { age: now - *read, value: value.clone() })
    }

    pub(super) fn failed(&self) -> Option<&FailedCall> {
        self.failed.as_ref()
    }
}
