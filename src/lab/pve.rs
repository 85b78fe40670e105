//! The API of Proxmox VE 8, as far as monitoring reads it.

use serde_json::{Value, json};

use super::api::{Answer, Call, Refusal};
use super::noise::Noise;
use super::plan::System;

const GIB: u64 = 1 << 30;
const VERSION: &str = "8.4.1";
const REPOSITORY: &str = "2a5fa54a8503f96d";
const CPUS: u64 = 16;
const MEMORY: u64 = 64 * GIB;
const ROOT_DISK: u64 = 94 * GIB;
const STORAGE_SIZE: u64 = 1_800 * GIB;
/// Clusters from this size on carry Ceph.
const NODES_FOR_CEPH: usize = 3;
/// How long a node had been up when the lab started, at most, in seconds.
const MAX_UPTIME_AT_START: u64 = 90 * 86_400;

/// The answer to `GET` of a path; `None` if there is no such path.
pub(super) fn answer(call: &Call<'_>, path: &[&str]) -> Option<Answer> {
    let System::Pve { guests, storages, changes_every_secs, .. } = &call.host.plan.system else { return None };
    let cluster = Cluster { call, guests: *guests, storages, changes_every_secs: *changes_every_secs };
    Some(match path {
        ["version"] => Ok(json!({"version": VERSION, "release": "8.4", "repoid": REPOSITORY})),
        ["nodes"] => Ok(cluster.nodes().map(|node| node.entry()).collect()),
        ["cluster", "status"] => Ok(cluster.status()),
        ["cluster", "resources"] => cluster.resources(),
        ["cluster", "ceph", "status"] => cluster.ceph_status(),
        ["nodes", node, rest @ ..] => {
            let node = match call.node_index(node) {
                Ok(index) => cluster.node(index),
                Err(refusal) => return Some(Err(refusal)),
            };
            Ok(match rest {
                ["status"] => node.status(),
                ["certificates", "info"] => node.certificates(),
                ["storage"] => cluster.storage_names().map(|name| node.storage(name)).collect(),
                ["disks", "list"] => node.disks(),
                ["qemu"] => cluster.guests_of(node.index, GuestKind::Qemu).map(|guest| guest.entry()).collect(),
                ["lxc"] => cluster.guests_of(node.index, GuestKind::Lxc).map(|guest| guest.entry()).collect(),
                _ => return None,
            })
        }
        _ => return None,
    })
}

struct Cluster<'a> {
    call: &'a Call<'a>,
    guests: u16,
    storages: &'a [String],
    changes_every_secs: Option<u32>,
}

struct Node<'a> {
    call: &'a Call<'a>,
    index: usize,
    name: String,
    online: bool,
    noise: Noise,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GuestKind {
    Qemu,
    Lxc,
}

struct Guest<'a> {
    call: &'a Call<'a>,
    number: u16,
    kind: GuestKind,
    node: usize,
    running: bool,
    noise: Noise,
}

impl<'a> Cluster<'a> {
    fn nodes(&self) -> impl Iterator<Item = Node<'a>> {
        (0..self.call.host.members.len()).map(|index| self.node(index))
    }

    fn node(&self, index: usize) -> Node<'a> {
        let host = self.call.host;
        let online = index == self.call.member || host.members[index].is_online(self.call.now);
        let name = host.node(index);
        Node { call: self.call, index, noise: host.noise.of(&name), name, online }
    }

    fn storage_names(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once("local").chain(self.storages.iter().map(String::as_str))
    }

    fn guests(&self) -> impl Iterator<Item = Guest<'a>> {
        (0..self.guests).map(|number| self.guest(number))
    }

    fn guests_of(&self, node: usize, kind: GuestKind) -> impl Iterator<Item = Guest<'a>> {
        self.guests().filter(move |guest| guest.node == node && guest.kind == kind)
    }

    fn guest(&self, number: u16) -> Guest<'a> {
        let host = self.call.host;
        let usually_running = number % 7 != 6;
        Guest {
            call: self.call,
            number,
            kind: if number % 3 == 2 { GuestKind::Lxc } else { GuestKind::Qemu },
            node: usize::from(number) % host.members.len(),
            running: usually_running != self.is_unusual(number),
            noise: host.noise.of("guest").of(&number.to_string()),
        }
    }

    /// Whether the guest is the one that is not as usual for the present.
    fn is_unusual(&self, number: u16) -> bool {
        let Some(secs) = self.changes_every_secs else { return false };
        let turn = self.call.now.as_millis() / (u64::from(secs) * 1_000);
        turn > 0 && self.call.host.noise.of("turn").number(turn) % u64::from(self.guests.max(1)) == u64::from(number)
    }

    fn status(&self) -> Value {
        let host = self.call.host;
        let count = host.members.len();
        let cluster = (count > 1).then(|| {
            let online = self.nodes().filter(|node| node.online).count();
            let quorate = u8::from(online * 2 > count);
            json!({"type": "cluster", "id": "cluster", "name": host.plan.name, "version": count, "nodes": count,
                "quorate": quorate})
        });
        let nodes = self.nodes().map(|node| {
            json!({"type": "node", "id": format!("node/{}", node.name), "name": node.name, "level": "",
                "nodeid": if count > 1 { node.index + 1 } else { 0 }, "ip": host.members[node.index].address.ip(),
                "local": u8::from(node.index == self.call.member), "online": u8::from(node.online)})
        });
        cluster.into_iter().chain(nodes).collect()
    }

    fn resources(&self) -> Answer {
        let kind = self.call.parameter("type");
        let wanted = |name: &str| kind.as_deref().is_none_or(|kind| kind == name);
        if let Some(kind) = &kind
            && !["vm", "storage", "node", "sdn"].contains(&kind.as_str())
        {
            let why = format!("value '{kind}' does not have a value in the enumeration 'vm, storage, node, sdn'");
            return Err(Refusal::of_parameter("type", why));
        }
        let mut resources = Vec::new();
        if wanted("vm") {
            resources.extend(self.guests().map(|guest| guest.resource(self.node(guest.node).online)));
        }
        for node in self.nodes() {
            if wanted("node") {
                resources.push(node.resource());
            }
            if wanted("storage") {
                resources.extend(self.storage_names().map(|name| node.storage_resource(name)));
            }
            if wanted("sdn") {
                resources.push(json!({"id": format!("sdn/{}/localnetwork", node.name), "type": "sdn",
                    "sdn": "localnetwork", "node": node.name, "status": "ok"}));
            }
        }
        Ok(Value::Array(resources))
    }

    fn ceph_status(&self) -> Answer {
        let count = self.call.host.members.len();
        if count < NODES_FOR_CEPH {
            return Err(Refusal::new(500, "binary not installed: /usr/bin/ceph-mon"));
        }
        let online = self.nodes().filter(|node| node.online).count();
        let health = if online == count { "HEALTH_OK" } else { "HEALTH_WARN" };
        let noise = self.call.host.noise.of("ceph");
        let total = STORAGE_SIZE * count as u64;
        let used = noise.share(self.call.now, total, 0.3, 0.35);
        Ok(json!({
            "fsid": format!("{:08x}-0000-4000-8000-000000000001", noise.number(0) >> 32),
            "health": {"status": health, "checks": {}, "mutes": []},
            "quorum_names": self.nodes().filter(|node| node.online).map(|node| node.name).collect::<Vec<_>>(),
            "monmap": {"epoch": 3, "num_mons": count},
            "osdmap": {"epoch": 412, "num_osds": count * 2, "num_up_osds": online * 2, "num_in_osds": count * 2},
            "pgmap": {"num_pgs": 129, "num_pools": 2, "bytes_total": total, "bytes_used": used,
                "bytes_avail": total - used, "pgs_by_state": [{"state_name": "active+clean", "count": 129}]},
        }))
    }
}

impl Node<'_> {
    fn uptime(&self) -> u64 {
        self.noise.between(1, 3_600, MAX_UPTIME_AT_START) + self.call.now.as_millis() / 1_000
    }

    fn cpu(&self) -> f64 {
        self.noise.of("cpu").gauge(self.call.now, 0.02, 0.65)
    }

    fn memory_used(&self) -> u64 {
        self.noise.of("memory").share(self.call.now, MEMORY, 0.3, 0.8)
    }

    fn root_used(&self) -> u64 {
        self.noise.of("root").share(self.call.now, ROOT_DISK, 0.1, 0.2)
    }

    fn entry(&self) -> Value {
        let id = format!("node/{}", self.name);
        if !self.online {
            return json!({"node": self.name, "id": id, "type": "node", "status": "offline"});
        }
        json!({
            "node": self.name, "id": id, "type": "node", "status": "online", "level": "",
            "cpu": self.cpu(), "maxcpu": CPUS, "mem": self.memory_used(), "maxmem": MEMORY,
            "disk": self.root_used(), "maxdisk": ROOT_DISK, "uptime": self.uptime(),
            "ssl_fingerprint": &*self.call.host.identity.fingerprint,
        })
    }

    fn resource(&self) -> Value {
        let mut resource = self.entry();
        if let Some(fields) = resource.as_object_mut() {
            fields.remove("ssl_fingerprint");
            fields.insert("cgroup-mode".into(), 2.into());
        }
        resource
    }

    fn status(&self) -> Value {
        let (load, root_used) = (self.cpu() * CPUS as f64, self.root_used());
        let memory_used = self.memory_used();
        json!({
            "uptime": self.uptime(), "cpu": self.cpu(), "wait": 0.0004, "idle": 0,
            "loadavg": [format!("{load:.2}"), format!("{:.2}", load * 0.9), format!("{:.2}", load * 0.8)],
            "memory": {"total": MEMORY, "used": memory_used, "free": MEMORY - memory_used},
            "swap": {"total": 8 * GIB, "used": 0, "free": 8 * GIB},
            "rootfs": {"total": ROOT_DISK, "used": root_used, "free": ROOT_DISK - root_used,
                "avail": ROOT_DISK - root_used},
            "cpuinfo": {"cpus": CPUS, "cores": CPUS / 2, "sockets": 1, "model": "AMD EPYC 7313P 16-Core Processor",
                "mhz": "2994.372", "hvm": "1", "user_hz": 100, "flags": "fpu vme svm aes"},
            "ksm": {"shared": 0},
            "pveversion": format!("pve-manager/{VERSION}/{REPOSITORY}"),
            "kversion": "Linux 6.8.12-9-pve #1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)",
            "current-kernel": {"sysname": "Linux", "release": "6.8.12-9-pve", "machine": "x86_64",
                "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)"},
            "boot-info": {"mode": "efi", "secureboot": 0},
        })
    }

    /// The certificate that the node's API presents, as far as clients look at it.
    fn certificates(&self) -> Value {
        let fingerprint = &*self.call.host.identity.fingerprint;
        let of_root = ["5A"; 32].join(":");
        json!([
            {"filename": "pve-root-ca.pem", "subject": "/CN=Proxmox Virtual Environment", "fingerprint": of_root},
            {"filename": "pve-ssl.pem", "subject": format!("/CN={}.lab", self.name), "fingerprint": fingerprint},
        ])
    }

    fn storage_figures(&self, name: &str) -> (u64, u64, &'static str, &'static str) {
        let noise = self.noise.of("storage").of(name);
        match name {
            "local" => (ROOT_DISK, self.root_used(), "dir", "iso,vztmpl,backup"),
            _ => (STORAGE_SIZE, noise.share(self.call.now, STORAGE_SIZE, 0.4, 0.6), "zfspool", "images,rootdir"),
        }
    }

    fn storage(&self, name: &str) -> Value {
        let (total, used, kind, content) = self.storage_figures(name);
        json!({"storage": name, "type": kind, "content": content, "active": 1, "enabled": 1, "shared": 0,
            "total": total, "used": used, "avail": total - used, "used_fraction": used as f64 / total as f64})
    }

    fn storage_resource(&self, name: &str) -> Value {
        let (total, used, kind, content) = self.storage_figures(name);
        let id = format!("storage/{}/{name}", self.name);
        if !self.online {
            return json!({"id": id, "type": "storage", "storage": name, "node": self.name, "status": "unknown",
                "plugintype": kind, "content": content, "shared": 0});
        }
        json!({"id": id, "type": "storage", "storage": name, "node": self.name, "status": "available",
            "plugintype": kind, "content": content, "shared": 0, "disk": used, "maxdisk": total})
    }

    fn disks(&self) -> Value {
        let serial = |position| format!("S{:011X}", self.noise.of("disk").number(position) >> 20);
        // A wear-out level exists only for flash; for others the API says "N/A".
        json!([
            {"devpath": "/dev/nvme0n1", "type": "nvme", "model": "SAMSUNG MZQL21T9HCJR-00A07", "vendor": "unknown",
                "serial": serial(0), "size": 1_920_383_410_176_u64, "rpm": 0, "wearout": 97, "health": "PASSED",
                "used": "ZFS", "gpt": 1, "osdid": -1, "osdid-list": null, "wwn": "eui.36344830548055"},
            {"devpath": "/dev/sda", "type": "hdd", "model": "TOSHIBA_MG08ACA16TE", "vendor": "ATA     ",
                "serial": serial(1), "size": 16_000_900_661_248_u64, "rpm": 7_200, "wearout": "N/A",
                "health": "PASSED", "used": "ZFS", "gpt": 1, "osdid": "-1", "osdid-list": null,
                "wwn": "0x5000039b08c83b21"},
        ])
    }
}

impl Guest<'_> {
    fn vmid(&self) -> u32 {
        100 + u32::from(self.number)
    }

    fn name(&self) -> String {
        const ROLES: [&str; 8] = ["web", "db", "cache", "mail", "build", "files", "proxy", "monitor"];
        format!("{}-{}", ROLES[usize::from(self.number) % ROLES.len()], self.vmid())
    }

    fn memory(&self) -> u64 {
        (2 * GIB) << (self.noise.number(1) % 3)
    }

    /// The figures that the list and the cluster's resources have in common.
    fn figures(&self) -> Value {
        let (now, memory, disk) = (self.call.now, self.memory(), 32 * GIB);
        let seconds = now.as_millis() / 1_000;
        let uptime = if self.running { self.noise.between(2, 600, 30 * 86_400) + seconds } else { 0 };
        let since_start = |position, per_second| {
            if self.running { self.noise.between(position, GIB, 64 * GIB) + seconds * per_second } else { 0 }
        };
        json!({
            "name": self.name(), "status": if self.running { "running" } else { "stopped" },
            "cpu": if self.running { self.noise.of("cpu").gauge(now, 0.0, 0.9) } else { 0.0 },
            "mem": if self.running { self.noise.of("memory").share(now, memory, 0.2, 0.9) } else { 0 },
            "maxmem": memory, "maxdisk": disk, "uptime": uptime,
            "disk": if self.kind == GuestKind::Lxc { disk / 4 } else { 0 },
            "netin": since_start(3, 9_000), "netout": since_start(4, 4_000),
            "diskread": since_start(5, 20_000), "diskwrite": since_start(6, 12_000),
        })
    }

    /// As in `/nodes/{node}/qemu` and `/nodes/{node}/lxc`.
    fn entry(&self) -> Value {
        let mut entry = self.figures();
        entry["cpus"] = 2.into();
        match self.kind {
            GuestKind::Qemu => entry["vmid"] = self.vmid().into(),
            GuestKind::Lxc => {
                entry["vmid"] = self.vmid().to_string().into();
                entry["type"] = "lxc".into();
                entry["swap"] = 0.into();
                entry["maxswap"] = (GIB / 2).into();
            }
        }
        if self.kind == GuestKind::Qemu && self.running {
            entry["pid"] = (2_000 + self.number).into();
        }
        entry
    }

    /// As in `/cluster/resources`.
    fn resource(&self, node_online: bool) -> Value {
        let kind = match self.kind {
            GuestKind::Qemu => "qemu",
            GuestKind::Lxc => "lxc",
        };
        let (id, node) = (format!("{kind}/{}", self.vmid()), self.call.host.node(self.node));
        if !node_online {
            return json!({"id": id, "type": kind, "vmid": self.vmid(), "node": node, "status": "unknown"});
        }
        let mut resource = self.figures();
        resource["id"] = id.into();
        resource["type"] = kind.into();
        resource["vmid"] = self.vmid().into();
        resource["node"] = node.into();
        resource["template"] = 0.into();
        resource["maxcpu"] = 2.into();
        if self.number.is_multiple_of(4) {
            resource["tags"] = "production".into();
        }
        resource
    }
}
