//! Whose certificate is believed, and the TLS settings that follow from it.
//!
//! Verifiers are shared by equal trust. Each instance has its own small store of session tickets, so that coming
//! back costs its host no full handshake.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::engine::FailureKind;
use crate::targets::fault::{Fault, inner};
use crate::targets::target::Trust;

/// Servers whose session tickets one instance keeps: the members of a cluster.
const SESSIONS: usize = 4;

/// Why a trust setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrustError {
    /// The operating system's authorities could not be read.
    #[error("the operating system's certificate authorities cannot be read: {0}")]
    System(String),
    /// An authority's certificate is not understood.
    #[error("a certificate in the authority file is not valid: {0}")]
    Authority(String),
    /// The list of authorities is empty.
    #[error("the authority file holds no certificate")]
    NoAuthority,
}

/// Verifiers by trust, shared by all instances.
#[derive(Debug)]
pub(super) struct Trusts {
    provider: Arc<CryptoProvider>,
    system: Mutex<Option<Arc<dyn ServerCertVerifier>>>,
    /// By the digest of the authorities; an entry dies with the last client that uses it.
    authorities: Mutex<BTreeMap<[u8; 32], Weak<WebPkiServerVerifier>>>,
}

impl Default for Trusts {
    fn default() -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            system: Mutex::default(),
            authorities: Mutex::default(),
        }
    }
}

impl Trusts {
    /// The TLS settings of one instance.
    pub(super) fn client_config(&self, trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
        let verifier = match trust {
            Trust::System => self.system()?,
            Trust::Authorities(certificates) => self.authorities(certificates)?,
            Trust::Fingerprint(pin) => Arc::new(PinVerifier { pin: Some(*pin), provider: Arc::clone(&self.provider) }),
        };
        Ok(self.config(verifier))
    }

    /// Settings that believe any certificate, to look at it. Nothing secret may be sent over such a connection.
    pub(super) fn unverified(&self) -> Arc<ClientConfig> {
        self.config(Arc::new(PinVerifier { pin: None, provider: Arc::clone(&self.provider) }))
    }

    fn config(&self, verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("the ring provider supports both versions of TLS")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::store(Arc::new(SessionTickets::default()));
        Arc::new(config)
    }

    fn system(&self) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
        let mut shared = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verifier) = &*shared {
            return Ok(Arc::clone(verifier));
        }
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&self.provider))
                .map_err(|error| TrustError::System(error.to_string()))?,
        );
        *shared = Some(Arc::clone(&verifier));
        Ok(verifier)
    }

    fn authorities(&self, certificates: &[CertificateDer<'static>]) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
        if certificates.is_empty() {
            return Err(TrustError::NoAuthority);
        }
        let mut digest = Sha256::new();
        for certificate in certificates {
            digest.update((certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
        }
        let mut shared = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, verifier| verifier.strong_count() > 0);
        let digest: [u8; 32] = digest.finalize().into();
        if let Some(verifier) = shared.get(&digest).and_then(Weak::upgrade) {
            return Ok(verifier);
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.clone()).map_err(|error| TrustError::Authority(error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| TrustError::Authority(error.to_string()))?;
        shared.insert(digest, Arc::downgrade(&verifier));
        Ok(verifier)
    }
}

/// The SHA-256 digest by which a certificate is pinned.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// A handshake that failed, by the kind of error.
pub(super) fn handshake_fault(error: &io::Error) -> Fault {
    let Some(tls) = inner::<rustls::Error>(error) else {
        return match error.kind() {
            io::ErrorKind::TimedOut => Fault::new(FailureKind::Timeout, "the host stopped answering"),
            _ => Fault::new(FailureKind::TlsHandshake, "the TLS handshake was cut off"),
        };
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            match cause.downcast_ref::<PinMismatch>() {
                Some(mismatch) => Fault::new(FailureKind::FingerprintMismatch, mismatch.to_string()),
                None => Fault::new(FailureKind::CertificateUntrusted, "the certificate is not trusted"),
            }
        }
        rustls::Error::InvalidCertificate(reason) => {
            Fault::new(FailureKind::CertificateUntrusted, certificate_problem(reason))
        }
        rustls::Error::InvalidMessage(_) => {
            Fault::new(FailureKind::NotTheApi, "the port answers, but does not speak TLS")
        }
        rustls::Error::AlertReceived(alert) => {
            Fault::new(FailureKind::TlsHandshake, format!("the host refused the TLS handshake ({alert:?})"))
        }
        _ => Fault::new(FailureKind::TlsHandshake, "the TLS handshake failed"),
    }
}

/// What was wrong with a server's certificate or its TLS, if that is what ended a connection, in words that hold nothing
/// secret.
pub(crate) fn tls_problem(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut failed = chain.filter_map(|error| error.downcast_ref::<io::Error>());
    failed.find(|error| inner::<rustls::Error>(error).is_some()).map(|error| handshake_fault(error).problem)
}

fn certificate_problem(reason: &CertificateError) -> &'static str {
    use CertificateError as E;
    match reason {
        E::Expired | E::ExpiredContext { .. } => "the certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "the certificate is not valid yet; check the clocks",
        E::NotValidForName | E::NotValidForNameContext { .. } => "the certificate is for another name",
        E::UnknownIssuer => "the certificate's issuer is not trusted",
        E::Revoked => "the certificate was revoked",
        _ => "the certificate is not trusted",
    }
}

/// The certificate presented is not the pinned one.
#[derive(Debug, Error)]
#[error("the certificate's SHA-256 fingerprint is {}, not the pinned one", hex(presented))]
struct PinMismatch {
    presented: [u8; 32],
}

/// `AB:CD:…`, as Proxmox prints fingerprints.
pub(in crate::targets) fn hex(fingerprint: &[u8; 32]) -> String {
    let pairs: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// Believes the certificate with one fingerprint, or any if there is none, but always wants proof of its key.
#[derive(Debug)]
struct PinVerifier {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = fingerprint(end_entity);
        if self.pin.is_none_or(|pin| pin == presented) {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = OtherError(Arc::new(PinMismatch { presented }));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(mismatch)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The newest ticket of each of a few servers. rustls's own store keeps eight a server, which adds up over a fleet.
#[derive(Default)]
struct SessionTickets(Mutex<Vec<ServerSession>>);

struct ServerSession {
    server: ServerName<'static>,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: Option<Tls13ClientSessionValue>,
}

impl SessionTickets {
    fn of<R>(&self, server: &ServerName<'_>, read: impl FnOnce(&mut ServerSession) -> R) -> Option<R> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter_mut().find(|session| session.server == *server).map(read)
    }

    fn update(&self, server: ServerName<'static>, write: impl FnOnce(&mut ServerSession)) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = sessions.iter().position(|session| session.server == server).unwrap_or_else(|| {
            if sessions.len() >= SESSIONS {
                sessions.remove(0);
            }
            sessions.push(ServerSession { server, group: None, tls12: None, tls13: None });
            sessions.len() - 1
        });
        write(&mut sessions[at]);
    }
}

impl fmt::Debug for SessionTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTickets(…)")
    }
}

impl ClientSessionStore for SessionTickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.update(server_name, |session| session.group = Some(group));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.of(server_name, |session| session.group).flatten()
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.update(server_name, |session| session.tls12 = Some(value));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.of(server_name, |session| session.tls12.clone()).flatten()
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.of(server_name, |session| session.tls12 = None);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.update(server_name, |session| session.tls13 = Some(value));
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.of(server_name, |session| session.tls13.take()).flatten()
    }
}
