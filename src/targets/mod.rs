//! How each type of instance is polled.
//!
//! A poll returns its outcome and its reading; it records nothing and decides nothing. What makes it a failure:
//!
//! | type | the poll fails if one of these fails | these may fail; the reading says so |
//! | --- | --- | --- |
//! | pve | `/version`, `/cluster/resources`, `/cluster/status` (or `/nodes`, if that is forbidden), `/nodes/{n}/status` of the node asked (unless forbidden) | every 5 min: `/cluster/ceph/status` of a cluster, `/nodes/{n}/disks/list` |
//! | pbs | `/version`, `/status/datastore-usage`, `/nodes/localhost/status` (unless forbidden) | every 5 min: `/admin/datastore` |
//! | pmg | `/version`, `/config/cluster/status`, `/nodes/{n}/status` of all nodes (unless forbidden) | `/nodes/{n}/status` of some nodes; `/nodes/{n}/postfix/qshape`; every 5 min: `/statistics/mail`, `/quarantine/spamstatus` |
//! | http, tcp | nothing: an endpoint that is down is a result (only a lack of sockets on this machine fails a poll) | |
//!
//! The password sign-in, where one is due, is part of the first call. A member of a cluster that cannot be connected to
//! is passed over for the next; the poll fails if none is left.

mod client;
mod deadline;
mod digest;
mod fault;
mod http;
mod lenient;
mod net;
mod proxmox;
mod reading;
mod target;
mod tcp;

pub use client::{Client, ClientError, fingerprint_text, observed_fingerprint};
pub use deadline::Now;
pub use fault::FailedCall;
pub use http::HttpReading;
#[cfg(feature = "otel")]
pub use net::overhear;
pub(crate) use net::tls_problem;
pub use net::{CallSaid, Connector, TrustError};
pub use proxmox::{
    CephStatus, Cluster, Datastore, DatastoreSettings, DiscoveryError, Disk, FoundCluster, FoundNode,
    GarbageCollection, Guest, GuestKind, MailQueue, MailStatistics, NodeStatus, PbsReading, PmgNode, PmgReading,
    PveNode, PveReading, Quarantine, Storage,
};
pub use reading::{Dated, DownCategory, DownReason, Reading, Usage};
pub(crate) use target::fingerprint_of;
pub use target::{Access, Credentials, HttpCheck, ProxmoxAccess, Secret, Target, TcpCheck, Trust};
pub use tcp::TcpReading;
