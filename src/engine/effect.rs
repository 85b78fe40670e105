//! What the engine answers: polls to start and to cancel, and events that tell what happened.
//!
//! Events are plain values. Logs, metrics, audit and pages are fed from them by subscribers outside the engine.

use serde::{Deserialize, Serialize};

use super::breaker::BreakerState;
use super::command::{CommandError, CommandId, Reply};
use super::dead_letter::DeadLetterReason;
use super::interval::IntervalReason;
use super::key::{InstanceId, InstanceKey};
use super::outcome::Failure;
use super::time::{Millis, Timestamp};

/// Names one poll: of which instance, and which of its polls.
///
/// An answer with any ticket but the instance's current one is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket {
    pub(super) instance: InstanceId,
    pub(super) serial: u32,
}

impl Ticket {
    /// The ticket of the poll `serial` of `instance`, for tests and for reading traces.
    pub const fn new(instance: InstanceId, serial: u32) -> Self {
        Self { instance, serial }
    }

    /// The instance that is polled.
    pub const fn instance(self) -> InstanceId {
        self.instance
    }
}

/// One thing that the driver has to do or to pass on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Start this poll and report its outcome with the ticket.
    Start(PollOrder),
    /// Drop this poll; its outcome is no longer wanted.
    Cancel(Ticket),
    /// Pass this on to whoever listens.
    Event(Event),
}

/// A poll to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PollOrder {
    /// Names the poll, and the instance.
    pub ticket: Ticket,
    /// The engine gives the poll up after this time.
    pub timeout: Millis,
}

/// The effects of one step, in order. Reused from step to step, so that a steady schedule allocates nothing.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands out the effects in order and empties the list.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.list.drain(..)
    }

    /// The effects in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Effect> {
        self.list.iter()
    }

    /// How many effects there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Drops whatever was not taken.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
    }

    #[inline(always)]
    pub(super) fn start(&mut self, order: PollOrder) {
        self.list.extend(std::iter::once_with(|| Effect::Start(order)));
    }

    /// The same as [`Self::instance_event`] for events of the steady path. Each is made where it will lie; one that is
    /// made first and copied then costs a stall, which is most of what it costs.
    #[inline(always)]
    pub(super) fn tell(&mut self, at: Timestamp, instance: InstanceId, what: impl FnOnce() -> InstanceEvent) {
        let make = || Effect::Event(Event { at, what: What::Instance { instance, what: what() } });
        self.list.extend(std::iter::once_with(make));
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        self.list.push(Effect::Cancel(ticket));
    }

    pub(super) fn instance_event(&mut self, at: Timestamp, instance: InstanceId, what: InstanceEvent) {
        self.list.push(Effect::Event(Event { at, what: What::Instance { instance, what } }));
    }

    pub(super) fn fleet_event(&mut self, at: Timestamp, what: FleetEvent) {
        self.list.push(Effect::Event(Event { at, what: What::Fleet(what) }));
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// To whom, and what.
    pub what: What,
}

/// To whom it happened, and what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// To one instance.
    Instance {
        /// Its number until it is removed.
        instance: InstanceId,
        /// What happened.
        what: InstanceEvent,
    },
    /// To the fleet as a whole.
    Fleet(FleetEvent),
}

/// What happened to one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum InstanceEvent {
    /// It joined the fleet under this number.
    Added {
        /// Its name across restarts.
        key: InstanceKey,
    },
    /// It left the fleet; the number is free after this step.
    Removed {
        /// Its name across restarts.
        key: InstanceKey,
    },
    /// Its address, credentials or other settings were edited; what was known of its failures is forgotten.
    Reconfigured,
    /// It is no longer polled until it is enabled.
    Paused,
    /// It is polled again.
    Resumed,
    /// A poll was ordered.
    PollStarted {
        /// Names the poll.
        ticket: Ticket,
        /// How long after its due time.
        lag: Millis,
    },
    /// A poll succeeded.
    PollSucceeded {
        /// Names the poll.
        ticket: Ticket,
        /// From order to answer.
        took: Millis,
        /// Whether the reading differs from the one before.
        changed: bool,
    },
    /// A poll failed.
    PollFailed {
        /// Names the poll.
        ticket: Ticket,
        /// From order to answer.
        took: Millis,
        /// Why.
        failure: Failure,
        /// Failures in a row, this one included.
        failures: u32,
    },
    /// A poll was called off: the instance was removed, paused or edited.
    PollCancelled {
        /// Names the poll.
        ticket: Ticket,
    },
    /// An answer came with a ticket that is not the current one, and was dropped.
    StaleTicket {
        /// The ticket that came.
        ticket: Ticket,
    },
    /// The next poll was planned.
    Scheduled {
        /// When.
        due: Timestamp,
        /// The interval or delay behind it.
        interval: Millis,
        /// Why then.
        reason: IntervalReason,
    },
    /// The breaker changed its state.
    BreakerMoved {
        /// Before.
        from: BreakerState,
        /// After.
        to: BreakerState,
        /// Failures in a row.
        failures: u32,
        /// When the open breaker is probed.
        retry_at: Option<Timestamp>,
    },
    /// It left the live queue.
    DeadLettered {
        /// Why.
        reason: DeadLetterReason,
        /// When it is rechecked.
        next_retry: Timestamp,
        /// Failures in a row.
        failures: u32,
    },
    /// A recheck failed; it stays dead-lettered.
    RecheckFailed {
        /// Why it is dead-lettered.
        reason: DeadLetterReason,
        /// When it is rechecked.
        next_retry: Timestamp,
        /// Rechecks that failed so far.
        retry_count: u32,
    },
    /// It left the dead-letter queue: a recheck succeeded, or its settings were edited.
    Revived,
    /// A success ended a row of failures.
    Recovered {
        /// How many failures.
        failures: u32,
        /// Since the first of them.
        down_for: Millis,
    },
}

/// What happened to the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum FleetEvent {
    /// The settings were replaced.
    SettingsApplied {
        /// How many instances have a new due time.
        replanned: u32,
    },
    /// The inventory was replaced.
    InventoryApplied {
        /// New instances.
        added: u32,
        /// Instances that left.
        removed: u32,
        /// Instances that are polled differently now.
        changed: u32,
    },
    /// The whole fleet is polled this much slower than planned, because slots or time are short.
    LoadChanged {
        /// Thousandths: 1000 is no stretch.
        stretch_permille: u32,
    },
    /// A command was carried out or refused.
    CommandDone {
        /// Which.
        id: CommandId,
        /// What came of it.
        result: Result<Reply, CommandError>,
    },
    /// An answer came with a ticket of no instance, and was dropped.
    UnknownTicket {
        /// The ticket that came.
        ticket: Ticket,
    },
}
