//! What the simulator found wrong: which rule, when, and where.

use std::fmt;

use pulse::engine::{Millis, Timestamp};
use serde::Serialize;

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// When, in milliseconds of virtual time.
    pub at: Timestamp,
    /// Where and how.
    pub detail: String,
}

/// The rules that the simulator watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// One poll of an instance at once.
    SingleFlight,
    /// No more polls at once than the caps allow.
    Caps,
    /// No poll before its time.
    NotBeforeDue,
    /// No poll through an open breaker, and no leap between its states.
    Breaker,
    /// What the engine records is what the host answered.
    TrueOutcome,
    /// Failures in a row are counted as they happened.
    FailureCount,
    /// Only those who earned it are dead-lettered.
    DeadLetterEarned,
    /// Intervals and delays keep their bounds.
    IntervalBounds,
    /// A plan follows from what happened: an interval after the last start, or a delay after now.
    Anchored,
    /// What is set for a type or an instance is done.
    Setting,
    /// Unknown ones come first, then the one that waits longest.
    Turn,
    /// Nobody who may start waits beside a free slot.
    IdleSlot,
    /// Plans that are made at once lie apart.
    Herd,
    /// Intervals are stretched while slots or time are short, and no longer.
    Load,
    /// The engine's own rules hold (`Engine::verify`).
    Verify,
    /// The health answer agrees with what truly happened.
    TrueHealth,
    /// No call is carried out for whoever has not the role, and none that could not be audited.
    Authorised,
    /// Every call that was carried out is in the audit log once, and the log proves itself.
    Audited,
    /// Every command is answered once.
    CommandAnswered,
    /// The live queue is as deep as the scenario allows.
    QueueDepth,
    /// The hosts of a group fare as the scenario expects.
    Group,
    /// The dead-letter queue holds whom the scenario expects.
    DeadLetters,
    /// When faults end, everybody gets well.
    Liveness,
    /// Two runs of one seed have the same trace.
    Determinism,
    /// Time goes on.
    Progress,
    /// No input makes the engine panic.
    Panic,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => f.write_str(&name),
            _ => write!(f, "{self:?}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.rule, Millis::new(self.at.as_millis()), self.detail)
    }
}
