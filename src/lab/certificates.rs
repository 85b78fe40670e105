//! The lab's certificate authority and what its servers present.
//!
//! Hosts may share a certificate that names all their addresses: thousands of servers then cost dozens of keys.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::LabError;

/// Who signs the certificates of one lab.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    tickets: Arc<dyn ProducesTickets>,
}

/// What a server presents: a certificate with its key, ready to accept connections.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    /// SHA-256 of the certificate, as `AA:BB:…`.
    pub(super) fingerprint: Arc<str>,
}

impl Authority {
    pub(super) fn new() -> Result<Self, LabError> {
        let mut params = named("Pulse lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        // Stateless tickets: a session can be resumed at no memory cost to the lab.
        Ok(Self { issuer, tickets: ring::Ticketer::new()? })
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `addresses`, signed by this authority.
    pub(super) fn issue(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Result<Identity, LabError> {
        let key = KeyPair::generate()?;
        let params = for_server("Pulse lab host", addresses);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let mut config = server_config(certificate.der().clone(), &key)?;
        config.ticketer = Arc::clone(&self.tickets);
        config.send_tls13_tickets = 1;
        Ok(Identity::new(config, certificate.der()))
    }
}

impl Identity {
    /// A self-signed certificate that no client has reason to trust, though it names `addresses`.
    pub(super) fn untrusted(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Result<Self, LabError> {
        let key = KeyPair::generate()?;
        let certificate = for_server("Impostor", addresses).self_signed(&key)?;
        let mut config = server_config(certificate.der().clone(), &key)?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self::new(config, certificate.der()))
    }

    fn new(config: ServerConfig, certificate: &CertificateDer<'_>) -> Self {
        let digest: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint: digest.join(":").into() }
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<ServerConfig, LabError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn for_server(name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) -> CertificateParams {
    let mut params = named(name);
    params.subject_alt_names = addresses.into_iter().map(|address| SanType::IpAddress(address.into())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    params
}
