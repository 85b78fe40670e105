//! What is in force, and what the files say now: each difference is told once, valid or refused.
//!
//! Secrets that an edit brings in plain text are encrypted in the file as soon as the edit is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::InventoryText;
use super::edit::PreparedInventory;
use super::environment::Environment;
use super::error::{ConfigErrors, Problem};
use super::followed::{Followed, FollowedFleet};
use super::in_force::Before;
use super::instances::{self, Content, Instance, Surroundings};
use super::keyring::Keyring;
use super::provided::Provided;
use super::snapshot::{NO_FLEET, NO_SETTINGS, Snapshot, provided_text};
use super::system::{SystemConfig, SystemFile};
use super::watch::{Look, Looked};
use super::{Config, DataDir, files};

/// Secrets and authorities may be many, and are looked at only every so many times.
const LOOKS_PER_REFERENCED_LOOK: u32 = 15;

/// What became of an edit of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEvent {
    /// These settings are in force now.
    Settings(Box<SystemConfig>),
    /// This is the fleet now.
    Instances(Arc<[Instance]>),
    /// Files are broken or gone; what was accepted of them before stays in force.
    Refused {
        /// The file that was edited; `instances.json` stands for all files of the fleet.
        file: PathBuf,
        /// Everything that is wrong.
        errors: ConfigErrors,
    },
}

/// Follows `system.json`, `instances.json`, the files of other tools, and the secrets and authorities that they refer to.
///
/// Of the files of the fleet each that is broken keeps what was accepted of it, and the others go on. When none is broken
/// any more that is told even if it changes nothing, so that an alarm about the refusal can be ended. Otherwise an edit
/// that changes nothing is not told.
#[derive(Debug)]
pub struct Follower {
    data_dir: DataDir,
    system_file: Arc<SystemFile>,
    keys: Option<Arc<Keyring>>,
    system: Followed<SystemConfig>,
    fleet: FollowedFleet,
    /// The files of other tools, and where further ones would appear.
    provided_files: BTreeSet<PathBuf>,
    referenced_files: BTreeSet<PathBuf>,
    looks: u32,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    /// Whether it was told already that secrets stand in the clear.
    told_of_plain_secrets: bool,
}

/// What the files were found to hold.
pub struct Seen {
    /// What became of edits, in order.
    pub events: Vec<ConfigEvent>,
    /// What the files hold, as far as they were accepted; without secrets in plain text.
    pub snapshot: Snapshot,
}

impl Follower {
    /// Follows the files on from what was loaded.
    pub fn new(config: &Config) -> Self {
        Self {
            data_dir: config.data_dir.clone(),
            system_file: Arc::clone(&config.system_file),
            keys: config.keys.clone(),
            system: Followed::new(config.system.clone(), config.found.system),
            fleet: FollowedFleet::new(&config.instances, &config.provided, config.found.instances),
            provided_files: BTreeSet::new(),
            referenced_files: config.referenced_files.clone(),
            looks: 0,
            stamps: BTreeMap::new(),
            told_of_plain_secrets: false,
        }
    }

    /// Follows files of which nothing is known yet, and which may be broken.
    pub fn unread(data_dir: DataDir, environment: &Environment, keys: Arc<Keyring>) -> Self {
        Self {
            system_file: Arc::new(SystemFile::new(data_dir.system_file(), environment.clone())),
            data_dir,
            keys: Some(keys),
            system: Followed::new(SystemConfig::default(), false),
            fleet: FollowedFleet::unread(),
            provided_files: BTreeSet::new(),
            referenced_files: BTreeSet::new(),
            looks: 0,
            stamps: BTreeMap::new(),
            told_of_plain_secrets: false,
        }
    }

    /// Seals and opens with these keys from now on.
    pub fn use_keys(&mut self, keys: Arc<Keyring>) {
        self.keys = Some(keys);
    }

    /// The settings in force.
    pub fn system(&self) -> &SystemConfig {
        &self.system.accepted
    }

    /// The fleet as it is.
    pub fn instances(&self) -> &Arc<[Instance]> {
        self.fleet.instances()
    }

    /// What other tools provide of the fleet.
    pub(super) fn provided(&self) -> &Provided {
        self.fleet.provided()
    }

    /// What of the fleet is in force.
    pub(super) fn before(&self) -> Before<'_> {
        self.fleet.before()
    }

    /// What is wrong with `instances.json` as it stands.
    pub fn refused_inventory(&self) -> Option<&ConfigErrors> {
        self.fleet.refused_inventory()
    }

    /// What is wrong with any file of the fleet as it stands.
    pub fn refused_fleet(&self) -> Option<ConfigErrors> {
        self.fleet.refused()
    }

    /// What is wrong with `system.json` as it stands.
    pub fn refused_settings(&self) -> Option<&ConfigErrors> {
        self.system.refused.as_ref()
    }

    /// These settings were written and are in force.
    pub fn accept_system(&mut self, system: SystemConfig) {
        self.referenced_files.extend(system.referenced_files().iter().cloned());
        self.system = Followed::new(system, true);
    }

    /// This inventory was written and is in force.
    pub fn accept_inventory(&mut self, inventory: &PreparedInventory) {
        self.fleet.accept(inventory);
    }

    /// The file of the settings.
    pub fn system_file(&self) -> &Arc<SystemFile> {
        &self.system_file
    }

    /// What seals and opens secrets.
    pub fn keys(&self) -> Option<&Arc<Keyring>> {
        self.keys.as_ref()
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Reads the files if they have to be, and tells what to do next. Blocks on the disk.
    pub fn look(&mut self, look: Look) -> (Vec<ConfigEvent>, Looked) {
        let events = match look {
            Look::Read => self.read().events,
            Look::Compare if self.differs() => return (Vec::new(), Looked::Again),
            Look::Compare => Vec::new(),
        };
        (events, Looked::At(self.files()))
    }

    /// Every file that the configuration depends on.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        &self.own_files() | &self.referenced_files
    }

    /// Whether a file is another one than when it was last read. Blocks on the disk.
    pub fn differs(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let files = if self.looks.is_multiple_of(LOOKS_PER_REFERENCED_LOOK) { self.files() } else { self.own_files() };
        files.iter().any(|file| self.stamps.get(file) != Some(&Stamp::of(file)))
    }

    /// Reads the files. Blocks on the disk.
    pub fn read(&mut self) -> Seen {
        // Stamps come before the reading, so that a change in between is seen at the next look.
        let stamp = |file: PathBuf| (Stamp::of(&file), file);
        let before: Vec<_> = self.files().into_iter().map(stamp).collect();
        let system_path = self.data_dir.system_file();
        let (system, settings_text) = match self.system_file.read() {
            Ok(None) => (Ok(None), None),
            Ok(Some(content)) => (self.system_file.settings_of(&content).map(Some), Some(content)),
            Err(errors) => (Err(errors), None),
        };
        let system = self.system.follow(&system_path, settings_text.is_some() || system.is_err(), system);

        let instances_path = self.data_dir.instances_file();
        let reading = instances::read(self.surroundings(), self.before());
        let mut inventory_text = reading.content.filter(|_| reading.in_force.inventory_errors.is_none());
        let sealed = inventory_text.as_mut().is_none_or(|content| self.seal(&instances_path, content));
        let fleet = self.fleet.follow(reading.in_force, reading.is_there);
        self.provided_files = reading.provided_files;

        self.referenced_files = reading.referenced_files;
        self.referenced_files.extend(self.system.accepted.referenced_files().iter().cloned());
        self.stamps = before.into_iter().map(|(stamp, file)| (file, stamp)).collect();
        for file in self.files() {
            self.stamps.entry(file).or_insert_with_key(|file| Stamp::of(file));
        }
        let refused = |file, errors| ConfigEvent::Refused { file, errors };
        let settings = |settings| ConfigEvent::Settings(Box::new(settings));
        let system = system.map(|result| result.map_or_else(|errors| refused(system_path, errors), settings));
        let instances = fleet.changed.map(ConfigEvent::Instances);
        let fleet_refused = fleet.refused.map(|errors| refused(instances_path, errors));
        let is_accepted = self.refused_inventory().is_none();
        let provided = self.fleet.provided_if_known().filter(|_| self.keys.is_some());
        let snapshot = Snapshot {
            settings: self.system.refused.is_none().then(|| text_of(settings_text.as_ref(), NO_SETTINGS)),
            inventory: (sealed && is_accepted).then(|| text_of(inventory_text.as_ref(), NO_FLEET)),
            provided: provided.map(provided_text),
        };
        Seen { events: system.into_iter().chain(instances).chain(fleet_refused).collect(), snapshot }
    }

    /// Encrypts the secrets of `instances.json` with the current key. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read or written, or it changed meanwhile.
    pub fn seal_inventory(&self) -> Result<(), Problem> {
        let path = self.data_dir.instances_file();
        let before = files::read(&path, instances::MAX_FILE_BYTES)?;
        let (Some(content), Some(keys)) = (&before, &self.keys) else { return Ok(()) };
        let mut text = InventoryText::new(Some(content))?;
        if text.seal(keys)? {
            files::replace(&path, text.as_bytes(), || files::is_still(&path, before.as_ref()))?;
        }
        Ok(())
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        let (environment, keys) = (self.system_file.environment(), self.keys.as_deref());
        Surroundings { data_dir: &self.data_dir, environment, keys, discovery: self.system.accepted.discovery() }
    }

    /// Encrypts the plain secrets of a file that was accepted, in `content` and, unless it changed meanwhile or may not
    /// be written, in the file. Whether `content` is free of them.
    fn seal(&mut self, path: &Path, content: &mut Content) -> bool {
        let Some(keys) = &self.keys else { return false };
        let sealed = InventoryText::new(Some(content)).and_then(|mut text| Ok(text.seal(keys)?.then_some(text)));
        let is_sealed = sealed.is_ok();
        let written = match sealed {
            Ok(None) => return true,
            Ok(Some(text)) => {
                let sealed = Content::new(text.as_bytes().to_vec());
                let before = std::mem::replace(content, sealed);
                files::replace(path, content, || files::is_still(path, Some(&before)))
            }
            Err(problem) => Err(problem),
        };
        match written {
            Ok(()) => tracing::info!(file = %path.display(), "secrets were encrypted in the file"),
            // It changed; the next look comes to it again.
            Err(Problem::KeepsChanging) => {}
            Err(problem) if !self.told_of_plain_secrets => {
                self.told_of_plain_secrets = true;
                tracing::warn!(
                    file = %path.display(),
                    "secrets stand in the file in plain text, and could not be encrypted there: it {problem}"
                );
            }
            Err(_) => {}
        }
        is_sealed
    }

    fn own_files(&self) -> BTreeSet<PathBuf> {
        let mut files = self.provided_files.clone();
        files.extend([self.data_dir.system_file(), self.data_dir.instances_file()]);
        files
    }
}

/// What a file holds; what stands for it if there is none.
fn text_of(content: Option<&Content>, otherwise: &str) -> String {
    content.map_or_else(|| otherwise.to_owned(), |content| String::from_utf8_lossy(content).into_owned())
}

/// What tells that a file is another one than before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file, or it cannot be seen.
    fn of(file: &Path) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
