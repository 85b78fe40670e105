//! A TCP endpoint: up if it accepts a connection.
//!
//! An endpoint that is down is a result. A poll fails only if this machine cannot open a socket.

use std::sync::Arc;

use serde::Serialize;
use url::Host;

use super::client::ClientError;
use super::deadline::Deadline;
use super::digest::ChangeDigest;
use super::fault::CallFailure;
use super::net::{CallSaid, Connector};
use super::reading::{DownCategory, DownReason};
use super::target::TcpCheck;
use crate::engine::{FailureKind, Millis};
use crate::runtime::PollCost;

/// Whether a port accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpReading {
    /// Whether it accepted a connection.
    pub up: bool,
    /// How long that, or finding out, took, in milliseconds.
    pub latency: Millis,
    /// Why it is down; `None` if it is up.
    pub reason: Option<DownReason>,
}

impl TcpReading {
    pub(super) fn write_changes(&self, digest: &mut ChangeDigest) {
        digest.flag(self.up).optional(self.reason.as_ref().map(|reason| reason.category.as_str()));
    }
}

/// Checks one port.
pub(super) struct TcpClient {
    host: Host<String>,
    port: u16,
    connector: Arc<Connector>,
}

impl TcpClient {
    pub(super) fn new(check: TcpCheck, connector: &Arc<Connector>) -> Result<Self, ClientError> {
        let host = match check.host.parse() {
            Ok(address) => Host::Ipv6(address),
            Err(_) => Host::parse(&check.host).map_err(|_| ClientError::BadHost(check.host))?,
        };
        Ok(Self { host, port: check.port, connector: Arc::clone(connector) })
    }

    pub(super) async fn poll(&self, deadline: Deadline<'_>, cost: &mut PollCost) -> Result<TcpReading, CallFailure> {
        let start = deadline.now();
        let connected = self.connector.tcp(&self.host, self.port, deadline, cost).await;
        let latency = deadline.now() - start;
        self.connector.note(|| CallSaid {
            call: format!("TCP connection to {}:{}", self.host, self.port),
            at: start,
            status: None,
            took: latency,
            problem: connected.as_ref().err().map(|fault| fault.problem.clone()),
        });
        let fault = match connected {
            Ok(_) => return Ok(TcpReading { up: true, latency, reason: None }),
            Err(fault) => fault,
        };
        let failure = fault.during(format!("TCP connection to {}:{}", self.host, self.port));
        if failure.kind() == FailureKind::Internal {
            return Err(failure);
        }
        let category = DownCategory::Failed(failure.kind());
        Ok(TcpReading { up: false, latency, reason: Some(DownReason { category, message: failure.message() }) })
    }
}
