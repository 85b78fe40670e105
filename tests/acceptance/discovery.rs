//! Targets in the form of Prometheus: files that appear, change and go are followed, and broken ones change nothing.

use std::fs;

use pulse::lab::HostPlan;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::provided::{refusals, tcp, until_sources_are};
use super::support::{Daemon, EDIT_TAKES_EFFECT_WITHIN, Folder, SEED, eventually, lab, quick_settings, run};

const NODES: &str = "/api/config/nodes";

/// A folder whose settings name these files of targets. `targets` is in the data folder, for it lasts as long.
fn discovering(items: &Value) -> Folder {
    let folder = Folder::new();
    let mut settings = quick_settings();
    settings["discovery"] = json!({ "files": items });
    folder.write_json("system.json", &settings);
    folder
}

fn tcp_targets() -> Value {
    json!([{"paths": ["targets/*.json"], "type": "tcp", "interval": "30s"}])
}

fn with_targets(items: &Value, files: &[(&str, Value)]) -> Folder {
    let folder = discovering(items);
    fs::create_dir(folder.path().join("targets")).unwrap();
    for (name, content) in files {
        folder.write_json(&format!("targets/{name}"), content);
    }
    folder
}

#[tokio::test]
async fn files_of_targets_come_change_and_go() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let host = &lab.instances_json(None)["instances"][0];
    let auth = json!({"tokenId": host["auth"]["tokenId"], "secret": {"file": "token"}});
    let items = json!([{"paths": ["targets/*.json"], "type": "pve", "auth": auth}]);
    let folder = discovering(&items);
    folder.write("token", host["auth"]["secret"].as_str().unwrap());
    let daemon = Daemon::start(&folder).await;
    until_sources_are(&daemon, &[]).await;

    // The folder need not be there from the start.
    fs::create_dir(folder.path().join("targets")).unwrap();
    let labels = json!({"__pulse_name": "rack", "__pulse_fingerprint": host["tls"]["fingerprint"], "__meta_netbox_site": "x", "job": "pve"});
    folder.write_json("targets/netbox.json", &json!([{"targets": [host["url"]], "labels": labels}]));
    until_sources_are(&daemon, &[("pve::rack", "targets/netbox.json")]).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;

    // Another instance beside it, of another type; the first is the same to the scheduler.
    let ports =
        json!({"targets": ["127.0.0.1:9", "[::1]:9"], "labels": {"__pulse_type": "tcp", "__pulse_enabled": "false"}});
    folder.write_json("targets/netbox.json", &json!([{"targets": [host["url"]], "labels": labels}, ports]));
    let netbox = "targets/netbox.json";
    let all = [("pve::rack", netbox), ("tcp::127.0.0.1:9", netbox), ("tcp::[::1]:9", netbox)];
    until_sources_are(&daemon, &all).await;
    let row = daemon.instance("pve::rack").await;
    assert!(row["pollStatus"]["lastSuccess"].is_string(), "{row:#}");
    let node = daemon.get(&format!("{NODES}/tcp::%5B::1%5D:9")).await;
    assert_eq!(node["instance"]["enabled"], false);
    assert_eq!(node["editable"], false);
    let response = daemon.request(Method::DELETE, &format!("{NODES}/pve::rack")).send().await.unwrap();
    let problem: Value = response.json().await.unwrap();
    assert_is_problem(&problem, 409, "provided_by_file");
    assert!(problem["detail"].as_str().unwrap().contains(netbox), "{problem}");

    fs::remove_file(folder.path().join(netbox)).unwrap();
    until_sources_are(&daemon, &[]).await;
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_broken_file_of_targets_keeps_what_it_held_and_the_settings_can_name_others() {
    let folder = with_targets(&tcp_targets(), &[("a.json", json!([{"targets": ["127.0.0.1:9"]}]))]);
    let daemon = Daemon::start(&folder).await;
    let one = [("tcp::127.0.0.1:9", "targets/a.json")];
    until_sources_are(&daemon, &one).await;

    folder.write_json("targets/b.json", &json!([{"targets": ["127.0.0.1:10", "127.0.0.1:9", "db"]}]));
    let edits = refusals(&daemon).await;
    let place = |name: &str| folder.path().join("targets").join(name).display().to_string();
    let first = format!("{}: [0].targets[0]", place("a.json"));
    let expected = [
        format!("{}: [0].targets[2]: must be a port from 1 to 65535", place("b.json")),
        format!(
            "{}: [0].targets[1]: tcp::127.0.0.1:9 is already the name of {first}; give one of them another name",
            place("b.json")
        ),
    ];
    assert_eq!(edits, json!([{"file": place("b.json"), "errors": expected}]));
    assert_eq!(daemon.health().await["instances"].as_array().unwrap().len(), 1);

    folder.write_json("targets/b.json", &json!([{"targets": ["127.0.0.1:10"]}]));
    until_sources_are(&daemon, &[("tcp::127.0.0.1:10", "targets/b.json"), one[0]]).await;

    let other = json!([{"paths": ["targets/b.json"], "type": "tcp"}]);
    let mut settings = quick_settings();
    settings["discovery"] = json!({ "files": other });
    folder.write_json("system.json", &settings);
    until_sources_are(&daemon, &[("tcp::127.0.0.1:10", "targets/b.json")]).await;

    // Going back brings the settings back, and with them what the files hold by now.
    let response = daemon.post("/api/config/rollback", &json!({"version": 1, "reason": "all of it"})).await;
    assert_eq!(response.status(), StatusCode::OK, "{}", response.text().await.unwrap());
    until_sources_are(&daemon, &[("tcp::127.0.0.1:10", "targets/b.json"), one[0]]).await;

    let patch = json!({"discovery": {"files": []}});
    let response = daemon.post("/api/system/settings/update", &patch).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(response.text().await.unwrap().contains("is written into system.json by hand"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_file_of_targets_that_its_owner_truncates_and_fills_again_is_followed() {
    let folder = with_targets(&tcp_targets(), &[("a.json", json!([{"targets": ["127.0.0.1:9"]}]))]);
    let daemon = Daemon::start(&folder).await;
    let a = "targets/a.json";
    until_sources_are(&daemon, &[("tcp::127.0.0.1:9", a)]).await;
    folder.write(a, "");
    let edits = refusals(&daemon).await;
    assert!(edits[0]["errors"][0].as_str().unwrap().contains("line 1, column 0: "), "{edits}");
    folder.write_json(a, &json!([{"targets": ["127.0.0.1:11"], "labels": {}}]));
    until_sources_are(&daemon, &[("tcp::127.0.0.1:11", a)]).await;
    let mended = async || (daemon.get("/api/system/settings").await["refusedEdits"] == json!([])).then_some(());
    eventually("the refusal ends", EDIT_TAKES_EFFECT_WITHIN, mended).await.unwrap();
    // Beside it an instance of our own; one whose key a target has is refused with the name of the file.
    let response = daemon.post(NODES, &json!({"instance": tcp("own")})).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let response = daemon.post(NODES, &json!({"instance": tcp("127.0.0.1:11")})).await;
    assert_is_problem(&response.json().await.unwrap(), 409, "provided_by_file");
    daemon.stop().await;
}

#[tokio::test]
async fn files_of_targets_in_yaml_are_followed_as_those_in_json_are() {
    let items = json!([{"paths": ["targets/*.yml", "targets/extra.yaml", "targets/*.json"], "type": "tcp"}]);
    let folder = with_targets(&items, &[("a.json", json!([{"targets": ["127.0.0.1:9"]}]))]);
    folder.write(
        "targets/b.yml",
        "# by hand\n- targets:\n    - 127.0.0.1:10\n    - 127.0.0.1:11 # the spare\n  labels: &quiet\n    __pulse_enabled: false\n    \
         site: berlin\n- targets: ['127.0.0.1:12']\n  labels:\n    <<: *quiet\n    __pulse_display_name: 12\n",
    );
    let daemon = Daemon::start(&folder).await;
    let (a, b) = (("tcp::127.0.0.1:9", "targets/a.json"), "targets/b.yml");
    let all = [("tcp::127.0.0.1:10", b), ("tcp::127.0.0.1:11", b), ("tcp::127.0.0.1:12", b), a];
    until_sources_are(&daemon, &all).await;
    let node = daemon.get(&format!("{NODES}/tcp::127.0.0.1:12")).await;
    assert_eq!(node["instance"]["enabled"], false, "{node}");
    assert_eq!(node["instance"]["displayName"], "12", "{node}");

    folder.write("targets/extra.yaml", "- targets: [127.0.0.1:13\n  labels: {}\n");
    let edits = refusals(&daemon).await;
    assert_eq!(edits[0]["file"], folder.path().join("targets/extra.yaml").display().to_string());
    assert!(edits[0]["errors"][0].as_str().unwrap().contains("extra.yaml: line 2, column "), "{edits}");
    folder.write("targets/extra.yaml", "- targets: [127.0.0.1:13]\n");
    // One that was emptied is being written, or was forgotten; it has not retired its hosts.
    folder.write(b, "");
    let emptied = async || {
        let edits = refusals(&daemon).await;
        edits[0]["errors"][0].as_str().unwrap().contains("b.yml: line 1, column 1: the file is empty").then_some(())
    };
    eventually("the emptied file is refused", EDIT_TAKES_EFFECT_WITHIN, emptied).await.unwrap();
    let [ten, eleven, twelve, nine] = all;
    until_sources_are(&daemon, &[ten, eleven, twelve, ("tcp::127.0.0.1:13", "targets/extra.yaml"), nine]).await;
    folder.write(b, "[]\n");
    until_sources_are(&daemon, &[("tcp::127.0.0.1:13", "targets/extra.yaml"), nine]).await;
    daemon.stop().await;
}

#[tokio::test]
async fn wrong_yaml_is_told_with_its_place_and_what_to_do() {
    let laughs = |level: usize| format!("- &l{level} [{}]\n", format!("*l{}, ", level - 1).repeat(10));
    let laughs = (1..30).map(laughs).fold("- &l0 [ha]\n".to_owned(), |all, line| all + &line);
    let cases = [
        ("- targets: [a:1]\n  labels: {job: b: c}\n".to_owned(), "a.yml: line 2, column "),
        ("targets: [a:1]\n".to_owned(), "a.yml: must be a list, but is an object"),
        (
            "- targets: [a:1]\n  labels:\n    __pulse_naem: x\n".to_owned(),
            "a.yml: [0].labels.__pulse_naem: unknown setting; did you mean __pulse_name?",
        ),
        ("- targets: [a:1]\n  targets: [b:1]\n".to_owned(), "a.yml: [0].targets: is given more than once; keep one"),
        ("- targets: [!vault hunter2]\n".to_owned(), "a.yml: line 1, column 13: a tag of this kind is not read"),
        (laughs, "anchors and aliases copy too much; write it out, or split the file"),
    ];
    for (text, expected) in cases {
        let folder = with_targets(&json!([{"paths": ["targets/*.yml"], "type": "tcp"}]), &[]);
        folder.write("targets/a.yml", &text);
        let ended = run(&mut folder.pulse(["config", "validate"])).await;
        assert_eq!(ended.code, Some(3), "{expected}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn wrong_targets_are_each_told_where_they_are_written() {
    let pve = json!([{"paths": ["targets/*.json"], "type": "pve",
        "auth": {"tokenId": "pulse@pve!monitor", "secret": {"env": "TOKEN"}}}]);
    let cases = [
        (tcp_targets(), json!({}), "a.json: must be a list, but is an object"),
        (tcp_targets(), json!([{"labels": {}}]), "a.json: [0].targets: is required"),
        (tcp_targets(), json!([{"targets": [1]}]), "a.json: [0].targets[0]: must be a text, but is a number"),
        (
            tcp_targets(),
            json!([{"targets": ["a:1", "b:1"], "labels": {"__pulse_interval": "1x"}}]),
            "a.json: [0].labels.__pulse_interval: ",
        ),
        (
            tcp_targets(),
            json!([{"targets": ["a:1"], "labels": {"__pulse_naem": "x"}}]),
            "a.json: [0].labels.__pulse_naem: unknown setting; did you mean __pulse_name?",
        ),
        (
            tcp_targets(),
            json!([{"targets": ["a:1"], "labels": {"__pulse_type": "vmware"}}]),
            "a.json: [0].labels.__pulse_type: must be one of http, pbs, pmg, pve, tcp",
        ),
        (pve.clone(), json!([{"targets": ["http://a"]}]), "a.json: [0].targets[0]: must begin with https://"),
        (
            pve.clone(),
            json!([]),
            "system.json: discovery.files[0].auth.secret.env: the environment variable TOKEN is not set",
        ),
        (
            json!([{"paths": ["*.json"], "type": "tcp"}]),
            json!([]),
            "system.json: discovery.files[0].paths[0]: would take in",
        ),
        (
            json!([
                {"paths": ["targets/*.json", "targets/a.json"], "type": "tcp"},
                {"paths": ["targets/a*.json"], "type": "http"},
            ]),
            json!([{"targets": ["a:1"]}]),
            "a.json: is named by discovery.files[0] and discovery.files[1] of system.json; let one of them name it",
        ),
    ];
    for (items, targets, expected) in cases {
        let folder = with_targets(&items, &[("a.json", targets)]);
        let token = if expected.contains("TOKEN") { "" } else { "hunter2" };
        let ended = run(folder.pulse(["config", "validate"]).env("TOKEN", token)).await;
        assert_eq!(ended.code, Some(3), "{expected}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        let lines = ended.stderr.lines().filter(|line| line.contains(".json: ")).count();
        assert_eq!(lines, 1, "one thing is wrong: {}", ended.stderr);
    }
}
