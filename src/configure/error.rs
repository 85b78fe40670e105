//! Why the configuration was not changed.

use thiserror::Error;

use crate::config::{BundleError, ConfigErrors, EditError, Problem};
use crate::runtime::DriverGone;
use crate::security::KeyFileError;
use crate::security::audit::Conclusion;
use crate::store::StoreError;

/// Why the configuration was not changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The settings break rules, or their file is broken.
    #[error("{0}")]
    Settings(ConfigErrors),
    /// The inventory breaks rules.
    #[error("{0}")]
    Inventory(ConfigErrors),
    /// The edit of an instance cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There is no such version.
    #[error("there is no version {0}; `pulse config history` lists those that are kept")]
    NoVersion(i64),
    /// The version is the one in force.
    #[error("version {0} differs in nothing from what is in force")]
    NothingToDo(i64),
    /// A file cannot be written, or others keep changing it.
    #[error("the configuration {0}")]
    File(Problem),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of the secrets cannot be changed.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// An export cannot be made or opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The scheduler has stopped. What was written is followed by the next start.
    #[error(transparent)]
    Stopped(#[from] DriverGone),
    /// It broke.
    #[error("the change broke off; the daemon's log tells more")]
    BrokeOff,
}

impl ChangeError {
    /// What the audit log tells of a change that was not made.
    pub fn conclusion(&self) -> Conclusion {
        match self {
            Self::File(_)
            | Self::Store(_)
            | Self::Key(_)
            | Self::Stopped(_)
            | Self::BrokeOff
            | Self::Bundle(BundleError::NoResources) => Conclusion::failed(self),
            _ => Conclusion::refused(self),
        }
    }
}
