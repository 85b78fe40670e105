//! Proxmox VE: four calls a poll, whatever the number of guests, and a costly one now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::answer::{NodeStatus, NodeStatusAnswer};
use super::pve_answer::{CephAnswer, DiskAnswer, MemberAnswer, Members, NodeAnswer, ResourceAnswer, disks};
use super::slow::SlowPart;
use super::visit::{Visit, is_plain_name};
use crate::engine::{FailureKind, Timestamp};
use crate::targets::digest::ChangeDigest;
use crate::targets::fault::{CallFailure, FailedCall};
use crate::targets::lenient::Bounded;
use crate::targets::reading::{Dated, Usage};

/// Entries of `/cluster/resources` that are looked at.
const MAX_RESOURCES: usize = 50_000;
/// Guests that a reading holds.
const MAX_GUESTS: usize = 20_000;
/// Storage entries that a reading holds; each storage counts once a node.
const MAX_STORAGE: usize = 10_000;
/// Nodes that a reading holds.
const MAX_NODES: usize = 256;
/// Disks of one node that a reading holds.
const MAX_DISKS: usize = 512;
/// Costly calls in one poll, so that the nodes of a cluster take turns.
const SLOW_CALLS_A_POLL: usize = 2;

/// What is known of a Proxmox VE host or cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PveReading {
    /// The version of the member that answered.
    pub version: String,
    /// The cluster; `None` for a host on its own, or if that may not be read.
    pub cluster: Option<Cluster>,
    /// Nodes by name.
    pub nodes: Vec<PveNode>,
    /// Virtual machines and containers by number.
    pub guests: Vec<Guest>,
    /// Storage by node and name.
    pub storage: Vec<Storage>,
    /// Ceph, if the cluster carries it.
    pub ceph: Option<Dated<CephStatus>>,
    /// Whether the host lists more than a reading holds.
    pub truncated: bool,
    /// Calls that failed without failing the poll.
    pub failed_calls: Vec<FailedCall>,
}

/// A cluster as its member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Whether enough members see each other.
    pub quorate: bool,
    /// Members configured.
    pub members: Option<u64>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PveNode {
    /// Its name.
    pub name: String,
    /// Whether the cluster sees it.
    pub online: bool,
    /// Its address in the cluster.
    pub address: Option<String>,
    /// Share of the processors in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Processors.
    pub cpus: Option<u64>,
    /// Memory.
    pub memory: Usage,
    /// The root file system.
    pub root_disk: Usage,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// More about it, if it is the node that answered.
    pub status: Option<NodeStatus>,
    /// Its disks.
    pub disks: Option<Dated<Vec<Disk>>>,
}

/// A virtual machine or container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// Its number, unique in the cluster.
    pub vmid: u64,
    /// Virtual machine or container.
    pub kind: GuestKind,
    /// Its name.
    pub name: Option<String>,
    /// The node that it is on.
    pub node: String,
    /// `running`, `stopped`, `paused`, …
    pub status: String,
    /// Whether it is a template.
    pub template: bool,
    /// Tags in alphabetical order.
    pub tags: Vec<String>,
    /// The resource pool that it belongs to.
    pub pool: Option<String>,
    /// What the high-availability manager makes of it.
    pub ha_state: Option<String>,
    /// Why it is locked: `backup`, `migrate`, …
    pub lock: Option<String>,
    /// Share of its processors in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Its processors.
    pub cpus: Option<u64>,
    /// Memory.
    pub memory: Usage,
    /// Its root disk.
    pub disk: Usage,
    /// Bytes received since it started.
    pub network_in: Option<u64>,
    /// Bytes sent since it started.
    pub network_out: Option<u64>,
    /// Bytes read since it started.
    pub disk_read: Option<u64>,
    /// Bytes written since it started.
    pub disk_write: Option<u64>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

/// A storage as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its name.
    pub id: String,
    /// The node that sees it.
    pub node: String,
    /// The plugin that carries it: `zfspool`, `nfs`, `rbd`, …
    pub kind: Option<String>,
    /// `available`, `unknown`, …
    pub status: String,
    /// Whether all nodes see the same data.
    pub shared: bool,
    /// What may lie on it, in alphabetical order.
    pub content: Vec<String>,
    /// Space.
    pub usage: Usage,
}

/// A disk in a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// `/dev/sda`.
    pub device: String,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// `hdd`, `ssd`, `nvme`, …
    pub kind: Option<String>,
    /// What it is used for: `ZFS`, `LVM`, …
    pub used_for: Option<String>,
    /// Bytes it holds.
    pub size: Option<u64>,
    /// Percent of its life that is left, for solid-state disks.
    pub life_left_percent: Option<f64>,
}

/// How Ceph is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CephStatus {
    /// `HEALTH_OK`, `HEALTH_WARN` or `HEALTH_ERR`.
    pub health: String,
    /// Space.
    pub usage: Usage,
}

/// The costly parts, kept between polls.
#[derive(Default)]
pub(super) struct Parts(Mutex<SlowParts>);

#[derive(Default)]
struct SlowParts {
    ceph: SlowPart<CephStatus>,
    disks: BTreeMap<String, SlowPart<Vec<Disk>>>,
}

impl Parts {
    fn with<R>(&self, work: impl FnOnce(&mut SlowParts) -> R) -> R {
        // Each part is whole after any panic.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads everything but the version, which has been read.
pub(super) async fn read(visit: &mut Visit<'_>, version: String, parts: &Parts) -> Result<PveReading, CallFailure> {
    let resources: Bounded<ResourceAnswer, MAX_RESOURCES> = visit.get_bulk("/cluster/resources").await?;
    let members = members(visit).await?;
    let mut reading = sorted(version, resources);
    reading.describe_members(&members);
    if let Some(local) = members.local()
        && let Some(status) = visit.get_unless_forbidden(&format!("/nodes/{local}/status")).await?
    {
        reading.describe_local(local, status);
    }
    read_slow_parts(visit, &reading, parts).await;
    let now = visit.now();
    reading.failed_calls = visit.take_failed_calls();
    parts.with(|parts| reading.describe_slow_parts(parts, now));
    Ok(reading)
}

/// `/cluster/status`, or `/nodes` for those who may not read it.
async fn members(visit: &mut Visit<'_>) -> Result<Members, CallFailure> {
    match visit.get::<Bounded<MemberAnswer, { MAX_NODES + 1 }>>("/cluster/status").await {
        Ok(list) => Ok(Members(list.entries)),
        Err(failure) if failure.kind() == FailureKind::Forbidden => {
            visit.note(FailedCall::from(&failure));
            let nodes: Bounded<NodeAnswer, MAX_NODES> = visit.get("/nodes").await?;
            Ok(Members(nodes.entries.into_iter().map(MemberAnswer::from).collect()))
        }
        Err(failure) => Err(failure),
    }
}

async fn read_slow_parts(visit: &mut Visit<'_>, reading: &PveReading, parts: &Parts) {
    for call in due_calls(reading, parts, visit.now()) {
        if !visit.has_time_to_spare() {
            return;
        }
        let asked = visit.now();
        match call {
            SlowCall::Ceph => {
                parts.with(|parts| parts.ceph.begin(asked));
                let answer = visit.get_optional::<CephAnswer>("/cluster/ceph/status").await.map(CephStatus::from);
                parts.with(|parts| parts.ceph.finish(asked, answer));
            }
            SlowCall::Disks(node) => {
                parts.with(|parts| parts.disks.entry(node.clone()).or_default().begin(asked));
                // Asking for their health would wake disks that sleep.
                let path = format!("/nodes/{node}/disks/list?skipsmart=1");
                let answer = visit.get_optional::<Bounded<DiskAnswer, MAX_DISKS>>(&path).await;
                parts.with(|parts| {
                    parts.disks.entry(node).or_default().finish(asked, answer.map(|list| disks(list.entries)))
                });
            }
        }
    }
}

enum SlowCall {
    Ceph,
    Disks(String),
}

/// The costly calls of this poll: those that wait longest, a few at a time.
fn due_calls(reading: &PveReading, parts: &Parts, now: Timestamp) -> Vec<SlowCall> {
    parts.with(|parts| {
        parts.disks.retain(|name, _| reading.nodes.iter().any(|node| node.name == *name));
        let mut due: Vec<(Option<Timestamp>, SlowCall)> = Vec::new();
        if (reading.cluster.is_some() || reading.has_ceph_storage()) && parts.ceph.is_due(now) {
            due.push((parts.ceph.asked(), SlowCall::Ceph));
        }
        for node in reading.nodes.iter().filter(|node| node.online && is_plain_name(&node.name)) {
            let part = parts.disks.get(&node.name);
            if part.is_none_or(|part| part.is_due(now)) {
                due.push((part.and_then(SlowPart::asked), SlowCall::Disks(node.name.clone())));
            }
        }
        due.sort_by_key(|(asked, _)| *asked);
        due.into_iter().map(|(_, call)| call).take(SLOW_CALLS_A_POLL).collect()
    })
}

/// Sorts the resources into nodes, guests and storage.
fn sorted(version: String, resources: Bounded<ResourceAnswer, MAX_RESOURCES>) -> PveReading {
    let mut reading = PveReading {
        version,
        cluster: None,
        nodes: Vec::new(),
        guests: Vec::new(),
        storage: Vec::new(),
        ceph: None,
        truncated: resources.truncated,
        failed_calls: Vec::new(),
    };
    for resource in resources.entries {
        match resource.kind.as_deref() {
            Some("node") => reading.nodes.extend(resource.into_node()),
            Some("qemu") => reading.guests.extend(resource.into_guest(GuestKind::Qemu)),
            Some("lxc") => reading.guests.extend(resource.into_guest(GuestKind::Lxc)),
            Some("storage") => reading.storage.extend(resource.into_storage()),
            _ => {}
        }
    }
    reading.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    reading.guests.sort_by_key(|guest| guest.vmid);
    reading.storage.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
    reading.truncated |=
        reading.nodes.len() > MAX_NODES || reading.guests.len() > MAX_GUESTS || reading.storage.len() > MAX_STORAGE;
    reading.nodes.truncate(MAX_NODES);
    reading.guests.truncate(MAX_GUESTS);
    reading.storage.truncate(MAX_STORAGE);
    reading
}

impl PveReading {
    fn describe_members(&mut self, members: &Members) {
        self.cluster = members.cluster();
        for member in members.nodes() {
            let Some(name) = &member.name else { continue };
            let at = self.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).unwrap_or_else(|at| {
                self.nodes.insert(at, PveNode { name: name.clone(), ..PveNode::default() });
                at
            });
            let node = &mut self.nodes[at];
            node.online = member.online.unwrap_or(node.online);
            node.address = member.ip.clone();
        }
    }

    fn describe_local(&mut self, name: &str, status: NodeStatusAnswer) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) {
            node.status = Some(status.into());
        }
    }

    fn describe_slow_parts(&mut self, parts: &SlowParts, now: Timestamp) {
        self.ceph = parts.ceph.dated(now);
        // Most clusters carry no Ceph, and then the call fails; that is nothing to report.
        if self.ceph.is_some() || self.has_ceph_storage() {
            self.failed_calls.extend(parts.ceph.failed().cloned());
        }
        for node in &mut self.nodes {
            let Some(part) = parts.disks.get(&node.name) else { continue };
            node.disks = part.dated(now);
            self.failed_calls.extend(part.failed().cloned());
        }
    }

    fn has_ceph_storage(&self) -> bool {
        self.storage.iter().any(|storage| matches!(storage.kind.as_deref(), Some("rbd" | "cephfs")))
    }

    pub(in crate::targets) fn write_changes(&self, digest: &mut ChangeDigest) {
        digest.text(&self.version);
        digest.optional(self.cluster.as_ref().map(|cluster| cluster.name.as_str()));
        digest.flag(self.cluster.as_ref().is_some_and(|cluster| cluster.quorate));
        digest.list(&self.nodes, |digest, node| {
            digest.text(&node.name).flag(node.online).optional(node.address.as_deref()).optional_number(node.cpus);
        });
        digest.list(&self.guests, |digest, guest| {
            digest.number(guest.vmid).text(guest.kind.as_str()).optional(guest.name.as_deref());
            digest.text(&guest.node).text(&guest.status).flag(guest.template);
            digest.optional(guest.pool.as_deref()).optional(guest.ha_state.as_deref()).optional(guest.lock.as_deref());
            digest.optional_number(guest.cpus).optional_number(guest.memory.total).optional_number(guest.disk.total);
            digest.list(&guest.tags, |digest, tag| _ = digest.text(tag));
        });
        digest.list(&self.storage, |digest, storage| {
            digest.text(&storage.id).text(&storage.node).optional(storage.kind.as_deref());
            digest.text(&storage.status).flag(storage.shared);
            digest.list(&storage.content, |digest, content| _ = digest.text(content));
        });
        digest.optional(self.ceph.as_ref().map(|ceph| ceph.value.health.as_str()));
        for node in &self.nodes {
            let disks = node.disks.as_ref().map(|disks| disks.value.as_slice()).unwrap_or_default();
            digest.list(disks, |digest, disk| {
                digest.text(&disk.device).optional(disk.serial.as_deref()).optional(disk.used_for.as_deref());
            });
        }
    }
}
