//! The nodes of a Proxmox VE cluster, as one of its members tells them. Read once, when an operator asks.

use std::net::IpAddr;

use serde::Deserialize;
use thiserror::Error;
use url::Url;

use super::pve_answer::{MemberAnswer, Members};
use super::visit::{Visit, is_plain_name};
use crate::engine::Failure;
use crate::targets::fault::{CallFailure, FailedCall};
use crate::targets::fingerprint_of;
use crate::targets::lenient::{self, Bounded};

/// Nodes that are looked at; corosync carries fewer.
const MAX_NODES: usize = 64;
/// Certificates of one node that are looked at; it has three.
const MAX_CERTIFICATES: usize = 16;
/// The certificate of the API by the file that it is in: the one that the operator put there comes first.
const API_CERTIFICATES: [&str; 2] = ["pveproxy-ssl.pem", "pve-ssl.pem"];

/// A cluster as one of its members tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its name.
    pub name: String,
    /// The address of the member that was asked.
    pub door: Url,
    /// Its nodes by name.
    pub nodes: Vec<FoundNode>,
}

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNode {
    /// Its name.
    pub name: String,
    /// Where the others of the cluster reach it.
    pub address: Option<IpAddr>,
    /// Whether the others see it.
    pub online: bool,
    /// Whether it is the member that was asked.
    pub asked: bool,
    /// SHA-256 of the certificate of its API, if that was asked for and the cluster told it.
    pub fingerprint: Option<[u8; 32]>,
}

/// Why a cluster was not found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    /// Only Proxmox VE has clusters whose nodes are hosts to be polled.
    #[error("only a Proxmox VE instance can tell the nodes of its cluster")]
    NotPve,
    /// The host is on its own.
    #[error("the host is in no cluster; there are no other nodes to add")]
    NoCluster,
    /// No member could be asked.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// The cluster of the member that is visited; `None` if it is in none.
pub(super) async fn read(visit: &mut Visit<'_>, fingerprints: bool) -> Result<Option<FoundCluster>, CallFailure> {
    let list: Bounded<MemberAnswer, { MAX_NODES + 1 }> = visit.get("/cluster/status").await?;
    let members = Members(list.entries);
    let Some(cluster) = members.cluster() else { return Ok(None) };
    let local = members.local();
    let found = |node: &MemberAnswer| {
        let name = node.name.clone().filter(|name| is_plain_name(name))?;
        let address = node.ip.as_deref().and_then(|ip| ip.parse().ok());
        let asked = local == Some(name.as_str());
        Some(FoundNode { name, address, online: node.online.unwrap_or(false), asked, fingerprint: None })
    };
    let mut nodes: Vec<FoundNode> = members.nodes().filter_map(found).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    if fingerprints {
        read_fingerprints(visit, &mut nodes).await;
    }
    Ok(Some(FoundCluster { name: cluster.name, door: visit.member().clone(), nodes }))
}

/// What the cluster does not tell is for the node itself to show.
async fn read_fingerprints(visit: &mut Visit<'_>, nodes: &mut [FoundNode]) {
    for node in nodes.iter_mut().filter(|node| node.online && !node.asked) {
        if !visit.has_time_to_spare() {
            return;
        }
        let path = format!("/nodes/{}/certificates/info", node.name);
        match visit.get_optional::<Bounded<CertificateAnswer, MAX_CERTIFICATES>>(&path).await {
            Ok(list) => node.fingerprint = of_api(&list.entries),
            Err(failure) => visit.note(FailedCall::from(&failure)),
        }
    }
}

/// An entry of `/nodes/{n}/certificates/info`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CertificateAnswer {
    #[serde(deserialize_with = "lenient::text")]
    filename: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    fingerprint: Option<String>,
}

fn of_api(certificates: &[CertificateAnswer]) -> Option<[u8; 32]> {
    let in_file = |file| certificates.iter().find(|certificate| certificate.filename.as_deref() == Some(file));
    let certificate = API_CERTIFICATES.into_iter().find_map(in_file)?;
    digest(certificate.fingerprint.as_deref()?)
}

/// A digest as Proxmox prints it, `AB:CD:…`.
fn digest(text: &str) -> Option<[u8; 32]> {
    fingerprint_of(text).filter(|_| text.split(':').all(|pair| pair.len() == 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(file: &str, byte: &str) -> CertificateAnswer {
        let fingerprint = [byte; 32].join(":");
        CertificateAnswer { filename: Some(file.to_owned()), fingerprint: Some(fingerprint) }
    }

    #[test]
    fn the_certificate_of_the_api_is_the_operators_own_or_the_clusters() {
        let (root, own) = (certificate("pve-root-ca.pem", "01"), certificate("pve-ssl.pem", "02"));
        assert_eq!(of_api(&[root, own]), Some([2; 32]));
        let (own, custom) = (certificate("pve-ssl.pem", "02"), certificate("pveproxy-ssl.pem", "FE"));
        assert_eq!(of_api(&[own, custom]), Some([0xfe; 32]));
        assert_eq!(of_api(&[certificate("pve-root-ca.pem", "01")]), None, "it signs, and is shown to nobody");
        assert_eq!(of_api(&[certificate("pve-ssl.pem", "+1")]), None);
        assert_eq!(of_api(&[certificate("pve-ssl.pem", "1")]), None);
    }
}
