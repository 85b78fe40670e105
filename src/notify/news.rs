//! What happened to an instance that an operator may want to be told.

use std::fmt;
use std::sync::Arc;

use crate::engine::{Failure, FailureKind, InstanceKey, Timestamp};
use crate::targets::{DownCategory, DownReason};

/// The kinds of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NewsKind {
    /// A circuit breaker opened.
    BreakerOpen,
    /// An instance was dead-lettered.
    DeadLetter,
    /// An endpoint (http, tcp) is down.
    Down,
    /// An instance is late, and none of the above was told of it.
    Late,
    /// What was told of an instance is over.
    Recovery,
}

impl NewsKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::BreakerOpen, Self::DeadLetter, Self::Down, Self::Late, Self::Recovery];

    /// The name in `system.json` and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::DeadLetter => "dead_letter",
            Self::Down => "down",
            Self::Late => "late",
            Self::Recovery => "recovery",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for NewsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What.
    pub kind: NewsKind,
    /// To whom.
    pub key: InstanceKey,
    /// When.
    pub at: Timestamp,
    /// When the trouble began.
    pub since: Timestamp,
    /// Failures in a row; 0 where nothing failed.
    pub failures: u32,
    /// The last failure.
    pub error: Option<Cause>,
    /// When it is tried again, if that is known.
    pub next_try: Option<Timestamp>,
}

/// Why a poll failed, or an endpoint is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    kind: Option<FailureKind>,
    /// Its name in messages.
    pub category: &'static str,
    /// A sentence for an operator, free of secrets.
    pub message: Arc<str>,
}

impl Cause {
    /// Why a poll failed.
    pub fn of_failure(failure: &Failure) -> Self {
        Self::new(failure.kind, Arc::clone(&failure.message))
    }

    /// A failure of this kind, in words.
    pub fn new(kind: FailureKind, message: Arc<str>) -> Self {
        Self { kind: Some(kind), category: kind.as_str(), message }
    }

    /// Why an endpoint is down.
    pub fn of_endpoint(reason: &DownReason) -> Self {
        let kind = if let DownCategory::Failed(kind) = reason.category { Some(kind) } else { None };
        Self { kind, category: reason.category.as_str(), message: reason.message.as_str().into() }
    }
}

impl News {
    /// What an operator can do about it.
    pub fn action(&self) -> &'static str {
        use FailureKind as F;
        match (self.kind, self.error.as_ref().and_then(|cause| cause.kind)) {
            (NewsKind::Recovery, _) => "Nothing; it is polled as before.",
            (NewsKind::Late, _) => {
                "Look at `pulse health` and the load figures: polls take too long, or slots are short."
            }
            (_, Some(F::Unauthorized | F::Forbidden)) => {
                "Give the instance valid credentials with enough rights; it is then polled at once."
            }
            (_, Some(F::CertificateUntrusted | F::FingerprintMismatch)) => {
                "Check the host's certificate; if it was renewed on purpose, change the instance's `tls`."
            }
            (_, Some(F::Dns)) => "Check the host's name and the name servers of this machine.",
            (_, Some(F::NotFound | F::ClientError | F::NotTheApi | F::InvalidSettings)) => {
                "Check the instance's type, address and settings (`pulse config validate`)."
            }
            (_, Some(F::RateLimited | F::ServerError)) => "Look at the host's own log; its API answers with errors.",
            (_, Some(F::Internal)) => "Look at the daemon's log and report the fault.",
            (_, Some(F::Timeout | F::Refused | F::Reset | F::TlsHandshake) | None) => {
                "Check that the host is up and can be reached from here; it is tried again by itself."
            }
        }
    }
}
