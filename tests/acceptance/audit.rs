//! The audit log against whoever gets at the database, against kills, and against a full disk.

use std::collections::BTreeSet;
use std::path::Path;

use pulse::lab::HostPlan;
use pulse::security::Role;
use reqwest::{Method, StatusCode};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Folder, PATIENCE, SEED, eventually, lab, pause, quick_settings, run};

/// A folder whose daemon has written a dozen entries and is stopped.
async fn written() -> Folder {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for number in 0..10 {
        daemon.new_token(&format!("token {number}"), Role::Viewer).await;
    }
    daemon.stop().await;
    folder
}

/// What `pulse audit verify` says: its exit code, the entry that it names, and its words.
async fn verified(folder: &Folder) -> (Option<i32>, Value, String) {
    let ended = run(&mut folder.pulse(["audit", "verify", "--json"])).await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    (ended.code, answer["entry"].clone(), ended.stderr)
}

fn tamper(folder: &Folder, statements: &str) {
    let database = Connection::open(folder.path().join("pulse.db")).unwrap();
    database.execute_batch("DROP TRIGGER audit_is_never_changed").unwrap();
    database.execute_batch("DROP TRIGGER audit_is_cut_up_to_its_checkpoint_alone").unwrap();
    database.execute_batch(statements).unwrap();
}

#[tokio::test]
async fn verify_names_the_first_entry_that_is_not_as_it_was_written() {
    for (statements, entry, words) in [
        ("UPDATE audit SET actor = 'user:mallory' WHERE seq = 5", 5, "it was altered"),
        ("DELETE FROM audit WHERE seq IN (6, 9)", 6, "entry 6 is missing: it was removed"),
        ("DELETE FROM audit WHERE seq >= 9", 9, "it and all up to"),
        (
            "UPDATE audit SET seq = -1 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = 8;
             UPDATE audit SET seq = 8 WHERE seq = -1",
            7,
            "stands in another's place",
        ),
    ] {
        let folder = written().await;
        assert_eq!(verified(&folder).await.0, Some(0));
        tamper(&folder, statements);
        let (code, named, said) = verified(&folder).await;
        assert_eq!((code, named), (Some(1), json!(entry)), "{statements}: {said}");
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn the_daemon_itself_proves_the_log_and_names_what_is_wrong_with_it() {
    let folder = written().await;
    let daemon = Daemon::start(&folder).await;
    let verify = async || -> Value { daemon.post("/api/audit/verify", &json!({})).await.json().await.unwrap() };
    let proven = verify().await;
    assert_eq!((&proven["valid"], &proven["fault"]), (&json!(true), &json!(null)));
    assert_eq!(proven["proven"]["last"], daemon.get("/api/audit?limit=1").await["entries"][0]["seq"]);
    tamper(&folder, "UPDATE audit SET actor = 'user:mallory' WHERE seq = 5");
    let broken = verify().await;
    assert_eq!((&broken["valid"], &broken["entry"], &broken["proven"]), (&json!(false), &json!(5), &json!(null)));
    assert!(broken["fault"].as_str().unwrap().contains("it was altered"), "{broken}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_byte_changed_in_the_file_itself_is_found() {
    let folder = written().await;
    let path = folder.path().join("pulse.db");
    let mut content = std::fs::read(&path).unwrap();
    let place = content.windows(7).position(|window| window == b"token 4").unwrap();
    content[place] = b'T';
    std::fs::write(&path, content).unwrap();
    let (code, _, said) = verified(&folder).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it was altered"), "{said}");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_still_missed_after_the_daemon_wrote_on() {
    let folder = written().await;
    tamper(&folder, "DELETE FROM audit WHERE seq >= 11");
    let daemon = Daemon::start(&folder).await;
    daemon.new_token("later", Role::Viewer).await;
    daemon.stop().await;
    assert_eq!(verified(&folder).await.1, json!(11));
}

#[tokio::test]
async fn a_log_that_another_key_sealed_is_not_continued() {
    let folder = written().await;
    std::fs::remove_file(folder.path().join("audit.key")).unwrap();
    let ended = run(&mut folder.pulse(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("audit.key") && ended.stderr.contains("restore it from a backup"), "{ended:?}");
    folder.write("audit.key", [7; 32]);
    let ended = run(&mut folder.pulse(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("restore both from one backup"), "{ended:?}");
}

#[tokio::test]
async fn an_entry_noted_elsewhere_shows_that_the_whole_log_was_put_back() {
    let folder = written().await;
    let old = std::fs::read(folder.path().join("pulse.db")).unwrap();
    let daemon = Daemon::start(&folder).await;
    daemon.new_token("later", Role::Viewer).await;
    let last = daemon.get("/api/audit?limit=1").await["entries"][0].clone();
    daemon.stop().await;
    let noted = format!("{}:{}", last["seq"], last["hash"].as_str().unwrap());
    let mut verify = folder.pulse(["audit", "verify", "--noted", &noted]);
    assert_eq!(run(&mut verify).await.code, Some(0));
    folder.write("pulse.db", old);
    assert_eq!(verified(&folder).await.0, Some(0), "an older copy is whole in itself");
    let ended = run(&mut verify).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("replaced by an older one"), "{ended:?}");
}

/// Kills the daemon at random moments during `calls` management calls.
async fn kills(calls: usize) {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut daemon = Daemon::start(&folder).await;
    // A caller may make ten of them a minute.
    let mut tokens = Vec::new();
    for number in 0..calls.div_ceil(8) {
        tokens.push(daemon.new_token(&format!("caller {number}"), Role::Admin).await);
    }
    // A seeded stream of its own: xorshift.
    let mut random = SEED | 1;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut answered, mut made, mut killed) = (BTreeSet::new(), 0, 0);
    while made < calls {
        let until_kill = pulse::engine::Millis::new(5 + draw(400));
        let calling = async {
            while made < calls {
                let reason = format!("call {made}");
                let what = ["pause", "resume", "poll"][made % 3];
                let path = format!("/api/monitoring/instances/pve::rack/{what}");
                let request = daemon.anonymous(Method::POST, &path).bearer_auth(&tokens[made / 8]);
                made += 1;
                let Ok(response) = request.json(&json!({"reason": reason})).send().await else { continue };
                match response.status() {
                    StatusCode::OK => assert!(answered.insert(reason)),
                    status => assert_eq!(status, StatusCode::CONFLICT, "{}", response.text().await.unwrap()),
                }
            }
        };
        tokio::select! {
            () = calling => {}
            () = pause(until_kill) => {}
        }
        daemon.program.signal(Signal::KILL);
        daemon.program.ended(PATIENCE).await;
        killed += 1;
        assert_eq!(verified(&folder).await.0, Some(0), "the chain verifies after kill {killed}");
        daemon = Daemon::start(&folder).await;
    }
    let exported = run(&mut folder.pulse(["audit", "export", "--action", "instance."])).await.stdout;
    let entries: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>();
    let done: BTreeSet<String> = of("outcome")
        .into_iter()
        .filter(|entry| entry["outcome"] == "done")
        .map(|entry| entry["reason"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = answered.difference(&done).collect();
    assert!(lost.is_empty(), "answered with success and not in the log: {lost:?}");
    assert_eq!(of("intent").len(), of("outcome").len(), "each intent has its outcome, if only that it is unknown");
    let unknown = entries.iter().filter(|entry| entry["outcome"] == "unknown").count();
    println!("{made} calls, {} answered with success, {killed} kills, {unknown} outcomes unknown", answered.len());
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn after_a_kill_the_chain_verifies_and_holds_every_call_that_was_answered_with_success() {
    kills(60).await;
}

#[tokio::test]
#[ignore = "takes minutes; run it with --ignored"]
async fn after_kills_during_a_thousand_calls_the_chain_verifies_and_holds_every_call_that_was_answered() {
    kills(1_000).await;
}

/// A file system of a few megabytes, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where the system does not let us mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "pulse-test"]).arg(folder.path());
        mount.output().ok()?.status.success().then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// Takes all the room that is left.
fn fill(folder: &Path) -> std::path::PathBuf {
    use std::io::Write;
    let path = folder.join("ballast");
    let mut ballast = std::fs::File::create(&path).unwrap();
    for size in [65_536, 4_096, 1] {
        while ballast.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[tokio::test]
async fn with_a_full_disk_calls_that_change_something_answer_503_and_change_nothing_while_polling_goes_on() {
    let Some(disk) = SmallDisk::mount() else {
        assert!(
            !rustix::process::geteuid().is_root() || std::env::var_os("PULSE_TEST_NO_MOUNT").is_some(),
            "root may mount"
        );
        return eprintln!("skipped: mounting needs root");
    };
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::inside(disk.path());
    folder.write_json("system.json", &quick_settings());
    folder.write_json("instances.json", &lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let ballast = fill(disk.path());

    let calls = [
        ("/api/monitoring/instances/pve::rack/pause", json!({})),
        ("/api/monitoring/breakers/pve::rack/reset", json!({"reason": "a test"})),
        ("/api/security/tokens", json!({"name": "new", "role": "admin"})),
        ("/api/system/settings/update", json!({"adaptivePollingEnabled": false})),
    ];
    // The last room in the files that are there may take an entry or two.
    let full = async || {
        let response = daemon.post("/api/security/tokens", &json!({"name": "filler", "role": "viewer"})).await;
        (response.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    };
    eventually("the disk is full", PATIENCE, full).await.unwrap();
    for (path, body) in &calls {
        let response = daemon.post(path, body).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_is_problem(&problem, 503, "storage_unavailable");
        assert!(problem["detail"].as_str().unwrap().contains("free some space"), "{problem}");
    }
    let last = daemon.instance("pve::rack").await["pollStatus"]["lastSuccess"].clone();
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"] != last).await;
    assert_eq!(daemon.health().await["enabled"], true);
    let tokens = daemon.get("/api/security/tokens").await;
    assert!(!tokens["tokens"].as_array().unwrap().iter().any(|token| token["name"] == "new"));

    std::fs::remove_file(ballast).unwrap();
    for (path, body) in &calls {
        let status = daemon.post(path, body).await.status();
        assert!(status.is_success(), "{path} answers {status} once there is room again");
    }
    let ended = run(&mut folder.pulse(["audit", "verify"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    daemon.stop().await;
    lab.shutdown().await;
}
