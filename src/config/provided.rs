//! Files in which other tools keep instances: followed like `instances.json`, and never written.

use std::collections::BTreeMap;
use std::fs::read_dir;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::error::{JsonErrors, Problem};
use super::files;
use super::instances::Content;
use super::json::{Json, JsonPath};
use super::reference::ReferenceError;
use super::{DataDir, entry};
use crate::engine::InstanceKey;

/// How many such files there may be in one folder.
pub(super) const MAX_FILES: usize = 10_000;
/// What they may hold together.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What stands for `instances.json` where a file is named.
pub(super) const INVENTORY: &str = "instances.json";

/// The file that an instance stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceSource {
    /// `instances.json`, which calls may edit.
    Inventory,
    /// A file of another tool, by its path; from the data folder if it is in there.
    Provided(Arc<str>),
}

impl InstanceSource {
    /// The path of the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Inventory => INVENTORY,
            Self::Provided(file) => file,
        }
    }

    /// Whether another tool keeps the instance, so that it is edited there alone.
    pub fn is_provided(&self) -> bool {
        matches!(self, Self::Provided(_))
    }
}

impl Serialize for InstanceSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What other tools provide, by their files.
#[derive(Default)]
pub(super) struct Provided {
    pub(super) parts: BTreeMap<PathBuf, ProvidedPart>,
}

/// What a file of another tool provides.
pub(super) struct ProvidedPart {
    /// How large the file is.
    pub(super) bytes: u64,
    pub(super) entries: Vec<ProvidedEntry>,
}

impl Provided {
    pub(super) fn entries(&self) -> impl Iterator<Item = &ProvidedEntry> {
        self.parts.values().flat_map(|part| &part.entries)
    }
}

/// One instance as a file of another tool holds it; its secrets are encrypted if there is a key.
pub(super) struct ProvidedEntry {
    pub(super) key: InstanceKey,
    pub(super) source: InstanceSource,
    pub(super) entry: Json,
}

impl std::fmt::Debug for Provided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provided").field("files", &self.parts.len()).finish_non_exhaustive()
    }
}

/// A file of another tool that was read.
pub(super) struct ProvidedFile {
    pub(super) content: Content,
    mode: u32,
}

impl ProvidedFile {
    /// Reads a file of at most `limit` bytes; `None` if it is gone.
    pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Self>, Problem> {
        let unreadable = |error: io::Error| Problem::Unreadable(error.to_string());
        let file = match files::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        Ok(Some(Self { content: files::read_open(file, limit)?, mode }))
    }

    /// Reports secrets that may not stand in this file: it is not ours to encrypt them in.
    pub(super) fn judge_secrets(
        &self,
        entry: &mut Json,
        file: &Path,
        path: &JsonPath<'_>,
        errors: &mut JsonErrors<'_>,
    ) {
        let auth = path.field("auth");
        for (field, value) in entry::secrets_mut(entry) {
            if matches!(value, Json::Text(_)) && self.mode & 0o007 != 0 {
                let open = ReferenceError::OpenToAll { file: file.to_owned(), mode: self.mode & 0o777 };
                errors.add(&auth.field(field), open);
            }
            if value.get(entry::ENCRYPTED).is_some() {
                errors.add(&auth.field(field), Problem::SealedByOthers);
            }
        }
    }
}

/// How a file is named to operators.
pub(super) fn source_of(data_dir: &DataDir, file: &Path) -> InstanceSource {
    let shown = file.strip_prefix(data_dir.path()).unwrap_or(file);
    InstanceSource::Provided(shown.to_string_lossy().into())
}

/// How the names of the files of `instances.d` end.
pub(super) const FRAGMENT_END: &str = ".json";

/// Whether a file of this name is read, where other tools keep instances.
pub fn is_fragment(name: &str) -> bool {
    name.ends_with(FRAGMENT_END) && !is_left_behind(name)
}

/// Whether editors and tools leave files of such a name beside those that they write.
pub(super) fn is_left_behind(name: &str) -> bool {
    name.starts_with(['.', '#'])
}

/// The files of a folder with such names, sorted; none if there is no folder.
pub(super) fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Problem> {
    let unlisted = |error: io::Error| Problem::Unlisted(error.to_string());
    let entries = match read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unlisted(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unlisted)?;
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
        if found.len() > MAX_FILES {
            return Err(Problem::TooManyFiles(MAX_FILES));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::target_paths::PathPattern;
    use super::*;

    #[test]
    fn what_editors_and_tools_leave_behind_is_no_fragment() {
        for name in ["rack.json", "10-rack.json", "résumé.json"] {
            assert!(is_fragment(name), "{name}");
        }
        for name in
            ["rack.json~", ".rack.json", ".rack.json.swp", "#rack.json#", ".#rack.json", "rack.json.tmp", "README"]
        {
            assert!(!is_fragment(name), "{name}");
        }
    }

    #[test]
    fn fragments_are_read_in_the_order_of_their_names_and_a_folder_that_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(PathPattern::fragments(&data_dir).files(), Ok(Vec::new()));
        let inside = data_dir.instances_folder();
        std::fs::create_dir(&inside).unwrap();
        for name in ["20.json", "10.json", ".30.json"] {
            std::fs::write(inside.join(name), "{}").unwrap();
        }
        assert_eq!(PathPattern::fragments(&data_dir).files(), Ok(vec![inside.join("10.json"), inside.join("20.json")]));
        std::fs::remove_dir_all(&inside).unwrap();
        std::fs::write(&inside, "").unwrap();
        assert!(matches!(PathPattern::fragments(&data_dir).files(), Err(Problem::Unlisted(_))));
    }
}
