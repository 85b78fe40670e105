//! Proxmox VE, Backup Server and Mail Gateway: one API dialect, three products.

mod answer;
mod client;
mod credentials;
mod discovery;
mod pbs;
mod pmg;
mod pve;
mod pve_answer;
mod slow;
mod visit;

pub use answer::NodeStatus;
pub(super) use client::ProxmoxClient;
pub(super) use credentials::Product;
pub use discovery::{DiscoveryError, FoundCluster, FoundNode};
pub use pbs::{Datastore, DatastoreSettings, GarbageCollection, PbsReading};
pub use pmg::{MailQueue, MailStatistics, PmgNode, PmgReading, Quarantine};
pub use pve::{CephStatus, Cluster, Disk, Guest, GuestKind, PveNode, PveReading, Storage};
