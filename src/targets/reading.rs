//! What a poll reads, typed: the shape that the API serves and the page shows.
//!
//! Lists are sorted by their identifiers. Sizes are bytes, loads are shares from 0 to 1, times are spans.

use serde::Serialize;

use super::digest::ChangeDigest;
use super::http::HttpReading;
use super::proxmox::{PbsReading, PmgReading, PveReading};
use super::tcp::TcpReading;
use crate::engine::{ChangeHash, FailureKind, Millis};

/// The reading of one instance, by type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reading {
    /// Of a Proxmox VE host or cluster.
    Pve(PveReading),
    /// Of a Proxmox Backup Server.
    Pbs(PbsReading),
    /// Of a Proxmox Mail Gateway.
    Pmg(PmgReading),
    /// Of an HTTP endpoint.
    Http(HttpReading),
    /// Of a TCP endpoint.
    Tcp(TcpReading),
}

impl Reading {
    /// A hash of identifiers, names, states, membership, versions and configuration.
    ///
    /// Load, memory, traffic, disk usage, uptime, latency and the age of optional parts leave it as it is, and so does
    /// the order in which the host lists things. It is the same in every process.
    pub fn change_hash(&self) -> ChangeHash {
        let mut digest = ChangeDigest::default();
        match self {
            Self::Pve(reading) => reading.write_changes(digest.text("pve")),
            Self::Pbs(reading) => reading.write_changes(digest.text("pbs")),
            Self::Pmg(reading) => reading.write_changes(digest.text("pmg")),
            Self::Http(reading) => reading.write_changes(digest.text("http")),
            Self::Tcp(reading) => reading.write_changes(digest.text("tcp")),
        }
        digest.finish()
    }
}

/// An amount in use out of a total, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes in use.
    pub used: Option<u64>,
    /// Bytes there are.
    pub total: Option<u64>,
}

/// A part of a reading that is read more rarely than the rest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dated<T> {
    /// How old it was when the reading was taken, in milliseconds.
    pub age: Millis,
    /// The part itself.
    pub value: T,
}

/// Why an endpoint counts as down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DownReason {
    /// The kind of trouble.
    pub category: DownCategory,
    /// A sentence for an operator, free of secrets.
    pub message: String,
}

/// The kind of trouble that makes an endpoint count as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownCategory {
    /// It answered with a status that does not mean *up*.
    UnexpectedStatus,
    /// The body does not hold the expected text.
    BodyMismatch,
    /// It kept sending the check elsewhere.
    TooManyRedirects,
    /// It could not be reached or understood.
    #[serde(untagged)]
    Failed(FailureKind),
}

impl DownCategory {
    /// The name in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnexpectedStatus => "unexpected_status",
            Self::BodyMismatch => "body_mismatch",
            Self::TooManyRedirects => "too_many_redirects",
            Self::Failed(kind) => kind.as_str(),
        }
    }
}
