//! A real journald, in a namespace of mounts and processes of its own: what the daemon logs there is found by its fields.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::installed::{found, is_root, provided, until_connectable};
use super::support::{Folder, PATIENCE, Program, client, eventually, free_address};

/// Has `$1` be the journal's folder, and `$2` and what follows run as systemd runs a service: its error stream is one of
/// the journal, and it is told so.
const RUN_UNDER_JOURNALD: &str = r#"
    set -eu
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/journal /run/log/journal
    mount --bind "$1" /run/log/journal
    shift
    "$JOURNALD" &
    until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done
    exec systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$@"
"#;

/// The program of journald, where mounts of one's own are allowed.
fn journald() -> Option<PathBuf> {
    let program = found(["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"].map(PathBuf::from));
    let allowed = || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    program.filter(|_| is_root() && allowed())
}

struct Journal(TempDir);

impl Journal {
    /// The entries that match, as `journalctl -o json` tells them.
    async fn entries(&self, matches: &[&str]) -> Vec<Value> {
        let Some(folder) = std::fs::read_dir(self.0.path()).unwrap().flatten().next() else { return Vec::new() };
        let output = tempfile::tempdir().unwrap();
        let mut command = Command::new("journalctl");
        command.arg("--directory").arg(folder.path()).args(["--quiet", "--output=json"]).args(matches);
        let mut journalctl = Program::start(&mut command, output.path());
        journalctl.ended(PATIENCE).await;
        journalctl.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The first entry that matches, once there is one.
    async fn until(&self, matches: &[&str]) -> Value {
        let look = async || self.entries(matches).await.into_iter().next();
        eventually(&format!("the journal has {matches:?}"), PATIENCE, look).await.unwrap()
    }
}

fn run_under(journald: &Path, journal: &Journal, folder: &Folder, output: &Path, address: &str) -> Program {
    let mut command = Command::new("unshare");
    // Whoever ends `unshare` ends all of it.
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", RUN_UNDER_JOURNALD, "sh"]);
    command.arg(journal.0.path()).arg(env!("CARGO_BIN_EXE_pulse")).args(["serve", "--listen", address]);
    command.args(["--metrics-listen", &free_address().to_string()]);
    command.env_remove("JOURNAL_STREAM").env("JOURNALD", journald).env("PULSE_DATA_DIR", folder.path());
    Program::start(&mut command, output)
}

#[tokio::test]
async fn the_journal_has_what_is_logged_with_its_fields() {
    let Some(journald) = provided("systemd", journald).await else { return };
    let auth = json!({"tokenId": "pulse@pve!monitor", "secret": "hunter2"});
    let down = json!({"type": "pve", "name": "down", "url": "https://127.0.0.1:9", "auth": auth});
    let folder = Folder::quick(&json!({"instances": [down]}));
    let (journal, output, address) =
        (Journal(tempfile::tempdir().unwrap()), tempfile::tempdir().unwrap(), free_address());
    let program = run_under(&journald, &journal, &folder, output.path(), &address.to_string());
    until_connectable("pulse", address).await;
    let told = journal.until(&["SYSLOG_IDENTIFIER=pulse", "PRIORITY=6"]).await;
    assert_eq!(told["_TRANSPORT"], "journal", "natively, not as a line: {told}");

    let opened = journal.until(&["PULSE_INSTANCE=pve::down", "PULSE_EVENT=circuit_breaker_opened"]).await;
    assert_eq!((&opened["PRIORITY"], &opened["PULSE_FROM"]), (&json!("4"), &json!("closed")), "{opened}");
    let message = opened["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with("circuit breaker opened instance=pve::down "), "{opened}");
    let body = json!({"name": "nobody", "password": "four words in a row"});
    let login = client().request(Method::POST, format!("http://{address}/api/login")).json(&body);
    assert_eq!(login.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let audited = journal.until(&["PULSE_EVENT=audit", "PULSE_ACTION=session.sign_in"]).await;
    assert_eq!(
        (&audited["PULSE_OUTCOME"], &audited["PULSE_ADDRESS"]),
        (&json!("refused"), &json!("127.0.0.1")),
        "{audited}"
    );
    let all = json!(journal.entries(&["SYSLOG_IDENTIFIER=pulse"]).await).to_string();
    assert!(!all.contains("hunter2") && !all.contains("four words"), "{all}");
    drop(program);
}
