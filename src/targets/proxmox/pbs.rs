//! Proxmox Backup Server: three calls a poll, whatever the number of datastores.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer::{NodeStatus, NodeStatusAnswer};
use super::slow::SlowPart;
use super::visit::Visit;
use crate::targets::digest::ChangeDigest;
use crate::targets::fault::{CallFailure, FailedCall};
use crate::targets::lenient::{self, Bounded};
use crate::targets::reading::Dated;

/// Datastores that a reading holds.
const MAX_DATASTORES: usize = 2_000;

/// What is known of a Proxmox Backup Server.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PbsReading {
    /// Its version.
    pub version: String,
    /// The machine; `None` if that may not be read.
    pub status: Option<NodeStatus>,
    /// Datastores by name: those that the user or token may see.
    pub datastores: Vec<Datastore>,
    /// How the datastores are set up.
    pub settings: Option<Dated<Vec<DatastoreSettings>>>,
    /// Whether the host lists more than a reading holds.
    pub truncated: bool,
    /// Calls that failed without failing the poll.
    pub failed_calls: Vec<FailedCall>,
}

/// A datastore.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// Its name.
    pub name: String,
    /// Bytes there are.
    pub total: Option<u64>,
    /// Bytes in use.
    pub used: Option<u64>,
    /// Bytes that can still be written.
    pub available: Option<u64>,
    /// Why the server cannot use it.
    pub error: Option<String>,
    /// `mounted`, `notmounted` or `nonremovable`.
    pub mount_status: Option<String>,
    /// When it will be full, in seconds since 1970; in the past if its usage shrinks.
    pub estimated_full_at: Option<i64>,
    /// What the last garbage collection left.
    pub garbage_collection: Option<GarbageCollection>,
}

/// What a garbage collection left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GarbageCollection {
    /// The task that ran it.
    pub task: Option<String>,
    /// Bytes on disk.
    pub disk_bytes: Option<u64>,
    /// Bytes that the indexes refer to.
    pub indexed_bytes: Option<u64>,
    /// Bytes freed.
    pub removed_bytes: Option<u64>,
    /// Bytes that wait to be freed.
    pub pending_bytes: Option<u64>,
    /// Broken chunks that are still there.
    pub bad_chunks: Option<u64>,
}

/// How a datastore is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatastoreSettings {
    /// Its name.
    pub name: String,
    /// What operators say about it.
    pub comment: Option<String>,
    /// The maintenance mode that it is in.
    pub maintenance: Option<String>,
}

/// The costly parts, kept between polls.
#[derive(Default)]
pub(super) struct Parts(Mutex<SlowPart<Vec<DatastoreSettings>>>);

impl Parts {
    fn with<R>(&self, work: impl FnOnce(&mut SlowPart<Vec<DatastoreSettings>>) -> R) -> R {
        // Each part is whole after any panic.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads everything but the version, which has been read.
pub(super) async fn read(visit: &mut Visit<'_>, version: String, parts: &Parts) -> Result<PbsReading, CallFailure> {
    let usage: Bounded<UsageAnswer, MAX_DATASTORES> = visit.get_bulk("/status/datastore-usage").await?;
    let status: Option<NodeStatusAnswer> = visit.get_unless_forbidden("/nodes/localhost/status").await?;
    read_settings(visit, parts).await;
    let mut datastores: Vec<Datastore> = usage.entries.into_iter().filter_map(UsageAnswer::into_datastore).collect();
    datastores.sort_by(|a, b| a.name.cmp(&b.name));
    let now = visit.now();
    let mut failed_calls = visit.take_failed_calls();
    let settings = parts.with(|part| {
        failed_calls.extend(part.failed().cloned());
        part.dated(now)
    });
    Ok(PbsReading {
        version,
        status: status.map(NodeStatus::from),
        datastores,
        settings,
        truncated: usage.truncated,
        failed_calls,
    })
}

async fn read_settings(visit: &mut Visit<'_>, parts: &Parts) {
    let asked = visit.now();
    if !visit.has_time_to_spare() || !parts.with(|part| part.is_due(asked)) {
        return;
    }
    parts.with(|part| part.begin(asked));
    let answer = visit.get_optional::<Bounded<SettingsAnswer, MAX_DATASTORES>>("/admin/datastore").await;
    let settings = answer.map(|list| {
        let mut settings: Vec<_> = list.entries.into_iter().filter_map(SettingsAnswer::into_settings).collect();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        settings
    });
    parts.with(|part| part.finish(asked, settings));
}

impl PbsReading {
    pub(in crate::targets) fn write_changes(&self, digest: &mut ChangeDigest) {
        digest.text(&self.version);
        digest.list(&self.datastores, |digest, datastore| {
            digest.text(&datastore.name).flag(datastore.error.is_some()).optional(datastore.mount_status.as_deref());
        });
        let settings = self.settings.as_ref().map(|settings| settings.value.as_slice()).unwrap_or_default();
        digest.list(settings, |digest, settings| {
            digest.text(&settings.name).optional(settings.comment.as_deref()).optional(settings.maintenance.as_deref());
        });
    }
}

/// An entry of `/status/datastore-usage`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct UsageAnswer {
    #[serde(deserialize_with = "lenient::text")]
    store: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    total: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    used: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    avail: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    error: Option<String>,
    #[serde(rename = "mount-status", deserialize_with = "lenient::text")]
    mount_status: Option<String>,
    #[serde(rename = "estimated-full-date", deserialize_with = "lenient::integer")]
    estimated_full_date: Option<i64>,
    #[serde(rename = "gc-status")]
    gc_status: Option<GarbageAnswer>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct GarbageAnswer {
    #[serde(deserialize_with = "lenient::text")]
    upid: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    disk_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    index_data_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    removed_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    pending_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    still_bad: Option<u64>,
}

impl UsageAnswer {
    fn into_datastore(self) -> Option<Datastore> {
        Some(Datastore {
            name: self.store?,
            total: self.total,
            used: self.used,
            available: self.avail,
            error: self.error,
            mount_status: self.mount_status,
            estimated_full_at: self.estimated_full_date.filter(|seconds| *seconds > 0),
            garbage_collection: self.gc_status.map(|gc| GarbageCollection {
                task: gc.upid,
                disk_bytes: gc.disk_bytes,
                indexed_bytes: gc.index_data_bytes,
                removed_bytes: gc.removed_bytes,
                pending_bytes: gc.pending_bytes,
                bad_chunks: gc.still_bad,
            }),
        })
    }
}

/// An entry of `/admin/datastore`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SettingsAnswer {
    #[serde(deserialize_with = "lenient::text")]
    store: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    comment: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    maintenance: Option<String>,
}

impl SettingsAnswer {
    fn into_settings(self) -> Option<DatastoreSettings> {
        Some(DatastoreSettings { name: self.store?, comment: self.comment, maintenance: self.maintenance })
    }
}
