//! A release archive: nothing of it is looked at before its signature is known to be good.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use minisign_verify::{PublicKey, Signature};

use super::UpdateError;
use super::installation::{Installation, PROGRAM};

/// An archive is a few megabytes; what is larger than this is none.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// What the program in it may come to.
const MAX_PROGRAM_BYTES: u64 = 1024 * 1024 * 1024;
const VERSION: &str = "VERSION";

/// A release whose signature is good.
#[derive(Debug)]
pub struct Release {
    /// Its version.
    pub version: String,
    archive: PathBuf,
    content: Vec<u8>,
}

impl Release {
    /// Reads `archive`, which the file `archive.minisig` beside it has to sign with the pinned key.
    ///
    /// # Errors
    /// The key or the archive cannot be read, the signature is missing or wrong, or what was signed is no release.
    pub fn verified(archive: &Path, installation: &Installation) -> Result<Self, UpdateError> {
        let key_file = installation.public_key();
        let key = PublicKey::from_file(&key_file)
            .map_err(|error| UpdateError::Key { path: key_file.clone(), reason: error.to_string() })?;
        let not_signed = |reason: String| {
            let (archive, key) = (archive.to_owned(), key_file.clone());
            UpdateError::NotSigned { archive, key, reason }
        };
        let mut signature_file = archive.as_os_str().to_owned();
        signature_file.push(".minisig");
        let signature = Signature::from_file(&signature_file)
            .map_err(|error| not_signed(format!("{}: {error}", signature_file.display())))?;
        let mut content = Vec::new();
        let file = fs::File::open(archive).map_err(UpdateError::file("cannot read", archive))?;
        file.take(MAX_BYTES).read_to_end(&mut content).map_err(UpdateError::file("cannot read", archive))?;
        key.verify(&content, &signature, false).map_err(|error| not_signed(error.to_string()))?;
        let mut release = Self { version: String::new(), archive: archive.to_owned(), content };
        let text = release.read(VERSION, 256, |text| {
            let mut version = String::new();
            text.read_to_string(&mut version).map(|_| version)
        })?;
        release.version = text.trim().to_owned();
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".+-~".contains(c);
        if !release.version.starts_with(|c: char| c.is_ascii_digit()) || !release.version.chars().all(is_name) {
            return Err(release.broken(format!("{:?} is no version", release.version)));
        }
        Ok(release)
    }

    /// Puts the program in `folder`, which must be there.
    pub(super) fn unpack(&self, folder: &Path) -> Result<(), UpdateError> {
        let path = folder.join(PROGRAM);
        self.read(PROGRAM, MAX_PROGRAM_BYTES, |content| {
            let mut file = fs::File::create_new(&path)?;
            io::copy(content, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
            file.sync_all()
        })
    }

    /// Has `use_it` read the file `name` of the archive's one folder.
    fn read<T>(
        &self,
        name: &str,
        limit: u64,
        use_it: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T, UpdateError> {
        let broken = |error: io::Error| self.broken(error.to_string());
        let mut tar = tar::Archive::new(GzDecoder::new(self.content.as_slice()));
        for entry in tar.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            let is_it = path.components().count() == 2 && path.file_name().is_some_and(|found| found == name);
            if is_it && entry.header().entry_type().is_file() {
                return use_it(&mut entry.take(limit)).map_err(broken);
            }
        }
        Err(self.broken(format!("it holds no {name}")))
    }

    fn broken(&self, reason: String) -> UpdateError {
        UpdateError::NotARelease { archive: self.archive.clone(), reason }
    }
}

/// Whether `to` is older than `from`, by the numbers between the dots; what follows them does not count.
pub(super) fn is_older(to: &str, from: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
        version[..end].split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    numbers(to) < numbers(from)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_older("0.9.0", "0.10.0") && is_older("1.2.3", "2.0.0"));
        assert!(!is_older("0.10.0", "0.9.0") && !is_older("1.0.0+later", "1.0.0") && !is_older("1.0.0", "1.0.0+later"));
    }
}
