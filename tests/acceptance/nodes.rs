//! Instances added, changed, removed and tried by calls: polled at once, with the rest of the fleet left alone.

use pulse::engine::Millis;
use pulse::lab::{FaultKind, HostPlan, Lab};
use pulse::security::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Folder, PATIENCE, SEED, eventually, lab, pause};

const NODES: &str = "/api/config/nodes";

fn node(key: &str) -> String {
    format!("{NODES}/{key}")
}

fn fleet(instances: &[&Value]) -> Value {
    json!({ "instances": instances })
}

async fn put(daemon: &Daemon, key: &str, instance: &Value, tag: Option<&str>) -> (StatusCode, Value) {
    let mut request = daemon.request(Method::PUT, &node(key)).json(&json!({"instance": instance}));
    if let Some(tag) = tag {
        request = request.header("If-Match", format!("\"{tag}\""));
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn post(daemon: &Daemon, instance: &Value) -> (StatusCode, Value) {
    let response = daemon.post(NODES, &json!({"instance": instance, "reason": "a new rack"})).await;
    (response.status(), response.json().await.unwrap())
}

async fn test(daemon: &Daemon, token: &str, body: &Value) -> (StatusCode, Value) {
    let path = format!("{NODES}/test-connection");
    let response = daemon.anonymous(Method::POST, &path).bearer_auth(token).json(body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// A host that is broken, and whose breaker stays open for so long that nothing but an edit could move it.
async fn broken_and_sound() -> (Lab, Value, Value, Folder) {
    let broken = HostPlan::pve(SEED, "broken", 3).behaving(FaultKind::status(503));
    let lab = lab(vec![broken, HostPlan::pve(SEED, "sound", 3)]).await;
    let all = lab.instances_json(None);
    let (broken, sound) = (all["instances"][0].clone(), all["instances"][1].clone());
    let folder = Folder::quick(&fleet(&[&broken]));
    folder.write_json(
        "system.json",
        &json!({
            "adaptivePollingBaseInterval": "300ms",
            "adaptivePollingMinInterval": "200ms",
            "pollingBackoffInitial": "100ms",
            "pollingBackoffMax": "200ms",
            "breakerOpenInitial": "1m",
        }),
    );
    (lab, broken, sound, folder)
}

#[tokio::test]
async fn instances_come_and_go_by_calls_and_the_others_keep_breaker_and_schedule() {
    let (lab, _, sound, folder) = broken_and_sound().await;
    let daemon = Daemon::start(&folder).await;
    let before = daemon.until_instance("pve::broken", |row| row["breaker"]["state"] == "open").await;
    let asked = lab.stats("broken").unwrap().requests;

    let (status, added) = post(&daemon, &sound).await;
    assert_eq!(status, StatusCode::CREATED, "{added:#}");
    assert_eq!(added["difference"]["instances"][0]["change"], "added");
    daemon.until_instance("pve::sound", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    assert!(lab.stats("sound").unwrap().requests > 0, "it is really asked");

    let shown = daemon.get(&node("pve::sound")).await;
    assert_eq!(shown["instance"]["auth"]["secret"], json!({"set": true}));
    let mut renamed = shown["instance"].clone();
    renamed["displayName"] = json!("Second floor");
    let (status, changed) = put(&daemon, "pve::sound", &renamed, shown["tag"].as_str()).await;
    assert_eq!(status, StatusCode::OK, "{changed:#}");
    let fields = &changed["difference"]["instances"][0]["fields"];
    assert_eq!(fields[0]["field"], "displayName");
    assert_eq!(fields.as_array().unwrap().len(), 1, "the kept secret is no change: {fields:#}");
    let row = daemon.until_instance("pve::sound", |row| row["displayName"] == "Second floor").await;
    assert!(row["pollStatus"]["lastSuccess"].is_string(), "a new display name is no new instance: {row:#}");
    let read = daemon.state("pve::sound").await["readAt"].clone();
    daemon.until_state("pve::sound", |row| row["readAt"] != read).await;

    let removed = daemon.request(Method::DELETE, &node("pve::sound")).send().await.unwrap();
    assert_eq!(removed.status(), StatusCode::OK);
    let rows = daemon.health().await["instances"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1, "gone when the call is answered: {rows:#}");

    let after = daemon.instance("pve::broken").await;
    assert_eq!(after["breaker"]["state"], "open");
    assert_eq!(after["breaker"]["failureCount"], before["breaker"]["failureCount"]);
    assert_eq!(lab.stats("broken").unwrap().requests, asked, "nothing of it is asked while its breaker is open");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn an_edit_is_refused_whole_with_all_reasons_or_by_what_stands_against_it() {
    let (lab, broken, sound, folder) = broken_and_sound().await;
    let daemon = Daemon::start(&folder).await;
    // Its secret is encrypted by then.
    let before = folder.read("instances.json");
    assert!(before.contains("encrypted"), "{before}");
    let nonsense = json!({"type": "pve", "name": "x", "url": "http://x", "auth": {"tokenId": "a"}, "intervall": 3});
    let (status, problem) = post(&daemon, &nonsense).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_is_problem(&problem, 422, "inventory_refused");
    let at: Vec<&str> = problem["errors"].as_array().unwrap().iter().map(|it| it["at"].as_str().unwrap()).collect();
    assert_eq!(at, ["url", "auth", "intervall"]);

    assert_is_problem(&post(&daemon, &broken).await.1, 409, "already_exists");
    assert_is_problem(&put(&daemon, "pve::sound", &sound, None).await.1, 404, "not_found");
    let (_, problem) = put(&daemon, "pve::broken", &sound, None).await;
    assert_is_problem(&problem, 422, "inventory_refused");
    for reference in [json!({"file": "/etc/hostname"}), json!({"env": "HOME"}), json!({"encrypted": "1.a.b"})] {
        let mut refers = sound.clone();
        refers["auth"]["secret"] = reference;
        let (_, problem) = post(&daemon, &refers).await;
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("by hand"), "{problem:#}");
    }
    assert_eq!(folder.read("instances.json"), before);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn an_edit_made_from_what_was_there_before_is_refused_and_writes_over_nothing() {
    let (lab, _, sound, folder) = broken_and_sound().await;
    let daemon = Daemon::start(&folder).await;
    let seen = daemon.get(&node("pve::broken")).await;
    // By hand, in the moment before the call: not yet noticed by the watcher.
    let by_hand = folder.read("instances.json").replacen("\"name\"", "\"enabled\":false,\"name\"", 1);
    folder.write("instances.json", &by_hand);
    let (status, problem) = put(&daemon, "pve::broken", &seen["instance"], seen["tag"].as_str()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_is_problem(&problem, 412, "changed_meanwhile");
    assert_eq!(folder.read("instances.json"), by_hand);

    // An edit of another instance goes through, and keeps what was edited by hand.
    let (status, _) = post(&daemon, &sound).await;
    assert_eq!(status, StatusCode::CREATED);
    let now = daemon.get(&node("pve::broken")).await;
    assert_eq!(now["instance"]["enabled"], false);
    assert_ne!(now["tag"], seen["tag"]);
    let gone = daemon.request(Method::DELETE, &node("pve::broken")).header("If-Match", "\"old\"").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::PRECONDITION_FAILED);

    // A file that is broken by hand is not written over either.
    folder.write("instances.json", "{");
    assert_is_problem(&post(&daemon, &sound).await.1, 409, "file_broken");
    assert_eq!(folder.read("instances.json"), "{");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_tested_by_a_real_poll_that_tells_what_each_call_said() {
    let (lab, _, sound, folder) = broken_and_sound().await;
    let daemon = Daemon::start(&folder).await;
    let operator = daemon.new_token("operator", Role::Operator).await;
    let (status, answer) = test(&daemon, &operator, &json!({"instance": sound})).await;
    assert_eq!(status, StatusCode::OK, "{answer:#}");
    assert_eq!(answer["success"], true, "{answer:#}");
    let calls = answer["calls"].as_array().unwrap();
    assert!(calls[0]["call"].as_str().unwrap().ends_with("/api2/json/version"), "{answer:#}");
    assert!(calls.iter().any(|call| call["status"] == 200) && calls.len() > 2, "{answer:#}");
    assert_eq!(answer["reading"]["type"], "pve");

    let mut untrusted = sound.clone();
    untrusted.as_object_mut().unwrap().remove("tls");
    let (_, answer) = test(&daemon, &operator, &json!({"instance": untrusted})).await;
    assert_eq!(answer["success"], false);
    assert_eq!(answer["error"]["category"], "certificate_untrusted");
    assert_eq!(answer["untrustedFingerprint"], sound["tls"]["fingerprint"], "it can be pinned: {answer:#}");

    let mut wrong = sound.clone();
    wrong["auth"]["secret"] = json!("another-secret");
    let (_, answer) = test(&daemon, &operator, &json!({"instance": wrong})).await;
    assert_eq!(answer["error"]["category"], "unauthorized");
    assert_eq!(answer["calls"][0]["status"], 401);
    assert!(!answer.to_string().contains("another-secret"));

    let (_, answer) = test(&daemon, &operator, &json!({"key": "pve::broken"})).await;
    assert_eq!(answer["error"]["category"], "server_error");
    assert_is_problem(&test(&daemon, &operator, &json!({"key": "pve::no"})).await.1, 404, "not_found");
    assert_is_problem(&test(&daemon, &operator, &json!({})).await.1, 422, "refused");
    assert_eq!(daemon.get(NODES).await["nodes"].as_array().unwrap().len(), 1, "nothing was added");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_kept_secret_is_sent_nowhere_but_where_it_was_meant_for() {
    let (lab, broken, sound, folder) = broken_and_sound().await;
    let daemon = Daemon::start(&folder).await;
    let operator = daemon.new_token("operator", Role::Operator).await;
    let kept = daemon.get(&node("pve::broken")).await["instance"].clone();
    let mut elsewhere = kept.clone();
    elsewhere["url"] = sound["url"].clone();
    let mut also_elsewhere = kept.clone();
    also_elsewhere["members"] = json!([sound["url"]]);
    let mut believed = kept.clone();
    believed["tls"] = sound["tls"].clone();
    let before = folder.read("instances.json");
    for given in [&elsewhere, &also_elsewhere] {
        let (status, problem) = put(&daemon, "pve::broken", given, None).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("must be given anew"), "{problem:#}");
    }
    for given in [&elsewhere, &also_elsewhere, &believed] {
        let (status, _) = test(&daemon, &operator, &json!({"instance": given})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let (status, _) = test(&daemon, &operator, &json!({"instance": kept})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(folder.read("instances.json"), before);
    assert_eq!(lab.stats("sound").unwrap().connections, 0);
    elsewhere["auth"] = broken["auth"].clone();
    let (status, _) = put(&daemon, "pve::broken", &elsewhere, None).await;
    assert_eq!(status, StatusCode::OK, "with the secret given it may go anywhere");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_call_and_an_edit_by_hand_at_the_same_moment_leave_in_force_what_the_file_says() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for round in 0..12_u64 {
        let by_hand = round % 2 == 0;
        let edit = async {
            pause(Millis::new(round * 15 % 170)).await;
            folder.write_json("system.json", &json!({"adaptivePollingEnabled": by_hand}));
        };
        let call = async {
            pause(Millis::new(60)).await;
            daemon.post("/api/system/settings/update", &json!({"adaptivePollingEnabled": !by_hand})).await
        };
        let ((), response) = tokio::join!(edit, call);
        assert_eq!(response.status(), StatusCode::OK);
        // Longer than the watcher waits for a file to come to rest, so nothing is on its way any more.
        pause(Millis::new(500)).await;
        let agree = async || {
            let file: Value = serde_json::from_str(&folder.read("system.json")).unwrap();
            let settings = daemon.get("/api/system/settings").await;
            let shown = settings["settings"].as_array().unwrap();
            let shown = shown.iter().find(|it| it["name"] == "adaptivePollingEnabled").unwrap()["value"].clone();
            let followed = daemon.health().await["enabled"].clone();
            (file["adaptivePollingEnabled"] == shown && shown == followed).then_some(())
        };
        eventually("file, settings and scheduler agree", PATIENCE, agree).await.unwrap();
    }
    daemon.stop().await;
}
