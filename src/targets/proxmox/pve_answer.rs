//! What Proxmox VE answers, and how it becomes a reading.

use serde::Deserialize;

use super::pve::{CephStatus, Cluster, Disk, Guest, GuestKind, PveNode, Storage};
use super::visit::is_plain_name;
use crate::targets::lenient;
use crate::targets::reading::Usage;

/// An entry of `/cluster/resources`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourceAnswer {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    node: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    vmid: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::flag")]
    template: Option<bool>,
    #[serde(deserialize_with = "lenient::text")]
    tags: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    pool: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    hastate: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    lock: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    storage: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    plugintype: Option<String>,
    #[serde(deserialize_with = "lenient::flag")]
    shared: Option<bool>,
    #[serde(deserialize_with = "lenient::text")]
    content: Option<String>,
    #[serde(deserialize_with = "lenient::number")]
    cpu: Option<f64>,
    #[serde(deserialize_with = "lenient::count")]
    maxcpu: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    mem: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    maxmem: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    disk: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    maxdisk: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    netin: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    netout: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    diskread: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    diskwrite: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    uptime: Option<u64>,
}

impl ResourceAnswer {
    pub(super) fn into_node(self) -> Option<PveNode> {
        Some(PveNode {
            name: self.node?,
            online: self.status.as_deref() == Some("online"),
            cpu: self.cpu,
            cpus: self.maxcpu,
            memory: Usage { used: self.mem, total: self.maxmem },
            root_disk: Usage { used: self.disk, total: self.maxdisk },
            uptime_seconds: self.uptime,
            ..PveNode::default()
        })
    }

    pub(super) fn into_guest(self, kind: GuestKind) -> Option<Guest> {
        Some(Guest {
            vmid: self.vmid?,
            kind,
            name: self.name,
            node: self.node?,
            status: self.status.unwrap_or_else(|| "unknown".to_owned()),
            template: self.template.unwrap_or(false),
            tags: words(self.tags.as_deref()),
            pool: self.pool,
            ha_state: self.hastate,
            lock: self.lock,
            cpu: self.cpu,
            cpus: self.maxcpu,
            memory: Usage { used: self.mem, total: self.maxmem },
            disk: Usage { used: self.disk, total: self.maxdisk },
            network_in: self.netin,
            network_out: self.netout,
            disk_read: self.diskread,
            disk_write: self.diskwrite,
            uptime_seconds: self.uptime,
        })
    }

    pub(super) fn into_storage(self) -> Option<Storage> {
        Some(Storage {
            id: self.storage?,
            node: self.node?,
            kind: self.plugintype,
            status: self.status.unwrap_or_else(|| "unknown".to_owned()),
            shared: self.shared.unwrap_or(false),
            content: words(self.content.as_deref()),
            usage: Usage { used: self.disk, total: self.maxdisk },
        })
    }
}

/// The parts of `a;b,c d`, sorted.
fn words(text: Option<&str>) -> Vec<String> {
    let split = text.unwrap_or_default().split([';', ',', ' ']);
    let mut words: Vec<String> = split.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The entries of `/cluster/status`: the cluster, if there is one, and its nodes.
pub(super) struct Members(pub(super) Vec<MemberAnswer>);

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct MemberAnswer {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "lenient::flag")]
    quorate: Option<bool>,
    #[serde(deserialize_with = "lenient::count")]
    nodes: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) ip: Option<String>,
    #[serde(deserialize_with = "lenient::flag")]
    pub(super) online: Option<bool>,
    #[serde(deserialize_with = "lenient::flag")]
    local: Option<bool>,
}

/// An entry of `/nodes`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAnswer {
    #[serde(deserialize_with = "lenient::text")]
    node: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
}

impl From<NodeAnswer> for MemberAnswer {
    fn from(answer: NodeAnswer) -> Self {
        Self {
            kind: Some("node".to_owned()),
            online: answer.status.map(|status| status == "online"),
            name: answer.node,
            ..Self::default()
        }
    }
}

impl Members {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &MemberAnswer> {
        self.0.iter().filter(|entry| entry.kind.as_deref() == Some("node"))
    }

    pub(super) fn cluster(&self) -> Option<Cluster> {
        let entry = self.0.iter().find(|entry| entry.kind.as_deref() == Some("cluster"))?;
        Some(Cluster { name: entry.name.clone()?, quorate: entry.quorate.unwrap_or(false), members: entry.nodes })
    }

    /// The node that answers: the one marked so, or the only one.
    pub(super) fn local(&self) -> Option<&str> {
        let mut nodes = self.nodes();
        let marked = self.nodes().find(|node| node.local == Some(true));
        let only = || nodes.next().filter(|_| nodes.next().is_none());
        marked.or_else(only)?.name.as_deref().filter(|name| is_plain_name(name))
    }
}

/// `/cluster/ceph/status`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CephAnswer {
    health: CephHealthAnswer,
    pgmap: CephSpaceAnswer,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CephHealthAnswer {
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CephSpaceAnswer {
    #[serde(deserialize_with = "lenient::count")]
    bytes_used: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    bytes_total: Option<u64>,
}

impl From<CephAnswer> for CephStatus {
    fn from(answer: CephAnswer) -> Self {
        Self {
            health: answer.health.status.unwrap_or_else(|| "unknown".to_owned()),
            usage: Usage { used: answer.pgmap.bytes_used, total: answer.pgmap.bytes_total },
        }
    }
}

/// An entry of `/nodes/{n}/disks/list`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct DiskAnswer {
    #[serde(deserialize_with = "lenient::text")]
    devpath: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    serial: Option<String>,
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    used: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    size: Option<u64>,
    #[serde(deserialize_with = "lenient::number")]
    wearout: Option<f64>,
}

pub(super) fn disks(answer: Vec<DiskAnswer>) -> Vec<Disk> {
    let mut disks: Vec<Disk> = answer
        .into_iter()
        .filter_map(|disk| {
            Some(Disk {
                device: disk.devpath?,
                model: disk.model,
                serial: disk.serial,
                kind: disk.kind,
                used_for: disk.used,
                size: disk.size,
                life_left_percent: disk.wearout,
            })
        })
        .collect();
    disks.sort_by(|a, b| a.device.cmp(&b.device));
    disks
}
