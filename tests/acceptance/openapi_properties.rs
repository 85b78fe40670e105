//! The OpenAPI document, held to by a tool that makes calls from it: what it allows and what it does not.

use std::process::Command;

use pulse::lab::HostPlan;
use pulse::security::Role;
use serde_json::Value;

use crate::python::{SCRIPTS, python_with, text};
use crate::support::{Daemon, Folder, SEED, lab, quick_settings};

/// Calls that are drawn for each operation, beside those that follow from its schema; all take half a minute.
const CALLS: &str = "15";
/// Ten management calls a minute are each of them good for.
const TOKENS: usize = 120;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_keeps_to_the_openapi_document_whatever_it_is_sent() {
    let Some(python) = tokio::task::spawn_blocking(|| python_with("schemathesis.txt")).await.unwrap() else { return };
    let racks = (0..6).map(|number| HostPlan::pve(SEED, format!("rack-{number}"), 1));
    let refusing =
        (0..3).map(|number| HostPlan::pbs(SEED, format!("vault-{number}"), &["daily"]).with_rejected_secret());
    let lab = lab(racks.chain(refusing).collect()).await;
    let keys: Vec<String> = lab.hosts().iter().map(|host| format!("{}::{}", host.kind, host.name)).collect();
    let folder = Folder::new();
    folder.write_json("system.json", &quick_settings());
    folder.write_json("instances.json", &lab.instances_json(None));
    // Each call comes from an address of its own.
    let daemon = Daemon::start_with(&folder, &["--trusted-proxy", "127.0.0.0/8"], &[]).await;
    let mut tokens = Vec::new();
    for number in 0..TOKENS {
        tokens.push(daemon.new_token(&format!("schemathesis {number}"), Role::Admin).await);
    }
    let document: Value = daemon.get("/api/openapi.json").await;
    let output = tempfile::tempdir().unwrap();
    let path = output.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();

    let mut command = Command::new(python);
    command.current_dir(output.path()).env("NO_PROXY", "*").env("PYTHONPATH", SCRIPTS);
    command
        .env("SCHEMATHESIS_HOOKS", "callers")
        .env("PULSE_TOKENS", tokens.join(","))
        .env("PULSE_KEYS", keys.join(","));
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(format!("{SCRIPTS}/schemathesis.toml")).arg("run");
    command.arg(&path).args(["--url", &format!("http://{}", daemon.address), "--no-color"]);
    command.args(["--max-examples", CALLS, "--generation-deterministic"]);
    // It answers without an end; `events.rs` proves it.
    command.args(["--exclude-path", "/api/events"]);
    let told = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(told.status.success(), "{}", text(&told));
    let operations = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len());
    let tested = format!("Tested: {}", operations.sum::<usize>() - 1);
    assert!(text(&told).contains(&tested), "{tested}? {}", text(&told));
    daemon.stop().await;
    lab.shutdown().await;
}
