//! The paths of files with instances that other tools keep, and what form such a file has.

use std::path::{Path, PathBuf};

use super::error::Problem;
use super::json::Json;
use super::{DataDir, provided, yaml};

/// The form of a file of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Yaml,
}

impl Form {
    /// By the end of the file's name, as for Prometheus.
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "json" => Some(Self::Json),
            "yml" | "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// What a file of targets holds.
pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Json, Problem> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match Form::of(&name) {
        Some(Form::Yaml) => yaml::parse(content),
        Some(Form::Json) | None => Json::parse(content),
    }
}

/// A path whose last part may hold one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathPattern {
    File(PathBuf),
    In { folder: PathBuf, before: String, after: String },
}

impl PathPattern {
    pub(super) fn read(text: &str, data_folder: &Path) -> Result<Self, Problem> {
        let rule = |text: &str| Err(Problem::Rule(text.to_owned()));
        let path = data_folder.join(text);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(Problem::Empty) };
        let name = name.to_string_lossy();
        if Form::of(&name).is_none() {
            return rule("must end in .json, .yml or .yaml");
        }
        if folder.to_string_lossy().contains('*') || name.matches('*').count() > 1 {
            return rule("may hold one * at the most, in the name of the file");
        }
        match name.split_once('*') {
            None => Ok(Self::File(path)),
            Some(_) if folder == data_folder => {
                rule("would take in the other files of the data folder; give the targets a folder of their own")
            }
            Some((before, after)) => {
                Ok(Self::In { folder: folder.to_owned(), before: before.to_owned(), after: after.to_owned() })
            }
        }
    }

    /// The files of `instances.d`.
    pub(super) fn fragments(data_dir: &DataDir) -> Self {
        let (before, after) = (String::new(), provided::FRAGMENT_END.to_owned());
        Self::In { folder: data_dir.instances_folder(), before, after }
    }

    /// What has to be watched to see such files come.
    pub(super) fn watched(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::In { folder, .. } => folder,
        }
    }

    /// The files there are, sorted by name. What editors and tools leave beside them is passed over.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Problem> {
        match self {
            Self::File(path) => Ok(vec![path.clone()]),
            Self::In { folder, .. } => provided::files_in(folder, |name| self.takes_name(name)),
        }
    }

    /// Whether such a file would be read.
    pub(super) fn takes(&self, path: &Path) -> bool {
        match self {
            Self::File(file) => file == path,
            Self::In { folder, .. } => {
                let name = path.file_name().is_some_and(|name| self.takes_name(&name.to_string_lossy()));
                name && path.parent() == Some(folder.as_path())
            }
        }
    }

    fn takes_name(&self, name: &str) -> bool {
        let Self::In { before, after, .. } = self else { return false };
        let inside = name.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
        inside.is_some() && !provided::is_left_behind(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_names_and_passes_over_what_tools_leave_behind() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["rack-1.json", "rack-2.json", "rack-3.yml", ".rack-4.json", "other.json", ".rack-5.yml"] {
            std::fs::write(folder.path().join(name), "[]").unwrap();
        }
        let pattern =
            |name: &str| PathPattern::read(&folder.path().join(name).display().to_string(), Path::new("/data"));
        let found = |name: &str| pattern(name).unwrap().files().unwrap().len();
        assert_eq!((found("rack-*.json"), found("*.json"), found("*k-1.json"), found("rack-1.json")), (2, 3, 1, 1));
        assert_eq!((found("*.yml"), found("*.yaml")), (1, 0));
        assert_eq!(
            PathPattern::read("targets/*.json", Path::new("/data")).unwrap().watched(),
            Path::new("/data/targets")
        );
    }
}
