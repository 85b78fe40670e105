//! What the engine keeps of one instance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agenda::Lane;
use super::breaker::Breaker;
use super::dead_letter::DeadLetter;
use super::effect::Ticket;
use super::interval::PolicyMemory;
use super::jitter::{Jitter, JitterSource};
use super::key::{InstanceId, InstanceKey, InstanceType};
use super::outcome::{ChangeHash, FailureKind};
use super::settings::Settings;
use super::time::{Millis, Timestamp};

/// An instance as the inventory names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its name across restarts.
    pub key: InstanceKey,
    /// The machine that carries it; polls of one machine share a cap. Empty: none.
    pub host: Arc<str>,
    /// Whether it is polled at all.
    pub enabled: bool,
    /// A fixed interval instead of the adaptive one.
    pub interval: Option<Millis>,
    /// A timeout of its own instead of its type's.
    pub timeout: Option<Millis>,
    /// Differs whenever address, credentials or trust differ; a new one forgets old failures.
    pub revision: u64,
}

impl InstanceSpec {
    /// An enabled instance on no particular host, with the settings of its type.
    pub fn new(key: InstanceKey) -> Self {
        Self { key, host: "".into(), enabled: true, interval: None, timeout: None, revision: 0 }
    }

    fn has_own_times(&self) -> bool {
        self.interval.is_some() || self.timeout.is_some()
    }
}

/// Where an instance is. It is in exactly one place at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the live queue: it waits for its time or for a slot.
    Queued,
    /// A poll is under way.
    InFlight,
    /// In the dead-letter queue: it waits for its recheck.
    DeadLettered,
    /// Not polled: switched off in the inventory or by an operator.
    Paused,
}

/// The last failure of an instance that has not succeeded since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRecord {
    /// When the poll ended.
    pub at: Timestamp,
    /// What went wrong.
    pub kind: FailureKind,
    /// A sentence for an operator.
    pub message: Arc<str>,
}

/// Everything the engine knows of one instance.
///
/// The order of the fields is that of their use: a successful poll reads and writes the first two cache lines and one
/// word of the third, and leaves the rest alone. With large fleets each line is a cache miss.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Instance {
    pub(super) place: Place,
    pub(super) kind: InstanceType,
    /// The lane that the poll under way was started from.
    pub(super) lane_in_flight: Lane,
    /// Whether the poll under way was ordered late by more than half of its interval.
    pub(super) started_late: bool,
    pub(super) polled: bool,
    /// Whether the spec has a timeout or an interval of its own.
    has_own_times: bool,
    pub(super) serial: u32,
    /// The queue of its host, if it shares the host with others.
    pub(super) host: Option<u32>,
    pub(super) started: Timestamp,
    pub(super) last_success: Option<Timestamp>,
    /// The interval planned after the last success, load and jitter included.
    pub(super) planned: Millis,
    pub(super) memory: PolicyMemory,
    pub(super) reading: Option<ChangeHash>,
    pub(super) breaker: Breaker,
    /// What failures left; nothing of it in the common case.
    trouble: Option<Box<Trouble>>,
    pub(super) jitter: Jitter,
    pub(super) known_since: Timestamp,
    /// What an operator said; stands until the inventory says something new.
    pub(super) enabled_by_operator: Option<bool>,
    spec: InstanceSpec,
}

/// What an instance carries from its first failure on. A success takes it away.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// The first of the failures in a row.
    pub(super) first_failure: Option<Timestamp>,
    pub(super) last_error: Option<ErrorRecord>,
    pub(super) dead_letter: Option<DeadLetter>,
}

impl Instance {
    pub(super) fn new(spec: InstanceSpec, serial: u32, now: Timestamp) -> Self {
        Self {
            place: Place::Paused,
            kind: spec.key.kind(),
            lane_in_flight: Lane::Unknown,
            started_late: false,
            polled: false,
            has_own_times: spec.has_own_times(),
            serial,
            host: None,
            started: now,
            last_success: None,
            planned: Millis::ZERO,
            memory: PolicyMemory::default(),
            reading: None,
            breaker: Breaker::new(now),
            trouble: None,
            jitter: JitterSource::stream(&spec.key),
            known_since: now,
            enabled_by_operator: None,
            spec,
        }
    }

    pub(super) fn spec(&self) -> &InstanceSpec {
        &self.spec
    }

    /// Takes over an edited spec with the same key, and hands back the one before.
    pub(super) fn replace_spec(&mut self, spec: InstanceSpec) -> InstanceSpec {
        self.has_own_times = spec.has_own_times();
        std::mem::replace(&mut self.spec, spec)
    }

    pub(super) fn ticket(&self, id: u32) -> Ticket {
        Ticket { instance: InstanceId(id), serial: self.serial }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled_by_operator.unwrap_or(self.spec.enabled)
    }

    pub(super) fn is_availability_check(&self) -> bool {
        self.kind.is_availability_check()
    }

    /// How long a poll may take: its own word, or that of its type.
    pub(super) fn timeout(&self, settings: &Settings) -> Millis {
        let own = if self.has_own_times { self.own_times().0 } else { None };
        own.unwrap_or(settings.types[self.kind].timeout)
    }

    /// The fixed interval, if it or its type has one.
    pub(super) fn fixed_interval(&self, settings: &Settings) -> Option<Millis> {
        let own = if self.has_own_times { self.own_times().1 } else { None };
        own.or(settings.types[self.kind].interval)
    }

    /// Timeout and interval of the spec. A call that is not inlined, because the compiler would read them, and miss the
    /// cache, before it knows whether they are wanted.
    #[cold]
    #[inline(never)]
    fn own_times(&self) -> (Option<Millis>, Option<Millis>) {
        (self.spec.timeout, self.spec.interval)
    }

    pub(super) fn dead_letter(&self) -> Option<DeadLetter> {
        self.trouble.as_ref()?.dead_letter
    }

    pub(super) fn first_failure(&self) -> Option<Timestamp> {
        self.trouble.as_ref()?.first_failure
    }

    pub(super) fn last_error(&self) -> Option<&ErrorRecord> {
        self.trouble.as_ref()?.last_error.as_ref()
    }

    /// What failures left, for a change.
    pub(super) fn trouble_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// What failures left; nothing is left of it afterwards.
    pub(super) fn take_trouble(&mut self) -> Option<Box<Trouble>> {
        self.trouble.take()
    }

    /// The row of failures counts as ended; the last error and the dead letter stay.
    pub(super) fn forget_first_failure(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.first_failure = None;
        }
    }

    /// Forgets every failure; the last success and reading stay.
    pub(super) fn forget_failures(&mut self, now: Timestamp) {
        self.breaker = Breaker::new(now);
        self.trouble = None;
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use super::*;

    #[test]
    fn what_a_successful_poll_needs_lies_in_three_cache_lines() {
        const LINE: usize = 64;
        assert_eq!(align_of::<Instance>() % LINE, 0);
        assert!(offset_of!(Instance, breaker) + size_of::<Breaker>() <= 2 * LINE);
        assert!(offset_of!(Instance, known_since) <= 3 * LINE + 8, "the draws fill the third line");
        assert!(size_of::<Instance>() <= 5 * LINE, "{} bytes", size_of::<Instance>());
    }
}
