//! Follows edits of the configuration while the daemon runs: what is valid is applied, what is not is told and kept
//! out.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::config::{ConfigEvent, DataDir, LiveConfig};
use crate::fleet::Fleet;
use crate::runtime::{DriverGone, Handle};

/// Applies edits to a running scheduler.
pub(super) struct Configurator {
    pub(super) handle: Handle,
    pub(super) fleet: Fleet,
    pub(super) config: LiveConfig,
    pub(super) data_dir: DataDir,
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
