//! The time that a poll may take, and how its steps share it.

use std::time::Duration;

use crate::engine::{FailureKind, Millis, Timestamp};

use super::fault::Fault;

/// Reads the caller's monotonic clock.
pub type Now<'a> = &'a (dyn Fn() -> Timestamp + Send + Sync);

/// The end of a poll, on the caller's clock.
#[derive(Clone, Copy)]
pub(super) struct Deadline<'a> {
    now: Now<'a>,
    end: Timestamp,
    span: Millis,
}

impl<'a> Deadline<'a> {
    /// Ends a little before `budget` is used up, so that the poll reports what hung before the driver cancels it.
    pub(super) fn just_before(budget: Millis, now: Now<'a>) -> Self {
        let margin = Millis::new((budget.get() / 20).clamp(1, 250));
        let span = budget.saturating_sub(margin);
        Self { now, end: now() + span, span }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.now)()
    }

    pub(super) fn remaining(&self) -> Millis {
        self.end - self.now()
    }

    /// The same deadline, or `span` from now if that is sooner.
    pub(super) fn at_most(&self, span: Millis) -> Self {
        Self { end: self.end.min(self.now() + span), ..*self }
    }

    /// Whether there is time for what could also be left for another poll.
    pub(super) fn has_a_fifth_left(&self) -> bool {
        self.remaining().get() >= self.span.get() / 5
    }

    /// Runs one step.
    ///
    /// # Errors
    /// A timeout that says what was waited for.
    pub(super) async fn run<T>(&self, step: impl Future<Output = T>, waited_for: &str) -> Result<T, Fault> {
        let span = self.remaining();
        let late = || Fault::new(FailureKind::Timeout, format!("{waited_for} within {span}"));
        if span == Millis::ZERO {
            // A timer of no length would still give a step that is quick a chance.
            return Err(late());
        }
        tokio::time::timeout(Duration::from(span), step).await.map_err(|_| late())
    }
}
