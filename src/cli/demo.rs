//! The demo of `pulse serve --demo`: an emulated fleet on loopback, and a configuration that watches it.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Failed;
use crate::config::{DataDir, SOCKET};
use crate::daemon::Options;
use crate::lab::{Lab, LabClock, LabPlan};
use crate::runtime::{Clock, TokioClock};
use crate::security::{Accounts, Caller, NewUser, Role, random_bytes};
use crate::targets::Secret;

/// The demo's folder within the data folder: beside your own files, never among them.
const FOLDER: &str = "demo";
/// The same fleet at every start.
const SEED: u64 = 1;
/// 128 bits: more than anybody can guess, and still to be typed.
const PASSWORD_BYTES: usize = 16;

/// A running demo fleet.
pub(super) struct Demo {
    lab: Lab,
}

impl Demo {
    /// The name of the demo's admin.
    pub(super) const ADMIN: &str = "demo";

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

    /// Gives the demo's admin a new password.
    pub(super) async fn invite(accounts: &Accounts) -> Result<Secret, Failed> {
        let random = random_bytes().map_err(Failed::because)?;
        let password = URL_SAFE_NO_PAD.encode(&random[..PASSWORD_BYTES]);
        let secret = || Secret::new(password.clone());
        let by = Caller::of_process();
        let known = accounts.list().await.map_err(Failed::because)?;
        if known.iter().any(|user| user.name.as_str() == Self::ADMIN) {
            accounts.set_password(Self::ADMIN, secret(), by, None).await.map_err(Failed::because)?;
        } else {
            let new = NewUser { name: Self::ADMIN.to_owned(), role: Role::Admin, password: secret() };
            accounts.add(new, by, None).await.map_err(Failed::because)?;
        }
        Ok(secret())
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
