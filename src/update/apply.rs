//! Switching to another version, and back by itself if that is not well in time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::installation::Installation;
use super::release::{Release, is_older};
use super::watch::{Patience, is_well};
use super::{Outcome, Record, UpdateError};
use crate::backup::{Restore, Secrets, make, unchanged_since};
use crate::config::SOCKET;
use crate::engine::Millis;
use crate::runtime::{Clock, TokioClock};
use crate::store::DATABASE;

/// A look every so often whether a command of the service has ended.
const LOOK_EVERY: Millis = Millis::new(50);
/// How long a command of the service may take.
const COMMAND_ENDS_WITHIN: Millis = Millis::from_secs(60);

/// The service that runs the program.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Shell command that stops it, and returns when it has stopped.
    pub stop: String,
    /// Shell command that starts it anew.
    pub restart: String,
}

/// A switch from one version to another.
#[derive(Debug)]
pub struct Switch<'a> {
    /// Where the versions are.
    pub installation: &'a Installation,
    /// What runs them.
    pub service: Service,
    /// How long the new one has.
    pub patience: Patience,
    /// The version that does the switching, for the backup that it makes.
    pub by: &'static str,
}

/// What came of a switch.
#[derive(Clone, Debug)]
pub struct Applied {
    /// As it is in the history.
    pub record: Record,
    /// Whether the version that runs in the end is well. If not, somebody has to look.
    pub is_well: bool,
}

impl Switch<'_> {
    /// Installs a release and switches to it.
    ///
    /// # Errors
    /// It could not be begun; what ran before runs on.
    pub async fn apply(&self, release: &Release, allow_older: bool) -> Result<Applied, UpdateError> {
        let _lock = self.installation.lock()?;
        let (from, to) = (self.installation.current()?, release.version.clone());
        if from == to {
            return Err(UpdateError::RunsAlready(to));
        }
        if !allow_older && is_older(&to, &from) {
            return Err(UpdateError::Older { from, to });
        }
        self.install(release)?;
        self.switch(from, to).await
    }

    /// Switches to the version that ran before the current one.
    ///
    /// # Errors
    /// There is none, or the switch could not be begun.
    pub async fn restore_previous(&self, with_settings: bool) -> Result<Applied, UpdateError> {
        let _lock = self.installation.lock()?;
        let from = self.installation.current()?;
        let updates = self.installation.updates()?;
        let came = updates.into_iter().find(|it| it.outcome == Outcome::Applied && it.to == from);
        let to = came.map(|it| it.from).filter(|to| self.installation.has(to)).ok_or(UpdateError::NoPrevious)?;
        let settings = self.installation.settings_before(&from);
        if with_settings && settings.is_file() {
            // If it runs on, that shows in the health of what is started.
            let _ = run(&self.service.stop).await;
            self.put_back(&settings).await?;
        }
        self.switch(from, to).await
    }

    /// Puts the release beside the others. One that is there already, but not current, is replaced.
    fn install(&self, release: &Release) -> Result<(), UpdateError> {
        let (releases, target) = (self.installation.releases(), self.installation.release(&release.version));
        let draft = tempfile::Builder::new().prefix(".new-").tempdir_in(&releases);
        let draft = draft.map_err(UpdateError::file("cannot write in", &releases))?;
        release.unpack(draft.path())?;
        let put = || {
            if target.exists() {
                fs::remove_dir_all(&target)?;
            }
            fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))?;
            fs::rename(draft.path(), &target)?;
            fs::File::open(&releases)?.sync_all()
        };
        put().map_err(UpdateError::file("cannot install into", &target))?;
        // What it names is gone from there.
        let _ = draft.keep();
        Ok(())
    }

    async fn switch(&self, from: String, to: String) -> Result<Applied, UpdateError> {
        let clock = TokioClock::start();
        let settings = self.keep_settings(&to, clock.wall())?;
        let mut record = Record { at: clock.wall(), from, to, outcome: Outcome::UnderWay, detail: None };
        self.installation.note(&record)?;
        self.installation.point_to(&record.to)?;
        let complaint = run(&self.service.restart).await.err();
        let socket = self.service.data_dir.join(SOCKET);
        if let Err(reason) = is_well(&socket, &record.to, self.patience, &clock).await {
            let reason = [Some(reason), complaint].into_iter().flatten().collect::<Vec<_>>().join("; ");
            (record.outcome, record.detail) = (Outcome::WentBack, Some(reason));
        } else {
            record.outcome = Outcome::Applied;
            self.installation.note(&record)?;
            return Ok(Applied { record, is_well: true });
        }
        self.installation.point_to(&record.from)?;
        // What comes of both commands shows in whether the version of before is well.
        let _ = run(&self.service.stop).await;
        if let Some(settings) = settings.filter(|it| !unchanged_since(it, &self.service.data_dir)) {
            self.put_back(&settings).await?;
        }
        let _ = run(&self.service.restart).await;
        let is_well = is_well(&socket, &record.from, self.patience, &clock).await.is_ok();
        self.installation.note(&record)?;
        Ok(Applied { record, is_well })
    }

    /// Keeps the data folder as it is before `version` has it; `None` if there is nothing in it yet.
    fn keep_settings(&self, version: &str, now: jiff::Timestamp) -> Result<Option<PathBuf>, UpdateError> {
        if !self.service.data_dir.join(DATABASE).is_file() {
            return Ok(None);
        }
        let target = self.installation.settings_before(version);
        let folder = target.parent().unwrap_or(Path::new("/"));
        let made = fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
            .and_then(|()| if target.exists() { fs::remove_file(&target) } else { Ok(()) });
        made.map_err(UpdateError::file("cannot keep the settings in", folder))?;
        make(&self.service.data_dir, &target, Secrets::Included, self.by, now)?;
        Ok(Some(target))
    }

    async fn put_back(&self, settings: &Path) -> Result<(), UpdateError> {
        let folder = &self.service.data_dir;
        let now = TokioClock::start().wall();
        Restore { file: settings, folder, force: true, secrets_from: None, now }.run().await?;
        Ok(())
    }
}

/// Runs a command of the service to its end, which it has to come to in time.
async fn run(command: &str) -> Result<(), String> {
    let clock = TokioClock::start();
    let deadline = clock.now() + COMMAND_ENDS_WITHIN;
    let failed = |error: std::io::Error| format!("`{command}` could not be run: {error}");
    let mut child = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).spawn().map_err(failed)?;
    while clock.now() < deadline {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("`{command}` ended with {status}")),
            None => clock.sleep_until(clock.now() + LOOK_EVERY).await,
        }
    }
    child.kill().and_then(|()| child.wait()).map_err(failed)?;
    Err(format!("`{command}` did not end, and was killed"))
}
