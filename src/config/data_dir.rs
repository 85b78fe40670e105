//! The data folder: which one it is, and that it can be used.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{ConfigError, Place, Problem};

/// The name of the daemon's unix socket in the data folder.
pub const SOCKET: &str = "pulse.sock";
/// The name of the folder of the data folder in which other tools keep instances.
pub const FRAGMENTS: &str = "instances.d";

/// A folder that exists and can be written to. It holds everything that the daemon keeps.
///
/// ```no_run
/// use pulse::config::{DataDir, Environment};
/// let data_dir = DataDir::open(&DataDir::choose(None, &Environment::of_process())?)?;
/// assert!(data_dir.system_file().ends_with("system.json"));
/// # Ok::<(), pulse::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Chooses the folder: `--data-dir`, else `PULSE_DATA_DIR`, else the first of systemd's `STATE_DIRECTORY`, else
    /// `pulse` in the user's state folder (`XDG_STATE_HOME`, by default `~/.local/state`).
    ///
    /// # Errors
    /// None of them is given and `HOME` is not set, or the current folder, to which a relative path is taken, is gone.
    pub fn choose(flag: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
        let path = |name: &str| environment.get(name).map(PathBuf::from);
        let systemd = || environment.get("STATE_DIRECTORY").and_then(first_of_list);
        let user = || {
            // The specification of XDG_STATE_HOME wants a relative one to be ignored.
            let state = path("XDG_STATE_HOME").filter(|path| path.is_absolute());
            state.or_else(|| path("HOME").map(|home| home.join(".local/state"))).map(|state| state.join("pulse"))
        };
        let given = flag.map(Path::to_owned).filter(|path| !path.as_os_str().is_empty());
        let chosen = given.or_else(|| path("PULSE_DATA_DIR")).or_else(systemd).or_else(user);
        let chosen = chosen.ok_or_else(|| refused(PathBuf::new(), Problem::NoHome))?;
        std::path::absolute(&chosen).map_err(|error| refused(chosen, Problem::FolderNotCreated(error.to_string())))
    }

    /// Makes sure that the folder is there, creating it with mode 0700, and that it can be written to.
    ///
    /// # Errors
    /// It is no folder, cannot be created or cannot be written to. Nothing on disk was changed then.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let result = match path.metadata() {
            Ok(metadata) if !metadata.is_dir() => Err(Problem::NotAFolder),
            Ok(_) => writable(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| Problem::FolderNotCreated(error.to_string())),
            Err(error) => Err(Problem::FolderNotCreated(error.to_string())),
        };
        result.map(|()| Self(path.to_owned())).map_err(|problem| refused(path.to_owned(), problem))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `system.json`, which need not exist.
    pub fn system_file(&self) -> PathBuf {
        self.0.join("system.json")
    }

    /// `instances.json`, which need not exist.
    pub fn instances_file(&self) -> PathBuf {
        self.0.join("instances.json")
    }

    /// `instances.d`, in which other tools keep instances. It need not exist.
    pub fn instances_folder(&self) -> PathBuf {
        self.0.join(FRAGMENTS)
    }
}

/// Tries with a file that has no name, so that nothing is seen of it.
fn writable(path: &Path) -> Result<(), Problem> {
    tempfile::tempfile_in(path).map(drop).map_err(|error| Problem::FolderNotWritable(error.to_string()))
}

fn first_of_list(list: &std::ffi::OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let first = list.as_bytes().split(|byte| *byte == b':').find(|entry| !entry.is_empty())?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(first)))
}

fn refused(path: PathBuf, problem: Problem) -> ConfigError {
    ConfigError { place: Place::Folder(path), problem }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chosen(flag: Option<&str>, variables: &[(&str, &str)]) -> PathBuf {
        DataDir::choose(flag.map(Path::new), &variables.iter().copied().collect()).unwrap()
    }

    #[test]
    fn the_flag_beats_the_variable_beats_systemd_beats_the_users_folder() {
        let mut variables = vec![
            ("HOME", "/home/me"),
            ("XDG_STATE_HOME", "/state"),
            ("STATE_DIRECTORY", "/var/lib/pulse:/var/lib/other"),
            ("PULSE_DATA_DIR", "/srv/pulse"),
        ];
        assert_eq!(chosen(Some("/flag"), &variables), Path::new("/flag"));
        for expected in ["/srv/pulse", "/var/lib/pulse", "/state/pulse", "/home/me/.local/state/pulse"] {
            assert_eq!(chosen(None, &variables), Path::new(expected));
            variables.pop();
        }
        let error = DataDir::choose(None, &Environment::default()).unwrap_err();
        assert_eq!(error.problem, Problem::NoHome);
    }

    #[test]
    fn an_empty_variable_is_unset_and_a_relative_state_home_is_ignored() {
        let variables = [("PULSE_DATA_DIR", ""), ("XDG_STATE_HOME", "relative"), ("HOME", "/home/me")];
        assert_eq!(chosen(None, &variables), Path::new("/home/me/.local/state/pulse"));
    }

    #[test]
    fn a_missing_folder_is_created_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let data_dir = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(data_dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(DataDir::open(&path), Ok(data_dir));
    }

    #[test]
    fn a_file_in_its_place_or_above_it_is_refused_by_name_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "mine").unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert_eq!(error.problem, Problem::NotAFolder);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(matches!(DataDir::open(&path.join("x")).unwrap_err().problem, Problem::FolderNotCreated(_)));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_or_created_is_refused_with_the_way_out() {
        let error = DataDir::open(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(error.starts_with("data folder /proc/self: cannot be written to ("), "{error}");
        assert!(error.ends_with("or choose another with --data-dir or PULSE_DATA_DIR"), "{error}");
        let error = DataDir::open(Path::new("/proc/self/pulse")).unwrap_err();
        assert!(matches!(error.problem, Problem::FolderNotCreated(_)), "{error}");
    }
}
