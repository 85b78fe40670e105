//! Backups: made while the daemon runs, proven before they replace anything, and put back whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pulse::lab::HostPlan;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::support::{Daemon, Ended, Folder, SEED, lab, run};

const POLLED: fn(&Value) -> bool = |row| row["pollStatus"]["lastSuccess"].is_string();

async fn pulse(folder: &Folder, arguments: &[&str], file: &Path, more: &[&str]) -> Ended {
    run(folder.pulse(arguments).arg(file).args(more)).await
}

/// A command that has to be carried out, and its answer.
async fn done(folder: &Folder, command: &str, file: &Path, more: &[&str]) -> Value {
    let ended = pulse(folder, &[command, "--json"], file, more).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A restore that has to be refused, with words that say why.
async fn refused(folder: &Folder, file: &Path, more: &[&str], why: &str) {
    let before = folder.snapshot();
    let ended = pulse(folder, &["restore"], file, more).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(why), "{why:?} is not in {}", ended.stderr);
    assert!(folder.snapshot() == before, "a refused restore changes nothing");
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// A backup taken apart, to be looked at and put together in another way.
struct Parts(TempDir, TempDir);

impl Parts {
    fn of(file: &Path) -> Self {
        let parts = Self(tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        parts.tar(&["-xzf", file.to_str().unwrap()]);
        parts
    }

    fn tar(&self, arguments: &[&str]) {
        let status = std::process::Command::new("tar").arg("-C").arg(self.0.path()).args(arguments).status();
        assert!(status.unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("manifest.json");
        let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut manifest);
        fs::write(path, manifest.to_string()).unwrap();
    }

    /// Puts it together again, in the order of the manifest.
    fn packed(&self, name: &str) -> PathBuf {
        let manifest: Value = serde_json::from_slice(&fs::read(self.path("manifest.json")).unwrap()).unwrap();
        let named = manifest["files"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap());
        let present = named.filter(|name| self.path(name).exists());
        let file = self.1.path().join(name);
        let arguments: Vec<&str> =
            ["-P", "-czf", file.to_str().unwrap(), "manifest.json"].into_iter().chain(present).collect();
        self.tar(&arguments);
        file
    }
}

#[tokio::test]
async fn a_backup_of_a_running_daemon_is_the_same_daemon_elsewhere() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), HostPlan::pbs(SEED, "vault", &["daily"])]).await;
    let outside = tempfile::tempdir().unwrap();
    let (folder, file) = (Folder::quick(&lab.instances_json(None)), outside.path().join("pulse.backup"));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", POLLED).await;
    let viewer = daemon.new_token("viewer", pulse::security::Role::Viewer).await;

    let made = done(&folder, "backup", &file, &["--with-secrets"]).await;
    assert_eq!(made["leftOut"], json!([]));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ended = pulse(&folder, &["backup"], &file, &[]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("is there already"), "{ended:?}");
    // What comes after the backup is not in it.
    let later = daemon.new_token("later", pulse::security::Role::Viewer).await;
    let history = daemon.get("/api/config/history").await;
    daemon.stop().await;

    let elsewhere = Folder::new();
    let restored = done(&elsewhere, "restore", &file, &[]).await;
    assert_eq!((&restored["missing"], &restored["putAside"]), (&json!([]), &json!(null)));
    assert!(restored["audit"]["entries"].as_u64().unwrap() >= 2, "{restored}");
    elsewhere.has_token_of(&folder);
    let daemon = Daemon::start(&elsewhere).await;
    for (token, status) in [(&viewer, StatusCode::OK), (&later, StatusCode::UNAUTHORIZED)] {
        let answer = daemon.anonymous(Method::GET, "/api/version").bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    for key in ["pve::rack", "pbs::vault"] {
        daemon.until_instance(key, POLLED).await;
    }
    assert_eq!(daemon.get("/api/config/history").await["versions"], history["versions"]);
    daemon.stop().await;
    let verified = run(&mut elsewhere.pulse(["audit", "verify"])).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn secrets_are_left_out_unless_asked_for_and_come_from_where_they_are_kept() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), HostPlan::pbs(SEED, "vault", &["daily"])]).await;
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("pulse.backup");
    let mut fleet = lab.instances_json(None);
    let (sealed, mut in_file) = (fleet["instances"][0].take(), fleet["instances"][1].take());
    let (first, second) = (secret_of(&sealed), secret_of(&in_file));
    in_file["auth"]["secret"] = json!({"file": "vault.secret"});
    let folder = Folder::quick(&json!({"instances": []}));
    folder.write("vault.secret", &second);
    folder.write_json("instances.json", &json!({"instances": [sealed, in_file]}));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pbs::vault", POLLED).await;

    let made = done(&folder, "backup", &file, &[]).await;
    assert_eq!(names(&made["leftOut"]), ["secrets.key", "vault.secret"]);
    let key = fs::read(folder.path().join("secrets.key")).unwrap();
    for (path, content) in Parts::of(&file).files() {
        for secret in [first.as_bytes(), second.as_bytes(), &key] {
            assert!(!content.windows(secret.len()).any(|it| it == secret), "{} holds a secret", path.display());
        }
    }

    // On another machine they are named, and taken from where somebody kept them.
    let bare = Folder::new();
    assert_eq!(names(&done(&bare, "restore", &file, &[]).await["missing"]), ["secrets.key", "vault.secret"]);
    let elsewhere = Folder::new();
    let kept = folder.path().to_str().unwrap();
    let restored = done(&elsewhere, "restore", &file, &["--secrets-from", kept]).await;
    assert_eq!(restored["missing"], json!([]));
    elsewhere.has_token_of(&folder);
    let copy = Daemon::start(&elsewhere).await;
    copy.until_instance("pve::rack", POLLED).await;
    copy.until_instance("pbs::vault", POLLED).await;
    copy.stop().await;

    // On the same machine they are where they were.
    let ended = pulse(&folder, &["restore"], &file, &["--force"]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("a daemon runs"), "{ended:?}");
    daemon.stop().await;
    fs::write(folder.path().join("system.json"), "{\"adaptivePollingBaseInterval\": \"9s\"}").unwrap();
    refused(&folder, &file, &[], "is not empty").await;
    let restored = done(&folder, "restore", &file, &["--force"]).await;
    assert_eq!(restored["missing"], json!([]));
    assert_ne!(folder.read("system.json"), "{\"adaptivePollingBaseInterval\": \"9s\"}");
    let aside = PathBuf::from(restored["putAside"].as_str().unwrap());
    assert!(fs::read_to_string(aside.join("system.json")).unwrap().contains("9s"), "what was there is kept");
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", POLLED).await;
    daemon.until_instance("pbs::vault", POLLED).await;
    daemon.stop().await;
    fs::remove_dir_all(aside).unwrap();
    lab.shutdown().await;
}

fn secret_of(instance: &Value) -> String {
    instance["auth"]["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_backup_that_is_not_as_it_was_made_is_refused_whole() {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("pulse.backup");
    let folder = Folder::quick(&json!({"instances": []}));
    Daemon::start(&folder).await.stop().await;
    done(&folder, "backup", &file, &["--with-secrets"]).await;
    let content = fs::read(&file).unwrap();
    let target = Folder::new();

    let damaged = outside.path().join("damaged");
    fs::write(&damaged, &content[..content.len() / 2]).unwrap();
    refused(&target, &damaged, &[], "damaged").await;
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    fs::write(&damaged, flipped).unwrap();
    refused(&target, &damaged, &[], "damaged").await;
    fs::write(&damaged, "no archive").unwrap();
    refused(&target, &damaged, &[], "is not a backup of Pulse").await;

    let parts = Parts::of(&file);
    fs::write(parts.path("system.json"), "{}").unwrap();
    refused(&target, &parts.packed("edited"), &[], "system.json is not as the manifest says").await;
    fs::remove_file(parts.path("system.json")).unwrap();
    refused(&target, &parts.packed("short"), &[], "system.json is missing").await;

    let parts = Parts::of(&file);
    parts.edit_manifest(|manifest| manifest["format"] = json!(2));
    refused(&target, &parts.packed("later"), &[], "in a later format").await;

    let parts = Parts::of(&file);
    let outside_name = format!("../{}/x", parts.1.path().file_name().unwrap().to_str().unwrap());
    fs::write(parts.1.path().join("x"), "{}").unwrap();
    let entry = json!({"name": outside_name, "bytes": 2, "sha256": hex(b"{}")});
    parts.edit_manifest(|manifest| manifest["files"] = json!([entry]));
    refused(&target, &parts.packed("outside"), &[], "is no file of a data folder").await;

    let parts = Parts::of(&file);
    let database = rusqlite::Connection::open(parts.path("pulse.db")).unwrap();
    database.execute_batch("DROP TRIGGER audit_is_never_changed").unwrap();
    assert_eq!(database.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 1", []).unwrap(), 1);
    drop(database);
    let now = fs::read(parts.path("pulse.db")).unwrap();
    parts.edit_manifest(|manifest| {
        let entry = manifest["files"].as_array_mut().unwrap().iter_mut().find(|it| it["name"] == "pulse.db").unwrap();
        *entry = json!({"name": "pulse.db", "bytes": now.len(), "sha256": hex(&now)});
    });
    refused(&target, &parts.packed("rewritten"), &[], "the audit log in the backup is not as it was written").await;
    done(&target, "restore", &file, &[]).await;
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
