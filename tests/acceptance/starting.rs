//! The daemon listens before it polls, and lives however the hosts fare.

use std::time::Duration;

use pulse::lab::{FaultKind, HostPlan};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::support::{Daemon, Folder, SEED, Stopwatch, lab, run};

#[tokio::test]
async fn the_ports_answer_within_a_second_of_the_start_while_every_host_hangs() {
    let hang = |number| HostPlan::pve(SEED, format!("tar-pit-{number}"), 3).behaving(FaultKind::HangBeforeTls);
    let lab = lab((0..20).map(hang).collect()).await;
    let folder = Folder::quick(&lab.instances_json(None));
    // One that every host holds up, were they contacted first.
    folder.write_json("system.json", &json!({"pvePollingTimeout": "1m"}));
    let stopwatch = Stopwatch::start();
    let daemon = Daemon::start(&folder).await;
    let response = daemon.request(Method::GET, "/api/health").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let instances = daemon.health().await["instances"].as_array().unwrap().len();
    let took = stopwatch.elapsed();
    assert_eq!(instances, 20);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn the_daemon_is_alive_while_every_host_is_dead() {
    let dead = |number| HostPlan::pve(SEED, format!("attic-{number}"), 3).behaving(FaultKind::Refuse);
    let lab = lab((0..4).map(dead).collect()).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    for number in 0..4 {
        daemon.until_instance(&format!("pve::attic-{number}"), |row| row["deadLetter"]["present"] == true).await;
    }
    assert_eq!(daemon.health().await["deadLetter"]["count"], 4);
    let response = daemon.request(Method::GET, "/api/health").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["status"], "ok");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn both_ports_are_open_to_this_machine_alone_unless_asked_otherwise() {
    let help = run(&mut Folder::new().pulse(["serve", "--help"])).await.stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in ["[default: 127.0.0.1:7655]", "[default: 127.0.0.1:9091]"] {
        assert!(help.contains(default), "{help}");
    }
}
