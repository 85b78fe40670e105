//! The emulated fleet under the eyes of proxmoxer, a public client that was written against real Proxmox hosts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pulse::lab::{HostPlan, Lab, LabClock, LabPlan};

const SEED: u64 = 11;
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_reads_every_product_by_token_and_by_password() {
    let Some(python) = tokio::task::spawn_blocking(python_with_proxmoxer).await.unwrap() else { return };
    let hosts = vec![
        HostPlan::pve(SEED, "cluster", 9).cluster_of(3),
        HostPlan::pve(SEED, "single", 4).by_password(SEED),
        HostPlan::pbs(SEED, "vault", &["daily", "weekly"]),
        HostPlan::pbs(SEED, "offsite", &["archive"]).by_password(SEED),
        HostPlan::pmg(SEED, "mail-in"),
        HostPlan::pmg(SEED, "mail-out").by_password(SEED),
    ];
    let count = hosts.len();
    let lab = Lab::start(LabPlan::new(SEED, hosts), LabClock::real()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (authority, instances) = (folder.path().join("ca.pem"), folder.path().join("instances.json"));
    std::fs::write(&authority, lab.authority_pem()).unwrap();
    std::fs::write(&instances, lab.instances_json(Some(&authority)).to_string()).unwrap();

    let script = Path::new(SCRIPTS).join("read_fleet.py");
    let run = move || Command::new(python).env("NO_PROXY", "*").arg(script).arg(instances).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(&format!("{count} read")), "{}", text(&output));
    lab.shutdown().await;
}

/// A Python that has the libraries, from a virtual environment that is kept between runs.
///
/// Without network or Python there is none: a failure where everything must be there (`CI=true`), a note elsewhere.
fn python_with_proxmoxer() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxmoxer");
    let python = environment.join("bin/python");
    let requirements = Path::new(SCRIPTS).join("requirements.txt");
    let installed = environment.join("installed.txt");
    let wanted = std::fs::read(&requirements).unwrap();
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Some(python);
    }
    let prepared = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).and_then(|()| {
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))
    });
    match prepared {
        Ok(()) => {
            std::fs::write(installed, wanted).unwrap();
            Some(python)
        }
        Err(reason) if std::env::var_os("CI").is_some_and(|value| value == "true") => {
            panic!("proxmoxer cannot be installed: {reason}")
        }
        Err(reason) => {
            eprintln!("SKIPPED: proxmoxer cannot be installed, so nothing was proved: {reason}");
            None
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", text(&output))) }
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
