//! Name look-ups, cached: a fleet that is polled every few seconds asks the resolver about once a minute a name.
//!
//! The operating system's resolver blocks a thread, so only a few look-ups run at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use crate::engine::{FailureKind, Millis, Timestamp};
use crate::targets::fault::Fault;

/// How long addresses are believed. The system's resolver hides the record's own lifetime.
const FRESH: Millis = Millis::from_mins(1);
/// How long addresses that did not work are kept in use, so that a host that is down costs no flood of look-ups.
const SUSPECT: Millis = Millis::from_secs(10);
/// How long old addresses are good enough while look-ups fail.
const USABLE: Millis = Millis::from_mins(15);
/// Look-ups at once, so that a hanging resolver cannot take every blocking thread.
const CONCURRENT_LOOKUPS: usize = 32;
/// Names kept; redirects must not be able to fill the memory.
const MAX_NAMES: usize = 131_072;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses of host names.
#[derive(Debug)]
pub(super) struct Resolver {
    names: Mutex<Names>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<Box<str>, Known>,
    /// Look-ups under way; whoever wants the same name waits for the same answer.
    asked: BTreeMap<Box<str>, Lookup>,
}

#[derive(Debug)]
struct Known {
    addresses: Arc<[IpAddr]>,
    at: Timestamp,
    suspect: bool,
}

type Lookup = Shared<BoxFuture<'static, Option<Arc<[IpAddr]>>>>;

/// What a name led to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) addresses: Arc<[IpAddr]>,
    /// Whether the system's resolver was asked on this account.
    pub(super) looked_up: bool,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { names: Mutex::default(), permits: Arc::new(Semaphore::new(CONCURRENT_LOOKUPS)) }
    }
}

impl Resolver {
    pub(super) async fn resolve(&self, name: &str, now: Timestamp) -> Result<Resolved, Fault> {
        let (lookup, looked_up) = {
            let mut names = self.lock();
            if let Some(addresses) = names.fresh(name, now) {
                return Ok(Resolved { addresses, looked_up: false });
            }
            names.ask(name, &self.permits)
        };
        let found = lookup.clone().await;
        let mut names = self.lock();
        if names.asked.get(name).is_some_and(|asked| asked.ptr_eq(&lookup)) {
            names.asked.remove(name);
        }
        if let Some(addresses) = &found {
            names.remember(name, Arc::clone(addresses), now);
        }
        found
            .or_else(|| names.usable(name, now))
            .map(|addresses| Resolved { addresses, looked_up })
            .ok_or_else(|| Fault::new(FailureKind::Dns, format!("the name {name} was not found")))
    }

    /// Suspects a name's addresses, which did not work, so that a host that moved is found soon.
    pub(super) fn suspect(&self, name: &str) {
        if let Some(known) = self.lock().known.get_mut(name) {
            known.suspect = true;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Names> {
        // Every change is one call of a map, so a panic elsewhere leaves both whole.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn fresh(&self, name: &str, now: Timestamp) -> Option<Arc<[IpAddr]>> {
        self.known.get(name).filter(|known| known.is_fresh(now)).map(|known| Arc::clone(&known.addresses))
    }

    fn usable(&self, name: &str, now: Timestamp) -> Option<Arc<[IpAddr]>> {
        self.known.get(name).filter(|known| now - known.at < USABLE).map(|known| Arc::clone(&known.addresses))
    }

    /// The look-up under way, or a new one; says whether it is new.
    fn ask(&mut self, name: &str, permits: &Arc<Semaphore>) -> (Lookup, bool) {
        if let Some(lookup) = self.asked.get(name) {
            return (lookup.clone(), false);
        }
        let lookup = look_up(name.to_owned(), Arc::clone(permits)).boxed().shared();
        self.asked.insert(name.into(), lookup.clone());
        (lookup, true)
    }

    fn remember(&mut self, name: &str, addresses: Arc<[IpAddr]>, now: Timestamp) {
        if self.known.len() >= MAX_NAMES {
            self.known.retain(|_, known| known.is_fresh(now));
        }
        if self.known.len() < MAX_NAMES {
            self.known.insert(name.into(), Known { addresses, at: now, suspect: false });
        }
    }
}

impl Known {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now - self.at < if self.suspect { SUSPECT } else { FRESH }
    }
}

/// Asks the system. The permit goes with the thread, which outlives a caller that gave up.
async fn look_up(name: String, permits: Arc<Semaphore>) -> Option<Arc<[IpAddr]>> {
    let permit = permits.acquire_owned().await.ok()?;
    let asked = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), 0).to_socket_addrs().ok();
        drop(permit);
        found
    });
    let mut addresses: Vec<IpAddr> = Vec::new();
    for socket in asked.await.ok()?? {
        if !addresses.contains(&socket.ip()) && addresses.len() < MAX_ADDRESSES {
            addresses.push(socket.ip());
        }
    }
    (!addresses.is_empty()).then(|| addresses.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_millis(61_000);

    #[tokio::test]
    async fn a_name_is_looked_up_once_a_minute_and_not_once_a_call() {
        let resolver = Resolver::default();
        assert!(resolver.resolve("localhost", Timestamp::ZERO).await.unwrap().looked_up);
        for second in 1..60 {
            let now = Timestamp::from_millis(second * 1_000);
            assert!(!resolver.resolve("localhost", now).await.unwrap().looked_up);
        }
        assert!(resolver.resolve("localhost", LATER).await.unwrap().looked_up);
    }

    #[tokio::test]
    async fn many_that_ask_for_one_name_at_once_cause_one_look_up() {
        let resolver = Resolver::default();
        let asks = (0..50).map(|_| resolver.resolve("localhost", Timestamp::ZERO));
        let answers = futures::future::join_all(asks).await;
        assert_eq!(answers.iter().filter(|answer| answer.as_ref().unwrap().looked_up).count(), 1);
    }

    #[tokio::test]
    async fn old_addresses_serve_while_look_ups_fail_but_not_for_ever() {
        let resolver = Resolver::default();
        let address: Arc<[IpAddr]> = [IpAddr::from([127, 0, 0, 1])].into();
        resolver.lock().remember("gone.invalid", Arc::clone(&address), Timestamp::ZERO);
        assert_eq!(resolver.resolve("gone.invalid", LATER).await.unwrap().addresses, address);
        let much_later = Timestamp::ZERO + USABLE;
        assert_eq!(resolver.resolve("gone.invalid", much_later).await.unwrap_err().kind, FailureKind::Dns);
    }

    #[tokio::test]
    async fn a_name_whose_addresses_did_not_work_is_looked_up_again_soon_but_not_at_once() {
        let resolver = Resolver::default();
        resolver.resolve("localhost", Timestamp::ZERO).await.unwrap();
        resolver.suspect("localhost");
        let second = |second: u64| Timestamp::from_millis(second * 1_000);
        assert!(!resolver.resolve("localhost", second(9)).await.unwrap().looked_up);
        assert!(resolver.resolve("localhost", second(10)).await.unwrap().looked_up);
        assert!(!resolver.resolve("localhost", second(21)).await.unwrap().looked_up, "it is trusted again");
    }

    #[tokio::test]
    async fn a_look_up_that_nobody_waits_for_any_more_does_not_block_the_name() {
        let resolver = Resolver { permits: Arc::new(Semaphore::new(0)), ..Resolver::default() };
        assert!(resolver.resolve("localhost", Timestamp::ZERO).now_or_never().is_none());
        resolver.permits.add_permits(1);
        assert!(resolver.resolve("localhost", Timestamp::ZERO).await.is_ok());
        assert!(resolver.lock().asked.is_empty());
    }
}
