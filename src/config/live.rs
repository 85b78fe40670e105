//! The configuration that a running daemon works with: the settings in force, and edits that were refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::{ConfigErrors, SystemConfig};

/// Refused edits by file; `instances.json` stands for all files of the fleet.
pub type RefusedEdits = BTreeMap<PathBuf, ConfigErrors>;

/// The settings in force and the edits that were refused. Cheap to clone; reads take no lock.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    system: Arc<ArcSwap<SystemConfig>>,
    refused: Arc<ArcSwap<RefusedEdits>>,
    changed: watch::Sender<()>,
}

impl LiveConfig {
    /// Begins with the settings that were loaded at the start.
    pub fn new(system: SystemConfig) -> Self {
        Self {
            system: Arc::new(ArcSwap::from_pointee(system)),
            refused: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// The settings in force.
    pub fn system(&self) -> Arc<SystemConfig> {
        self.system.load_full()
    }

    /// Tells whenever other settings come into force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Edits that were refused and not mended since.
    pub fn refused(&self) -> Arc<RefusedEdits> {
        self.refused.load_full()
    }

    /// These settings are in force now.
    pub fn accept_system(&self, system: SystemConfig) {
        self.system.store(Arc::new(system));
        self.changed.send_replace(());
    }

    /// An edit of this file was refused.
    pub fn refuse(&self, file: PathBuf, errors: ConfigErrors) {
        self.refused.rcu(|refused| {
            let mut refused = RefusedEdits::clone(refused);
            refused.insert(file.clone(), errors.clone());
            refused
        });
    }

    /// This file is fine again.
    pub fn mended(&self, file: &std::path::Path) {
        self.refused.rcu(|refused| {
            let mut refused = RefusedEdits::clone(refused);
            refused.remove(file);
            refused
        });
    }
}

impl Collector for LiveConfig {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let files = self.refused().iter().map(|(file, errors)| errors.by_file(file).len()).sum::<usize>();
        let help = "Files of the configuration that are broken as they stand; what they held stays in force";
        let gauge = encoder.encode_descriptor("pulse_config_refused_files", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(files).unwrap_or(i64::MAX)).encode(gauge)
    }
}
