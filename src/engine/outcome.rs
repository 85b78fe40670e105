//! What a poll came to: a success, or a failure that says what kind it was.
//!
//! A failure is classified where it is seen, by status code or error kind, never by the text of a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// The result of one poll.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    /// The instance answered, and every call that matters was understood.
    Success {
        /// What was read, without counters and gauges; equal hashes mean nothing changed.
        reading: ChangeHash,
    },
    /// The poll did not get what it came for.
    Failure(Failure),
}

/// A digest of a reading, free of volatile fields (cpu, memory, traffic, uptime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChangeHash(pub u64);

/// Why a poll failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What went wrong; decides between [`FailureClass::Transient`] and [`FailureClass::Permanent`].
    pub kind: FailureKind,
    /// A sentence for an operator, free of secrets: which call, and what came of it.
    pub message: Arc<str>,
    /// How long the instance asked to be left alone (`Retry-After`).
    pub retry_after: Option<Millis>,
}

impl Failure {
    /// A failure of `kind` without a `Retry-After`.
    pub fn new(kind: FailureKind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

/// Whether trying again soon can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It may pass by itself: backed off, then dead-lettered after several in a row.
    Transient,
    /// Somebody has to mend something: dead-lettered at once.
    Permanent,
}

/// What went wrong, as far as the client that saw it can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No answer within the poll's time.
    Timeout,
    /// The connection was refused, or there is no way to the host.
    Refused,
    /// The connection was cut.
    Reset,
    /// The host's name was not found.
    Dns,
    /// The TLS handshake was cut off.
    TlsHandshake,
    /// HTTP 429.
    RateLimited,
    /// HTTP 408 or 5xx.
    ServerError,
    /// The poll itself broke (a panic, or a driver that is shutting down).
    Internal,
    /// HTTP 401.
    Unauthorized,
    /// HTTP 403.
    Forbidden,
    /// HTTP 404.
    NotFound,
    /// Another HTTP 4xx.
    ClientError,
    /// The certificate is not trusted.
    CertificateUntrusted,
    /// The certificate is not the pinned one.
    FingerprintMismatch,
    /// The answer is not the API's.
    NotTheApi,
    /// The instance's settings cannot work.
    InvalidSettings,
}

impl FailureKind {
    /// Every kind, transient ones first.
    pub const ALL: [Self; 16] = [
        Self::Timeout,
        Self::Refused,
        Self::Reset,
        Self::Dns,
        Self::TlsHandshake,
        Self::RateLimited,
        Self::ServerError,
        Self::Internal,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::ClientError,
        Self::CertificateUntrusted,
        Self::FingerprintMismatch,
        Self::NotTheApi,
        Self::InvalidSettings,
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether trying again soon can help.
    pub const fn class(self) -> FailureClass {
        match self {
            Self::Timeout
            | Self::Refused
            | Self::Reset
            | Self::Dns
            | Self::TlsHandshake
            | Self::RateLimited
            | Self::ServerError
            | Self::Internal => FailureClass::Transient,
            Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::ClientError
            | Self::CertificateUntrusted
            | Self::FingerprintMismatch
            | Self::NotTheApi
            | Self::InvalidSettings => FailureClass::Permanent,
        }
    }

    /// The kind of an HTTP answer with this status; `None` for what is no failure (1xx to 3xx).
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            0..400 => None,
            401 => Some(Self::Unauthorized),
            403 => Some(Self::Forbidden),
            404 => Some(Self::NotFound),
            408 => Some(Self::ServerError),
            429 => Some(Self::RateLimited),
            400..500 => Some(Self::ClientError),
            500.. => Some(Self::ServerError),
        }
    }

    /// The name in metrics, logs and answers: `timeout`, `unauthorized`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dns => "dns",
            Self::TlsHandshake => "tls_handshake",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Internal => "internal",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::ClientError => "client_error",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::FingerprintMismatch => "fingerprint_mismatch",
            Self::NotTheApi => "not_the_api",
            Self::InvalidSettings => "invalid_settings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_statuses_fall_into_the_documented_classes() {
        for (status, class) in [
            (200, None),
            (302, None),
            (400, Some(FailureClass::Permanent)),
            (401, Some(FailureClass::Permanent)),
            (403, Some(FailureClass::Permanent)),
            (404, Some(FailureClass::Permanent)),
            (408, Some(FailureClass::Transient)),
            (418, Some(FailureClass::Permanent)),
            (429, Some(FailureClass::Transient)),
            (500, Some(FailureClass::Transient)),
            (503, Some(FailureClass::Transient)),
        ] {
            assert_eq!(FailureKind::of_status(status).map(FailureKind::class), class, "{status}");
        }
    }

    #[test]
    fn every_kind_is_listed_in_its_place() {
        assert!(FailureKind::ALL.iter().enumerate().all(|(index, kind)| kind.index() == index));
    }

    #[test]
    fn the_name_of_a_kind_is_its_serialised_form() {
        for kind in FailureKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
