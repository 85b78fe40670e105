//! A file with 256 random bits that only its owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::random::random_bytes;

const LENGTH: usize = 32;

/// The content of a key file. Wiped from memory when dropped.
pub struct KeyFile(Zeroizing<[u8; LENGTH]>);

/// Why a key file could not be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {path}: {source}; restore it from a backup")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error("cannot make the key file {path}: {source}; check the data folder's owner and the free space")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {path} has mode {mode:03o}, so others may have read it; chmod it to 600 if you are sure that none did"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is another user's.
    #[error("the key file {path} belongs to another user, who may have read it; chown it to the daemon's user if not")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("the key file {path} does not hold a key of {LENGTH} bytes; restore it from a backup")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFile {
    /// Reads a key.
    ///
    /// # Errors
    /// It is not there or not readable, it is another user's, others may read it, or it is no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeyFileError::NotOurs { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let whole = file.read_exact(&mut *bytes).and_then(|()| file.read(&mut [0])).is_ok_and(|more| more == 0);
        if whole { Ok(Self(bytes)) } else { Err(KeyFileError::NotAKey { path: path.to_owned() }) }
    }

    /// Makes a key, which is on the disk when this returns. One that is there is kept, and is an error.
    ///
    /// # Errors
    /// There is a file already, or it cannot be made.
    pub fn make(path: &Path) -> Result<Self, KeyFileError> {
        let unwritable = |source| KeyFileError::Unwritable { path: path.to_owned(), source };
        let bytes = Zeroizing::new(random_bytes().map_err(|error| unwritable(io::Error::other(error)))?);
        let folder = path.parent().unwrap_or(Path::new("."));
        // Written aside and linked, so that a crash leaves either no key or a whole one, and no key is ever replaced.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(unwritable)?;
        file.write_all(&*bytes).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
        file.persist_noclobber(path).map_err(|error| unwritable(error.error))?;
        OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
            .open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(unwritable)?;
        Ok(Self(bytes))
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// A key that is kept nowhere, for simulations.
    pub fn fixed(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFile(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        assert!(matches!(KeyFile::read(&path), Err(KeyFileError::Unreadable { .. })));
        let made = KeyFile::make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyFile::read(&path).unwrap().bytes(), made.bytes());
        assert!(matches!(KeyFile::make(&path), Err(KeyFileError::Unwritable { .. })));
        assert_eq!(KeyFile::read(&path).unwrap().bytes(), made.bytes(), "no key is ever replaced");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        KeyFile::make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(KeyFile::read(&path), Err(KeyFileError::TooOpen { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for content in [&[7; 31][..], &[7; 33]] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(KeyFile::read(&path), Err(KeyFileError::NotAKey { .. })));
        }
    }
}
