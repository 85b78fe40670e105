//! All settings of `system.json` that are in its table, before they are known to keep their rules.

use crate::engine::{SettingsDraft, SettingsField};

/// All settings, of whichever part of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Those of the scheduler, which judges them itself.
    pub scheduler: SettingsDraft,
    /// Those of the audit log.
    pub audit: AuditSettings,
}

/// One field of a [`Draft`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// One of the scheduler's.
    Scheduler(SettingsField),
    /// [`AuditSettings::retention_days`].
    AuditRetention,
    /// [`AuditSettings::max_entries`].
    AuditMaxEntries,
}

impl From<SettingsField> for Field {
    fn from(field: SettingsField) -> Self {
        Self::Scheduler(field)
    }
}

/// How much of the audit log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Entries that are older than so many days go.
    pub retention_days: u32,
    /// Of more entries than this, the oldest go.
    pub max_entries: u32,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { retention_days: 400, max_entries: 1_000_000 }
    }
}

impl From<SettingsDraft> for Draft {
    /// With the defaults of everything that is not the scheduler's.
    fn from(scheduler: SettingsDraft) -> Self {
        Self { scheduler, audit: AuditSettings::default() }
    }
}
