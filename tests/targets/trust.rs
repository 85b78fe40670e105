//! Whose certificate is believed.

use std::sync::Arc;

use pulse::engine::{FailureKind, Timestamp};
use pulse::lab::HostPlan;
use pulse::targets::{Access, Client, ClientError, Connector, Target, Trust, TrustError, observed_fingerprint};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::raw_server::{RawServer, Then, pve_node};
use crate::{BUDGET, Poller, SEED, fingerprint, lab, pve_at, target_of};

fn trusting(mut target: Target, believed: Trust) -> Target {
    match &mut target.access {
        Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => access.trust = believed,
        Access::Http(check) => check.trust = believed,
        Access::Tcp(_) => {}
    }
    target
}

#[tokio::test]
async fn an_authority_is_believed_for_the_names_that_it_certified() {
    let lab = lab(vec![HostPlan::pve(SEED, "a", 1)]).await;
    let authority = CertificateDer::from_pem_slice(lab.authority_pem().as_bytes()).unwrap();
    let target = trusting(target_of(&lab.hosts()[0]), Trust::Authorities(vec![authority.clone()]));
    Poller::new(target).reading().await;

    // Also signed by nobody we know: a server of its own.
    let server = RawServer::tls(|line, _| (pve_node(line), Then::KeepOpen)).await;
    let failure = Poller::new(pve_at(&server.url, Trust::Authorities(vec![authority]))).failure().await;
    assert_eq!(failure.kind, FailureKind::CertificateUntrusted);
    assert!(failure.message.contains("issuer is not trusted"), "{}", failure.message);
}

#[tokio::test]
async fn the_systems_authorities_do_not_vouch_for_a_self_signed_host() {
    let server = RawServer::tls(|line, _| (pve_node(line), Then::KeepOpen)).await;
    match Client::new(pve_at(&server.url, Trust::System), &Arc::new(Connector::default())) {
        Ok(_) => {
            let failure = Poller::new(pve_at(&server.url, Trust::System)).failure().await;
            assert_eq!(failure.kind, FailureKind::CertificateUntrusted);
        }
        // A machine without any authority cannot even begin.
        Err(error) => assert!(matches!(error, ClientError::Trust(TrustError::System(_))), "{error}"),
    }
    assert!(server.requests().is_empty(), "no credentials were sent");
}

#[tokio::test]
async fn a_pinned_certificate_is_believed_whatever_its_name_and_no_other() {
    let server = RawServer::tls(|line, _| (pve_node(line), Then::KeepOpen)).await;
    Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))).reading().await;
    let heard = server.requests().len();

    let failure = Poller::new(pve_at(&server.url, Trust::Fingerprint([0; 32]))).failure().await;
    assert_eq!(failure.kind, FailureKind::FingerprintMismatch);
    assert!(failure.message.contains("pin the new fingerprint"), "{}", failure.message);
    assert_eq!(server.requests().len(), heard, "no credentials were sent");
}

#[tokio::test]
async fn two_instances_with_different_pins_never_share_a_connection() {
    let server = RawServer::tls(|line, _| (pve_node(line), Then::KeepOpen)).await;
    let connector = Arc::new(Connector::default());
    let right = Poller::with(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)), &connector);
    let wrong = Poller::with(pve_at(&server.url, Trust::Fingerprint([1; 32])), &connector);
    right.reading().await;
    assert_eq!(wrong.failure().await.kind, FailureKind::FingerprintMismatch);
    right.reading().await;
}

#[tokio::test]
async fn a_certificate_can_be_looked_at_without_telling_anything() {
    let lab = lab(vec![HostPlan::pbs(SEED, "vault", &["daily"])]).await;
    let host = &lab.hosts()[0];
    let url = host.urls[0].parse().unwrap();
    let connector = Connector::default();
    let seen = observed_fingerprint(&url, &connector, &|| Timestamp::ZERO, BUDGET).await.unwrap();
    assert_eq!(seen, fingerprint(host.fingerprint.as_deref().unwrap()));
    assert_eq!(lab.stats("vault").unwrap().requests, 0);

    let nobody = "https://me:secret@127.0.0.1:1".parse().unwrap();
    let failure = observed_fingerprint(&nobody, &connector, &|| Timestamp::ZERO, BUDGET).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.starts_with("TLS handshake with https://127.0.0.1:1: "), "{}", failure.message);
}

#[test]
fn trust_that_cannot_work_is_refused_before_anything_is_sent() {
    let connector = Arc::new(Connector::default());
    let error = |trust| Client::new(pve_at("https://127.0.0.1:8006", trust), &connector).err();
    assert_eq!(error(Trust::Authorities(vec![])), Some(ClientError::Trust(TrustError::NoAuthority)));
    let nonsense = Trust::Authorities(vec![CertificateDer::from(vec![1, 2, 3])]);
    assert!(matches!(error(nonsense), Some(ClientError::Trust(TrustError::Authority(_)))));
    let plain = Client::new(pve_at("http://127.0.0.1:8006", Trust::Fingerprint([0; 32])), &connector);
    assert_eq!(plain.err(), Some(ClientError::NotHttps("http://127.0.0.1:8006".into())));
}
