//! Follows the configuration files while the daemon runs and reports what changed, valid or refused.
//!
//! Folders are watched rather than files, because editors rename; a slow look at sizes and times catches what the
//! system does not report, as on network mounts. It works on real files and so in real time, not the engine's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{ConfigError, ConfigErrors, Place, Problem};
use super::instances::{self, Instance};
use super::system::{SystemConfig, SystemFile};
use super::{Config, DataDir};

/// A change is taken up when nothing more has happened for this long,
const QUIET: Duration = Duration::from_millis(150);
/// or this long after it began.
const LONGEST_UNREST: Duration = Duration::from_millis(600);
/// How often files are looked at when nothing is reported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Secrets and authorities may be many, and are looked at only every so many times.
const LOOKS_PER_REFERENCED_LOOK: u32 = 15;
/// The system bounds how many folders may be watched; the rest is looked at.
const MAX_WATCHED_FOLDERS: usize = 256;

/// What became of an edit of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEvent {
    /// These settings are in force now.
    Settings(SystemConfig),
    /// This is the fleet now.
    Instances(Arc<[Instance]>),
    /// A file is broken or gone; what was accepted before stays in force.
    Refused {
        /// The file that was edited.
        file: PathBuf,
        /// Everything that is wrong.
        errors: ConfigErrors,
    },
}

/// Watches `system.json`, `instances.json`, and the secrets and authorities that the latter refers to.
///
/// After a refusal the next valid content is reported even if it is what was in force all along, so that an alarm
/// about the refusal can be ended. Otherwise an edit that changes nothing is not reported.
///
/// ```
/// # use pulse::config::{Config, ConfigEvent, ConfigWatcher, DataDir, Environment};
/// # let folder = tempfile::tempdir().unwrap();
/// # let data_dir = DataDir::open(folder.path()).unwrap();
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let config = Config::load(data_dir, &Environment::default()).unwrap();
/// let (sender, mut events) = tokio::sync::mpsc::channel(8);
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// let edit = async {
///     std::fs::write(config.data_dir.system_file(), r#"{"adaptivePollingBaseInterval": "20s"}"#).unwrap();
///     assert!(matches!(events.recv().await, Some(ConfigEvent::Settings(_))));
///     shutdown.cancel();
/// };
/// tokio::join!(ConfigWatcher::new(&config).run(sender, shutdown.clone()), edit);
/// # });
/// ```
#[derive(Debug)]
pub struct ConfigWatcher(State);

impl ConfigWatcher {
    /// Follows the files on from what was loaded.
    pub fn new(config: &Config) -> Self {
        Self(State {
            data_dir: config.data_dir.clone(),
            system_file: Arc::clone(&config.system_file),
            system: Followed::new(config.system.clone(), config.found.system),
            instances: Followed::new(Arc::clone(&config.instances), config.found.instances),
            referenced_files: config.referenced_files.clone(),
            looks: 0,
            stamps: BTreeMap::new(),
        })
    }

    /// Reports changes until `shutdown` is cancelled or nobody receives them any more. Leaves no task or thread.
    pub async fn run(self, events: mpsc::Sender<ConfigEvent>, shutdown: CancellationToken) {
        let Self(mut state) = self;
        // Room for one: it only says that there is something to look at.
        let (changed, mut changes) = mpsc::channel(1);
        let mut watched = WatchedFiles::of(&state, &changed);
        loop {
            let look = tokio::select! {
                () = shutdown.cancelled() => return,
                () = events.closed() => return,
                look = next_look(&mut changes) => look,
            };
            let found;
            (state, found) = match tokio::task::spawn_blocking(move || state.look(look)).await {
                Ok(looked) => looked,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return,
            };
            let found = match found {
                Found::Nothing => continue,
                Found::Difference => {
                    // Read only when the file has come to rest, like what is reported.
                    let _ = changed.try_send(());
                    continue;
                }
                Found::Events(found) => found,
            };
            for event in found {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    sent = events.send(event) => if sent.is_err() { return },
                }
            }
            if state.files() != watched.files {
                watched = WatchedFiles::of(&state, &changed);
            }
        }
    }
}

/// How closely the files are looked at.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// Something changed: read them.
    Read,
    /// Nothing was reported: compare their sizes and times.
    Compare,
}

/// What a look found.
enum Found {
    Nothing,
    Difference,
    Events(Vec<ConfigEvent>),
}

async fn next_look(changes: &mut mpsc::Receiver<()>) -> Look {
    if timeout(LOOK_EVERY, changes.recv()).await.is_err() {
        return Look::Compare;
    }
    let quiet = async { while timeout(QUIET, changes.recv()).await.is_ok() {} };
    // Whether it fell quiet or not, it has been long enough.
    let _ = timeout(LONGEST_UNREST, quiet).await;
    Look::Read
}

/// What is in force, and what the files looked like when they were last read.
#[derive(Debug)]
struct State {
    data_dir: DataDir,
    system_file: Arc<SystemFile>,
    system: Followed<SystemConfig>,
    instances: Followed<Arc<[Instance]>>,
    referenced_files: BTreeSet<PathBuf>,
    looks: u32,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

impl State {
    /// Every file that the configuration depends on.
    fn files(&self) -> BTreeSet<PathBuf> {
        &self.own_files() | &self.referenced_files
    }

    fn own_files(&self) -> BTreeSet<PathBuf> {
        [self.data_dir.system_file(), self.data_dir.instances_file()].into()
    }

    fn look(mut self, look: Look) -> (Self, Found) {
        let found = match look {
            Look::Read => Found::Events(self.read()),
            Look::Compare if self.differs() => Found::Difference,
            Look::Compare => Found::Nothing,
        };
        (self, found)
    }

    fn differs(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let files = if self.looks.is_multiple_of(LOOKS_PER_REFERENCED_LOOK) { self.files() } else { self.own_files() };
        files.iter().any(|file| self.stamps.get(file) != Some(&Stamp::of(file)))
    }

    fn read(&mut self) -> Vec<ConfigEvent> {
        // Stamps come before the reading, so that a change in between is seen at the next look.
        let stamp = |file: PathBuf| (Stamp::of(&file), file);
        let before: Vec<_> = self.files().into_iter().map(stamp).collect();
        let system_path = self.data_dir.system_file();
        let system = self.system.follow(&system_path, self.system_file.load());

        let instances_path = self.data_dir.instances_file();
        let reading = instances::read(&instances_path, self.system_file.environment());
        let instances = self.instances.follow(&instances_path, reading.instances.map(|list| list.map(Arc::from)));

        self.referenced_files = reading.referenced_files;
        self.stamps = before.into_iter().map(|(stamp, file)| (file, stamp)).collect();
        for file in self.files() {
            self.stamps.entry(file).or_insert_with_key(|file| Stamp::of(file));
        }
        let event = |result: Result<ConfigEvent, ConfigErrors>, file| {
            result.unwrap_or_else(|errors| ConfigEvent::Refused { file, errors })
        };
        let system = system.map(|result| event(result.map(ConfigEvent::Settings), system_path));
        let instances = instances.map(|result| event(result.map(ConfigEvent::Instances), instances_path));
        system.into_iter().chain(instances).collect()
    }
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

    /// Judges what was loaded; `None` if there is nothing new to tell.
    fn follow(&mut self, file: &Path, loaded: Result<Option<T>, ConfigErrors>) -> Option<Result<T, ConfigErrors>> {
        let errors = match loaded {
            Ok(Some(content)) => {
                self.existed = true;
                let recovered = self.refused.take().is_some();
                if content == self.accepted && !recovered {
                    return None;
                }
                self.accepted = content.clone();
                return Some(Ok(content));
            }
            Ok(None) if !self.existed => return None,
            Ok(None) => {
                let place = Place::File { file: file.to_owned(), at: String::new() };
                ConfigError { place, problem: Problem::Deleted }.into()
            }
            Err(errors) => {
                self.existed = true;
                errors
            }
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

/// The files whose folders are being watched, until it is dropped.
struct WatchedFiles {
    files: BTreeSet<PathBuf>,
    _watcher: Option<RecommendedWatcher>,
}

impl WatchedFiles {
    /// Begins to watch, as far as the system can; looking has to do for the rest.
    fn of(state: &State, changed: &mpsc::Sender<()>) -> Self {
        let files = state.files();
        let watcher = watch_folders(state, files.clone(), changed.clone());
        // Nobody reported what was edited between the last reading and now.
        let _ = changed.try_send(());
        Self { files, _watcher: watcher }
    }
}

fn watch_folders(state: &State, files: BTreeSet<PathBuf>, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let report = move |event: notify::Result<notify::Event>| {
        if matters(&event, &files) {
            // Full means that a look is already due.
            let _ = changed.try_send(());
        }
    };
    let unwatched =
        |error: &notify::Error| tracing::warn!(%error, "configuration files are looked at instead of watched");
    let mut watcher = notify::recommended_watcher(report).inspect_err(unwatched).ok()?;
    let data_dir = state.data_dir.path();
    watcher.watch(data_dir, RecursiveMode::NonRecursive).inspect_err(unwatched).ok();
    let others: BTreeSet<&Path> = state.referenced_files.iter().filter_map(|file| file.parent()).collect();
    for folder in others.into_iter().filter(|folder| *folder != data_dir).take(MAX_WATCHED_FOLDERS) {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::debug!(folder = %folder.display(), %error, "a folder is looked at instead of watched");
        }
    }
    Some(watcher)
}

/// Whether an event may have changed one of the files.
fn matters(event: &notify::Result<notify::Event>, files: &BTreeSet<PathBuf>) -> bool {
    let Ok(event) = event else { return true };
    // Kubernetes changes mounted files by pointing the link `..data`, which they go through, elsewhere.
    let is_mount_link = |path: &Path| path.file_name().is_some_and(|name| name == "..data");
    let concerns = |path: &PathBuf| files.contains(path) || is_mount_link(path);
    // Reading the files is itself an access.
    event.need_rescan() || (!matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(name: &str) -> ConfigErrors {
        ConfigError { place: Place::Variable(name.into()), problem: Problem::Missing }.into()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let file = Path::new("f");
        let mut followed = Followed::new(1, true);
        assert_eq!(followed.follow(file, Ok(Some(1))), None);
        assert_eq!(followed.follow(file, Ok(Some(2))), Some(Ok(2)));
        assert_eq!(followed.follow(file, Err(broken("a"))), Some(Err(broken("a"))));
        assert_eq!(followed.follow(file, Err(broken("a"))), None);
        assert_eq!(followed.follow(file, Err(broken("b"))), Some(Err(broken("b"))));
        assert_eq!(followed.accepted, 2);
    }

    #[test]
    fn the_end_of_a_refusal_is_told_even_if_nothing_else_changed() {
        let mut followed = Followed::new(1, true);
        followed.follow(Path::new("f"), Err(broken("a")));
        assert_eq!(followed.follow(Path::new("f"), Ok(Some(1))), Some(Ok(1)));
        assert_eq!(followed.follow(Path::new("f"), Ok(Some(1))), None);
    }

    #[test]
    fn a_deleted_file_is_refused_and_one_that_never_was_is_not_missed() {
        let mut followed = Followed::new(1, false);
        assert_eq!(followed.follow(Path::new("f"), Ok(None)), None);
        followed.follow(Path::new("f"), Ok(Some(2)));
        let refused = followed.follow(Path::new("f"), Ok(None)).unwrap().unwrap_err();
        assert_eq!(refused.iter().next().unwrap().problem, Problem::Deleted);
        assert_eq!(followed.accepted, 2);
    }

    #[test]
    fn reading_a_file_and_writing_another_do_not_matter() {
        use notify::event::{AccessKind, CreateKind};
        let files = BTreeSet::from([PathBuf::from("/data/system.json")]);
        let event = |kind, path| Ok(notify::Event::new(kind).add_path(PathBuf::from(path)));
        let create = EventKind::Create(CreateKind::File);
        assert!(matters(&event(create, "/data/system.json"), &files));
        assert!(matters(&event(create, "/run/secrets/..data"), &files));
        assert!(!matters(&event(create, "/data/pulse.db"), &files));
        assert!(!matters(&event(EventKind::Access(AccessKind::Read), "/data/system.json"), &files));
    }
}
