//! How long somebody who fails to sign in has to wait: longer with each failure, never for ever.
//!
//! A failure counts against the account and against the address. Whoever comes from where the account's user was
//! before is not held up by what others do to the account.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::engine::{Millis, Timestamp};

/// What one of the two counts allows.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// Failures without a delay.
    free: u32,
    /// The delay after the first failure that is not free; it doubles with each further one,
    first_delay: Millis,
    /// up to this.
    longest_delay: Millis,
}

const ACCOUNT: Allowance =
    Allowance { free: 5, first_delay: Millis::from_secs(2), longest_delay: Millis::from_mins(5) };
/// Several people may share an address.
const ADDRESS: Allowance =
    Allowance { free: 10, first_delay: Millis::from_secs(2), longest_delay: Millis::from_mins(15) };
/// A count is forgotten when it has not grown for this long after its last delay.
const FORGOTTEN_AFTER: Millis = Millis::from_mins(60);
/// Accounts, and addresses, that are kept in mind.
const MAX_KEPT: usize = 4_096;

/// Who tries to sign in, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knock {
    /// The account, whether it exists or not; none where there is only a secret to guess.
    pub(super) account: Option<String>,
    /// The address; none over the unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether the account's user has signed in from this address before.
    pub(super) familiar: bool,
}

/// Somebody has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    /// Until when.
    pub(super) until: Timestamp,
    /// Whether this is the first time that they are told so since their last failure.
    pub(super) first_told: bool,
}

/// The failures of late.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    accounts: Table<String>,
    addresses: Table<IpAddr>,
}

impl Lockout {
    /// Somebody is about to try. That counts as a failure at once, so that many at a time gain nothing; see
    /// [`Self::succeeded`] and [`Self::withdrawn`].
    pub(super) fn begin(&mut self, knock: &Knock, now: Timestamp) -> Result<(), Locked> {
        let address = knock.address.map(network);
        let account = knock.account.as_ref().filter(|_| !knock.familiar);
        let locked = [
            account.and_then(|account| self.accounts.locked(account, now)),
            address.and_then(|address| self.addresses.locked(&address, now)),
        ];
        if let Some(until) = locked.into_iter().flatten().max() {
            let mut first_told = false;
            first_told |= account.is_some_and(|account| self.accounts.tell(account));
            first_told |= address.is_some_and(|address| self.addresses.tell(&address));
            return Err(Locked { until, first_told });
        }
        if let Some(account) = account {
            self.accounts.count(account.clone(), ACCOUNT, now);
        }
        if let Some(address) = address {
            self.addresses.count(address, ADDRESS, now);
        }
        Ok(())
    }

    /// The attempt succeeded: what counted against the account is forgotten, and no longer counts against the address.
    pub(super) fn succeeded(&mut self, knock: &Knock) {
        let failures = knock.account.as_ref().map_or(0, |account| self.accounts.forget(account));
        if let Some(address) = knock.address {
            self.addresses.take_back(&network(address), failures.max(1), ADDRESS);
        }
    }

    /// The attempt came to no answer, by no fault of whoever made it.
    pub(super) fn withdrawn(&mut self, knock: &Knock) {
        if let Some(account) = knock.account.as_ref().filter(|_| !knock.familiar) {
            self.accounts.take_back(account, 1, ACCOUNT);
        }
        if let Some(address) = knock.address {
            self.addresses.take_back(&network(address), 1, ADDRESS);
        }
    }
}

/// Whoever has one address of an IPv6 network usually has all of its /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug)]
struct Table<K>(BTreeMap<K, Count>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    last: Timestamp,
    until: Timestamp,
    told: bool,
}

impl Count {
    fn is_forgotten(&self, now: Timestamp) -> bool {
        now >= self.until + FORGOTTEN_AFTER
    }
}

impl<K: Ord + Clone> Table<K> {
    fn locked(&self, key: &K, now: Timestamp) -> Option<Timestamp> {
        self.0.get(key).map(|count| count.until).filter(|until| *until > now)
    }

    fn tell(&mut self, key: &K) -> bool {
        self.0.get_mut(key).is_some_and(|count| !std::mem::replace(&mut count.told, true))
    }

    fn count(&mut self, key: K, allowance: Allowance, now: Timestamp) {
        if !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let fresh = Count { failures: 0, last: now, until: now, told: false };
        let count = self.0.entry(key).or_insert(fresh);
        if count.is_forgotten(now) {
            *count = fresh;
        }
        let failures = count.failures.saturating_add(1);
        *count = Count { failures, last: now, until: now + allowance.delay(failures), told: false };
    }

    /// Forgets a count and tells what it was.
    fn forget(&mut self, key: &K) -> u32 {
        self.0.remove(key).map_or(0, |count| count.failures)
    }

    fn take_back(&mut self, key: &K, failures: u32, allowance: Allowance) {
        let Some(count) = self.0.get_mut(key) else { return };
        count.failures = count.failures.saturating_sub(failures);
        count.until = count.last + allowance.delay(count.failures);
        if count.failures == 0 {
            self.0.remove(key);
        }
    }

    /// Drops what is forgotten, or else whoever has failed least: a flood of names does not wipe out a long row.
    fn make_room(&mut self, now: Timestamp) {
        if self.0.len() < MAX_KEPT {
            return;
        }
        self.0.retain(|_, count| !count.is_forgotten(now));
        if self.0.len() < MAX_KEPT {
            return;
        }
        let least = self.0.iter().min_by_key(|(_, count)| (count.failures, count.last)).map(|(key, _)| key.clone());
        if let Some(least) = least {
            self.0.remove(&least);
        }
    }
}

impl Allowance {
    fn delay(self, failures: u32) -> Millis {
        match failures.checked_sub(self.free + 1) {
            None => Millis::ZERO,
            Some(further) => self.first_delay.doubled(further).min(self.longest_delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn knock(account: &str, host: u8) -> Knock {
        let address = Ipv4Addr::new(192, 0, 2, host).into();
        Knock { account: Some(account.to_owned()), address: Some(address), familiar: false }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Millis::from_secs(seconds)
    }

    /// The delays of one who tries again as soon as they may, from ever new addresses.
    fn delays(lockout: &mut Lockout, account: &str, tries: u8) -> Vec<u64> {
        let mut now = Timestamp::ZERO;
        let mut waited = Vec::new();
        for host in 0..tries {
            let began = now;
            while let Err(locked) = lockout.begin(&knock(account, host), now) {
                now = locked.until;
            }
            waited.push((now - began).get() / 1_000);
        }
        waited
    }

    #[test]
    fn the_delay_grows_with_each_failure_and_is_capped() {
        let waited = delays(&mut Lockout::default(), "admin", 16);
        assert_eq!(waited, [0, 0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn many_at_once_get_no_more_tries_than_one_after_another() {
        let mut lockout = Lockout::default();
        let passed = (0..100).filter(|host| lockout.begin(&knock("admin", *host), at(0)).is_ok()).count();
        assert_eq!(passed, 6);
    }

    #[test]
    fn an_address_that_tries_many_accounts_is_held_up_too() {
        let mut lockout = Lockout::default();
        let passed = (0..100).filter(|n| lockout.begin(&knock(&format!("user-{n}"), 1), at(0)).is_ok()).count();
        assert_eq!(passed, 11);
        assert!(lockout.begin(&knock("somebody-else", 2), at(0)).is_ok(), "other addresses are not");
    }

    #[test]
    fn knocking_while_locked_does_not_prolong_the_delay_and_is_told_once_as_new() {
        let mut lockout = Lockout::default();
        for host in 0..6 {
            lockout.begin(&knock("admin", host), at(0)).unwrap();
        }
        assert_eq!(lockout.begin(&knock("admin", 7), at(0)), Err(Locked { until: at(2), first_told: true }));
        assert_eq!(lockout.begin(&knock("admin", 8), at(1)), Err(Locked { until: at(2), first_told: false }));
        assert_eq!(lockout.begin(&knock("admin", 9), at(2)), Ok(()));
    }

    #[test]
    fn whoever_attacks_an_account_does_not_hold_up_its_user_where_they_were_before() {
        let mut lockout = Lockout::default();
        delays(&mut lockout, "admin", 16);
        let home = Knock { familiar: true, ..knock("admin", 200) };
        assert!(lockout.begin(&knock("admin", 200), at(700)).is_err());
        assert_eq!(lockout.begin(&home, at(700)), Ok(()));
        for _ in 0..10 {
            lockout.begin(&home, at(700)).unwrap();
        }
        assert!(lockout.begin(&home, at(700)).is_err(), "their own failures count there as well");
    }

    #[test]
    fn success_forgets_what_counted_against_the_account_and_nothing_else() {
        let mut lockout = Lockout::default();
        for _ in 0..3 {
            lockout.begin(&knock("alice", 1), at(0)).unwrap();
        }
        for _ in 0..5 {
            lockout.begin(&knock("admin", 1), at(0)).unwrap();
        }
        lockout.begin(&knock("alice", 1), at(0)).unwrap();
        lockout.succeeded(&knock("alice", 1));
        let passed = (0..100).filter(|n| lockout.begin(&knock(&format!("user-{n}"), 1), at(0)).is_ok()).count();
        assert_eq!(passed, 6, "five of eleven are used up");
        assert!(lockout.begin(&knock("admin", 2), at(0)).is_ok());
        assert!(lockout.begin(&knock("admin", 3), at(0)).is_err());
    }

    #[test]
    fn an_attempt_that_came_to_no_answer_counts_for_nothing() {
        let mut lockout = Lockout::default();
        for _ in 0..100 {
            lockout.begin(&knock("alice", 1), at(0)).unwrap();
            lockout.withdrawn(&knock("alice", 1));
        }
    }

    #[test]
    fn failures_are_forgotten_an_hour_after_the_last_delay() {
        let mut lockout = Lockout::default();
        let passed =
            |lockout: &mut Lockout, now| (0..100).take_while(|_| lockout.begin(&knock("a", 1), now).is_ok()).count();
        assert_eq!(passed(&mut lockout, at(0)), 6);
        assert_eq!(passed(&mut lockout, at(3_601)), 1);
        assert_eq!(passed(&mut lockout, at(3_601 + 3_604)), 6);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_flood_of_names_does_not_wipe_out_a_long_row() {
        let mut lockout = Lockout::default();
        delays(&mut lockout, "admin", 16);
        for number in 0..u32::try_from(MAX_KEPT + 500).unwrap() {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + number).into();
            let account = Some(format!("nobody-{number}"));
            lockout.begin(&Knock { account, address: Some(address), familiar: false }, at(900)).unwrap();
        }
        assert_eq!((lockout.accounts.0.len(), lockout.addresses.0.len()), (MAX_KEPT, MAX_KEPT));
        assert!(lockout.accounts.0["admin"].failures >= 16);
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_count_as_one() {
        let mut lockout = Lockout::default();
        let from = |host: u16| Knock {
            account: None,
            address: Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host])),
            familiar: false,
        };
        assert_eq!((0..100).filter(|host| lockout.begin(&from(*host), at(0)).is_ok()).count(), 11);
    }
}
