//! Versions of the configuration: whoever changes it and however, and going back, and carrying it elsewhere.

use pulse::lab::HostPlan;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::access::{assert_is_problem, one_endpoint};
use super::support::{Daemon, EDIT_TAKES_EFFECT_WITHIN, Folder, PATIENCE, SEED, eventually, lab, run};

const HISTORY: &str = "/api/config/history";

async fn versions(daemon: &Daemon) -> Vec<Value> {
    daemon.get(HISTORY).await["versions"].as_array().unwrap().clone()
}

async fn until_versions_are(daemon: &Daemon, count: usize) -> Vec<Value> {
    let look = async || Some(versions(daemon).await).filter(|versions| versions.len() == count);
    eventually(&format!("there are {count} versions"), EDIT_TAKES_EFFECT_WITHIN, look).await.unwrap()
}

async fn base_interval(daemon: &Daemon) -> Value {
    let settings = daemon.get("/api/system/settings").await;
    let all = settings["settings"].as_array().unwrap();
    all.iter().find(|it| it["name"] == "adaptivePollingBaseInterval").unwrap()["value"].clone()
}

async fn command(folder: &Folder, arguments: &[&str]) -> Value {
    let ended = run(folder.pulse(["config"]).args(arguments).arg("--json")).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn every_change_is_a_version_with_who_when_why_and_what() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    assert_eq!(versions(&daemon).await[0]["source"], "start");

    let body = json!({"adaptivePollingBaseInterval": "400ms", "reason": "calmer"});
    assert_eq!(daemon.post("/api/system/settings/update", &body).await.status(), StatusCode::OK);
    let node = json!({"type": "tcp", "name": "new", "host": "127.0.0.1", "port": 2});
    let added = daemon.post("/api/config/nodes", &json!({"instance": node, "reason": "a new rack"})).await;
    assert_eq!(added.status(), StatusCode::CREATED);
    folder.write_json("instances.json", &one_endpoint());
    let versions = until_versions_are(&daemon, 4).await;
    let told = |version: &Value| {
        let text = |name: &str| version[name].as_str().unwrap_or("none").to_owned();
        [text("source"), text("by"), text("reason"), text("summary")]
    };
    let told: Vec<_> = versions.iter().map(told).collect();
    assert_eq!(told[0], ["file", "system", "none", "removed: tcp::new"]);
    assert_eq!(told[1], ["api", "token:tests", "a new rack", "added: tcp::new"]);
    assert_eq!(told[2], ["api", "token:tests", "calmer", "settings: adaptivePollingBaseInterval"]);
    assert!(versions[0]["at"].as_str().unwrap().ends_with('Z'));

    let audit = daemon.get("/api/audit?limit=200").await.to_string();
    for action in ["settings.update", "node.add", "config.edit"] {
        assert!(audit.contains(action), "{action} is audited");
    }
    let shown = daemon.get(&format!("{HISTORY}/2")).await;
    assert_eq!(shown["difference"]["settings"][0]["before"], "300ms");
    assert_eq!(shown["difference"]["settings"][0]["after"], "400ms");
    assert_eq!(shown["settings"]["adaptivePollingBaseInterval"], "400ms");
    assert_eq!(shown["instances"][0]["name"], "fixed");
    assert_eq!(daemon.get(&format!("{HISTORY}?limit=2")).await["next"], 3);
    daemon.stop().await;

    // What is edited while no daemon runs is found by the next one.
    folder.write_json(
        "system.json",
        &json!({"adaptivePollingBaseInterval": "500ms", "adaptivePollingMinInterval": "200ms"}),
    );
    let daemon = Daemon::start(&folder).await;
    let last = &until_versions_are(&daemon, 5).await[0];
    assert_eq!(last["source"], "start");
    daemon.stop().await;
    let daemon = Daemon::start(&folder).await;
    assert_eq!(until_versions_are(&daemon, 5).await.len(), 5, "a start that finds nothing new is no version");
    daemon.stop().await;
}

#[tokio::test]
async fn going_back_is_a_new_version_in_force_at_once() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    let update = json!({"adaptivePollingBaseInterval": "400ms"});
    daemon.post("/api/system/settings/update", &update).await;
    let rolled = daemon.post("/api/config/rollback", &json!({"reason": "too calm"})).await;
    assert_eq!(rolled.status(), StatusCode::OK);
    let rolled: Value = rolled.json().await.unwrap();
    assert_eq!((&rolled["restored"], &rolled["version"]), (&json!(1), &json!(3)), "{rolled:#}");
    assert_eq!(base_interval(&daemon).await, "300ms");
    assert!(folder.read("system.json").contains("300ms"));

    let no_reason = daemon.post("/api/config/rollback", &json!({"version": 1})).await;
    assert_eq!(no_reason.status(), StatusCode::BAD_REQUEST);
    let again = daemon.post("/api/config/rollback", &json!({"version": 1, "reason": "x"})).await;
    assert_is_problem(&again.json().await.unwrap(), 409, "nothing_to_do");
    let unknown = daemon.post("/api/config/rollback", &json!({"version": 99, "reason": "x"})).await;
    assert_is_problem(&unknown.json().await.unwrap(), 404, "not_found");

    // The same by the command line, with the daemon and without it.
    let done = command(&folder, &["rollback", "2", "--reason", "by hand"]).await;
    assert_eq!(done["version"], 4);
    assert_eq!(base_interval(&daemon).await, "400ms");
    let history = command(&folder, &["history", "--limit", "1"]).await;
    assert_eq!(history["versions"][0]["source"], "rollback");
    assert!(history["versions"][0]["by"].as_str().unwrap().starts_with("local:"), "{history:#}");
    assert_eq!(command(&folder, &["diff", "1"]).await["settings"][0]["after"], "400ms");
    let shown = run(&mut folder.pulse(["config", "show"])).await;
    assert!(shown.stdout.contains("adaptivePollingBaseInterval: \"300ms\" → \"400ms\""), "{shown:?}");

    // It is also the way out of a broken edit.
    folder.write("instances.json", "{");
    let mended = daemon.post("/api/config/rollback", &json!({"version": 4, "reason": "mend"})).await;
    assert_eq!(mended.status(), StatusCode::OK);
    assert!(folder.read("instances.json").contains("fixed"));
    daemon.stop().await;
    let done = command(&folder, &["rollback", "1", "--reason", "offline"]).await;
    assert_eq!(done["restored"], 1);
    let daemon = Daemon::start(&folder).await;
    assert_eq!(base_interval(&daemon).await, "300ms");
    daemon.stop().await;
}

#[tokio::test]
async fn an_export_brings_fleet_and_secrets_into_an_empty_folder_and_a_broken_one_changes_nothing() {
    let lab = lab(vec![HostPlan::pve(SEED, "by-token", 3), HostPlan::pmg(SEED, "by-password").by_password(SEED)]).await;
    let folder = Folder::new();
    folder.write("ca.pem", lab.authority_pem());
    let mut fleet = lab.instances_json(Some(std::path::Path::new("ca.pem")));
    let secret = fleet["instances"][0]["auth"]["secret"].as_str().unwrap().to_owned();
    folder.write("token", &secret);
    fleet["instances"][0]["auth"]["secret"] = json!({"file": "token"});
    folder.write_json("instances.json", &fleet);
    folder.write_json("system.json", &super::support::quick_settings());
    folder.write("passphrase", "correct horse battery\n");
    folder.write("wrong", "correct horse batterie\n");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (export, passphrase, wrong) = (path("export.bin"), path("passphrase"), path("wrong"));
    let daemon = Daemon::start(&folder).await;
    command(&folder, &["export", &export, "--passphrase-file", &passphrase]).await;
    let bytes = std::fs::read(&export).unwrap();
    assert!(!contains(&bytes, &secret));
    let twice = run(&mut folder.pulse(["config", "export", &export, "--passphrase-file", &passphrase])).await;
    assert_eq!(twice.code, Some(1), "an export is not written over: {twice:?}");
    daemon.stop().await;

    let elsewhere = Folder::new();
    let import = |passphrase: &str, file: &str| {
        let arguments = ["config", "import", file, "--passphrase-file", passphrase, "--reason", "moved"];
        elsewhere.pulse(arguments)
    };
    folder.write("cut.bin", &bytes[..bytes.len() - 1]);
    for (passphrase, file) in [(&wrong, &export), (&passphrase, &path("cut.bin")), (&passphrase, &path("token"))] {
        let ended = run(&mut import(passphrase, file)).await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert_eq!(elsewhere.configuration().len(), 0, "nothing was changed");
    }
    let ended = run(&mut import(&passphrase, &export)).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for (path, (_, content)) in elsewhere.snapshot() {
        assert!(!contains(&content, &secret), "{} holds a secret in the clear", path.display());
    }
    let daemon = Daemon::start(&elsewhere).await;
    for key in ["pve::by-token", "pmg::by-password"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    assert_eq!(versions(&daemon).await[0]["source"], "import");
    // Into a running daemon as well, where it is what is in force already.
    assert_eq!(run(&mut import(&passphrase, &export)).await.code, Some(0));
    daemon.stop().await;
    lab.shutdown().await;
}

fn contains(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_new_key_takes_over_file_and_history_with_the_daemon_and_without_it() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let (key, inventory) = (std::fs::read(folder.path().join("secrets.key")).unwrap(), folder.read("instances.json"));
    let rename = json!({"instance": daemon.get("/api/config/nodes/pve::rack").await["instance"].clone()});
    assert_eq!(command(&folder, &["rekey"]).await["success"], true);
    assert_ne!(std::fs::read(folder.path().join("secrets.key")).unwrap(), key);
    assert_ne!(folder.read("instances.json"), inventory);
    assert!(!folder.path().join("secrets.key.new").exists());
    let renamed = daemon.request(reqwest::Method::PUT, "/api/config/nodes/pve::rack");
    let mut changed = rename.clone();
    changed["instance"]["displayName"] = json!("Another");
    assert_eq!(renamed.json(&changed).send().await.unwrap().status(), StatusCode::OK, "a kept secret opens");
    daemon.stop().await;

    // A change of key that was broken off right after it began is ended by the next start.
    folder.write("secrets.key.new", [7; 32]);
    let daemon = Daemon::start(&folder).await;
    let ended = async || (!folder.path().join("secrets.key.new").exists()).then_some(());
    eventually("the change of key is ended", PATIENCE, ended).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("secrets.key")).unwrap(), [7; 32]);
    // The secret of the first version opens with the third key.
    let back = daemon.post("/api/config/rollback", &json!({"version": 1, "reason": "back"})).await;
    assert_eq!(back.status(), StatusCode::OK);
    let read = daemon.until_state("pve::rack", |row| row["readAt"].is_string()).await["readAt"].clone();
    daemon.until_state("pve::rack", |row| row["readAt"] != read).await;
    daemon.stop().await;
    assert_eq!(command(&folder, &["rekey", "--reason", "offline"]).await["success"], true);
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_rollback_takes_the_version_by_name_too_and_knows_a_version_of_the_program() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    let body = json!({"adaptivePollingBaseInterval": "400ms"});
    assert_eq!(daemon.post("/api/system/settings/update", &body).await.status(), StatusCode::OK);
    assert_eq!(base_interval(&daemon).await, "400ms");
    assert_eq!(command(&folder, &["rollback", "--version", "1", "--reason", "back"]).await["restored"], 1);
    assert_eq!(base_interval(&daemon).await, "300ms");
    for version in ["0.1.0", "v1.2"] {
        let refused = run(&mut folder.pulse(["config", "rollback", "--version", version, "--reason", "back"])).await;
        assert!(refused.code == Some(2) && refused.stderr.contains("pulse update restore"), "{refused:?}");
    }
    daemon.stop().await;
}
