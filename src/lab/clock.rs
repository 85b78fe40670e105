//! The lab's time: a source that the caller gives, so that what the fleet says is a function of time.
//!
//! Waiting (slow answers, schedules) uses tokio's timer instead, because a socket lives in real time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Timestamp;

/// 2026-01-01T09:00:00Z, the wall time at which every lab begins: a working day with some mail behind it.
const UNIX_SECONDS_AT_START: u64 = 1_767_258_000;

/// Where the lab takes its time from. Cheap to clone.
///
/// ```
/// use pulse::engine::Timestamp;
/// use pulse::lab::LabClock;
/// let clock = LabClock::new(|| Timestamp::from_millis(1_500));
/// assert_eq!(clock.now(), Timestamp::from_millis(1_500));
/// ```
#[derive(Clone)]
pub struct LabClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl LabClock {
    /// A clock that reads `now`, the time since the lab began.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// A clock that follows tokio's, from zero at this call.
    pub fn real() -> Self {
        let start = tokio_now();
        Self::new(move || {
            let elapsed = tokio_now().saturating_duration_since(start);
            Timestamp::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// The time since the lab began.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for LabClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LabClock").field(&self.now()).finish()
    }
}

/// The wall time that an emulated host shows at `now`, in seconds since 1970.
pub(super) fn unix_seconds(now: Timestamp) -> u64 {
    UNIX_SECONDS_AT_START.saturating_add(now.as_millis() / 1_000)
}

#[expect(clippy::disallowed_methods, reason = "the clock of a lab that runs as a process of its own")]
fn tokio_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Waits in real time.
#[expect(clippy::disallowed_methods, reason = "slow and scheduled hosts are slow for real sockets, in real time")]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
