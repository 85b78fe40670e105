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
use super::instances::{self, Content, Instance, Surroundings, file_error};
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
    /// A file is broken or gone; what was accepted before stays in force.
    Refused {
        /// The file that was edited; `instances.json` stands for all files of the fleet.
        file: PathBuf,
        /// Everything that is wrong.
        errors: ConfigErrors,
    },
}

/// Follows `system.json`, `instances.json`, the files of other tools, and the secrets and authorities that they refer to.
///
/// After a refusal the next valid content is told even if it is what was in force all along, so that an alarm about the
/// refusal can be ended. Otherwise an edit that changes nothing is not told.
#[derive(Debug)]
pub struct Follower {
    data_dir: DataDir,
    system_file: Arc<SystemFile>,
    keys: Option<Arc<Keyring>>,
    system: Followed<SystemConfig>,
    instances: Followed<Arc<[Instance]>>,
    /// What other tools provide of the fleet that was accepted; nothing before the first reading.
    provided: Arc<Provided>,
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
            instances: Followed::new(Arc::clone(&config.instances), config.found.instances),
            provided: Arc::default(),
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
            instances: Followed::new(Arc::default(), false),
            provided: Arc::default(),
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
        &self.instances.accepted
    }

    /// What other tools provide of the fleet.
    pub(super) fn provided(&self) -> &Provided {
        &self.provided
    }

    /// What is wrong with `instances.json` and the files of other tools as they stand.
    pub fn refused_inventory(&self) -> Option<&ConfigErrors> {
        self.instances.refused.as_ref()
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
        self.instances = Followed::new(Arc::clone(inventory.instances()), true);
        if let Some(provided) = inventory.provided() {
            self.provided = Arc::clone(provided);
        }
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
        let reading = instances::read(self.surroundings());
        let mut inventory_text = reading.content.filter(|_| reading.instances.is_ok());
        let sealed = inventory_text.as_mut().is_none_or(|content| self.seal(&instances_path, content));
        let loaded = reading.instances.map(|list| Some(Arc::from(list)));
        let instances = self.instances.follow(&instances_path, reading.is_there, loaded);
        self.provided_files.clone_from(&reading.provided.files);
        if self.instances.refused.is_none() {
            self.provided = Arc::new(reading.provided);
        }

        self.referenced_files = reading.referenced_files;
        self.referenced_files.extend(self.system.accepted.referenced_files().iter().cloned());
        self.stamps = before.into_iter().map(|(stamp, file)| (file, stamp)).collect();
        for file in self.files() {
            self.stamps.entry(file).or_insert_with_key(|file| Stamp::of(file));
        }
        let event = |result: Result<ConfigEvent, ConfigErrors>, file| {
            result.unwrap_or_else(|errors| ConfigEvent::Refused { file, errors })
        };
        let system = system.map(|result| event(result.map(|it| ConfigEvent::Settings(Box::new(it))), system_path));
        let instances = instances.map(|result| event(result.map(ConfigEvent::Instances), instances_path));
        let snapshot = Snapshot {
            settings: self.system.refused.is_none().then(|| text_of(settings_text.as_ref(), NO_SETTINGS)),
            inventory: (sealed && self.instances.refused.is_none()).then(|| text_of(inventory_text.as_ref(), NO_FLEET)),
            provided: (self.keys.is_some() && self.instances.refused.is_none()).then(|| provided_text(&self.provided)),
        };
        Seen { events: system.into_iter().chain(instances).collect(), snapshot }
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

/// The accepted content of one file, and whether the file as it stands was refused.
#[derive(Debug)]
struct Followed<T> {
    accepted: T,
    /// Whether there ever was a file; one that never was is not missed.
    existed: bool,
    refused: Option<ConfigErrors>,
}

impl<T: Clone + PartialEq> Followed<T> {
    fn new(accepted: T, existed: bool) -> Self {
        Self { accepted, existed, refused: None }
    }

    /// Judges what was loaded, with the file there or not; `None` if there is nothing new to tell.
    fn follow(
        &mut self,
        file: &Path,
        is_there: bool,
        loaded: Result<Option<T>, ConfigErrors>,
    ) -> Option<Result<T, ConfigErrors>> {
        let is_deleted = self.existed && !is_there;
        self.existed |= is_there;
        let errors = match loaded {
            Ok(_) if is_deleted => file_error(file, Problem::Deleted).into(),
            Ok(None) => return None,
            Ok(Some(content)) => {
                let recovered = self.refused.take().is_some();
                if content == self.accepted && !recovered {
                    return None;
                }
                self.accepted = content.clone();
                return Some(Ok(content));
            }
            Err(errors) => errors,
        };
        if self.refused.as_ref() == Some(&errors) {
            return None;
        }
        self.refused = Some(errors.clone());
        Some(Err(errors))
    }
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

#[cfg(test)]
mod tests {
    use super::super::error::{ConfigError, Place};
    use super::*;

    fn broken(name: &str) -> ConfigErrors {
        ConfigError { place: Place::Variable(name.into()), problem: Problem::Missing }.into()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let file = Path::new("f");
        let mut followed = Followed::new(1, true);
        assert_eq!(followed.follow(file, true, Ok(Some(1))), None);
        assert_eq!(followed.follow(file, true, Ok(Some(2))), Some(Ok(2)));
        assert_eq!(followed.follow(file, true, Err(broken("a"))), Some(Err(broken("a"))));
        assert_eq!(followed.follow(file, true, Err(broken("a"))), None);
        assert_eq!(followed.follow(file, true, Err(broken("b"))), Some(Err(broken("b"))));
        assert_eq!(followed.accepted, 2);
    }

    #[test]
    fn the_end_of_a_refusal_is_told_even_if_nothing_else_changed() {
        let mut followed = Followed::new(1, true);
        followed.follow(Path::new("f"), true, Err(broken("a")));
        assert_eq!(followed.follow(Path::new("f"), true, Ok(Some(1))), Some(Ok(1)));
        assert_eq!(followed.follow(Path::new("f"), true, Ok(Some(1))), None);
    }

    #[test]
    fn a_deleted_file_is_refused_and_one_that_never_was_is_not_missed() {
        let mut followed = Followed::new(1, false);
        assert_eq!(followed.follow(Path::new("f"), false, Ok(None)), None);
        followed.follow(Path::new("f"), true, Ok(Some(2)));
        let refused = followed.follow(Path::new("f"), false, Ok(None)).unwrap().unwrap_err();
        assert_eq!(refused.iter().next().unwrap().problem, Problem::Deleted);
        assert_eq!(followed.accepted, 2);
    }

    #[test]
    fn what_other_files_hold_is_followed_without_the_file_but_not_when_it_was_deleted() {
        let mut followed = Followed::new(1, false);
        assert_eq!(followed.follow(Path::new("f"), false, Ok(Some(2))), Some(Ok(2)));
        followed.follow(Path::new("f"), true, Ok(Some(3)));
        assert!(matches!(followed.follow(Path::new("f"), false, Ok(Some(2))), Some(Err(_))));
        assert_eq!(followed.accepted, 3);
    }
}
