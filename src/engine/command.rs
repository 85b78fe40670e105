//! What operators can tell the engine to do, and what it answers.
//!
//! Commands and replies are plain values, so that they can be sent, logged and replayed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::breaker::BreakerState;
use super::dead_letter::DeadLetterReason;
use super::key::{InstanceKey, InstanceType};
use super::time::{Millis, Timestamp};

/// Names a command, so that its reply finds the way back. Chosen by the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// What an operator can tell the engine to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// Close the breaker, forget the failures in a row and poll soon.
    ResetBreaker {
        /// Whose breaker.
        key: InstanceKey,
    },
    /// Recheck a dead letter now.
    RetryDeadLetter {
        /// Which.
        key: InstanceKey,
    },
    /// Recheck many dead letters, spread out.
    RetryDeadLetters {
        /// Which.
        filter: RetryFilter,
        /// Only tell which they are.
        dry_run: bool,
    },
    /// Stop polling a dead letter until it is enabled, edited or added again.
    RemoveDeadLetter {
        /// Which.
        key: InstanceKey,
    },
    /// Poll a live instance now.
    PollNow {
        /// Which.
        key: InstanceKey,
    },
    /// Pause an instance, or poll it again.
    SetEnabled {
        /// Which.
        key: InstanceKey,
        /// Whether it is to be polled.
        enabled: bool,
    },
}

/// Which dead letters to recheck. What is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryFilter {
    /// Only these instances.
    pub keys: Option<BTreeSet<InstanceKey>>,
    /// Only instances of this type.
    pub kind: Option<InstanceType>,
    /// Only those that are dead-lettered for this reason.
    pub reason: Option<DeadLetterReason>,
    /// Only those whose row of failures began longer ago than this.
    pub older_than: Option<Millis>,
}

/// What becomes of one of many dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Which.
    pub key: InstanceKey,
    /// What becomes of it.
    pub result: RetryResult,
}

/// What becomes of one dead letter that is to be rechecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryResult {
    /// It is rechecked then.
    ScheduledFor(Timestamp),
    /// It is being rechecked already.
    UnderWay,
    /// It would be rechecked; nothing was changed.
    WouldRetry,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// The breaker is closed.
    BreakerReset {
        /// Its state before.
        previous: BreakerState,
    },
    /// The recheck is planned.
    RetryScheduled {
        /// Rechecks that failed so far.
        previous_retry_count: u32,
        /// When it is polled.
        scheduled_for: Timestamp,
    },
    /// The rechecks are planned.
    RetriesScheduled {
        /// Which, in the order of their keys.
        retries: Vec<Retry>,
    },
    /// The dead letter is gone and the instance paused.
    DeadLetterRemoved {
        /// Why it was dead-lettered.
        reason: DeadLetterReason,
    },
    /// The poll is planned.
    PollScheduled {
        /// When.
        scheduled_for: Timestamp,
    },
    /// The instance is polled or paused, as asked.
    EnabledSet {
        /// Whether anything changed.
        changed: bool,
    },
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandError {
    /// No instance has this key.
    #[error("no instance has this key")]
    UnknownInstance,
    /// The command is for dead letters, and this instance is none.
    #[error("the instance is not in the dead-letter queue")]
    NotDeadLettered,
    /// The instance is dead-lettered; retry it instead.
    #[error("the instance is in the dead-letter queue; retry it there")]
    DeadLettered,
    /// The breaker is open; reset it first.
    #[error("the circuit breaker is open; reset it first")]
    BreakerOpen,
    /// The instance is paused; enable it first.
    #[error("the instance is paused; enable it first")]
    Paused,
    /// A poll is under way already.
    #[error("a poll of the instance is under way already")]
    PollInFlight,
    /// The type is an availability check, which has no breaker.
    #[error("http and tcp checks have no circuit breaker")]
    NoBreaker,
}
