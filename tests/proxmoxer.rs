//! The emulated fleet under the eyes of proxmoxer, a public client that was written against real Proxmox hosts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod python;

use std::path::Path;
use std::process::Command;

use pulse::lab::{HostPlan, Lab, LabClock, LabPlan};
use python::{SCRIPTS, python_with, text};

const SEED: u64 = 11;

#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_reads_every_product_by_token_and_by_password() {
    let Some(python) = tokio::task::spawn_blocking(|| python_with("proxmoxer.txt")).await.unwrap() else { return };
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
