//! The configuration: settings from `system.json` and the environment, the fleet from `instances.json` and from files
//! of other tools.
//!
//! Everything is validated as a whole: a broken edit changes nothing, and its errors say where, what and what to do.

mod address;
mod bundle;
mod data_dir;
mod definitions;
mod discovery;
mod document;
mod draft;
mod duration;
mod edit;
mod entry;
mod environment;
mod error;
mod files;
mod follow;
mod followed;
mod in_force;
mod instance;
mod instances;
mod json;
mod keyring;
mod live;
mod notifications;
mod provided;
mod reference;
mod revision;
mod seal;
mod snapshot;
mod system;
mod target_paths;
mod watch;
mod yaml;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

pub use address::AddressError;
pub use bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES, PreparedImport};
pub use data_dir::{DataDir, FRAGMENTS, SOCKET};
pub use definitions::{SETTINGS, SettingDefinition, SettingKind, settings_markdown};
pub use draft::{AuditSettings, Draft, Field};
pub use duration::{SpanError, parse_span};
pub use edit::{EditError, InventoryEdit, PreparedInventory, StoredEntry};
pub use entry::{GivenEntry, ShownEntry};
pub use environment::Environment;
pub use error::{ConfigError, ConfigErrors, Place, Problem};
pub use follow::{ConfigEvent, Follower, Seen};
pub use instances::Instance;
pub use keyring::{Keyring, SECRETS_KEY};
pub use live::{LiveConfig, RefusedEdits};
pub use provided::{InstanceSource, is_fragment};
pub use reference::ReferenceError;
pub(crate) use reference::read_authorities;
pub use seal::SealError;
pub use snapshot::{Difference, FieldDifference, InstanceChange, InstanceDifference, NO_FLEET, Snapshot};
pub use system::{EffectiveSetting, Origin, PreparedSettings, SettingsPatch, SystemConfig, SystemFile};
pub use watch::{Look, LookAtFiles, Looked, watch_files};

use error::Errors;
use in_force::Before;
use instances::Surroundings;
use provided::Provided;

/// The configuration as it was loaded at the start.
///
/// ```
/// use pulse::config::{Config, DataDir, Environment};
/// let folder = tempfile::tempdir()?;
/// std::fs::write(
///     folder.path().join("instances.json"),
///     r#"{"instances": [{"type": "tcp", "name": "db", "host": "10.0.0.9", "port": 5432}]}"#,
/// )?;
/// let environment = [("ADAPTIVE_POLLING_BASE_INTERVAL", "20s")].into_iter().collect();
/// let config = Config::load(DataDir::open(folder.path())?, &environment)?;
/// assert_eq!(config.instances[0].target.key.to_string(), "tcp::db");
/// assert_eq!(config.system.settings().base_interval.to_string(), "20s");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: DataDir,
    /// `system.json`, for changing it.
    pub system_file: Arc<SystemFile>,
    /// The settings in force.
    pub system: SystemConfig,
    /// The fleet, in the order of `instances.json`; then that of the files of other tools.
    pub instances: Arc<[Instance]>,
    /// What of it the files of other tools hold.
    provided: Arc<Provided>,
    keys: Option<Arc<Keyring>>,
    referenced_files: BTreeSet<PathBuf>,
    found: Found,
}

/// Which of the files there were.
#[derive(Debug)]
struct Found {
    system: bool,
    instances: bool,
}

impl Config {
    /// Loads all files. One that is missing means defaults or an empty fleet, and is not created. Nothing is in force yet
    /// that a broken one could keep, so none of them may be.
    ///
    /// # Errors
    /// Everything that is wrong in any of them and in the environment.
    pub fn load(data_dir: DataDir, environment: &Environment) -> Result<Self, ConfigErrors> {
        let mut errors = Errors::default();
        let system_file = SystemFile::new(data_dir.system_file(), environment.clone());
        let system = match system_file.load() {
            Ok(Some(system)) => Ok((system, true)),
            Ok(None) => system_file.without_file().map(|system| (system, false)),
            Err(broken) => Err(broken),
        };
        let (system, found_system) = system.unwrap_or_else(|broken| {
            errors.append(broken);
            Default::default()
        });
        let keys = Keyring::read(data_dir.path()).unwrap_or_else(|error| {
            let place = Place::Folder(data_dir.path().to_owned());
            errors.add(place, Problem::Key(error.to_string()));
            None
        });
        let discovery = system.discovery();
        let around = Surroundings { data_dir: &data_dir, environment, keys: keys.as_ref(), discovery };
        let nothing = Before { instances: &[], provided: &Provided::default(), had_inventory: false };
        let reading = instances::read(around, nothing);
        let found = Found { system: found_system, instances: reading.is_there };
        let referenced_files = &reading.referenced_files | system.referenced_files();
        let (instances, provided) = reading.into_whole().unwrap_or_else(|broken| {
            errors.append(broken);
            Default::default()
        });
        errors.or(Self {
            data_dir,
            system_file: Arc::new(system_file),
            system,
            instances: instances.into(),
            provided: Arc::new(provided),
            keys: keys.map(Arc::new),
            referenced_files,
            found,
        })
    }
}
