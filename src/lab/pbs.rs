//! The API of Proxmox Backup Server 3, as far as monitoring reads it.

use serde_json::{Value, json};

use super::api::{Answer, Call, Refusal};
use super::clock::unix_seconds;
use super::noise::Noise;
use super::plan::System;

const GIB: u64 = 1 << 30;
const VERSION: &str = "3.4.1";
const MEMORY: u64 = 32 * GIB;
const ROOT_DISK: u64 = 94 * GIB;
const DATASTORE_SIZE: u64 = 16_000 * GIB;
/// Garbage is collected once a day.
const DAY_SECS: u64 = 86_400;
/// The usage of this many half hours is shown.
const HISTORY_LENGTH: u64 = 24;

/// The answer to `GET` of a path; `None` if there is no such path.
pub(super) fn answer(call: &Call<'_>, path: &[&str]) -> Option<Answer> {
    let System::Pbs { datastores, .. } = &call.host.plan.system else { return None };
    let stores = || datastores.iter().map(|name| Datastore::new(call, name));
    Some(match path {
        ["version"] => Ok(json!({"version": "3.4", "release": "1", "repoid": "7f6a7d1c5a0d2f1b"})),
        ["nodes"] => Ok(json!([{"node": call.host.node(call.member)}])),
        ["nodes", node, "status"] => call.node_index(node).map(|_| node_status(call)),
        ["admin", "datastore"] => Ok(stores().map(|store| store.entry()).collect()),
        ["admin", "datastore", name, "status"] => stores()
            .find(|store| store.name == *name)
            .map(|store| store.status())
            .ok_or_else(|| Refusal::new(400, format!("no such datastore '{name}'"))),
        ["status", "datastore-usage"] => Ok(stores().map(|store| store.usage()).collect()),
        _ => return None,
    })
}

fn node_status(call: &Call<'_>) -> Value {
    let (noise, now) = (call.host.noise, call.now);
    let memory_used = noise.of("memory").share(now, MEMORY, 0.2, 0.6);
    let root_used = noise.of("root").share(now, ROOT_DISK, 0.1, 0.15);
    let cpu = noise.of("cpu").gauge(now, 0.01, 0.5);
    json!({
        "cpu": cpu, "wait": 0.01, "uptime": noise.between(1, 3_600, 90 * DAY_SECS) + now.as_millis() / 1_000,
        "loadavg": [cpu * 8.0, cpu * 7.5, cpu * 7.0],
        "memory": {"total": MEMORY, "used": memory_used, "free": MEMORY - memory_used},
        "swap": {"total": 8 * GIB, "used": 0, "free": 8 * GIB},
        "root": {"total": ROOT_DISK, "used": root_used, "avail": ROOT_DISK - root_used},
        "cpuinfo": {"cpus": 8, "sockets": 1, "model": "Intel(R) Xeon(R) E-2334 CPU @ 3.40GHz"},
        "kversion": "Linux 6.8.12-9-pve #1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)",
        "current-kernel": {"sysname": "Linux", "release": "6.8.12-9-pve", "machine": "x86_64",
            "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-9 (2025-03-16T19:18Z)"},
        "boot-info": {"mode": "efi", "secureboot": false},
        "info": {"fingerprint": call.host.identity.fingerprint.to_lowercase(), "version": VERSION},
    })
}

struct Datastore<'a> {
    call: &'a Call<'a>,
    name: &'a str,
    noise: Noise,
}

impl<'a> Datastore<'a> {
    fn new(call: &'a Call<'a>, name: &'a str) -> Self {
        Self { call, name, noise: call.host.noise.of("datastore").of(name) }
    }

    fn used(&self) -> u64 {
        self.noise.share(self.call.now, DATASTORE_SIZE, 0.45, 0.55)
    }

    fn entry(&self) -> Value {
        json!({"store": self.name, "comment": format!("Backups: {}", self.name), "mount-status": "nonremovable"})
    }

    fn status(&self) -> Value {
        let used = self.used();
        json!({
            "total": DATASTORE_SIZE, "used": used, "avail": DATASTORE_SIZE - used,
            "counts": {
                "vm": {"groups": 14, "snapshots": 212}, "ct": {"groups": 6, "snapshots": 88},
                "host": {"groups": 1, "snapshots": 7}, "other": {"groups": 0, "snapshots": 0},
            },
            "gc-status": self.garbage_collection(),
        })
    }

    fn garbage_collection(&self) -> Value {
        let started = unix_seconds(self.call.now) / DAY_SECS * DAY_SECS;
        json!({
            "upid": format!("UPID:{}:000003A1:00000C15:00000001:{started:08X}:garbage_collection:{}:root@pam:",
                self.call.host.node(self.call.member), self.name),
            "index-file-count": 307, "index-data-bytes": 58_000 * GIB, "disk-bytes": self.used() / 2,
            "disk-chunks": 3_912_004, "removed-bytes": 13 * GIB, "removed-chunks": 8_831, "pending-bytes": 2 * GIB,
            "pending-chunks": 1_204, "removed-bad": 0, "still-bad": 0,
        })
    }

    fn usage(&self) -> Value {
        let (used, now) = (self.used(), unix_seconds(self.call.now));
        let history: Vec<f64> =
            (0..HISTORY_LENGTH).map(|position| 0.45 + 0.1 * self.noise.fraction(position)).collect();
        json!({
            "store": self.name, "total": DATASTORE_SIZE, "used": used, "avail": DATASTORE_SIZE - used,
            "mount-status": "nonremovable", "history": history, "history-start": now - HISTORY_LENGTH * 1_800,
            "history-delta": 1_800, "estimated-full-date": now + self.noise.between(1, 90, 900) * DAY_SECS,
            "gc-status": self.garbage_collection(),
        })
    }
}
