//! Instances that other tools keep in files of their own: followed live, never written, and refused to whoever edits them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use pulse::lab::{FaultKind, HostPlan};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, EDIT_TAKES_EFFECT_WITHIN, Folder, SEED, eventually, lab, run};

const NODES: &str = "/api/config/nodes";

pub(crate) fn fleet(instances: &[&Value]) -> Value {
    json!({ "instances": instances })
}

pub(crate) fn tcp(name: &str) -> Value {
    json!({"type": "tcp", "name": name, "host": "127.0.0.1", "port": 9})
}

fn with_fragments(own: &Value, fragments: &[(&str, Value)]) -> Folder {
    let folder = Folder::quick(own);
    fs::create_dir(folder.path().join("instances.d")).unwrap();
    for (name, content) in fragments {
        folder.write_json(&format!("instances.d/{name}"), content);
    }
    folder
}

/// The keys of the fleet, each with the file that it stands in.
async fn sources(daemon: &Daemon) -> Vec<(String, String)> {
    let answer = daemon.get(NODES).await;
    let text = |node: &Value, field: &str| node[field].as_str().unwrap().to_owned();
    answer["nodes"].as_array().unwrap().iter().map(|node| (text(node, "key"), text(node, "source"))).collect()
}

pub(crate) async fn until_sources_are(daemon: &Daemon, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted.iter().map(|(key, file)| ((*key).to_owned(), (*file).to_owned())).collect();
    let look = async || (sources(daemon).await == wanted).then_some(());
    eventually(&format!("the fleet is {wanted:?}"), EDIT_TAKES_EFFECT_WITHIN, look).await.unwrap();
}

/// The refused edits, once there are any.
pub(crate) async fn refusals(daemon: &Daemon) -> Value {
    let shown = async || {
        let edits = daemon.get("/api/system/settings").await["refusedEdits"].clone();
        (edits != json!([])).then_some(edits)
    };
    eventually("the refusal is shown", EDIT_TAKES_EFFECT_WITHIN, shown).await.unwrap()
}

/// The history, once its newest versions are these, from the last on. An edit by hand is in force before it is written down.
async fn history_once(daemon: &Daemon, newest: &[&str]) -> Value {
    let look = async || {
        let history = daemon.get("/api/config/history").await;
        let versions = history["versions"].as_array().unwrap();
        let is_written =
            versions.iter().map(|it| it["summary"].as_str().unwrap()).take(newest.len()).eq(newest.iter().copied());
        is_written.then_some(history)
    };
    eventually(&format!("the history begins with {newest:?}"), EDIT_TAKES_EFFECT_WITHIN, look).await.unwrap()
}

#[tokio::test]
async fn fragments_come_change_and_go_and_the_breaker_of_another_stays() {
    let broken = HostPlan::pve(SEED, "broken", 3).behaving(FaultKind::status(503));
    let lab = lab(vec![broken, HostPlan::pve(SEED, "sound", 3)]).await;
    let all = lab.instances_json(None);
    let (broken, sound) = (&all["instances"][0], &all["instances"][1]);
    let folder = with_fragments(&fleet(&[broken]), &[]);
    let settings = json!({"adaptivePollingBaseInterval": "300ms", "adaptivePollingMinInterval": "200ms",
        "pollingBackoffInitial": "100ms", "pollingBackoffMax": "200ms", "breakerOpenInitial": "1m"});
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    let before = daemon.until_instance("pve::broken", |row| row["breaker"]["state"] == "open").await;

    folder.write_json("instances.d/racks.json", &fleet(&[sound]));
    until_sources_are(&daemon, &[("pve::broken", "instances.json"), ("pve::sound", "instances.d/racks.json")]).await;
    daemon.until_instance("pve::sound", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let mut renamed = sound.clone();
    renamed["displayName"] = json!("Second floor");
    // As careful tools write: beside it, then over it.
    folder.write_json("instances.d/.racks.json.tmp", &fleet(&[&renamed, &tcp("db")]));
    let file = |name: &str| folder.path().join("instances.d").join(name);
    fs::rename(file(".racks.json.tmp"), file("racks.json")).unwrap();
    let row = daemon.until_instance("pve::sound", |row| row["displayName"] == "Second floor").await;
    assert!(row["pollStatus"]["lastSuccess"].is_string(), "to the scheduler it is the same instance: {row:#}");
    fs::rename(file("racks.json"), file("floors.json")).unwrap();
    let moved = "instances.d/floors.json";
    until_sources_are(&daemon, &[("pve::broken", "instances.json"), ("pve::sound", moved), ("tcp::db", moved)]).await;

    fs::remove_file(file("floors.json")).unwrap();
    until_sources_are(&daemon, &[("pve::broken", "instances.json")]).await;
    let after = daemon.instance("pve::broken").await;
    assert_eq!(after["breaker"]["state"], "open");
    assert_eq!(after["breaker"]["failureCount"], before["breaker"]["failureCount"]);

    let history = history_once(&daemon, &["removed: pve::sound, tcp::db", "changed: pve::sound, tcp::db"]).await;
    assert_eq!(history["versions"][0]["source"], "file");
    let version = daemon.get(&format!("/api/config/history/{}", history["versions"][1]["version"])).await;
    assert_eq!(version["difference"]["instances"][0]["source"], moved);
    assert_eq!(version["provided"][0]["source"], moved);
    assert_eq!(version["provided"][0]["auth"]["secret"], json!({"set": true}));
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_kubernetes_mounts_is_followed_when_it_points_its_link_elsewhere() {
    let folder = with_fragments(&fleet(&[]), &[]);
    let inside = folder.path().join("instances.d");
    let version = |name: &str, instance: &Value| {
        fs::create_dir(inside.join(name)).unwrap();
        folder.write_json(&format!("instances.d/{name}/rack.json"), &fleet(&[instance]));
        symlink(name, inside.join("..data_tmp")).unwrap();
        fs::rename(inside.join("..data_tmp"), inside.join("..data")).unwrap();
    };
    version("..1", &tcp("before"));
    symlink("..data/rack.json", inside.join("rack.json")).unwrap();
    let daemon = Daemon::start(&folder).await;
    until_sources_are(&daemon, &[("tcp::before", "instances.d/rack.json")]).await;
    version("..2", &tcp("after"));
    until_sources_are(&daemon, &[("tcp::after", "instances.d/rack.json")]).await;
    daemon.stop().await;
}

/// Waits until the refused edits are these files with errors of these words.
async fn until_refused(daemon: &Daemon, wanted: &[(String, &str)]) {
    let look = async || {
        let edits = daemon.get("/api/system/settings").await["refusedEdits"].clone();
        let edits = edits.as_array().unwrap();
        let told = |(edit, (file, words)): (&Value, &(String, &str))| {
            edit["file"] == **file && edit["errors"][0].as_str().unwrap().contains(words)
        };
        (edits.len() == wanted.len() && edits.iter().zip(wanted).all(told)).then_some(())
    };
    eventually(&format!("refused is {wanted:?}"), EDIT_TAKES_EFFECT_WITHIN, look).await.unwrap();
}

async fn add(daemon: &Daemon, instance: &Value) -> StatusCode {
    daemon.post(NODES, &json!({ "instance": instance })).await.status()
}

#[tokio::test]
async fn a_broken_fragment_keeps_what_it_held_and_holds_up_nobody_else() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let rack = &lab.instances_json(None)["instances"][0];
    let folder = with_fragments(&fleet(&[&tcp("own")]), &[("a.json", fleet(&[rack]))]);
    let daemon = Daemon::start(&folder).await;
    let (a, b) = ("instances.d/a.json", "instances.d/b.json");
    let place = |name: &str| folder.path().join(name).display().to_string();
    until_sources_are(&daemon, &[("pve::rack", a), ("tcp::own", "instances.json")]).await;

    folder.write(a, "{");
    until_refused(&daemon, &[(place(a), "line 1, column 1: ")]).await;
    assert!(daemon.program.stderr().contains("line 1, column 1: "), "{}", daemon.program.stderr());
    let metrics = reqwest::get(format!("http://{}/metrics", daemon.metrics)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\npulse_config_refused_files 1\n"), "{metrics}");
    // Calls, edits by hand and files of other tools go on, each beside what the broken one held.
    assert_eq!(add(&daemon, &tcp("called")).await, StatusCode::CREATED);
    folder.write_json(b, &fleet(&[&tcp("other")]));
    let own = [("tcp::called", "instances.json"), ("tcp::other", b), ("tcp::own", "instances.json")];
    until_sources_are(&daemon, &[&[("pve::rack", a)], &own[..]].concat()).await;
    folder.write_json("instances.json", &fleet(&[&tcp("by-hand")]));
    until_sources_are(&daemon, &[("pve::rack", a), ("tcp::by-hand", "instances.json"), ("tcp::other", b)]).await;
    let read = daemon.state("pve::rack").await["readAt"].clone();
    daemon.until_state("pve::rack", |row| row["readAt"] != read).await;
    until_refused(&daemon, &[(place(a), "line 1, column 1: ")]).await;
    // What is broken removes nothing.
    let edits = ["added: tcp::by-hand; removed: tcp::called, tcp::own", "added: tcp::other", "added: tcp::called"];
    history_once(&daemon, &edits).await;
    // Whose key it is stays known, and that another tool keeps it.
    assert_is_problem(
        &daemon.post(NODES, &json!({"instance": rack})).await.json().await.unwrap(),
        409,
        "provided_by_file",
    );

    // A folder that cannot be listed is no empty one.
    let (folder_path, aside) = (folder.path().join("instances.d"), folder.path().join("aside"));
    fs::rename(&folder_path, &aside).unwrap();
    fs::write(&folder_path, "").unwrap();
    until_refused(&daemon, &[(place("instances.d"), "cannot be listed (")]).await;
    assert_eq!(add(&daemon, &tcp("third")).await, StatusCode::CREATED);
    let all =
        [("pve::rack", a), ("tcp::by-hand", "instances.json"), ("tcp::other", b), ("tcp::third", "instances.json")];
    until_sources_are(&daemon, &all).await;
    fs::remove_file(&folder_path).unwrap();
    fs::rename(&aside, &folder_path).unwrap();

    // One that is removed retires its hosts, broken or not.
    until_refused(&daemon, &[(place(a), "line 1, column 1: ")]).await;
    fs::remove_file(folder.path().join(a)).unwrap();
    until_refused(&daemon, &[]).await;
    until_sources_are(&daemon, &all[1..]).await;
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_broken_inventory_holds_up_calls_but_no_fragment() {
    let folder = with_fragments(&fleet(&[&tcp("own")]), &[("a.json", fleet(&[&tcp("first")]))]);
    let daemon = Daemon::start(&folder).await;
    folder.write("instances.json", "{");
    until_refused(&daemon, &[(folder.path().join("instances.json").display().to_string(), "line 1, column 1: ")]).await;
    assert_eq!(add(&daemon, &tcp("third")).await, StatusCode::CONFLICT);
    folder.write_json("instances.d/a.json", &fleet(&[&tcp("second")]));
    let in_force = async || {
        let health = daemon.health().await;
        let keys: Vec<_> = health["instances"].as_array().unwrap().iter().map(|row| row["key"].clone()).collect();
        (keys == [json!("tcp::own"), json!("tcp::second")]).then_some(())
    };
    eventually("the fragment is followed", EDIT_TAKES_EFFECT_WITHIN, in_force).await.unwrap();
    history_once(&daemon, &["added: tcp::second; removed: tcp::first"]).await;
    let response = daemon.post("/api/config/rollback", &json!({"version": 1, "reason": "broken"})).await;
    assert_eq!(response.status(), StatusCode::OK);
    until_sources_are(&daemon, &[("tcp::own", "instances.json"), ("tcp::second", "instances.d/a.json")]).await;
    daemon.stop().await;
}

#[tokio::test]
async fn who_holds_a_key_keeps_it_and_who_claims_it_too_is_refused() {
    let folder = with_fragments(&fleet(&[&tcp("own")]), &[("b.json", fleet(&[&tcp("first")]))]);
    let daemon = Daemon::start(&folder).await;
    let (a, b, own) = ("instances.d/a.json", "instances.d/b.json", "instances.json");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let both = [("tcp::first", b), ("tcp::own", own)];
    until_sources_are(&daemon, &both).await;

    // Not even one that is read before the other.
    folder.write_json(a, &fleet(&[&tcp("second"), &tcp("first"), &tcp("own")]));
    let edits = refusals(&daemon).await;
    let twice = |index: usize, name: &str, holder: &str| {
        let holder = format!("{}: instances[0]; give one of them another name", place(holder));
        format!("{}: instances[{index}].name: tcp::{name} is already the name of {holder}", place(a))
    };
    let expected = json!([{"file": place(a), "errors": [twice(2, "own", own), twice(1, "first", b)]}]);
    assert_eq!(edits, expected, "{edits:#}");
    until_sources_are(&daemon, &both).await;

    // What one gives up another may take in the same moment, and the first to take it has it.
    folder.write_json(b, &fleet(&[&tcp("third")]));
    folder.write_json(a, &fleet(&[&tcp("second"), &tcp("first")]));
    until_sources_are(&daemon, &[("tcp::first", a), both[1], ("tcp::second", a), ("tcp::third", b)]).await;
    until_refused(&daemon, &[]).await;
    // A broken file goes on to hold what it held.
    folder.write(a, "[]");
    until_refused(&daemon, &[(place(a), "must be an object")]).await;
    folder.write_json(b, &fleet(&[&tcp("second")]));
    let held = format!("tcp::second is already the name of {} as it was before it was broken", place(a));
    until_refused(&daemon, &[(place(a), "must be an object"), (place(b), &held)]).await;
    until_sources_are(&daemon, &[("tcp::first", a), both[1], ("tcp::second", a), ("tcp::third", b)]).await;
    fs::remove_file(folder.path().join(a)).unwrap();
    until_sources_are(&daemon, &[both[1], ("tcp::second", b)]).await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_a_broken_fragment_held_is_not_taken_for_removed_while_no_daemon_runs() {
    let folder = with_fragments(&fleet(&[&tcp("own")]), &[("a.json", fleet(&[&tcp("first")]))]);
    let daemon = Daemon::start(&folder).await;
    assert_eq!(add(&daemon, &tcp("second")).await, StatusCode::CREATED);
    daemon.stop().await;
    folder.write("instances.d/a.json", "{");
    let ended = run(&mut folder.pulse(["config", "rollback", "--reason", "one too many"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Nothing is in force that the file could keep, and hosts are not left out in silence.
    let ended = run(&mut folder.pulse(["serve"])).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("a.json: line 1, column 1: "), "{ended:?}");
    folder.write_json("instances.d/a.json", &fleet(&[&tcp("first")]));
    let daemon = Daemon::start(&folder).await;
    let history = daemon.get("/api/config/history").await;
    assert_eq!(history["versions"].as_array().unwrap().len(), 3, "{history:#}");
    assert_eq!(history["versions"][0]["summary"], "removed: tcp::second");
    until_sources_are(&daemon, &[("tcp::first", "instances.d/a.json"), ("tcp::own", "instances.json")]).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_instance_of_another_tool_is_read_only_and_its_file_is_never_written() {
    let secret = json!({"type": "pve", "name": "rack", "url": "127.0.0.1", "enabled": false,
        "auth": {"tokenId": "pulse@pve!monitor", "secret": "hunter2hunter2"}});
    let folder = with_fragments(&fleet(&[]), &[("rack.json", fleet(&[&secret]))]);
    let before = folder.read("instances.d/rack.json");
    let daemon = Daemon::start(&folder).await;
    let node = daemon.get(&format!("{NODES}/pve::rack")).await;
    assert_eq!((&node["source"], &node["editable"]), (&json!("instances.d/rack.json"), &json!(false)));
    assert_eq!(node["instance"]["auth"]["secret"], json!({"set": true}));

    let path = format!("{NODES}/pve::rack");
    let body = json!({"instance": secret});
    for (method, path) in [(Method::PUT, path.as_str()), (Method::DELETE, &path), (Method::POST, NODES)] {
        let mut request = daemon.request(method.clone(), path);
        if method != Method::DELETE {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let problem: Value = response.json().await.unwrap();
        assert_is_problem(&problem, 409, "provided_by_file");
        let detail = "pve::rack stands in instances.d/rack.json, which another tool keeps; change it there";
        assert_eq!(problem["detail"], detail, "{method}");
    }
    // Beside it calls edit as ever.
    let response = daemon.post(NODES, &json!({"instance": tcp("own")})).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let node = daemon.get(&format!("{NODES}/tcp::own")).await;
    assert_eq!((&node["source"], &node["editable"]), (&json!("instances.json"), &json!(true)));

    // Going back takes only our own file along.
    fs::remove_file(folder.path().join("instances.d/rack.json")).unwrap();
    until_sources_are(&daemon, &[("tcp::own", "instances.json")]).await;
    let response = daemon.post("/api/config/rollback", &json!({"version": 1, "reason": "all of it"})).await;
    let done: Value = response.json().await.unwrap();
    assert_eq!(done["leftAlone"], json!(["pve::rack"]), "{done}");
    assert_eq!(done["difference"]["instances"][0]["key"], "tcp::own");
    assert!(!folder.path().join("instances.d/rack.json").exists());

    folder.write("instances.d/rack.json", &before);
    until_sources_are(&daemon, &[("pve::rack", "instances.d/rack.json")]).await;
    assert_eq!(folder.read("instances.d/rack.json"), before, "a file of another tool stays as it is");
    daemon.stop().await;
    let database = fs::read(folder.path().join("pulse.db")).unwrap();
    assert!(!database.windows(14).any(|bytes| bytes == b"hunter2hunter2"), "the history holds secrets encrypted alone");
}

#[tokio::test]
async fn wrong_fragments_are_each_told_with_their_place_and_what_to_do() {
    let pve = |secret: Value| {
        json!({"type": "pve", "name": "rack", "url": "127.0.0.1",
            "auth": {"tokenId": "pulse@pve!monitor", "secret": secret}})
    };
    let cases = [
        (
            fleet(&[&pve(json!("hunter2"))]),
            0o644,
            "instances[0].auth.secret: ",
            "is open to every user (mode 644); run: chmod o-rwx",
        ),
        (
            fleet(&[&pve(json!({"encrypted": "1.a.b"}))]),
            0o600,
            "instances[0].auth.secret: ",
            "is encrypted, which only instances.json can hold; give {\"file\": …}",
        ),
        (json!({"nodes": []}), 0o600, "instances: ", "is required"),
        (fleet(&[&tcp("a"), &tcp("a")]), 0o600, "instances[1].name: ", "tcp::a is already the name of instances[0]"),
        (
            fleet(&[&json!({"type": "tcp", "name": "a", "source": "x"})]),
            0o600,
            "instances[0].source: ",
            "unknown setting",
        ),
    ];
    for (fragment, mode, place, problem) in cases {
        let folder = with_fragments(&fleet(&[]), &[("racks.json", fragment)]);
        let path = folder.path().join("instances.d/racks.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for command in [&["config", "validate"][..], &["serve"]] {
            let ended = run(&mut folder.pulse(command)).await;
            assert_eq!(ended.code, Some(3), "{ended:?}");
            let line = ended.stderr.lines().find(|line| line.contains(&format!("racks.json: {place}")));
            assert!(line.is_some_and(|line| line.contains(problem)), "{place}{problem}: {ended:?}");
            assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
        }
    }
    let folder = with_fragments(&fleet(&[&tcp("own")]), &[("a.json", fleet(&[&tcp("b"), &tcp("c")]))]);
    let ended = run(&mut folder.pulse(["config", "validate", "--json"])).await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["sources"], json!({"instances.json": 1, "instances.d/a.json": 2}));
}

#[tokio::test]
async fn a_backup_takes_fragments_along_unless_secrets_stand_in_them() {
    let pve = json!({"type": "pve", "name": "rack", "url": "127.0.0.1", "enabled": false,
        "auth": {"tokenId": "pulse@pve!monitor", "secret": "hunter2"}});
    let fragments = [("open.json", fleet(&[&tcp("a")])), ("secret.json", fleet(&[&pve]))];
    let folder = with_fragments(&fleet(&[]), &fragments);
    Daemon::start(&folder).await.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.tar.gz").display().to_string();
    let ended = run(&mut folder.pulse(["backup", &file, "--json"])).await;
    let manifest: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let names = |field: &str| manifest[field].as_array().unwrap().clone();
    assert!(names("leftOut").contains(&json!("instances.d/secret.json")), "{manifest}");
    assert!(names("files").contains(&json!("instances.d/open.json")), "{manifest}");
    let (restored, open) = (elsewhere.path().join("restored"), "instances.d/open.json");
    let mut command = folder.pulse(["restore", &file, "--json"]);
    let ended = run(command.arg("--data-dir").arg(&restored)).await;
    let done: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert!(done["missing"].as_array().unwrap().contains(&json!("instances.d/secret.json")), "{done}");
    assert_eq!(fs::read_to_string(restored.join(open)).unwrap(), folder.read(open));
}
