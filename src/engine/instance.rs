//! What the engine keeps of one instance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agenda::Lane;
use super::breaker::Breaker;
use super::dead_letter::DeadLetter;
use super::effect::Ticket;
use super::interval::PolicyMemory;
use super::jitter::{Jitter, JitterSource};
use super::key::{InstanceId, InstanceKey};
use super::outcome::{ChangeHash, FailureKind};
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
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) place: Place,
    pub(super) serial: u32,
    /// The queue of its host, if it shares the host with others.
    pub(super) host: Option<u32>,
    /// The lane that the poll under way was started from.
    pub(super) lane_in_flight: Lane,
    /// Whether the poll under way was ordered late by more than half of its interval.
    pub(super) started_late: bool,
    pub(super) started: Timestamp,
    pub(super) known_since: Timestamp,
    pub(super) polled: bool,
    pub(super) last_success: Option<Timestamp>,
    pub(super) reading: Option<ChangeHash>,
    pub(super) memory: PolicyMemory,
    /// The interval planned after the last success, load and jitter included.
    pub(super) planned: Millis,
    pub(super) breaker: Breaker,
    pub(super) dead_letter: Option<DeadLetter>,
    pub(super) jitter: Jitter,
    /// What an operator said; stands until the inventory says something new.
    pub(super) enabled_by_operator: Option<bool>,
    pub(super) first_failure: Option<Timestamp>,
    pub(super) last_error: Option<ErrorRecord>,
    pub(super) spec: InstanceSpec,
}

impl Instance {
    pub(super) fn new(spec: InstanceSpec, serial: u32, now: Timestamp) -> Self {
        Self {
            place: Place::Paused,
            serial,
            host: None,
            lane_in_flight: Lane::Unknown,
            started_late: false,
            started: now,
            known_since: now,
            polled: false,
            last_success: None,
            reading: None,
            memory: PolicyMemory::default(),
            planned: Millis::ZERO,
            breaker: Breaker::new(now),
            dead_letter: None,
            jitter: JitterSource::stream(&spec.key),
            enabled_by_operator: None,
            first_failure: None,
            last_error: None,
            spec,
        }
    }

    pub(super) fn ticket(&self, id: u32) -> Ticket {
        Ticket { instance: InstanceId(id), serial: self.serial }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled_by_operator.unwrap_or(self.spec.enabled)
    }

    pub(super) fn is_availability_check(&self) -> bool {
        self.spec.key.kind().is_availability_check()
    }

    /// Forgets every failure; the last success and reading stay.
    pub(super) fn forget_failures(&mut self, now: Timestamp) {
        self.breaker = Breaker::new(now);
        self.dead_letter = None;
        self.first_failure = None;
        self.last_error = None;
    }
}
