//! `GET /api/state`: the last reading of each instance, in pages that miss nothing and repeat nothing.

use pulse::lab::HostPlan;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::access::assert_is_problem;
use super::support::{Daemon, Folder, SEED, lab};

fn keys(answer: &Value) -> Vec<String> {
    answer["instances"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_pages_of_the_state_hold_every_instance_once_and_in_order() {
    let lab = lab(vec![
        HostPlan::tcp("port"),
        HostPlan::pve(SEED, "rack-b", 3),
        HostPlan::pve(SEED, "rack-a", 3),
        HostPlan::pmg(SEED, "mail"),
        HostPlan::pbs(SEED, "vault", &["daily"]),
    ])
    .await;
    let all = ["pbs::vault", "pmg::mail", "pve::rack-a", "pve::rack-b", "tcp::port"];
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    for key in all {
        let row = daemon.until_state(key, |row| row["readAt"].is_string()).await;
        assert_eq!(row["reading"]["type"], row["type"], "{row:#}");
    }
    let whole = daemon.get("/api/state").await;
    assert_eq!((keys(&whole), &whole["next"]), (all.map(str::to_owned).to_vec(), &Value::Null));

    for limit in 1..=all.len() {
        let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = daemon.get(&format!("/api/state?limit={limit}{after}")).await;
            assert!(keys(&page).len() <= limit);
            seen.extend(keys(&page));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, all, "pages of {limit}");
        assert_eq!(pages, all.len().div_ceil(limit), "no page is empty");
    }

    let pve = daemon.get("/api/state?type=pve&limit=1").await;
    assert_eq!((keys(&pve), &pve["next"]), (vec!["pve::rack-a".to_owned()], &"pve::rack-a".into()));
    let rest = daemon.get("/api/state?type=pve&limit=1&after=pve::rack-a").await;
    assert_eq!((keys(&rest), &rest["next"]), (vec!["pve::rack-b".to_owned()], &Value::Null));
    assert_eq!(keys(&daemon.get("/api/state?key=pmg%3A%3Amail").await), ["pmg::mail"]);
    assert_eq!(keys(&daemon.get("/api/state?key=pmg::nobody").await), [""; 0]);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_wrong_parameter_is_refused_by_name() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder).await;
    for (query, named) in [
        ("limit=0", "`limit`"),
        ("limit=1001", "`limit`"),
        ("limit=many", "limit"),
        ("type=vmware", "vmware"),
        ("key=nonsense", "`key`"),
        ("after=nonsense", "`after`"),
        ("colour=red", "colour"),
    ] {
        let response = daemon.request(Method::GET, &format!("/api/state?{query}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem = response.json().await.unwrap();
        assert_is_problem(&problem, 400, "malformed_request");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem:#}");
    }
    daemon.stop().await;
}
