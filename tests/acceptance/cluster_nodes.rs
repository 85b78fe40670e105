//! The nodes of a cluster, read from one member and added with its credentials: by the API and by the command line.
//!
//! As in a real cluster, each node has an address of its own, and all have one port.

use pulse::lab::{Fault, FaultKind, HostPlan, Lab, LabClock, LabPlan};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Ended, Folder, SEED, run};

/// A port that no other run at the same time has its nodes at.
fn port() -> u16 {
    20_000 + u16::try_from(std::process::id() % 10_000).unwrap()
}

/// A cluster `rack` of three nodes, and the instance that reaches the first of them.
async fn rack(first_address: u32) -> (Lab, Value) {
    let mut plan = HostPlan::pve(SEED, "rack", 6).cluster_of(3);
    plan.port = port();
    let plan = LabPlan::new(SEED, vec![plan, HostPlan::pve(SEED, "alone", 1)]).starting_at(first_address);
    let lab = Lab::start(plan, LabClock::real()).await.unwrap();
    let mut member = lab.instances_json(None)["instances"][0].take();
    member["name"] = json!("rack-1");
    member.as_object_mut().unwrap().remove("members");
    (lab, member)
}

fn cluster(key: &str) -> String {
    format!("/api/config/nodes/{key}/cluster")
}

async fn discovered(daemon: &Daemon, node: &str) -> Value {
    let answer = daemon.get(&cluster("pve::rack-1")).await;
    assert_eq!((answer["key"].as_str(), answer["cluster"].as_str()), (Some("pve::rack-1"), Some("rack")));
    let nodes = answer["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "{answer:#}");
    nodes.iter().find(|found| found["name"] == node).unwrap().clone()
}

async fn add(daemon: &Daemon, nodes: &Value) -> (StatusCode, Value) {
    let body = json!({"nodes": nodes, "reason": "the whole rack"});
    let response = daemon.post(&cluster("pve::rack-1"), &body).await;
    (response.status(), response.json().await.unwrap())
}

async fn is_polled(daemon: &Daemon, key: &str) {
    daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
}

#[tokio::test]
async fn a_node_is_added_with_the_members_credentials_once_its_certificate_is_confirmed() {
    let (lab, member) = rack(40_000).await;
    let folder = Folder::quick(&json!({"instances": [member]}));
    let daemon = Daemon::start(&folder).await;
    let fingerprint = member["tls"]["fingerprint"].clone();

    assert_eq!(discovered(&daemon, "rack-1").await["configured"], "pve::rack-1");
    let second = discovered(&daemon, "rack-2").await;
    assert_eq!((&second["configured"], &second["online"]), (&Value::Null, &json!(true)));
    let url = &lab.hosts()[0].urls[1];
    let offer = json!({"key": "pve::rack-2", "url": url, "fingerprint": fingerprint, "fingerprintSource": "cluster"});
    assert_eq!(second["offer"], offer);

    let before = folder.read("instances.json");
    for seen in [json!(null), json!(["00"; 32].join(":"))] {
        let (_, problem) = add(&daemon, &json!([{"name": "rack-2", "fingerprint": seen}])).await;
        assert_is_problem(&problem, 409, "fingerprint_not_confirmed");
    }
    let chosen = json!({"name": "rack-2", "fingerprint": fingerprint});
    let (_, problem) = add(&daemon, &json!([chosen, {"name": "rack-9"}])).await;
    assert_is_problem(&problem, 409, "not_offered");
    assert_eq!(folder.read("instances.json"), before, "all or none");

    let (status, added) = add(&daemon, &json!([chosen])).await;
    assert_eq!(status, StatusCode::CREATED, "{added:#}");
    assert_eq!(added["keys"], json!(["pve::rack-2"]));
    is_polled(&daemon, "pve::rack-2").await;
    assert_eq!(discovered(&daemon, "rack-2").await["configured"], "pve::rack-2");
    let (_, problem) = add(&daemon, &json!([chosen])).await;
    assert_is_problem(&problem, 409, "not_offered");

    let secret = member["auth"]["secret"].as_str().unwrap();
    let shown = daemon.get("/api/config/nodes/pve::rack-2").await;
    assert_eq!(shown["instance"]["auth"], json!({"tokenId": member["auth"]["tokenId"], "secret": {"set": true}}));
    let version = daemon.get(&format!("/api/config/history/{}", added["version"])).await;
    let audit = daemon.get("/api/audit?limit=50").await;
    assert!(
        audit.to_string().contains("node.add_cluster") && audit.to_string().contains("the whole rack"),
        "{audit:#}"
    );
    for told in [shown, added, version, audit, json!(folder.read("instances.json")), json!(daemon.program.stderr())] {
        assert!(!told.to_string().contains(secret), "{told:#}");
    }
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn under_an_authority_nothing_is_to_be_confirmed_and_doors_of_an_instance_count_as_configured() {
    let (lab, mut member) = rack(40_100).await;
    let folder = Folder::new();
    member["tls"] = json!({"caFile": folder.path().join("lab.pem")});
    member["members"] = json!([lab.hosts()[0].urls[1]]);
    folder.write("lab.pem", lab.authority_pem());
    folder.write_json("system.json", &super::support::quick_settings());
    folder.write_json("instances.json", &json!({"instances": [member]}));
    let daemon = Daemon::start(&folder).await;
    assert_eq!(discovered(&daemon, "rack-2").await["configured"], "pve::rack-1");
    let third = discovered(&daemon, "rack-3").await;
    assert_eq!(third["offer"]["fingerprint"], Value::Null);
    let (status, added) = add(&daemon, &json!([{"name": "rack-3"}])).await;
    assert_eq!(status, StatusCode::CREATED, "{added:#}");
    is_polled(&daemon, "pve::rack-3").await;
    assert_eq!(daemon.get("/api/config/nodes/pve::rack-3").await["instance"]["tls"], member["tls"]);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_the_cluster_does_not_tell_is_shown_by_the_node_or_the_node_cannot_be_added() {
    let (lab, member) = rack(40_200).await;
    let folder = Folder::quick(&json!({"instances": [member]}));
    let daemon = Daemon::start(&folder).await;
    lab.set_fault("rack", Fault::from(FaultKind::status(403)).on("/nodes/rack-2/certificates")).await.unwrap();
    lab.set_member_behaviour("rack", 2, Fault::from(FaultKind::Refuse)).await.unwrap();
    let second = discovered(&daemon, "rack-2").await;
    assert_eq!(second["offer"]["fingerprint"], member["tls"]["fingerprint"]);
    assert_eq!(second["offer"]["fingerprintSource"], "firstContact");
    let third = discovered(&daemon, "rack-3").await;
    assert_eq!((&third["online"], &third["offer"]), (&json!(false), &Value::Null));
    assert!(third["problem"].as_str().unwrap().contains("certificate cannot be seen"), "{third:#}");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn whoever_cannot_tell_a_cluster_is_refused_with_what_stands_against_it() {
    let (lab, member) = rack(40_300).await;
    let alone = lab.instances_json(None)["instances"][1].take();
    let tcp = json!({"type": "tcp", "name": "door", "host": "127.0.0.1", "port": 1});
    let folder = Folder::quick(&json!({"instances": [member, alone, tcp]}));
    let daemon = Daemon::start(&folder).await;
    let refused = async |key: &str, status: u16, code: &str| {
        let response = daemon.request(reqwest::Method::GET, &cluster(key)).send().await.unwrap();
        let problem: Value = response.json().await.unwrap();
        assert_is_problem(&problem, status, code);
        problem["detail"].as_str().unwrap().to_owned()
    };
    refused("tcp::door", 409, "not_pve").await;
    refused("pve::alone", 409, "no_cluster").await;
    refused("pve::nobody", 404, "not_found").await;
    lab.set_fault("rack", Fault::from(FaultKind::status(403)).on("/cluster/status")).await.unwrap();
    let detail = refused("pve::rack-1", 409, "host_refused").await;
    assert!(detail.contains("/cluster/status"), "{detail}");
    lab.set_fault("rack", FaultKind::Refuse).await.unwrap();
    refused("pve::rack-1", 409, "host_unreachable").await;
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_command_line_shows_the_cluster_and_pins_nothing_that_was_not_confirmed() {
    let (lab, member) = rack(40_400).await;
    let folder = Folder::quick(&json!({"instances": [member]}));
    let daemon = Daemon::start(&folder).await;
    let discover = async |arguments: &[&str]| -> Ended {
        run(folder.pulse(["instances", "discover", "pve::rack-1"]).args(arguments)).await
    };
    let shown = discover(&[]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for text in ["Cluster rack", "pve::rack-1", "not yet", "told by the cluster"] {
        assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
    }
    let unconfirmed = discover(&["--add", "rack-2"]).await;
    assert_eq!(unconfirmed.code, Some(1), "{unconfirmed:?}");
    let fingerprint = member["tls"]["fingerprint"].as_str().unwrap();
    assert!(unconfirmed.stderr.contains(fingerprint) && unconfirmed.stderr.contains("--trust-certificates"));
    assert_eq!(discover(&["--add", "rack-9"]).await.code, Some(1));

    let added = discover(&["--add-all", "--trust-certificates", "--reason", "the rest", "--json"]).await;
    assert_eq!(added.code, Some(0), "{added:?}");
    let answer: Value = serde_json::from_str(&added.stdout).unwrap();
    assert_eq!(answer["keys"], json!(["pve::rack-2", "pve::rack-3"]));
    is_polled(&daemon, "pve::rack-3").await;
    let again = discover(&["--add-all"]).await;
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "There is no node to add.\n"));
    daemon.stop().await;
    lab.shutdown().await;
}
