//! The client of one instance: made once from a [`Target`], polled again and again.

use std::sync::Arc;

use thiserror::Error;
use url::Url;

use super::deadline::{Deadline, Now};
use super::http::HttpClient;
use super::net::{Connector, TrustError, hex};
use super::proxmox::{DiscoveryError, FoundCluster, Product, ProxmoxClient};
use super::reading::Reading;
use super::target::{Access, Target};
use super::tcp::TcpClient;
use crate::engine::{Failure, FailureKind, InstanceKey, Millis, Outcome};
use crate::runtime::{PollCost, PollReport};

/// Polls one instance, with its connection and ticket kept between polls.
///
/// ```no_run
/// # async fn example(target: pulse::targets::Target) -> Result<(), pulse::targets::ClientError> {
/// use std::sync::Arc;
/// use pulse::engine::{Millis, Timestamp};
/// use pulse::targets::{Client, Connector};
///
/// let connector = Arc::new(Connector::default());
/// let client = Client::new(target, &connector)?;
/// let monotonic = || Timestamp::from_millis(0); // the driver's clock
/// let report = client.poll(&monotonic, Millis::from_secs(10)).await;
/// println!("{:?} after {} calls", report.outcome, report.cost.calls);
/// # Ok(())
/// # }
/// ```
pub struct Client {
    key: InstanceKey,
    by_type: ByType,
}

enum ByType {
    Proxmox(Box<ProxmoxClient>),
    Http(Box<HttpClient>),
    Tcp(TcpClient),
}

/// Why a target cannot be polled at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The certificates to believe are not usable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A Proxmox instance without an address.
    #[error("no address is given")]
    NoMember,
    /// Credentials would travel unencrypted.
    #[error("{0}: a Proxmox API is reached over https only, so that credentials are never sent in the clear")]
    NotHttps(String),
    /// Neither `http` nor `https`, or without a host.
    #[error("{0}: an address starts with http:// or https:// and names a host")]
    NotHttp(String),
    /// A method that could change something, or none at all.
    #[error("the method {0:?} is not one of GET, HEAD and OPTIONS")]
    UnsafeMethod(String),
    /// A user, token or secret that cannot stand in a request.
    #[error("the {0} holds a character that cannot be sent in a request")]
    Unsendable(&'static str),
    /// A TCP check without a usable host.
    #[error("{0:?} is neither a host name nor an address")]
    BadHost(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(FailureKind::InvalidSettings, error.to_string())
    }
}

impl Client {
    /// Prepares a client. Nothing is sent yet.
    ///
    /// # Errors
    /// The target's settings cannot work, whatever the host answers.
    pub fn new(target: Target, connector: &Arc<Connector>) -> Result<Self, ClientError> {
        let proxmox = |product, access| {
            ProxmoxClient::new(product, access, connector).map(|client| ByType::Proxmox(Box::new(client)))
        };
        let by_type = match target.access {
            Access::Pve(access) => proxmox(Product::Pve, access)?,
            Access::Pbs(access) => proxmox(Product::Pbs, access)?,
            Access::Pmg(access) => proxmox(Product::Pmg, access)?,
            Access::Http(check) => ByType::Http(Box::new(HttpClient::new(check, connector)?)),
            Access::Tcp(check) => ByType::Tcp(TcpClient::new(check, connector)?),
        };
        Ok(Self { key: target.key, by_type })
    }

    /// Whose client this is.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Polls the instance once, and answers a little before `budget` is used up on the clock that `now` reads.
    ///
    /// The future may be dropped at any time: the connection in use is closed, a ticket already obtained is kept.
    /// Polls of one client are meant to follow one another; two at once are safe but share no connection.
    pub async fn poll(&self, now: Now<'_>, budget: Millis) -> PollReport<Reading> {
        let deadline = Deadline::just_before(budget, now);
        let mut cost = PollCost::default();
        let read = match &self.by_type {
            ByType::Proxmox(client) => client.poll(deadline, &mut cost).await,
            ByType::Http(client) => client.poll(deadline, &mut cost).await.map(Reading::Http),
            ByType::Tcp(client) => client.poll(deadline, &mut cost).await.map(Reading::Tcp),
        };
        match read {
            Ok(reading) => {
                let outcome = Outcome::Success { reading: reading.change_hash() };
                PollReport { outcome, reading: Some(Arc::new(reading)), cost }
            }
            Err(failure) => PollReport { outcome: Outcome::Failure(failure.into_failure()), reading: None, cost },
        }
    }

    /// Asks the members of a Proxmox VE cluster for its nodes, within `budget`; with `fingerprints`, for those of their
    /// certificates too.
    ///
    /// # Errors
    /// The instance is no Proxmox VE, is in no cluster, or no member told.
    pub async fn discover(
        &self,
        now: Now<'_>,
        budget: Millis,
        fingerprints: bool,
    ) -> Result<FoundCluster, DiscoveryError> {
        let ByType::Proxmox(client) = &self.by_type else { return Err(DiscoveryError::NotPve) };
        client.discover(Deadline::just_before(budget, now), fingerprints).await
    }
}

/// A fingerprint as Proxmox prints it: `AB:CD:…`.
pub fn fingerprint_text(fingerprint: &[u8; 32]) -> String {
    hex(fingerprint)
}

/// The SHA-256 fingerprint of the certificate that the server at `url` presents.
///
/// Nothing is verified and nothing but the TLS handshake is sent; it is for an operator to compare and pin.
///
/// # Errors
/// The server cannot be reached, or does not speak TLS.
pub async fn observed_fingerprint(
    url: &Url,
    connector: &Connector,
    now: Now<'_>,
    budget: Millis,
) -> Result<[u8; 32], Failure> {
    let deadline = Deadline::just_before(budget, now);
    connector.observe_fingerprint(url, deadline).await.map_err(|fault| {
        fault.during(format!("TLS handshake with {}", url.origin().ascii_serialization())).into_failure()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Timestamp;
    use crate::targets::TcpCheck;

    #[test]
    fn a_poll_may_move_between_threads_and_clients_be_shared() {
        fn moves<T: Send>(value: T) -> T {
            value
        }
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Client>();
        let access = Access::Tcp(TcpCheck { host: "127.0.0.1".into(), port: 1 });
        let target = Target { key: "tcp::a".parse().unwrap(), display_name: "A".into(), access };
        let client = Client::new(target, &Arc::default()).unwrap();
        drop(moves(client.poll(&|| Timestamp::ZERO, Millis::ZERO)));
    }
}
