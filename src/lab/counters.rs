//! What was asked of a host: the evidence for tests of "few calls, connections kept alive".

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::engine::Timestamp;

/// Requests to more different paths than this are counted together.
const MAX_PATHS: usize = 128;
/// Where they are counted.
const OTHER_PATHS: &str = "(other)";

/// What was asked of a host since the lab started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// TLS handshakes completed.
    pub handshakes: u64,
    /// Of those, sessions that were resumed.
    pub resumed_handshakes: u64,
    /// Requests read, whatever came of them.
    pub requests: u64,
    /// Tickets issued.
    pub logins: u64,
    /// Passwords, tokens and tickets that were not believed.
    pub failed_logins: u64,
    /// Requests by path, without the query: `/api2/json/version`.
    pub requests_by_path: BTreeMap<String, u64>,
    /// What came of the requests that the host's behaviour has a say in.
    pub outcomes: Outcomes,
}

/// What came of the requests that a behaviour has a say in: all of them, or those to the path of a script.
///
/// The truth to hold a poller's own figures against. Slow answers are answers; a connection that a fault strikes before
/// a request counts as one that was struck. Connections that are refused are never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that a fault struck.
    pub struck: u64,
    /// Of those, how many in a row at the end.
    pub struck_in_a_row: u64,
    /// How often an answer came after a struck request.
    pub recoveries: u64,
    /// The lab's time of the last answer.
    pub last_answer: Option<Timestamp>,
    /// The lab's time of the last struck request.
    pub last_strike: Option<Timestamp>,
}

/// The live counts behind [`HostStats`].
#[derive(Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    open_connections: AtomicU64,
    handshakes: AtomicU64,
    resumed_handshakes: AtomicU64,
    requests: AtomicU64,
    logins: AtomicU64,
    failed_logins: AtomicU64,
    requests_by_path: Mutex<BTreeMap<String, u64>>,
    outcomes: Mutex<Outcomes>,
}

/// A connection is open as long as this lives.
pub(super) struct OpenConnection<'a>(&'a Counters);

impl Counters {
    /// Counts a connection, unless `limit` are open already.
    pub(super) fn connection(&self, limit: u64) -> Option<OpenConnection<'_>> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let open = OpenConnection(self);
        (self.open_connections.fetch_add(1, Ordering::Relaxed) < limit).then_some(open)
    }

    pub(super) fn handshake(&self, resumed: bool) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.resumed_handshakes.fetch_add(resumed.into(), Ordering::Relaxed);
    }

    /// Counts a request, and tells how many came before it.
    pub(super) fn request(&self, path: &str) -> u64 {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut paths = self.requests_by_path.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = paths.get_mut(path) {
            *count += 1;
        } else {
            let path = if paths.len() < MAX_PATHS { path } else { OTHER_PATHS };
            *paths.entry(path.to_owned()).or_default() += 1;
        }
        before
    }

    /// Counts what comes of a request at `now`.
    pub(super) fn outcome(&self, struck: bool, now: Timestamp) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if struck {
            outcomes.struck += 1;
            outcomes.struck_in_a_row += 1;
            outcomes.last_strike = Some(now);
        } else {
            outcomes.answered += 1;
            outcomes.recoveries += u64::from(outcomes.struck_in_a_row > 0);
            outcomes.struck_in_a_row = 0;
            outcomes.last_answer = Some(now);
        }
    }

    pub(super) fn login(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_login(&self) {
        self.failed_logins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> HostStats {
        let paths = self.requests_by_path.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        HostStats {
            connections: self.connections.load(Ordering::Relaxed),
            open_connections: self.open_connections.load(Ordering::Relaxed),
            handshakes: self.handshakes.load(Ordering::Relaxed),
            resumed_handshakes: self.resumed_handshakes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            logins: self.logins.load(Ordering::Relaxed),
            failed_logins: self.failed_logins.load(Ordering::Relaxed),
            requests_by_path: paths.clone(),
            outcomes: *self.outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_paths_is_counted_together() {
        let counters = Counters::default();
        for number in 0..1_000 {
            counters.request(&format!("/{number}"));
        }
        let stats = counters.stats();
        assert_eq!(stats.requests, 1_000);
        assert_eq!(stats.requests_by_path.len(), MAX_PATHS + 1);
        assert_eq!(stats.requests_by_path[OTHER_PATHS], 1_000 - MAX_PATHS as u64);
    }

    #[test]
    fn an_answer_ends_a_row_of_strikes_and_is_a_recovery() {
        let counters = Counters::default();
        for (millis, struck) in [(1, true), (2, true), (3, false), (4, false), (5, true)] {
            counters.outcome(struck, Timestamp::from_millis(millis));
        }
        let expected = Outcomes {
            answered: 2,
            struck: 3,
            struck_in_a_row: 1,
            recoveries: 1,
            last_answer: Some(Timestamp::from_millis(4)),
            last_strike: Some(Timestamp::from_millis(5)),
        };
        assert_eq!(counters.stats().outcomes, expected);
    }

    #[test]
    fn a_connection_beyond_the_limit_is_counted_but_not_opened() {
        let counters = Counters::default();
        let first = counters.connection(1);
        assert!(first.is_some() && counters.connection(1).is_none());
        drop(first);
        let stats = counters.stats();
        assert_eq!((stats.connections, stats.open_connections), (2, 0));
    }
}
