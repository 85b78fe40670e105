//! Every command of docs/runbook.md, in the order of the page, against a real daemon and the lab.
//!
//! Replaced are the places (data folder, backups, `/root`, the metrics' address) and KEY. `systemctl` and `journalctl` are
//! scripts here that start, stop and show this test's daemon, since no systemd runs where tests do.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pulse::lab::{FaultKind, HostPlan};
use serde_json::Value;
use tempfile::TempDir;

use super::installed::{found, provided};
use super::support::{
    Ended, Folder, PATIENCE, SEED, client_builder, eventually, free_address, lab, quick_settings, run,
};

const RUNBOOK: &str = include_str!("../../docs/runbook.md");
const RULES: &str = include_str!("../../packaging/prometheus/pulse.rules.yml");

/// The commands of the page, each with the heading that it stands under.
fn commands() -> Vec<(&'static str, &'static str)> {
    let (mut heading, mut is_shell, mut found) = ("", false, Vec::new());
    for line in RUNBOOK.lines() {
        match line {
            "```sh" => is_shell = true,
            "```" => is_shell = false,
            line if is_shell => found.push((heading, line)),
            line if line.starts_with('#') => heading = line.trim_start_matches('#').trim(),
            _ => {}
        }
    }
    found
}

/// Whom a command is about.
fn key_under(heading: &str) -> &'static str {
    match heading {
        "PulsePermanentFailures" => "pbs::locked",
        "Turn adapting off" => "pve::rack",
        _ => "pve::down",
    }
}

/// A machine that has what the page takes for granted.
struct Machine {
    folder: Folder,
    home: TempDir,
    metrics: SocketAddr,
}

impl Machine {
    fn new(folder: Folder) -> Self {
        let machine = Self { folder, home: tempfile::tempdir().unwrap(), metrics: free_address() };
        for name in ["bin", "root", "backup"] {
            fs::create_dir(machine.home.path().join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_pulse"), machine.home.path().join("bin/pulse")).unwrap();
        let home = machine.home.path().display();
        machine.script(
            "systemctl",
            &format!(
                "cd {home}\ncase $1 in\n\
                 status) kill -0 \"$(cat pid)\" ;;\n\
                 stop) kill \"$(cat pid)\"; while kill -0 \"$(cat pid)\" 2>/dev/null; do sleep 0.05; done ;;\n\
                 start) PULSE_LISTEN={} PULSE_METRICS_LISTEN={} setsid pulse serve >>log 2>&1 </dev/null & echo $! >pid\n\
                 i=0; until pulse health >/dev/null 2>&1; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done ;;\n\
                 esac",
                free_address(),
                machine.metrics,
            ),
        );
        machine.script("journalctl", &format!("exec tail -n 50 {home}/log"));
        machine
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.home.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A line of the page, with this machine's places in it.
    fn here(&self, heading: &str, line: &str) -> String {
        let home = self.home.path().display();
        line.replace("/var/lib/pulse-new", &format!("{home}/new"))
            .replace("/var/lib/pulse", &self.folder.path().display().to_string())
            .replace("/srv/backup", &format!("{home}/backup"))
            .replace("/root", &format!("{home}/root"))
            .replace("127.0.0.1:9091", &self.metrics.to_string())
            .replace("KEY", key_under(heading))
    }

    async fn shell(&self, line: &str) -> Ended {
        let mut command = Command::new("/bin/bash");
        command.env_clear().env("PULSE_DATA_DIR", self.folder.path());
        command.env("PATH", format!("{}/bin:/usr/bin:/bin", self.home.path().display()));
        run(command.args(["-o", "pipefail", "-ec", line])).await
    }

    async fn health(&self) -> Value {
        let owner = client_builder().unix_socket(self.folder.path().join("pulse.sock")).build().unwrap();
        let answer = owner.get("http://localhost/api/monitoring/scheduler/health").send().await.unwrap();
        answer.json().await.unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let path = format!("{}/bin:/usr/bin:/bin", self.home.path().display());
        let stop = Command::new(self.home.path().join("bin/systemctl")).arg("stop").env("PATH", path).status();
        // Whoever is panicking has said enough.
        drop(stop);
    }
}

#[test]
fn every_alert_has_its_section_with_something_to_do() {
    for alert in RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(RUNBOOK.contains(&format!("\n### {alert}\n\n")), "{alert} is not in docs/runbook.md");
    }
    let sections = RUNBOOK.lines().filter_map(|line| line.strip_prefix("### "));
    for section in sections {
        assert!(RULES.contains(&format!("- alert: {section}\n")), "{section} is no alert");
    }
}

#[tokio::test]
async fn every_command_of_the_runbook_does_what_it_says() {
    for name in ["curl", "jq"] {
        let program = || found([Path::new("/usr/bin").join(name)]);
        let Some(_): Option<PathBuf> = provided(name, program).await else { return };
    }
    let lab = lab(vec![
        HostPlan::pve(SEED, "rack", 3),
        HostPlan::pve(SEED, "down", 3).behaving(FaultKind::Refuse),
        HostPlan::pbs(SEED, "locked", &["daily"]).with_rejected_secret(),
    ])
    .await;
    let folder = Folder::quick(&lab.instances_json(None));
    folder.write_json("system.json", &quick_settings());
    let machine = Machine::new(folder);
    let started = machine.shell("systemctl start").await;
    assert_eq!(started.code, Some(0), "{started:?}");
    let both_dead = async || (machine.health().await["deadLetter"]["count"] == 2).then_some(());
    eventually("both hosts are dead-lettered", PATIENCE, both_dead).await.unwrap();

    let commands = commands();
    assert!(commands.len() > 30, "the page is read: {commands:?}");
    for (heading, line) in commands {
        let here = machine.here(heading, line);
        let ended = machine.shell(&here).await;
        assert_eq!(ended.code, Some(0), "under {heading:?}: {line}\nrun as: {here}\n{ended:?}");
        // What the page promises at this place.
        match (heading, line) {
            ("Every day", line) if line.contains("deadLetter.count") => {
                assert!(ended.stdout.starts_with("2\n"), "{ended:?}")
            }
            ("PulseQueueBacklog", line) if line.contains("consecutiveFailures") => {
                assert_eq!(ended.stdout, "pbs::locked\npve::down\n");
            }
            ("PulseInstanceLate", line) if line.contains("test-connection") => {
                assert!(ended.stdout.contains("refused"), "{ended:?}")
            }
            ("PulsePermanentFailures", line) if line.contains("remove") => {
                assert_eq!(machine.health().await["deadLetter"]["count"], 1);
            }
            _ => {}
        }
    }
    let instances = fs::read_to_string(machine.home.path().join("new/instances.json")).unwrap();
    assert!(instances.contains("rack") && machine.home.path().join("new/secrets.key").is_file());
    drop(machine);
    lab.shutdown().await;
}
