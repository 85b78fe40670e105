//! Why the database could not be used, in words that tell what to do.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the database could not be used. Nothing was changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be made or opened.
    #[error("cannot use the database {path}: {source}; check the owner and mode of the data folder")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version wrote it.
    #[error(
        "pulse.db was written by a later version of Pulse (schema {found}, this one knows {known}); install that \
         version, or restore a backup from before the update"
    )]
    TooNew {
        /// Its schema.
        found: usize,
        /// The last schema that this version knows.
        known: usize,
    },
    /// An earlier version wrote it.
    #[error("pulse.db was written by an earlier version of Pulse; start the daemon once, which brings it up to date")]
    TooOld,
    /// The file is not a database.
    #[error("pulse.db is not a database, or is damaged; restore it from a backup, or move it away to begin anew")]
    NotOurs,
    /// The disk is full.
    #[error("the disk that holds pulse.db is full; free some space, no restart is needed")]
    Full,
    /// The disk fails.
    #[error("the disk that holds pulse.db fails ({0}); look at the system's log")]
    Disk(String),
    /// Another process holds the database.
    #[error("another program has held pulse.db for too long; end it and try again")]
    Busy,
    /// The file or its folder may not be written.
    #[error("pulse.db may not be written; check its owner and mode, and whether the disk is mounted read-only")]
    ReadOnly,
    /// Too many wait already.
    #[error("too much is waiting for the database; try again later")]
    Overloaded,
    /// The work broke off.
    #[error("work on the database broke off; the daemon's log tells more")]
    Interrupted,
    /// The database does not take what we ask: a fault of ours.
    #[error("the database refused a statement: {0}")]
    Statement(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::SystemIoFailure) => Self::Disk(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Self::ReadOnly,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotOurs,
            _ => Self::Statement(error),
        }
    }
}
