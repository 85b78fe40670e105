//! Reading and writing whole files: bounded, never blocking on what is no file, never leaving half a file behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::error::Problem;

/// The content of a file of at most `limit` bytes; `None` if there is none.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Problem> {
    match open(path) {
        Ok(file) => read_open(file, limit).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&error)),
    }
}

/// Opens a file for reading, without waiting for the other end should it be a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// The content of an open file of at most `limit` bytes.
pub(super) fn read_open(file: File, limit: u64) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let size = file.metadata().map_err(|error| unreadable(&error))?.len();
    if size > limit {
        return Err(Problem::TooLarge { limit });
    }
    // Room for the whole file from the start: growing would leave copies of its secrets behind.
    let capacity = usize::try_from(size).unwrap_or(0).saturating_add(1);
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    // It may have grown since.
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(|error| unreadable(&error))?;
    if content.len() as u64 > limit {
        return Err(Problem::TooLarge { limit });
    }
    Ok(content)
}

/// Replaces a file as a whole, or not at all; `still_wanted` is asked last, when only the rename is left.
///
/// The new file has mode 0600. A symbolic link stays one, and its target is replaced.
pub(super) fn replace(
    path: &Path,
    content: &[u8],
    still_wanted: impl FnOnce() -> Result<(), Problem>,
) -> Result<(), Problem> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let unwritable = |error: &io::Error| Problem::Unwritable(error.to_string());
    let mut draft = NamedTempFile::new_in(folder).map_err(|error| unwritable(&error))?;
    draft.write_all(content).and_then(|()| draft.as_file().sync_all()).map_err(|error| unwritable(&error))?;
    still_wanted()?;
    draft.persist(&path).map_err(|error| unwritable(&error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritable(&error))
}

/// The last check of [`replace`] for a file that is written over only if it holds what it held `before`.
pub(super) fn is_still(path: &Path, before: Option<&Zeroizing<Vec<u8>>>) -> Result<(), Problem> {
    let limit = before.map_or(0, |content| content.len() as u64);
    match read(path, limit) {
        Ok(now) if now.as_ref() == before => Ok(()),
        Ok(_) | Err(Problem::TooLarge { .. }) => Err(Problem::KeepsChanging),
        Err(problem) => Err(problem),
    }
}

fn unreadable(error: &io::Error) -> Problem {
    Problem::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read(&path, 3), Ok(None));
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path, 3).unwrap().unwrap().as_slice(), b"abc");
        assert_eq!(read(&path, 2), Err(Problem::TooLarge { limit: 2 }));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path(), 3), Err(Problem::Unreadable(_))));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(read(&pipe, 3), Err(Problem::Unreadable(_))));
    }

    #[test]
    fn a_replaced_file_is_private_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"new", || Ok(())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(replace(&path, b"unwanted", || Err(Problem::KeepsChanging)), Err(Problem::KeepsChanging));
        assert_eq!(std::fs::read(&link).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }
}
