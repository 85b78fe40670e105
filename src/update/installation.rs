//! Where releases lie: `releases/VERSION/pulse`, and the link `current` to one of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::UpdateError;

const RELEASES: &str = "releases";
const CURRENT: &str = "current";
pub(super) const PROGRAM: &str = "pulse";

/// A folder with releases, of which one is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    root: PathBuf,
}

impl Installation {
    /// The installation that the program at `path` belongs to: `ROOT/releases/VERSION/pulse`, with `ROOT/current`.
    pub fn around(path: &Path) -> Option<Self> {
        let releases = path.parent()?.parent()?;
        let root = releases.parent()?;
        let is_one = releases.file_name()? == RELEASES && root.join(CURRENT).symlink_metadata().ok()?.is_symlink();
        is_one.then(|| Self { root: root.to_owned() })
    }

    /// The version that is started from now on.
    ///
    /// # Errors
    /// The link is gone.
    pub fn current(&self) -> Result<String, UpdateError> {
        let link = self.root.join(CURRENT);
        let target = fs::read_link(&link).map_err(UpdateError::file("cannot read the link", &link))?;
        Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Has `version` started from now on. A crash leaves either the link of before or the new one.
    pub(super) fn point_to(&self, version: &str) -> Result<(), UpdateError> {
        let (link, draft) = (self.root.join(CURRENT), self.root.join("current.new"));
        // Left by an update that was broken off.
        let _ = fs::remove_file(&draft);
        let target = Path::new(RELEASES).join(version);
        let pointed = std::os::unix::fs::symlink(target, &draft)
            .and_then(|()| fs::rename(&draft, &link))
            .and_then(|()| File::open(&self.root)?.sync_all());
        pointed.map_err(UpdateError::file("cannot set the link", link))
    }

    /// The folder of a release, which need not be there.
    pub(super) fn release(&self, version: &str) -> PathBuf {
        self.releases().join(version)
    }

    pub(super) fn releases(&self) -> PathBuf {
        self.root.join(RELEASES)
    }

    pub(super) fn has(&self, version: &str) -> bool {
        self.release(version).join(PROGRAM).is_file()
    }

    /// The key that releases have to be signed with.
    pub(super) fn public_key(&self) -> PathBuf {
        self.root.join("release.pub")
    }

    pub(super) fn history(&self) -> PathBuf {
        self.root.join("history.json")
    }

    /// The data folder as it was before `version` was installed.
    pub(super) fn settings_before(&self, version: &str) -> PathBuf {
        self.root.join("settings").join(format!("before-{version}.tar.gz"))
    }

    /// Keeps other updates out until it is dropped, or this process ends however it may.
    pub(super) fn lock(&self) -> Result<File, UpdateError> {
        let path = self.root.join("update.lock");
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(UpdateError::file("cannot open", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| UpdateError::UnderWay)?;
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_among_releases_is_managed_and_its_link_is_switched() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("releases/1.0.0/pulse");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        assert_eq!(Installation::around(&program), None, "nothing is current");
        std::os::unix::fs::symlink("releases/1.0.0", root.path().join("current")).unwrap();
        assert_eq!(Installation::around(Path::new("/usr/lib/pulse/pulse")), None);
        let installation = Installation::around(&program).unwrap();
        assert_eq!(installation.current().unwrap(), "1.0.0");
        installation.point_to("1.1.0").unwrap();
        assert_eq!(installation.current().unwrap(), "1.1.0");
        assert!(installation.has("1.0.0") && !installation.has("1.1.0"));
        let lock = installation.lock().unwrap();
        assert!(matches!(installation.lock(), Err(UpdateError::UnderWay)));
        drop(lock);
        installation.lock().unwrap();
    }
}
