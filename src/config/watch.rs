//! Watches the files of the configuration while the daemon runs, and says when to look at them.
//!
//! Folders are watched rather than files, because editors rename; a slow look at sizes and times catches what the
//! system does not report, as on network mounts. It works on real files and so in real time, not the engine's.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::DataDir;

/// A change is taken up when nothing more has happened for this long,
const QUIET: Duration = Duration::from_millis(150);
/// or this long after it began.
const LONGEST_UNREST: Duration = Duration::from_millis(600);
/// How often files are looked at when nothing is reported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The system bounds how many folders may be watched; the rest is looked at.
const MAX_WATCHED_FOLDERS: usize = 256;

/// How closely the files are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Something changed: read them.
    Read,
    /// Nothing was reported: compare their sizes and times.
    Compare,
}

/// What is to be done after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Go on watching these files, and what is in those that are folders.
    At(BTreeSet<PathBuf>),
    /// Something differs, which is read only when it has come to rest, like what is reported.
    Again,
    /// Nobody wants to know any more.
    Enough,
}

/// Looks at the files of the configuration when it is told to.
pub trait LookAtFiles {
    /// Looks at them.
    fn look(&mut self, look: Look) -> impl Future<Output = Looked> + Send;
}

/// Has `files`, and whatever `eyes` find to watch further, looked at when they change, until `shutdown` is cancelled or
/// the eyes have seen enough. The first look comes soon. Leaves no task or thread.
///
/// ```
/// # use pulse::config::{Config, ConfigEvent, DataDir, Environment, Follower, Look, LookAtFiles, Looked, watch_files};
/// # let folder = tempfile::tempdir().unwrap();
/// # let data_dir = DataDir::open(folder.path()).unwrap();
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// struct Eyes(Follower, Vec<ConfigEvent>);
/// impl LookAtFiles for Eyes {
///     async fn look(&mut self, look: Look) -> Looked {
///         let (events, looked) = self.0.look(look);
///         self.1.extend(events);
///         if self.1.is_empty() { looked } else { Looked::Enough }
///     }
/// }
/// let config = Config::load(data_dir, &Environment::default()).unwrap();
/// let mut eyes = Eyes(Follower::new(&config), Vec::new());
/// std::fs::write(config.data_dir.system_file(), r#"{"adaptivePollingBaseInterval": "20s"}"#).unwrap();
/// watch_files(&config.data_dir, &mut eyes, Default::default()).await;
/// assert!(matches!(eyes.1[..], [ConfigEvent::Settings(_)]));
/// # });
/// ```
pub async fn watch_files(data_dir: &DataDir, eyes: &mut impl LookAtFiles, shutdown: CancellationToken) {
    // Room for one: it only says that there is something to look at.
    let (changed, mut changes) = mpsc::channel(1);
    let mut watched = WatchedFiles::of(data_dir, BTreeSet::new(), &changed);
    loop {
        let look = tokio::select! {
            () = shutdown.cancelled() => return,
            look = next_look(&mut changes) => look,
        };
        match eyes.look(look).await {
            Looked::Enough => return,
            Looked::Again => {
                let _ = changed.try_send(());
            }
            Looked::At(files) if files == watched.files => {}
            Looked::At(files) => watched = WatchedFiles::of(data_dir, files, &changed),
        }
    }
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

/// The files whose folders are being watched, until it is dropped.
struct WatchedFiles {
    files: BTreeSet<PathBuf>,
    _watcher: Option<RecommendedWatcher>,
}

impl WatchedFiles {
    /// Begins to watch, as far as the system can; looking has to do for the rest.
    fn of(data_dir: &DataDir, files: BTreeSet<PathBuf>, changed: &mpsc::Sender<()>) -> Self {
        let watcher = watch_folders(data_dir.path(), files.clone(), changed.clone());
        // Nobody reported what was edited between the last reading and now.
        let _ = changed.try_send(());
        Self { files, _watcher: watcher }
    }
}

fn watch_folders(data_dir: &Path, files: BTreeSet<PathBuf>, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let folders = files.iter().flat_map(|file| [file.parent(), file.is_dir().then_some(file.as_path())]);
    let others: BTreeSet<PathBuf> = folders.flatten().map(Path::to_owned).collect();
    let report = move |event: notify::Result<notify::Event>| {
        if matters(&event, &files) {
            // Full means that a look is already due.
            let _ = changed.try_send(());
        }
    };
    let unwatched =
        |error: &notify::Error| tracing::warn!(%error, "configuration files are looked at instead of watched");
    let mut watcher = notify::recommended_watcher(report).inspect_err(unwatched).ok()?;
    watcher.watch(data_dir, RecursiveMode::NonRecursive).inspect_err(unwatched).ok();
    for folder in others.into_iter().filter(|folder| *folder != data_dir).take(MAX_WATCHED_FOLDERS) {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
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
    // What comes and goes in a folder of the list may be one of its files.
    let is_inside = |path: &Path| path.parent().is_some_and(|folder| files.contains(folder));
    let concerns = |path: &PathBuf| files.contains(path) || is_mount_link(path) || is_inside(path);
    // Reading the files is itself an access.
    event.need_rescan() || (!matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_a_file_and_writing_another_do_not_matter() {
        use notify::event::{AccessKind, CreateKind};
        let files = BTreeSet::from(["/data/system.json", "/data/instances.d"].map(PathBuf::from));
        let event = |kind, path| Ok(notify::Event::new(kind).add_path(PathBuf::from(path)));
        let create = EventKind::Create(CreateKind::File);
        assert!(matters(&event(create, "/data/system.json"), &files));
        assert!(matters(&event(create, "/run/secrets/..data"), &files));
        assert!(matters(&event(create, "/data/instances.d/new.json"), &files));
        assert!(!matters(&event(create, "/data/pulse.db"), &files));
        assert!(!matters(&event(EventKind::Access(AccessKind::Read), "/data/system.json"), &files));
    }
}
