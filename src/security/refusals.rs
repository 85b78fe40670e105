//! Strangers who were turned away: each is counted, and as many are told in the audit log as an operator can read.
//!
//! Whoever has many addresses can be refused as often as they like. What exceeds the entries of a window is told together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use serde_json::json;

use super::Caller;
use super::audit::{Attempt, AuditError, AuditLog, Conclusion};
use super::lockout::network;
use crate::engine::{Millis, Timestamp};
use crate::runtime::Clock;

/// How long a window is.
const WINDOW: Millis = Millis::from_mins(10);
/// Entries of their own in a window.
const OWN_ENTRIES: u32 = 100;
/// Addresses whose refusals are told together and counted apart.
const MAX_ADDRESSES: usize = 1_000;
/// Of these, so many are named.
const NAMED_ADDRESSES: usize = 5;

/// Why a stranger was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The name or the password was wrong; which of them is not told.
    WrongPassword,
    /// There were too many failures before.
    Locked,
    /// The setup token was wrong.
    WrongSetupToken,
    /// The API token was wrong, expired or revoked.
    WrongToken,
    /// There were no valid credentials with a call that changes something.
    NoCredentials,
}

impl Reason {
    const ALL: [Self; 5] =
        [Self::WrongPassword, Self::Locked, Self::WrongSetupToken, Self::WrongToken, Self::NoCredentials];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong_password",
            Self::Locked => "locked",
            Self::WrongSetupToken => "wrong_setup_token",
            Self::WrongToken => "wrong_token",
            Self::NoCredentials => "no_credentials",
        }
    }
}

/// The refusals of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Refusals {
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    counts: RefusalCounts,
    window: Arc<Mutex<Window>>,
}

/// How many strangers were turned away, by reason. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RefusalCounts(Arc<[AtomicU64; Reason::ALL.len()]>);

impl RefusalCounts {
    /// How many there were for this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    fn add(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Refusals {
    pub(super) fn new(audit: AuditLog, clock: Arc<dyn Clock>) -> Self {
        Self { audit, clock, counts: RefusalCounts::default(), window: Arc::default() }
    }

    /// Counts a refusal of `attempt`. It has an entry of its own in the audit log unless there were many of late.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn note(&self, reason: Reason, attempt: Attempt, detail: impl fmt::Display) -> Result<(), AuditError> {
        self.counts.add(reason);
        if self.window().has_room(self.clock.now()) {
            self.audit.record(attempt, Conclusion::refused(detail)).await?;
        } else {
            self.tell_later(reason, attempt.by.address);
        }
        Ok(())
    }

    /// The same for a token, of which a program that was not told of its end tries the same over and over: an address has
    /// one entry of its own in a window.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn note_token(&self, by: Caller) -> Result<(), AuditError> {
        let (address, now) = (by.address, self.clock.now());
        self.counts.add(Reason::WrongToken);
        let is_news = {
            let mut window = self.window();
            window.is_first_token(address, now) && window.has_room(now)
        };
        if is_news {
            self.audit.record(Attempt::new(by, "token.use"), Conclusion::refused("unknown or expired token")).await?;
        } else {
            self.tell_later(Reason::WrongToken, address);
        }
        Ok(())
    }

    /// Writes down together what had no entry of its own: when a window is over, or `at_once`.
    ///
    /// # Errors
    /// It could not be written down, and will be the next time.
    pub async fn tell_the_rest(&self, at_once: bool) -> Result<(), AuditError> {
        let now = self.clock.now();
        let Some(rest) = self.window().take_rest(now, at_once) else { return Ok(()) };
        let told = Conclusion::done(None, Some(rest.to_json(now)));
        let told = self.audit.record(Attempt::new(Caller::SYSTEM, "auth.refused"), told).await;
        if told.is_err() {
            self.window().put_back(rest);
        }
        told.map(|_| ())
    }

    /// How many there were since the start.
    pub fn counts(&self) -> &RefusalCounts {
        &self.counts
    }

    fn tell_later(&self, reason: Reason, address: Option<IpAddr>) {
        let now = self.clock.now();
        self.window().rest.get_or_insert_with(|| Rest::since(now)).add(reason, address, 1);
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for RefusalCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Strangers who were turned away";
        let mut family = encoder.encode_descriptor("pulse_auth_refused", help, None, MetricType::Counter)?;
        for reason in Reason::ALL {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(self.of(reason)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What was told of late, and what was not.
#[derive(Debug, Default)]
struct Window {
    began: Option<Timestamp>,
    own_entries: u32,
    /// Those who sent a wrong token, by network; no more than there are entries.
    token_senders: BTreeSet<Option<IpAddr>>,
    rest: Option<Rest>,
}

impl Window {
    /// Takes the place of one entry, if there is one.
    fn has_room(&mut self, now: Timestamp) -> bool {
        self.renew(now);
        let room = self.own_entries < OWN_ENTRIES;
        self.own_entries += u32::from(room);
        room
    }

    fn is_first_token(&mut self, address: Option<IpAddr>, now: Timestamp) -> bool {
        self.renew(now);
        self.own_entries < OWN_ENTRIES && self.token_senders.insert(address.map(network))
    }

    fn renew(&mut self, now: Timestamp) {
        if self.began.is_none_or(|began| now >= began + WINDOW) {
            *self = Self { began: Some(now), rest: self.rest.take(), ..Self::default() };
        }
    }

    fn take_rest(&mut self, now: Timestamp, at_once: bool) -> Option<Rest> {
        self.rest.take_if(|rest| at_once || now >= rest.since + WINDOW)
    }

    fn put_back(&mut self, mut earlier: Rest) {
        if let Some(later) = self.rest.take() {
            later.reasons.iter().for_each(|(reason, count)| *earlier.reasons.entry(*reason).or_default() += count);
            later.addresses.iter().for_each(|(address, count)| earlier.add_address(*address, *count));
        }
        self.rest = Some(earlier);
    }
}

/// Refusals without an entry of their own.
#[derive(Debug)]
struct Rest {
    since: Timestamp,
    reasons: BTreeMap<Reason, u64>,
    addresses: BTreeMap<IpAddr, u64>,
}

impl Rest {
    const fn since(since: Timestamp) -> Self {
        Self { since, reasons: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    fn add(&mut self, reason: Reason, address: Option<IpAddr>, count: u64) {
        *self.reasons.entry(reason).or_default() += count;
        if let Some(address) = address {
            self.add_address(network(address), count);
        }
    }

    fn add_address(&mut self, address: IpAddr, count: u64) {
        if self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&address) {
            *self.addresses.entry(address).or_default() += count;
        }
    }

    fn to_json(&self, now: Timestamp) -> serde_json::Value {
        let reasons: BTreeMap<_, _> = self.reasons.iter().map(|(reason, count)| (reason.as_str(), count)).collect();
        let mut most: Vec<_> = self.addresses.iter().collect();
        most.sort_by_key(|(address, count)| (std::cmp::Reverse(**count), **address));
        let most: Vec<_> = most.iter().take(NAMED_ADDRESSES).collect();
        let most: Vec<_> = most.iter().map(|(address, count)| json!({"address": address, "count": count})).collect();
        json!({
            "withinSeconds": (now - self.since).get() / 1_000,
            "reasons": reasons,
            "addresses": self.addresses.len(),
            "mostFrequent": most,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::runtime::TokioClock;
    use crate::security::KeyFile;
    use crate::security::audit::{AuditEntry, AuditFilter, AuditPage};
    use crate::store::Store;

    struct World {
        refusals: Refusals,
        audit: AuditLog,
        clock: Arc<TokioClock>,
    }

    impl World {
        async fn new() -> Self {
            let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()));
            let (store, key) = (Store::in_memory().unwrap(), Arc::new(KeyFile::fixed([7; 32])));
            let audit = AuditLog::begin(store, key, clock.clone(), TaskTracker::new()).await.unwrap();
            Self { refusals: Refusals::new(audit.clone(), clock.clone()), audit, clock }
        }

        async fn refuse(&self, host: u32) {
            let attempt = Attempt::new(caller(host), "session.sign_in");
            self.refusals.note(Reason::WrongPassword, attempt, "wrong").await.unwrap();
        }

        async fn entries(&self, action: &str) -> Vec<AuditEntry> {
            let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
            self.audit.list(filter, AuditPage::After(0), 1_000).await.unwrap()
        }

        async fn pass(&self, span: Millis) {
            self.clock.sleep_until(self.clock.now() + span).await;
        }
    }

    fn caller(host: u32) -> Caller {
        Caller::anonymous(Some(Ipv4Addr::from_bits(0x0a00_0000 + host).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_ever_new_addresses_has_a_bounded_number_of_entries_and_then_one_that_tells_of_the_rest() {
        let world = World::new().await;
        for host in 0..1_500 {
            world.refuse(host % 1_200).await;
        }
        assert_eq!(world.entries("session.sign_in").await.len(), 100);
        world.refusals.tell_the_rest(false).await.unwrap();
        assert!(world.entries("auth.refused").await.is_empty(), "the window is not over");
        world.pass(WINDOW).await;
        world.refusals.tell_the_rest(false).await.unwrap();
        world.refusals.tell_the_rest(false).await.unwrap();
        let told = world.entries("auth.refused").await;
        assert_eq!(told.len(), 1);
        let told = told[0].after.clone().unwrap();
        assert_eq!((&told["reasons"]["wrong_password"], &told["addresses"]), (&json!(1_400), &json!(1_000)));
        assert_eq!(told["mostFrequent"][0], json!({"address": "10.0.0.100", "count": 2}));
        assert_eq!(world.refusals.counts().of(Reason::WrongPassword), 1_500);
        world.refuse(1).await;
        assert_eq!(world.entries("session.sign_in").await.len(), 101, "the next window begins with entries again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_sends_a_wrong_token_over_and_over_is_told_once_in_a_window() {
        let world = World::new().await;
        for _ in 0..50 {
            world.refusals.note_token(caller(1)).await.unwrap();
        }
        world.refusals.note_token(caller(2)).await.unwrap();
        assert_eq!(world.entries("token.use").await.len(), 2);
        world.refusals.tell_the_rest(true).await.unwrap();
        let told = world.entries("auth.refused").await;
        assert_eq!(told[0].after.clone().unwrap()["reasons"], json!({"wrong_token": 49}));
        world.pass(WINDOW).await;
        world.refusals.note_token(caller(1)).await.unwrap();
        assert_eq!(world.entries("token.use").await.len(), 3);
    }

    #[test]
    fn what_could_not_be_told_is_told_with_what_came_since() {
        let (mut window, address) = (Window::default(), Ipv4Addr::LOCALHOST.into());
        let rest = |count| {
            let mut rest = Rest::since(Timestamp::ZERO);
            rest.add(Reason::Locked, Some(address), count);
            rest
        };
        window.rest = Some(rest(2));
        window.put_back(rest(3));
        let rest = window.take_rest(Timestamp::ZERO, true).unwrap();
        assert_eq!((rest.reasons[&Reason::Locked], rest.addresses[&address]), (5, 5));
    }
}
