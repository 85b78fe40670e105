//! What went wrong in a call, classified where it is seen: by status code and kind of error, never by text.
//!
//! A [`Fault`] knows the kind; the call that met it adds its own name and the advice for an operator.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use crate::engine::{Failure, FailureKind, Millis};

/// The longest message in characters.
pub(super) const MAX_MESSAGE_CHARS: usize = 400;

/// One step of a call that failed, before it is known which call that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FailureKind,
    /// What happened, in words that hold nothing secret.
    pub(super) problem: String,
    pub(super) retry_after: Option<Millis>,
}

impl Fault {
    pub(super) fn new(kind: FailureKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), retry_after: None }
    }

    /// A connection that could not be made.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        use io::ErrorKind as E;
        let (kind, problem) = match error.kind() {
            E::ConnectionRefused => (FailureKind::Refused, "the connection was refused"),
            E::HostUnreachable | E::NetworkUnreachable | E::NetworkDown | E::AddrNotAvailable => {
                (FailureKind::Refused, "there is no way to the host")
            }
            E::PermissionDenied => (FailureKind::Refused, "this machine's firewall forbids the connection"),
            E::TimedOut => (FailureKind::Timeout, "the host did not answer the connection"),
            E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof => {
                (FailureKind::Reset, "the connection was cut while it was being made")
            }
            _ if is_exhaustion(error) => (FailureKind::Internal, "this machine has no socket or memory to spare"),
            _ => (FailureKind::Refused, "the connection could not be made"),
        };
        Self::new(kind, problem)
    }

    /// A connection that failed while a request or its answer was on the way.
    pub(super) fn of_stream(error: &io::Error) -> Self {
        if let Some(tls) = inner::<rustls::Error>(error) {
            return match tls {
                rustls::Error::AlertReceived(_) => {
                    Self::new(FailureKind::TlsHandshake, "the host ended the TLS session with an alert")
                }
                _ => Self::new(FailureKind::Reset, "the TLS session broke"),
            };
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::new(FailureKind::Timeout, "the host stopped answering"),
            _ => Self::new(FailureKind::Reset, "the connection was cut before the answer was complete"),
        }
    }

    /// Whether another member of a cluster may be reachable where this one was not.
    pub(super) const fn is_of_connection(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Timeout
                | FailureKind::Refused
                | FailureKind::Reset
                | FailureKind::Dns
                | FailureKind::TlsHandshake
        )
    }

    /// Names the call that met this fault.
    pub(super) fn during(self, call: impl Into<String>) -> CallFailure {
        CallFailure { call: call.into(), fault: self, advice: None }
    }
}

/// A call of a poll that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallFailure {
    /// `GET /version on https://10.0.0.1:8006`.
    pub(super) call: String,
    pub(super) fault: Fault,
    /// What to do, where the call knows better than the kind.
    pub(super) advice: Option<&'static str>,
}

impl CallFailure {
    pub(super) fn advising(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    pub(super) const fn kind(&self) -> FailureKind {
        self.fault.kind
    }

    /// Which call, what came of it, and what to do.
    pub(super) fn message(&self) -> String {
        let mut text = format!("{}: {}", self.call, self.fault.problem);
        if let Some(advice) = self.advice.or_else(|| advice(self.fault.kind)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "; {advice}");
        }
        plain(&text, MAX_MESSAGE_CHARS)
    }

    pub(super) fn into_failure(self) -> Failure {
        Failure { retry_after: self.fault.retry_after, ..Failure::new(self.fault.kind, self.message()) }
    }
}

/// A call that failed without making the whole poll a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedCall {
    /// `GET /cluster/ceph/status on https://10.0.0.1:8006`.
    pub call: String,
    /// What went wrong.
    pub category: FailureKind,
    /// A sentence for an operator, free of secrets.
    pub message: String,
}

impl From<&CallFailure> for FailedCall {
    fn from(failure: &CallFailure) -> Self {
        Self { call: plain(&failure.call, MAX_MESSAGE_CHARS), category: failure.kind(), message: failure.message() }
    }
}

/// `text` on one line, without control characters, cut to `limit` characters.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

/// The first error of type `E` in the chain below (or inside) an I/O error.
pub(super) fn inner<E: std::error::Error + 'static>(error: &io::Error) -> Option<&E> {
    let mut cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error shows what it wraps through `get_ref`; its `source` skips one level.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Whether the fault lies with this machine: no file descriptors, buffers or memory left.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error() else { return error.kind() == io::ErrorKind::OutOfMemory };
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|errno| errno.raw_os_error() == code)
}

const fn advice(kind: FailureKind) -> Option<&'static str> {
    Some(match kind {
        FailureKind::Timeout => "check that the host is up and not overloaded",
        FailureKind::Refused => "check that the service runs and that no firewall is in between",
        FailureKind::Dns => "check the name and this machine's resolver",
        FailureKind::TlsHandshake => "check that the port speaks TLS 1.2 or 1.3",
        FailureKind::Internal => "check this machine's limits and memory",
        FailureKind::CertificateUntrusted => "give the authority that issued it, or pin its fingerprint",
        FailureKind::FingerprintMismatch => {
            "if the certificate was renewed on purpose, pin the new fingerprint; if not, somebody may be in between"
        }
        FailureKind::NotTheApi | FailureKind::NotFound => "check the address, the port and the type of the instance",
        FailureKind::Forbidden => "give the user or token a role that may read this (for instance an auditor's)",
        FailureKind::Reset
        | FailureKind::RateLimited
        | FailureKind::ServerError
        | FailureKind::Unauthorized
        | FailureKind::ClientError
        | FailureKind::InvalidSettings => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_call_what_came_of_it_and_what_to_do() {
        let failure =
            Fault::new(FailureKind::Refused, "the connection was refused").during("GET /version on https://a");
        assert_eq!(
            failure.message(),
            "GET /version on https://a: the connection was refused; \
             check that the service runs and that no firewall is in between"
        );
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let failure = Fault::new(FailureKind::ServerError, "x\r\n\x1b[31m".repeat(200)).during("GET /\0");
        assert_eq!(failure.message().chars().count(), MAX_MESSAGE_CHARS);
        assert!(!failure.message().contains(char::is_control));
        assert!(failure.message().ends_with('…'));
    }

    #[test]
    fn a_machine_without_file_descriptors_blames_itself_and_not_the_host() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert_eq!(Fault::of_connect(&error).kind, FailureKind::Internal);
    }

    #[test]
    fn an_error_is_found_however_deep_io_errors_wrap_it() {
        let tls = rustls::Error::HandshakeNotComplete;
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(inner::<rustls::Error>(&wrapped).is_some());
        assert!(inner::<rustls::Error>(&io::Error::other("text")).is_none());
    }
}
