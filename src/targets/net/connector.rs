//! Opens TCP and TLS connections for every client of the daemon.
//!
//! It holds what clients share: the cache of names and the verifiers of certificates.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::resolver::Resolver;
use super::tls::{self, TrustError, Trusts};
use crate::engine::{FailureKind, Millis, Timestamp};
use crate::runtime::PollCost;
use crate::targets::deadline::Deadline;
use crate::targets::fault::Fault;
use crate::targets::target::Trust;

/// How long one address of a host may keep the next from being tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// What the clients of one daemon share to open connections.
///
/// ```
/// use std::sync::Arc;
/// let connector = Arc::new(pulse::targets::Connector::default());
/// ```
#[derive(Debug, Default)]
pub struct Connector {
    resolver: Resolver,
    trusts: Trusts,
    /// What was asked and said, where somebody wants to know.
    journal: Option<Mutex<Vec<CallSaid>>>,
}

/// One call of a poll, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallSaid {
    /// What was asked: `GET https://10.0.0.1:8006/api2/json/version`.
    pub call: String,
    /// When it was asked.
    #[serde(skip)]
    pub at: Timestamp,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Millis,
    /// What went wrong on the way, free of secrets.
    pub problem: Option<String>,
}

/// A byte stream, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connector {
    /// A connector that keeps what is asked and said.
    pub fn with_journal() -> Self {
        Self { journal: Some(Mutex::default()), ..Self::default() }
    }

    /// Every call so far, in order; none without a journal.
    pub fn calls(&self) -> Vec<CallSaid> {
        let journal = self.journal.as_ref().map(|journal| journal.lock().unwrap_or_else(PoisonError::into_inner));
        journal.map(|calls| calls.clone()).unwrap_or_default()
    }

    /// Notes a call in the journal, if there is one.
    pub(in crate::targets) fn note(&self, call: impl FnOnce() -> CallSaid) {
        #[cfg(feature = "otel")]
        if super::overhear::is_overheard() {
            let said = call();
            super::overhear::keep(said.clone());
            return self.write_down(|| said);
        }
        self.write_down(call);
    }

    fn write_down(&self, call: impl FnOnce() -> CallSaid) {
        if let Some(journal) = &self.journal {
            journal.lock().unwrap_or_else(PoisonError::into_inner).push(call());
        }
    }

    pub(crate) fn client_config(&self, trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
        self.trusts.client_config(trust)
    }

    /// Connects to where `url` points, with TLS if it says so.
    pub(super) async fn open(
        &self,
        url: &Url,
        config: &Arc<ClientConfig>,
        deadline: Deadline<'_>,
        cost: &mut PollCost,
    ) -> Result<Box<dyn Stream>, Fault> {
        let (host, port) = address(url)?;
        let tcp = self.tcp(&host, port, deadline, cost).await?;
        if url.scheme() != "https" {
            return Ok(Box::new(tcp));
        }
        Ok(Box::new(tls_handshake(tcp, &host, config, deadline).await?))
    }

    /// Connects to a host, giving each of its addresses a head start before the next is tried as well.
    pub(in crate::targets) async fn tcp(
        &self,
        host: &Host<String>,
        port: u16,
        deadline: Deadline<'_>,
        cost: &mut PollCost,
    ) -> Result<TcpStream, Fault> {
        let addresses: Arc<[IpAddr]> = match host {
            Host::Ipv4(ip) => [IpAddr::from(*ip)].into(),
            Host::Ipv6(ip) => [IpAddr::from(*ip)].into(),
            Host::Domain(name) => {
                let asked = self.resolver.resolve(name, deadline.now());
                let resolved = deadline.run(asked, "the name was not resolved").await??;
                cost.name_lookups += u32::from(resolved.looked_up);
                resolved.addresses
            }
        };
        cost.connections += 1;
        let connected = deadline.run(first_to_connect(&addresses, port), "no connection was made").await;
        let outcome = connected.and_then(|tcp| tcp.map_err(|error| Fault::of_connect(&error)));
        if let (Err(_), Host::Domain(name)) = (&outcome, host) {
            self.resolver.suspect(name);
        }
        outcome
    }

    /// The SHA-256 fingerprint of the certificate that the server at `url` presents, whoever issued it.
    ///
    /// Nothing is sent but the handshake.
    pub(in crate::targets) async fn observe_fingerprint(
        &self,
        url: &Url,
        deadline: Deadline<'_>,
    ) -> Result<[u8; 32], Fault> {
        let (host, port) = address(url)?;
        let tcp = self.tcp(&host, port, deadline, &mut PollCost::default()).await?;
        let tls = tls_handshake(tcp, &host, &self.trusts.unverified(), deadline).await?;
        let (_, session) = tls.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate
            .map(tls::fingerprint)
            .ok_or_else(|| Fault::new(FailureKind::TlsHandshake, "the host presented no certificate"))
    }
}

fn address(url: &Url) -> Result<(Host<String>, u16), Fault> {
    let host = url.host().map(|host| host.to_owned());
    match (host, url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok((host, port)),
        _ => Err(Fault::new(FailureKind::InvalidSettings, "the address names no host and port")),
    }
}

async fn first_to_connect(addresses: &[IpAddr], port: u16) -> std::io::Result<TcpStream> {
    let mut failed = None;
    let mut attempts = FuturesUnordered::new();
    for address in addresses {
        attempts.push(TcpStream::connect(SocketAddr::new(*address, port)));
        match tokio::time::timeout(HEAD_START, attempts.next()).await {
            Ok(Some(Ok(tcp))) => return prepared(tcp),
            Ok(Some(Err(error))) => failed = failed.or(Some(error)),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(tcp) => return prepared(tcp),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
}

fn prepared(tcp: TcpStream) -> std::io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn tls_handshake(
    tcp: TcpStream,
    host: &Host<String>,
    config: &Arc<ClientConfig>,
    deadline: Deadline<'_>,
) -> Result<TlsStream<TcpStream>, Fault> {
    let server = match host {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| Fault::new(FailureKind::InvalidSettings, format!("{name} is no name of a TLS server")))?,
        Host::Ipv4(ip) => ServerName::from(IpAddr::from(*ip)),
        Host::Ipv6(ip) => ServerName::from(IpAddr::from(*ip)),
    };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(server, tcp);
    let shaken = deadline.run(handshake, "the TLS handshake was not done").await?;
    shaken.map_err(|error| tls::handshake_fault(&error))
}
