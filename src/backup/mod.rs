//! A data folder in one file, made while the daemon runs, and put back as a whole or not at all.

mod archive;
mod make;
mod restore;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::security::KeyFileError;
use crate::security::audit::Fault;
use crate::store::StoreError;

pub use make::make;
pub use restore::{Restore, Restored, unchanged_since};

/// The only format there is.
const FORMAT: u32 = 1;
/// The first entry of a backup.
const MANIFEST: &str = "manifest.json";

/// What is in a backup, and what is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The version of Pulse that made it.
    pub version: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// The files in it, sorted by name.
    pub files: Vec<Entry>,
    /// Files of the data folder that hold secrets and were left out, sorted by name.
    pub left_out: Vec<String>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Its path in the data folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 digest of its content, in hexadecimal.
    pub sha256: String,
}

/// What becomes of the files that hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// They are left out, and named in the manifest.
    LeftOut,
    /// They are in the backup, which has to be guarded as the data folder is.
    Included,
}

/// Why a backup was not made or not put back. Nothing was changed.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is nothing to back up.
    #[error("data folder {0}: there is no such folder, or nothing in it; name another with --data-dir")]
    NothingThere(PathBuf),
    /// The configuration changed again and again.
    #[error("the configuration changes again and again; try again when nobody edits it")]
    KeepsChanging,
    /// The file is there already.
    #[error("{0} is there already; choose another name")]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The data folder holds something.
    #[error("data folder {0} is not empty; --force puts the backup in its place and keeps what is there beside it")]
    NotEmpty(PathBuf),
    /// It is no backup.
    #[error("{path} is not a backup of Pulse, or is damaged: {reason}; take another one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A later version made it.
    #[error("the backup was made by Pulse {0} in a later format; install that version to restore it")]
    TooNew(String),
    /// The database in it cannot be used.
    #[error("the database in the backup: {0}")]
    Store(#[from] StoreError),
    /// The audit log's key in it cannot be used.
    #[error("the key of the audit log in the backup: {0}")]
    Key(#[from] KeyFileError),
    /// The audit log in it is not as it was written.
    #[error("the audit log in the backup is not as it was written: {0}; take another backup")]
    Audit(#[from] Fault),
}

impl BackupError {
    fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
