//! Follows edits of the configuration while the daemon runs: what is valid is applied, what is not is told and kept
//! out.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{ConfigEvent, DataDir, LiveConfig, SystemFile};
use crate::fleet::Fleet;
use crate::runtime::{DriverGone, Handle};

/// Applies edits to a running scheduler.
pub(super) struct Configurator {
    pub(super) handle: Handle,
    pub(super) fleet: Fleet,
    pub(super) config: LiveConfig,
    pub(super) data_dir: DataDir,
    pub(super) system_file: Arc<SystemFile>,
}

impl Configurator {
    /// Applies edits until no more come.
    pub(super) async fn run(self, mut events: mpsc::Receiver<ConfigEvent>) {
        while let Some(event) = events.recv().await {
            if self.apply(event).await.is_err() {
                return;
            }
        }
    }

    async fn apply(&self, event: ConfigEvent) -> Result<(), DriverGone> {
        match event {
            ConfigEvent::Settings(system) => {
                let _turn = self.config.change().await;
                // What was seen may be older than what a call has written since.
                let file = Arc::clone(&self.system_file);
                let latest = tokio::task::spawn_blocking(move || file.load()).await;
                let system = match latest {
                    Ok(Ok(latest)) => latest.unwrap_or(system),
                    // Broken again by now: the watcher will tell.
                    Ok(Err(_)) | Err(_) => return Ok(()),
                };
                self.handle.replace_settings(system.settings().clone()).await?;
                self.config.accept_system(system);
                self.accepted(self.data_dir.system_file());
            }
            ConfigEvent::Instances(instances) => {
                let specs = self.fleet.replace(&instances);
                self.handle.replace_inventory(specs).await?;
                self.accepted(self.data_dir.instances_file());
            }
            ConfigEvent::Refused { file, errors } => {
                for error in errors.iter() {
                    tracing::error!(file = %file.display(), "an edit was refused, what was in force stays: {error}");
                }
                self.config.refuse(file, errors);
            }
        }
        Ok(())
    }

    fn accepted(&self, file: PathBuf) {
        tracing::info!(file = %file.display(), "an edit was applied");
        self.config.mended(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use crate::engine::{Engine, Millis};
    use crate::runtime::{Clock, Driver, TokioClock};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test itself waits for the driver's task")]
    async fn an_edit_that_was_seen_before_a_call_changed_the_file_does_not_undo_the_call() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(DataDir::open(folder.path()).unwrap(), &Environment::default()).unwrap();
        let clock = Arc::new(TokioClock::start());
        let fleet = Fleet::new(clock.clone());
        let engine = Engine::new(config.system.settings().clone(), 1, clock.now());
        let (driver, handle) = Driver::new(engine, clock, Arc::new(fleet.clone()));
        let stop = CancellationToken::new();
        let driver = tokio::spawn(driver.run(stop.clone()));
        let (system_file, data_dir) = (Arc::clone(&config.system_file), config.data_dir.clone());
        let live = LiveConfig::new(config.system);
        let configurator = Configurator { handle: handle.clone(), fleet, config: live, data_dir, system_file };

        let write = |base: &str| {
            let text = format!(r#"{{"adaptivePollingBaseInterval": "{base}"}}"#);
            std::fs::write(configurator.system_file.path(), text).unwrap();
        };
        write("20s");
        let seen = configurator.system_file.load().unwrap().unwrap();
        write("30s");
        configurator.apply(ConfigEvent::Settings(seen)).await.unwrap();
        let base = handle.read(|engine, _| engine.settings().base_interval).await.unwrap();
        assert_eq!(base, Millis::from_secs(30));
        stop.cancel();
        driver.await.unwrap();
    }
}
