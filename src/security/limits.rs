//! How many calls somebody may make: 500 a minute for an address, 10 management calls a minute for a caller.
//!
//! Both let a burst through and then refill evenly (GCRA). The tables are bounded, whoever calls.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::tokens::TokenId;
use crate::engine::{Millis, Timestamp};
use crate::runtime::Clock;

/// Calls a minute for an address.
pub const CALLS_A_MINUTE: u32 = 500;
/// Management calls a minute for a caller.
pub const MANAGEMENT_CALLS_A_MINUTE: u32 = 10;
/// The most callers that one table knows. Of more, those that called longest ago are forgotten first.
const MAX_CALLERS: usize = 10_000;
/// How often at the most a caller's refusals are told anew.
const TELL_AGAIN_AFTER: Millis = Millis::from_secs(60);

/// Whose calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerId {
    /// Strangers at this address; for IPv6, in its network of 64 bits.
    Address(IpAddr),
    /// The holders of a token.
    Token(TokenId),
    /// A user, in all of their sessions.
    User(String),
    /// An account of this machine.
    Local(String),
}

impl CallerId {
    /// Strangers at `address`. Whoever has one IPv6 address has all of its network.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        })
    }
}

/// The limits of one daemon, on its clock. Cheap to clone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use pulse::runtime::TokioClock;
/// use pulse::security::{CallerId, RateLimits};
/// let limits = RateLimits::new(Arc::new(TokioClock::start()));
/// let caller = CallerId::Local("root".into());
/// assert!((0..10).all(|_| limits.management(&caller).is_within()));
/// let refused = limits.management(&caller);
/// assert!(!refused.is_within() && refused.retry_after.as_secs() <= 6);
/// # });
/// ```
#[derive(Clone)]
pub struct RateLimits {
    calls: Arc<Limiter>,
    management: Arc<Limiter>,
    told: Arc<Mutex<BTreeMap<CallerId, Timestamp>>>,
    clock: Arc<dyn Clock>,
}

/// Where a caller stands after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Calls a minute.
    pub limit: u32,
    /// Calls that could follow at once.
    pub remaining: u32,
    /// How long until all of them could.
    pub reset: Duration,
    /// How long until the next one could; zero if this one was within the limit.
    pub retry_after: Duration,
}

impl Standing {
    /// Whether the call was within the limit.
    pub const fn is_within(&self) -> bool {
        self.retry_after.is_zero()
    }
}

type Limiter = RateLimiter<CallerId, Table, LimitClock, StateInformationMiddleware>;

impl RateLimits {
    /// Full limits for everybody.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let limiter = |calls: u32| {
            let calls = NonZeroU32::new(calls).unwrap_or(NonZeroU32::MIN);
            let (table, clock) = (Table::default(), LimitClock(Arc::clone(&clock)));
            Arc::new(Limiter::new(Quota::per_minute(calls), table, clock))
        };
        let (calls, management) = (limiter(CALLS_A_MINUTE), limiter(MANAGEMENT_CALLS_A_MINUTE));
        Self { calls, management, told: Arc::default(), clock }
    }

    /// Counts a call.
    pub fn call(&self, caller: &CallerId) -> Standing {
        count(&self.calls, CALLS_A_MINUTE, caller, self.clock.as_ref())
    }

    /// Counts a management call.
    pub fn management(&self, caller: &CallerId) -> Standing {
        count(&self.management, MANAGEMENT_CALLS_A_MINUTE, caller, self.clock.as_ref())
    }

    /// Whether it is time to tell that calls of this caller are refused: once a minute at the most, so that a flood of
    /// calls is no flood of entries.
    pub fn is_news(&self, caller: &CallerId) -> bool {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(caller).is_some_and(|at| now - *at < TELL_AGAIN_AFTER) {
            return false;
        }
        told.retain(|_, at| now - *at < TELL_AGAIN_AFTER);
        // A table that is full of callers of this minute tells of no more of them.
        let room = told.len() < MAX_CALLERS;
        if room {
            told.insert(caller.clone(), now);
        }
        room
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

fn count(limiter: &Limiter, limit: u32, caller: &CallerId, clock: &dyn Clock) -> Standing {
    let period = Duration::from_secs(60) / limit;
    let (remaining, retry_after) = match limiter.check_key(caller) {
        Ok(snapshot) => (snapshot.remaining_burst_capacity(), Duration::ZERO),
        // A refusal never says zero, which would mean that there was none.
        Err(not_yet) => (0, not_yet.wait_time_from(now(clock)).max(Duration::from_millis(1))),
    };
    Standing { limit, remaining, reset: period * limit.saturating_sub(remaining), retry_after }
}

fn now(clock: &dyn Clock) -> Nanos {
    Nanos::from(clock.now().as_millis().saturating_mul(1_000_000))
}

/// The daemon's clock, as the limiter reads it.
struct LimitClock(Arc<dyn Clock>);

impl governor::clock::Clock for LimitClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        now(self.0.as_ref())
    }
}

/// When each caller's limit is full again. Ordered, so that nothing depends on a random seed, and bounded.
#[derive(Default)]
struct Table(Mutex<BTreeMap<CallerId, Nanos>>);

impl StateStore for Table {
    type Key = CallerId;

    fn measure_and_replace<T, F, E>(&self, caller: &CallerId, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, full_at) = decide(table.get(caller).copied())?;
        if table.len() >= MAX_CALLERS && !table.contains_key(caller) {
            forget_half(&mut table);
        }
        table.insert(caller.clone(), full_at);
        Ok(answer)
    }
}

/// Forgets the half whose limits are full again the soonest.
fn forget_half(table: &mut BTreeMap<CallerId, Nanos>) {
    let mut ends: Vec<u64> = table.values().map(|at| at.as_u64()).collect();
    let middle = ends.len() / 2;
    let (_, median, _) = ends.select_nth_unstable(middle);
    let median = *median;
    table.retain(|_, at| at.as_u64() > median);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::TokioClock;

    fn limits() -> (RateLimits, Arc<TokioClock>) {
        let clock = Arc::new(TokioClock::start());
        (RateLimits::new(clock.clone()), clock)
    }

    fn address(n: u32) -> CallerId {
        CallerId::of_address(std::net::Ipv4Addr::from(n).into())
    }

    #[tokio::test(start_paused = true)]
    async fn the_eleventh_management_call_waits_for_a_tenth_of_a_minute() {
        let (limits, clock) = limits();
        for remaining in (0..10).rev() {
            let standing = limits.management(&address(1));
            assert_eq!((standing.remaining, standing.is_within()), (remaining, true));
        }
        let refused = limits.management(&address(1));
        assert_eq!((refused.remaining, refused.retry_after.as_secs(), refused.reset.as_secs()), (0, 6, 60));
        assert!(limits.management(&address(2)).is_within(), "others have their own limit");
        clock.sleep_until(Timestamp::from_millis(5_999)).await;
        assert!(!limits.management(&address(1)).is_within());
        clock.sleep_until(Timestamp::from_millis(6_000)).await;
        assert!(limits.management(&address(1)).is_within(), "who waits as long as told is let in");
        assert!(!limits.management(&address(1)).is_within(), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_once_a_minute() {
        let (limits, clock) = limits();
        assert!(limits.is_news(&address(1)) && !limits.is_news(&address(1)) && limits.is_news(&address(2)));
        clock.sleep_until(Timestamp::from_millis(60_000)).await;
        assert!(limits.is_news(&address(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_called_longest_ago_are_forgotten_first() {
        let (limits, clock) = limits();
        for n in 0..30_000 {
            limits.call(&address(n));
            if n % 100 == 0 {
                clock.sleep_until(clock.now() + Millis::new(10)).await;
            }
        }
        let noisy = address(99_999);
        while limits.call(&noisy).is_within() {}
        for n in 0..9_000 {
            limits.call(&address(n));
        }
        assert!(!limits.call(&noisy).is_within(), "a flood of others does not wash out who is over the limit");
    }

    #[test]
    fn the_table_is_bounded() {
        let table = Table::default();
        for n in 0..MAX_CALLERS as u32 * 3 {
            let counted: Result<(), ()> = table.measure_and_replace(&address(n), |_| Ok(((), u64::from(n).into())));
            counted.unwrap();
            assert!(table.0.lock().unwrap().len() <= MAX_CALLERS);
        }
        assert!(table.0.lock().unwrap().contains_key(&address(MAX_CALLERS as u32 * 3 - 1)));
    }

    #[test]
    fn a_whole_ipv6_network_is_one_caller() {
        let caller = |text: &str| CallerId::of_address(text.parse().unwrap());
        assert_eq!(caller("2001:db8:1:2::1"), caller("2001:db8:1:2:ffff::9"));
        assert_ne!(caller("2001:db8:1:2::1"), caller("2001:db8:1:3::1"));
        assert_ne!(caller("10.0.0.1"), caller("10.0.0.2"));
    }
}
