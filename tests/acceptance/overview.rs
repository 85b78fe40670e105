//! What the web page reads: the fleet at a glance, one instance with its history, and those that fail.

use std::collections::BTreeMap;

use pulse::lab::HostPlan;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Folder, PATIENCE, SEED, eventually, lab};

const DEAD: &str = "pbs::dead";

/// The states of the fleet by key.
fn states(overview: &Value) -> BTreeMap<&str, &str> {
    let rows = overview["instances"].as_array().unwrap();
    rows.iter().map(|row| (row["key"].as_str().unwrap(), row["state"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn the_overview_tells_the_state_of_each_instance_and_the_troubles_are_those_that_fail() {
    let dead = HostPlan::pbs(SEED, "dead", &["daily"]).with_rejected_secret();
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), dead]).await;
    let mut fleet = lab.instances_json(None);
    for (name, enabled) in [("down", true), ("off", false)] {
        let endpoint = json!({"type": "tcp", "name": name, "host": "127.0.0.1", "port": 1, "enabled": enabled});
        fleet["instances"].as_array_mut().unwrap().push(endpoint);
    }
    let folder = Folder::quick(&fleet);
    let daemon = Daemon::start(&folder).await;
    let expected = BTreeMap::from([(DEAD, "dead_lettered"), ("pve::rack", "fresh"), ("tcp::down", "down")]);
    let seen = async || {
        let overview = daemon.get("/api/monitoring/overview").await;
        (states(&overview) == [expected.clone(), [("tcp::off", "paused")].into()].into_iter().flatten().collect())
            .then_some(overview)
    };
    let overview = eventually("each has its state", PATIENCE, seen).await.unwrap();
    assert_eq!((&overview["enabled"], &overview["next"]), (&json!(true), &json!(null)));

    let recent = daemon.get("/api/events/recent").await;
    let recent = recent["events"].as_array().unwrap();
    let dead = recent.iter().find(|event| event["event"] == "dead_lettered").unwrap();
    assert_eq!((&dead["key"], &dead["reason"]), (&json!(DEAD), &json!("permanent_failure")));
    assert!(recent.iter().all(|event| event["event"] != "reading_changed"), "that is no news");

    let troubles = daemon.get("/api/monitoring/troubles").await;
    let keys: Vec<_> = troubles["instances"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
    assert_eq!(keys, [DEAD]);
    assert_eq!(troubles["instances"][0]["deadLetter"]["reason"], "permanent_failure");
    // Those who fail are told of with adaptive polling off too.
    let off = daemon.post("/api/system/settings/update", &json!({"adaptivePollingEnabled": false})).await;
    assert_eq!(off.status(), StatusCode::OK);
    assert_eq!(daemon.get("/api/monitoring/troubles").await["instances"][0]["key"], DEAD);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_overview_comes_in_pages_that_have_every_instance_once() {
    let endpoint = |number: u32| {
        let (host, port) = ("127.0.0.1", 1);
        json!({"type": "tcp", "name": format!("n{number:03}"), "host": host, "port": port, "enabled": false})
    };
    let folder = Folder::quick(&json!({"instances": (0..600).map(endpoint).collect::<Vec<_>>()}));
    let daemon = Daemon::start(&folder).await;
    let (mut keys, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = daemon.get(&format!("/api/monitoring/overview?limit=250{after}")).await;
        keys.extend(page["instances"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, 3);
    assert_eq!(keys, (0..600).map(|number| format!("tcp::n{number:03}")).collect::<Vec<_>>());
    let figures = daemon.get("/api/monitoring/overview?limit=0").await;
    assert_eq!(figures["instances"], json!([]));
    for wrong in ["limit=1001", "limit=x", "after=nothing", "wrong=1"] {
        let path = format!("/api/monitoring/overview?{wrong}");
        let problem = daemon.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
        assert_is_problem(&problem, 400, "malformed_request");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_instance_has_a_history_of_its_polls_and_of_what_came_of_them() {
    let lab =
        lab(vec![HostPlan::pve(SEED, "rack", 3), HostPlan::pbs(SEED, "dead", &["daily"]).with_rejected_secret()]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    let history = async |key: &str, wanted: usize| {
        let path = format!("/api/monitoring/instances/{key}");
        let seen = async || {
            let answer = daemon.get(&path).await;
            (answer["history"].as_array().unwrap().len() >= wanted).then_some(answer)
        };
        eventually("it has a history", PATIENCE, seen).await.unwrap()
    };
    let rack = history("pve::rack", 2).await;
    assert_eq!((&rack["instance"]["key"], &rack["late"]), (&json!("pve::rack"), &json!(false)));
    let first = &rack["history"][0];
    assert_eq!((&first["event"], &first["category"]), (&json!("polled"), &json!(null)));
    assert!(first["tookMillis"].is_u64() && first["nextMillis"].is_u64() && first["reason"].is_string(), "{first}");

    let dead = history("pbs%3A%3Adead", 2).await;
    assert_eq!((&dead["place"], &dead["instance"]["deadLetter"]["present"]), (&json!("dead_lettered"), &json!(true)));
    assert_eq!(dead["history"][0]["category"], "unauthorized");
    let events: Vec<_> = dead["history"].as_array().unwrap().iter().map(|entry| entry["event"].clone()).collect();
    assert!(events.contains(&json!("dead_lettered")), "{events:?}");

    for nobody in ["pve::nobody", "nothing", "%FF"] {
        let path = format!("/api/monitoring/instances/{nobody}");
        let status = daemon.request(Method::GET, &path).send().await.unwrap().status();
        assert!(status.is_client_error(), "{nobody}: {status}");
    }
    daemon.stop().await;
    lab.shutdown().await;
}
