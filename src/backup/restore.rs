//! Putting a backup in the place of a data folder: proven first, then exchanged in one step.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::archive::{describe, manifest_of, unpack, write_private};
use super::{BackupError, Manifest};
use crate::security::KeyFile;
use crate::security::audit::{AUDIT_KEY, Proven, verify};
use crate::store::{DATABASE, Store, StoreError};

/// What to restore, and where.
#[derive(Clone, Debug)]
pub struct Restore<'a> {
    /// The backup.
    pub file: &'a Path,
    /// The data folder; no daemon may be running on it.
    pub folder: &'a Path,
    /// Whether a folder that holds something is put aside.
    pub force: bool,
    /// A folder with the files that the backup leaves out. Without it they are taken from the data folder.
    pub secrets_from: Option<&'a Path>,
    /// Marks what is put aside.
    pub now: jiff::Timestamp,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// What its audit log proves.
    pub audit: Proven,
    /// Where the folder is that was there before.
    pub put_aside: Option<PathBuf>,
    /// Files that the backup leaves out and nobody had.
    pub missing: Vec<String>,
}

impl Restore<'_> {
    /// Unpacks the backup beside the data folder, proves every file, the database and the audit log, and only then puts
    /// it in the folder's place, by one renaming.
    ///
    /// # Errors
    /// The backup is damaged, the folder holds something, or it cannot be written. The data folder is as it was.
    pub async fn run(&self) -> Result<Restored, BackupError> {
        let is_there = self.folder.is_dir();
        if is_there && !self.force && !is_empty(self.folder)? {
            return Err(BackupError::NotEmpty(self.folder.to_owned()));
        }
        let parent = self.folder.parent().unwrap_or(Path::new("/"));
        let unwritable = || BackupError::file("cannot write beside the data folder, in", parent);
        fs::create_dir_all(parent).map_err(unwritable())?;
        let staged = tempfile::Builder::new().prefix(".pulse-restore-").tempdir_in(parent).map_err(unwritable())?;
        let manifest = unpack(self.file, staged.path())?;
        let missing = self.bring_secrets(&manifest, staged.path())?;
        let audit = prove(staged.path()).await?;
        self.give_to_owner(staged.path())?;
        let put_aside = self.exchange(staged.keep(), is_there)?;
        Ok(Restored { manifest, audit, put_aside, missing })
    }

    fn bring_secrets(&self, manifest: &Manifest, staged: &Path) -> Result<Vec<String>, BackupError> {
        let from = self.secrets_from.unwrap_or(self.folder);
        let mut missing = Vec::new();
        for name in &manifest.left_out {
            match fs::File::open(from.join(name)) {
                Ok(mut file) => {
                    let target = staged.join(name);
                    write_private(&target, &mut file).map_err(BackupError::file("cannot write", target))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name.clone()),
                Err(error) => return Err(BackupError::file("cannot read", from.join(name))(error)),
            }
        }
        Ok(missing)
    }

    /// Root restores for the account that the data folder belongs to.
    fn give_to_owner(&self, staged: &Path) -> Result<(), BackupError> {
        let Ok(owner) = self.folder.metadata() else { return Ok(()) };
        let mut found = vec![staged.to_owned()];
        while let Some(path) = found.pop() {
            let given = chown(&path, Some(owner.uid()), Some(owner.gid()));
            given.map_err(BackupError::file("cannot give to the data folder's owner", &path))?;
            if path.is_dir() {
                let inner = fs::read_dir(&path).and_then(|entries| entries.map(|it| Ok(it?.path())).collect());
                let inner: Vec<PathBuf> = inner.map_err(BackupError::file("cannot list", &path))?;
                found.extend(inner);
            }
        }
        Ok(())
    }

    /// Puts `staged` in the place of the data folder, and gives where that is now.
    fn exchange(&self, staged: PathBuf, is_there: bool) -> Result<Option<PathBuf>, BackupError> {
        let folder = self.folder;
        let exchanged = fs::set_permissions(&staged, fs::Permissions::from_mode(0o700)).and_then(|()| {
            match is_there {
                true => renameat_with(CWD, &staged, CWD, folder, RenameFlags::EXCHANGE).map_err(io::Error::from),
                false => fs::rename(&staged, folder),
            }?;
            fs::File::open(folder.parent().unwrap_or(Path::new("/")))?.sync_all()
        });
        if let Err(error) = exchanged {
            // It is not the data folder, so nothing is lost with it.
            let _ = fs::remove_dir_all(&staged);
            return Err(BackupError::file("cannot put the backup in the place of", folder)(error));
        }
        if !is_there {
            return Ok(None);
        }
        // What is under the name of `staged` now is what was there before.
        if is_empty(&staged)? {
            fs::remove_dir(&staged).map_err(BackupError::file("cannot remove", &staged))?;
            return Ok(None);
        }
        let mut aside = folder.as_os_str().to_owned();
        aside.push(format!(".before-restore-{}", self.now.strftime("%Y%m%dT%H%M%SZ")));
        let aside = PathBuf::from(aside);
        fs::rename(&staged, &aside).map_err(BackupError::file("cannot rename", &staged))?;
        Ok(Some(aside))
    }
}

/// Makes sure that the database is whole and its audit log as it was written. Brings its tables up to date.
async fn prove(staged: &Path) -> Result<Proven, BackupError> {
    let store = Store::open(&staged.join(DATABASE))?;
    let verdict: String =
        store.read::<_, StoreError>(|tx| Ok(tx.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?)).await?;
    if verdict != "ok" {
        return Err(StoreError::NotOurs.into());
    }
    let key = Arc::new(KeyFile::read(&staged.join(AUDIT_KEY))?);
    Ok(verify(&store, key, Vec::new()).await??)
}

/// Whether settings, fleet and keys in `folder` are those of the backup `file`, and this program can use its database.
pub fn unchanged_since(file: &Path, folder: &Path) -> bool {
    let is_same = |manifest: Manifest| {
        let mut files = manifest.files.iter().filter(|entry| entry.name != DATABASE);
        files.all(|entry| describe(folder, &entry.name).is_ok_and(|now| now == *entry))
    };
    manifest_of(file).is_ok_and(is_same) && Store::open_to_read(&folder.join(DATABASE)).is_ok()
}

fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    let mut entries = fs::read_dir(folder).map_err(BackupError::file("cannot list", folder))?;
    Ok(entries.next().is_none())
}
