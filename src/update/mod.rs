//! Later versions of the program: signed, put beside the one that runs, switched to, and back again if they are not well.

mod apply;
mod history;
mod installation;
mod release;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::backup::BackupError;

pub use apply::{Applied, Service, Switch};
pub use history::{Outcome, Record};
pub use installation::Installation;
pub use release::Release;
pub use watch::Patience;

/// The program that runs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its version.
    pub version: &'static str,
    /// Where releases are kept beside it; `None` if it was installed in another way.
    pub installation: Option<Installation>,
}

impl Program {
    /// The program of this version, at the path that it was started from.
    pub fn of_process(version: &'static str) -> Self {
        let installation = std::env::current_exe().ok().and_then(|path| Installation::around(&path));
        Self { version, installation }
    }

    /// A program that is no release.
    pub const fn alone(version: &'static str) -> Self {
        Self { version, installation: None }
    }
}

/// Why a version was not switched to. What ran before runs on.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// Somebody else keeps this program up to date.
    #[error(
        "this program is not an installation of the release archive: it was installed by a package, an image or by \
         hand, and is updated in the same way (docs/packages.md)"
    )]
    NotManaged,
    /// Another update is under way.
    #[error("another update is under way; wait for its end")]
    UnderWay,
    /// The pinned key cannot be used.
    #[error("the public key {path} cannot be used: {reason}; put the key there that releases are signed with")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The signature is missing or wrong.
    #[error("{archive} is not signed by the owner of {key}: {reason}; nothing of it was used")]
    NotSigned {
        /// The archive.
        archive: PathBuf,
        /// The pinned key.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was signed is no release.
    #[error("{archive} is not a release of Pulse: {reason}")]
    NotARelease {
        /// The archive.
        archive: PathBuf,
        /// Why.
        reason: String,
    },
    /// It runs already.
    #[error("version {0} runs already")]
    RunsAlready(String),
    /// It is older than what runs.
    #[error("version {to} is older than {from}, which runs; --allow-older installs it all the same")]
    Older {
        /// What runs.
        from: String,
        /// What was to run.
        to: String,
    },
    /// There is no version to go back to.
    #[error("there is no previous version to go back to; `pulse update history` lists what was installed")]
    NoPrevious,
    /// The settings could not be kept or put back.
    #[error("the settings: {0}")]
    Settings(#[from] BackupError),
    /// A file cannot be read or written.
    #[error("{doing} {path}: {source}; updates are installed by root")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl UpdateError {
    fn file(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { doing, path, source }
    }
}
