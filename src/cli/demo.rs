//! The demo of `pulse serve --demo`: an emulated fleet on loopback, and a configuration that watches it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Failed;
use crate::config::DataDir;
use crate::daemon::{Options, SOCKET};
use crate::lab::{Lab, LabClock, LabPlan};
use crate::runtime::{Clock, TokioClock};

/// The demo's folder within the data folder: beside your own files, never among them.
const FOLDER: &str = "demo";
/// The same fleet at every start.
const SEED: u64 = 1;

/// A running demo fleet.
pub(super) struct Demo {
    lab: Lab,
}

impl Demo {
    /// Points `options` to the `demo` folder of the data folder. The socket stays in the data folder, where
    /// `pulse health` looks for it.
    pub(super) fn redirect(options: &mut Options) {
        options.socket = Some(options.data_dir.join(SOCKET));
        options.data_dir = options.data_dir.join(FOLDER);
    }

    /// Starts the fleet, and writes a configuration for it into `folder`. Another demo may be watching the fleet of
    /// the one that is there, so the daemon's doors have to be open by then.
    pub(super) async fn start(folder: &Path) -> Result<Self, Failed> {
        let clock = Arc::new(TokioClock::start());
        let lab = Lab::start(LabPlan::demo(SEED), LabClock::new(move || clock.now())).await.map_err(Failed::because)?;
        DataDir::open(folder).map_err(Failed::configuration)?;
        configure(folder, &lab)?;
        Ok(Self { lab })
    }

    pub(super) async fn stop(self) {
        self.lab.shutdown().await;
    }
}

fn configure(folder: &Path, lab: &Lab) -> Result<(), Failed> {
    let authority = folder.join("authority.pem");
    write(&authority, lab.authority_pem())?;
    write(&folder.join("instances.json"), &pretty(&lab.instances_json(Some(&authority))))?;
    // Quick enough to show a breaker and a dead letter while somebody watches.
    let system = json!({
        "adaptivePollingBaseInterval": "3s",
        "adaptivePollingMinInterval": "750ms",
        "adaptivePollingMaxInterval": "8s",
        "httpPollingInterval": "5s",
        "tcpPollingInterval": "5s",
        "pollingBackoffInitial": "750ms",
        "pollingBackoffMax": "4s",
        "breakerOpenInitial": "2s",
        "breakerOpenMax": "10s",
        "pvePollingTimeout": "2s",
    });
    write(&folder.join("system.json"), &pretty(&system))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(file: &Path, text: &str) -> Result<(), Failed> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error| Failed::because(format!("cannot write {}: {error}", file.display()));
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).map_err(failed)
}
