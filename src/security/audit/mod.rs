//! The audit log: append-only, hash-chained, and written before anybody is told that something was done.
//!
//! `docs/decisions/0012-an-action-is-an-intent-and-an-outcome.md` tells why an action is two entries.

mod chain;
mod entry;
mod log;
mod query;
mod retention;
mod verify;

use thiserror::Error;

use super::key_file::KeyFileError;
use crate::store::StoreError;

pub use chain::Head;
pub(crate) use chain::hex;
pub use entry::{Attempt, Conclusion, Kind, Outcome};
pub use log::{AUDIT_KEY, AuditLog, Changed};
pub use query::{AuditEntry, AuditFilter, AuditPage};
pub use retention::Retention;
pub use verify::{Fault, Proven, verify};

/// Why something could not be audited, and so was not done.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The record of the end is missing or was sealed with another key.
    #[error(
        "the audit log's last entry is not sealed by audit.key: pulse.db was edited, or one of the two files is from \
         another time; `pulse audit verify` tells more; restore both from one backup, or move pulse.db away to begin anew"
    )]
    HeadBroken,
    /// The disk took too long.
    #[error("the audit log could not be written in time; the disk that holds pulse.db is slow or hangs")]
    TooSlow,
    /// What was to be audited broke.
    #[error("the call broke off; the audit log tells how far it came")]
    BrokeOff,
}
