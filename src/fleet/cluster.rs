//! The nodes of an instance's cluster: which are in the fleet, and what it takes to add the others.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::join_all;
use url::{Host, Url};

use super::{Fleet, Member, Members};
use crate::config::Instance;
use crate::engine::{InstanceKey, InstanceType, Millis};
use crate::targets::{
    Access, Client, Connector, DiscoveryError, FoundCluster, FoundNode, Now, Reading, Trust, observed_fingerprint,
};

/// The longest that the members of the cluster may take to tell of it.
const LONGEST: Millis = Millis::from_secs(15);
/// How long looking at the certificates may take, of all nodes at once.
const LOOK_AT_CERTIFICATES: Millis = Millis::from_secs(5);

/// The cluster of an instance.
#[derive(Clone, Debug)]
pub struct ClusterNodes {
    /// Its name.
    pub name: String,
    /// Its nodes by name.
    pub nodes: Vec<ClusterNode>,
}

/// One node of it.
#[derive(Clone, Debug)]
pub struct ClusterNode {
    /// What the cluster tells.
    pub found: FoundNode,
    /// Whether it is in the fleet, and what it takes if not.
    pub standing: Standing,
}

/// Whether a node is in the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is reached by this instance.
    Configured(InstanceKey),
    /// It can be added.
    Offered(Offer),
    /// It cannot be added, for this reason.
    Impossible(String),
}

/// What a node would be as an instance. Credentials and authority are those of the instance that it was found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its key.
    pub key: InstanceKey,
    /// Its address.
    pub url: Url,
    /// The certificate to pin, where the instance that it was found by is pinned.
    pub pin: Option<Pin>,
}

/// A certificate that somebody has to confirm before it is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its SHA-256 fingerprint.
    pub fingerprint: [u8; 32],
    /// Who told it.
    pub source: PinSource,
}

/// Who told a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// A member of the cluster, over a connection that is trusted.
    Cluster,
    /// The node itself, which anybody in between could be.
    FirstContact,
}

impl Fleet {
    /// Asks an instance for the nodes of its cluster, by a client of its own and within `timeout` or what the instance
    /// says itself. `None` if too many instances are being tried already.
    pub async fn discover(&self, instance: Instance, timeout: Millis) -> Option<Result<ClusterNodes, DiscoveryError>> {
        let _place = self.tests.try_acquire().ok()?;
        Some(self.find_nodes(instance, timeout).await)
    }

    async fn find_nodes(&self, instance: Instance, timeout: Millis) -> Result<ClusterNodes, DiscoveryError> {
        let Access::Pve(access) = &instance.target.access else { return Err(DiscoveryError::NotPve) };
        let pinned = matches!(access.trust, Trust::Fingerprint(_));
        let key = instance.target.key.clone();
        let budget = instance.timeout.unwrap_or(timeout).min(LONGEST);
        let connector = Arc::new(Connector::default());
        let client = Client::new(instance.target, &connector).map_err(|error| DiscoveryError::Failed(error.into()))?;
        let now = || self.clock.now();
        let cluster = client.discover(&now, budget, pinned).await?;
        let members = self.members();
        let judged = cluster.nodes.iter().map(|node| {
            let (members, cluster, key, connector) = (&members, &cluster, &key, &connector);
            async move {
                let standing = match standing(node, cluster, key, members, pinned) {
                    Standing::Offered(offer) if pinned => {
                        let told =
                            node.fingerprint.map(|digest| Pin { fingerprint: digest, source: PinSource::Cluster });
                        pin(offer, told, connector, &now).await
                    }
                    standing => standing,
                };
                ClusterNode { found: node.clone(), standing }
            }
        });
        Ok(ClusterNodes { nodes: join_all(judged).await, name: cluster.name.clone() })
    }
}

/// The offer with a certificate to confirm: what the cluster told, or what the node shows.
async fn pin(offer: Offer, told: Option<Pin>, connector: &Connector, now: Now<'_>) -> Standing {
    let pin = match told {
        Some(pin) => Ok(pin),
        None => observed_fingerprint(&offer.url, connector, now, LOOK_AT_CERTIFICATES)
            .await
            .map(|fingerprint| Pin { fingerprint, source: PinSource::FirstContact }),
    };
    match pin {
        Ok(pin) => Standing::Offered(Offer { pin: Some(pin), ..offer }),
        Err(failure) => Standing::Impossible(format!("its certificate cannot be seen: {}", failure.message)),
    }
}

fn standing(
    node: &FoundNode,
    cluster: &FoundCluster,
    asked: &InstanceKey,
    members: &Members,
    pinned: bool,
) -> Standing {
    if node.asked {
        return Standing::Configured(asked.clone());
    }
    let reaches = |(key, member): (&InstanceKey, &Arc<Member>)| member.reaches(node, cluster).then(|| key.clone());
    if let Some(key) = members.iter().find_map(reaches) {
        return Standing::Configured(key);
    }
    let key = match InstanceKey::new(InstanceType::Pve, &node.name) {
        Ok(key) => key,
        Err(error) => return Standing::Impossible(error.to_string()),
    };
    if members.contains_key(&key) {
        return Standing::Impossible(format!("there is an instance {key} already, with another address"));
    }
    match address(node, cluster, pinned) {
        Some(url) => Standing::Offered(Offer { key, url, pin: None }),
        None => Standing::Impossible("the cluster tells no address of it".to_owned()),
    }
}

/// Where a node is: by a name like that of the member that was asked, if certificates go by names, or by its address.
/// The port is the member's.
fn address(node: &FoundNode, cluster: &FoundCluster, pinned: bool) -> Option<Url> {
    let asked = cluster.nodes.iter().find(|node| node.asked);
    let domain = domain_of(&cluster.door, asked.map(|asked| asked.name.as_str())).filter(|_| !pinned);
    let host = match (domain, node.address) {
        (Some(domain), _) => format!("{}{domain}", node.name),
        (None, Some(IpAddr::V6(address))) => format!("[{address}]"),
        (None, Some(address)) => address.to_string(),
        (None, None) => return None,
    };
    let mut url = cluster.door.clone();
    url.set_host(Some(&host)).ok()?;
    Some(url)
}

/// What follows the name of a node in the address of its API: `.example.org` of `https://rack-1.example.org:8006`.
fn domain_of<'a>(url: &'a Url, node: Option<&str>) -> Option<&'a str> {
    let rest = url.domain()?.strip_prefix(node?.to_ascii_lowercase().as_str())?;
    (rest.is_empty() || rest.starts_with('.')).then_some(rest)
}

impl Member {
    /// Whether polls of this instance go to a node: by its address, its name, or what the instance was read to be.
    fn reaches(&self, node: &FoundNode, cluster: &FoundCluster) -> bool {
        let Access::Pve(access) = &self.instance.target.access else { return false };
        let port = cluster.door.port_or_known_default();
        let mut at_port = access.members.iter().filter(|url| url.port_or_known_default() == port);
        at_port.any(|url| match url.host() {
            Some(Host::Ipv4(address)) => node.address == Some(address.into()),
            Some(Host::Ipv6(address)) => node.address == Some(address.into()),
            Some(Host::Domain(_)) => domain_of(url, Some(&node.name)).is_some() && self.is_of(cluster, url),
            None => false,
        }) || self.answers_as(node, cluster)
    }

    /// Whether a host of a node's name is that node, and not one of another cluster: its domain is that of the member
    /// that was asked, or it was read to be of the cluster.
    fn is_of(&self, cluster: &FoundCluster, url: &Url) -> bool {
        let domain = |url: &Url| url.domain().and_then(|name| name.split_once('.')).map(|(_, rest)| rest.to_owned());
        let same_domain = cluster.door.domain().is_some() && domain(&cluster.door) == domain(url);
        same_domain || self.cluster_read().is_some_and(|name| name == cluster.name)
    }

    /// Whether the node that answered its last poll is this one.
    fn answers_as(&self, node: &FoundNode, cluster: &FoundCluster) -> bool {
        let Some(last) = self.last_reading() else { return false };
        let Reading::Pve(reading) = &*last.reading else { return false };
        let is_of_it = reading.cluster.as_ref().is_some_and(|read| read.name == cluster.name);
        is_of_it && reading.nodes.iter().any(|read| read.status.is_some() && read.name == node.name)
    }

    fn cluster_read(&self) -> Option<String> {
        match &*self.last_reading()?.reading {
            Reading::Pve(reading) => reading.cluster.as_ref().map(|cluster| cluster.name.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str, asked: bool) -> FoundNode {
        let address = address.parse().ok();
        FoundNode { name: name.to_owned(), address, online: true, asked, fingerprint: None }
    }

    fn cluster(door: &str) -> FoundCluster {
        let nodes = vec![node("rack-1", "10.0.0.1", true), node("rack-2", "10.0.0.2", false)];
        FoundCluster { name: "north".to_owned(), door: door.parse().unwrap(), nodes }
    }

    fn offered(door: &str, pinned: bool) -> String {
        let cluster = cluster(door);
        address(&cluster.nodes[1], &cluster, pinned).unwrap().to_string()
    }

    #[test]
    fn a_node_is_offered_by_a_name_like_that_of_the_member_where_names_matter() {
        assert_eq!(offered("https://rack-1.example.org:8006", false), "https://rack-2.example.org:8006/");
        assert_eq!(offered("https://rack-1:8006", false), "https://rack-2:8006/");
        assert_eq!(offered("https://rack-1.example.org:8006", true), "https://10.0.0.2:8006/", "a pin needs no name");
        assert_eq!(offered("https://balanced.example.org:443", false), "https://10.0.0.2/");
        assert_eq!(offered("https://10.0.0.1:8006", false), "https://10.0.0.2:8006/");
        let cluster = cluster("https://10.0.0.1:8006");
        let url = address(&node("six", "fd00::6", false), &cluster, true).unwrap();
        assert_eq!(url.as_str(), "https://[fd00::6]:8006/");
        assert_eq!(address(&node("nowhere", "", false), &cluster, true), None);
    }
}
