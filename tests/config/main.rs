//! The configuration through its public doors: files on disk, an environment, and what comes out.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod instances;
mod system;
mod watch;

use std::fs;
use std::path::Path;

use pulse::config::{Config, ConfigErrors, DataDir, Environment};
use tempfile::TempDir;

/// A data folder with what is to be loaded from it.
struct Folder {
    dir: TempDir,
    environment: Environment,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment: Environment::default() }
    }

    fn with_environment(variables: &[(&str, &str)]) -> Self {
        Self { environment: variables.iter().copied().collect(), ..Self::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(DataDir::open(self.path()).unwrap(), &self.environment)
    }

    /// The errors of loading, one a line, with the folder's path taken out.
    fn errors(&self) -> Vec<String> {
        let errors = self.load().expect_err("something is wrong").to_string();
        errors.replace(&format!("{}/", self.path().display()), "").lines().map(str::to_owned).collect()
    }
}

#[test]
fn missing_files_mean_defaults_and_an_empty_fleet_and_are_not_created() {
    let folder = Folder::new();
    let config = folder.load().unwrap();
    assert_eq!(*config.system.settings(), pulse::engine::Settings::default());
    assert!(config.instances.is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_errors_of_both_files_and_the_environment_are_told_at_once() {
    let folder = Folder::with_environment(&[("POLLING_MAX_IN_FLIGHT", "many")]);
    folder.write("system.json", r#"{"adaptivePollingEnabled": "yes"}"#);
    folder.write("instances.json", "{\n  \"instances\": [}\n");
    assert_eq!(
        folder.errors(),
        [
            "system.json: adaptivePollingEnabled: must be true or false, but is a text",
            "environment variable POLLING_MAX_IN_FLIGHT: must be a whole number from 0 to 4294967295",
            "instances.json: line 2, column 17: expected value",
        ]
    );
}
