//! Shapes that the three products share.

use serde::{Deserialize, Serialize};

use crate::targets::lenient;
use crate::targets::reading::Usage;

/// What every answer is wrapped in.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
}

/// `/version`.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) release: Option<String>,
}

impl Version {
    /// `8.2.4`, or for the backup server `3.2-7`, whose release is not in its version.
    pub(super) fn into_text(self) -> String {
        match self.release {
            Some(release) if !release.contains('.') => format!("{}-{release}", self.version),
            _ => self.version,
        }
    }
}

/// `/nodes/{n}/status`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatusAnswer {
    #[serde(deserialize_with = "lenient::number")]
    cpu: Option<f64>,
    #[serde(deserialize_with = "lenient::number")]
    wait: Option<f64>,
    #[serde(deserialize_with = "lenient::count")]
    uptime: Option<u64>,
    memory: Option<UsageAnswer>,
    swap: Option<UsageAnswer>,
    #[serde(alias = "root")]
    rootfs: Option<UsageAnswer>,
    loadavg: Option<Vec<LoadAnswer>>,
    cpuinfo: Option<CpuAnswer>,
    #[serde(deserialize_with = "lenient::text")]
    kversion: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    pveversion: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    pmgversion: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UsageAnswer {
    #[serde(deserialize_with = "lenient::count")]
    used: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    total: Option<u64>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct LoadAnswer(#[serde(deserialize_with = "lenient::number")] Option<f64>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct CpuAnswer {
    #[serde(deserialize_with = "lenient::count")]
    cpus: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    model: Option<String>,
}

/// How one node is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Share of the processors in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Share of the time spent waiting for disks, 0 to 1.
    pub io_wait: Option<f64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Vec<f64>,
    /// Processors.
    pub cpus: Option<u64>,
    /// The processors' model.
    pub cpu_model: Option<String>,
    /// Memory.
    pub memory: Usage,
    /// Swap space.
    pub swap: Usage,
    /// The root file system.
    pub root_disk: Usage,
    /// Seconds since the node started.
    pub uptime_seconds: Option<u64>,
    /// The kernel.
    pub kernel: Option<String>,
    /// The product's package, as in `pve-manager/8.2.4/faa83925c9641325`.
    pub package: Option<String>,
}

impl From<NodeStatusAnswer> for NodeStatus {
    fn from(answer: NodeStatusAnswer) -> Self {
        let usage = |answer: Option<UsageAnswer>| {
            answer.map(|usage| Usage { used: usage.used, total: usage.total }).unwrap_or_default()
        };
        let (cpus, cpu_model) = answer.cpuinfo.map(|cpu| (cpu.cpus, cpu.model)).unwrap_or_default();
        Self {
            cpu: answer.cpu,
            io_wait: answer.wait,
            load: answer.loadavg.into_iter().flatten().filter_map(|load| load.0).take(3).collect(),
            cpus,
            cpu_model,
            memory: usage(answer.memory),
            swap: usage(answer.swap),
            root_disk: usage(answer.rootfs),
            uptime_seconds: answer.uptime,
            kernel: answer.kversion,
            package: answer.pveversion.or(answer.pmgversion),
        }
    }
}
