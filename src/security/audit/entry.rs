//! What an entry of the audit log tells.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::security::principal::Caller;

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who, and from where.
    pub by: Caller,
    /// What, as `thing.verb`: `breaker.reset`.
    pub action: &'static str,
    /// On what: the key of an instance, the name of a token or a user.
    pub key: Option<String>,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Attempt {
    /// An attempt on nothing in particular, without a reason.
    pub const fn new(by: Caller, action: &'static str) -> Self {
        Self { by, action, key: None, reason: None }
    }

    /// The same on `key`.
    #[must_use]
    pub fn on(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with the caller's reason.
    #[must_use]
    pub fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditOutcome)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed or not possible, and nothing changed.
    Refused,
    /// It broke.
    Failed,
    /// The daemon ended before it could say.
    Unknown,
}

impl Outcome {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What came of an attempt, with the state before and after. Nothing in it may be secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub(super) outcome: Outcome,
    pub(super) detail: Option<String>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Conclusion {
    /// It was done, and this changed.
    pub const fn done(before: Option<Value>, after: Option<Value>) -> Self {
        Self { outcome: Outcome::Done, detail: None, before, after }
    }

    /// It was refused, and nothing changed.
    pub fn refused(detail: impl ToString) -> Self {
        Self { outcome: Outcome::Refused, detail: Some(detail.to_string()), before: None, after: None }
    }

    /// It broke.
    pub fn failed(detail: impl ToString) -> Self {
        Self { outcome: Outcome::Failed, detail: Some(detail.to_string()), before: None, after: None }
    }

    pub(super) fn unknown() -> Self {
        let detail = "the daemon ended before the outcome was written";
        Self { outcome: Outcome::Unknown, ..Self::failed(detail) }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditEntryKind)]
pub enum Kind {
    /// Something that was over when it was written.
    Event,
    /// Something that is about to be done.
    Intent,
    /// What came of an intent.
    Outcome,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
        }
    }
}
