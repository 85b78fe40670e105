//! The keys of the data folder: `secrets.key`, and while a change of key is under way `secrets.key.new` beside it.
//!
//! From the moment the new key is there both open what they sealed, so a crash at any point of the change leaves a
//! configuration that can be read; the change is completed by the next start, or by asking for it again.

use std::path::{Path, PathBuf};

use super::document::InventoryText;
use super::seal::{SealError, SealingKey, SecretPlace};
use crate::security::{KeyFile, KeyFileError, NoRandomness};
use crate::targets::Secret;

/// The name of the key file in the data folder.
pub const SECRETS_KEY: &str = "secrets.key";
const NEW_KEY: &str = "secrets.key.new";

/// What seals and opens the secrets of instances.
#[derive(Debug)]
pub struct Keyring {
    folder: PathBuf,
    /// What seals from now on.
    current: SealingKey,
    /// What sealed until the change that is under way.
    former: Option<SealingKey>,
}

impl Keyring {
    /// The keys of a data folder; `None` if it has none yet.
    ///
    /// # Errors
    /// A key file cannot be read, others may read it, it is somebody else's, or it is no key.
    pub fn read(folder: &Path) -> Result<Option<Self>, KeyFileError> {
        let key = |name: &str| {
            let path = folder.join(name);
            if path.symlink_metadata().is_err() { Ok(None) } else { KeyFile::read(&path).map(Some) }
        };
        let Some(key_in_use) = key(SECRETS_KEY)? else { return Ok(None) };
        let in_use = SealingKey::new(&key_in_use);
        let (current, former) = match key(NEW_KEY)? {
            Some(new) => (SealingKey::new(&new), Some(in_use)),
            None => (in_use, None),
        };
        Ok(Some(Self { folder: folder.to_owned(), current, former }))
    }

    /// The keys of a data folder, the first of them made if there is none.
    ///
    /// # Errors
    /// As for [`Self::read`]; or the key cannot be made.
    pub fn read_or_make(folder: &Path) -> Result<Self, KeyFileError> {
        if let Some(keys) = Self::read(folder)? {
            return Ok(keys);
        }
        let key = KeyFile::make(&folder.join(SECRETS_KEY))?;
        Ok(Self { folder: folder.to_owned(), current: SealingKey::new(&key), former: None })
    }

    /// The same keys with a new one before them, which seals from now on. A change that is under way is gone on with.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn begin_change(&self) -> Result<Self, KeyFileError> {
        let path = self.folder.join(NEW_KEY);
        if self.former.is_none() {
            KeyFile::make(&path)?;
        }
        let again = Self::read(&self.folder)?;
        again.ok_or_else(|| KeyFileError::Unreadable { path, source: std::io::ErrorKind::NotFound.into() })
    }

    /// Whether a change of key is under way.
    pub fn is_changing(&self) -> bool {
        self.former.is_some()
    }

    /// Ends a change: the former key is gone for ever, so nothing that it sealed may be left.
    ///
    /// # Errors
    /// The files cannot be renamed.
    pub fn complete_change(mut self) -> Result<Self, KeyFileError> {
        if self.former.take().is_some() {
            let path = self.folder.join(SECRETS_KEY);
            let renamed = std::fs::rename(self.folder.join(NEW_KEY), &path);
            let synced = renamed.and_then(|()| std::fs::File::open(&self.folder)?.sync_all());
            synced.map_err(|source| KeyFileError::Unwritable { path, source })?;
        }
        Ok(self)
    }

    /// The text of an `instances.json` with every secret sealed with the current key; `None` if that it is already.
    pub fn resealed(&self, inventory: &str) -> Option<String> {
        let mut text = InventoryText::new(Some(inventory.as_bytes())).ok()?;
        let changed = text.seal(self).ok()?;
        changed.then(|| String::from_utf8_lossy(text.as_bytes()).into_owned())
    }

    pub(super) fn seal(&self, place: SecretPlace<'_>, secret: &str) -> Result<String, NoRandomness> {
        self.current.seal(place, secret)
    }

    pub(super) fn open(&self, place: SecretPlace<'_>, sealed: &str) -> Result<Secret, SealError> {
        match (self.current.open(place, sealed), &self.former) {
            (Err(SealError::OtherKey), Some(former)) => former.open(place, sealed),
            (opened, _) => opened,
        }
    }

    /// Whether the former key sealed it.
    pub(super) fn is_outdated(&self, sealed: &str) -> bool {
        self.former.is_some() && self.current.sealed(sealed) == Ok(false)
    }

    /// A tag that differs when the text differs. It tells nothing of the text to who has no key.
    pub(super) fn tag(&self, text: &[u8]) -> String {
        self.current.tag(text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_of_key_can_be_broken_off_anywhere_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let instance = "pve::a".parse().unwrap();
        let place = SecretPlace { instance: &instance, field: "secret" };
        assert!(Keyring::read(folder.path()).unwrap().is_none());
        let old = Keyring::read_or_make(folder.path()).unwrap();
        let sealed_by_old = old.seal(place, "one").unwrap();
        let both = old.begin_change().unwrap();
        let sealed_by_new = both.seal(place, "two").unwrap();
        assert!(both.is_outdated(&sealed_by_old) && !both.is_outdated(&sealed_by_new));
        for keys in [both, Keyring::read(folder.path()).unwrap().unwrap()] {
            assert_eq!(keys.open(place, &sealed_by_old).unwrap().expose(), "one");
            assert_eq!(keys.begin_change().unwrap().open(place, &sealed_by_new).unwrap().expose(), "two");
        }
        let new = Keyring::read_or_make(folder.path()).unwrap().complete_change().unwrap();
        for keys in [new, Keyring::read(folder.path()).unwrap().unwrap()] {
            assert!(!keys.is_changing());
            assert_eq!(keys.open(place, &sealed_by_old), Err(SealError::OtherKey));
            assert_eq!(keys.open(place, &sealed_by_new).unwrap().expose(), "two");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        Keyring::read_or_make(folder.path()).unwrap();
        let path = folder.path().join(SECRETS_KEY);
        let before = std::fs::read(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keyring::read_or_make(folder.path()), Err(KeyFileError::TooOpen { mode: 0o640, .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
