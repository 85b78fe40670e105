//! What operators do by hand: each call through HTTP and the command line, its effect in the next health answer, and its
//! trace in the audit log.

use pulse::lab::{HostPlan, Lab};
use pulse::security::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Folder, SEED, lab, run};

/// A fleet of a healthy host, a dead letter, and an endpoint.
async fn fleet() -> (Lab, Folder, Daemon) {
    let dead = HostPlan::pbs(SEED, "dead", &["daily"]).with_rejected_secret();
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), dead]).await;
    let mut fleet = lab.instances_json(None);
    fleet["instances"][1]["name"] = json!("dead one/ü");
    let endpoint = json!({"type": "tcp", "name": "db", "host": "127.0.0.1", "port": 1});
    fleet["instances"].as_array_mut().unwrap().push(endpoint);
    let folder = Folder::quick(&fleet);
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    daemon.until_instance(DEAD, |row| row["deadLetter"]["present"] == true).await;
    (lab, folder, daemon)
}

const DEAD: &str = "pbs::dead one/ü";
const DEAD_ENCODED: &str = "pbs%3A%3Adead%20one%2F%C3%BC";

async fn answer(daemon: &Daemon, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = daemon.request(method, path);
    let response = if let Some(body) = body { request.json(&body) } else { request }.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn last_entry(daemon: &Daemon, action: &str) -> Value {
    daemon.get(&format!("/api/audit?action={action}&limit=1")).await["entries"][0].clone()
}

#[tokio::test]
async fn a_breaker_is_reset_with_a_reason_and_the_answer_is_the_documented_one() {
    let (lab, _folder, daemon) = fleet().await;
    let reason = json!({"reason": "the switch is replaced"});
    // A key may be percent-encoded or not.
    for key in ["pve::rack", "pve%3A%3Arack"] {
        let path = format!("/api/monitoring/breakers/{key}/reset");
        let (status, reset) = answer(&daemon, Method::POST, &path, Some(reason.clone())).await;
        assert_eq!(status, StatusCode::OK, "{reset}");
        let mut names: Vec<_> = reset.as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["key", "newState", "previousState", "resetAt", "resetBy", "success"]);
        assert_eq!(
            (&reset["success"], &reset["key"], &reset["newState"]),
            (&json!(true), &json!("pve::rack"), &json!("closed"))
        );
        assert_eq!(reset["resetBy"], "token:tests");
        assert!(reset["resetAt"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
    let entry = last_entry(&daemon, "breaker.reset").await;
    assert_eq!((&entry["actor"], &entry["address"]), (&json!("token:tests"), &json!("127.0.0.1")));
    assert_eq!((&entry["key"], &entry["outcome"]), (&json!("pve::rack"), &json!("done")));
    assert_eq!(entry["reason"], "the switch is replaced");
    for state in ["before", "after"] {
        assert_eq!(entry[state]["breaker"]["state"], "closed", "{entry:#}");
    }
    // Without a reason, or with one that says nothing, nothing is done; and that is in the log too.
    let path = "/api/monitoring/breakers/pve::rack/reset";
    for body in [None, Some(json!({})), Some(json!({"reason": "  "})), Some(json!({"reason": 5}))] {
        let (status, problem) = answer(&daemon, Method::POST, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_is_problem(&problem, 400, "malformed_request");
        let entry = last_entry(&daemon, "breaker.reset").await;
        assert_eq!((&entry["outcome"], &entry["detail"]), (&json!("refused"), &json!("malformed_request")));
    }
    let no_breaker = "/api/monitoring/breakers/tcp::db/reset";
    let (_, problem) = answer(&daemon, Method::POST, no_breaker, Some(reason)).await;
    assert_is_problem(&problem, 409, "no_breaker");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_dead_letter_is_retried_and_removed_and_the_next_health_answer_shows_it() {
    let (lab, _folder, daemon) = fleet().await;
    let path = format!("/api/monitoring/dlq/{DEAD_ENCODED}");
    let before = daemon.instance(DEAD).await;
    let (status, retry) = answer(&daemon, Method::POST, &format!("{path}/retry"), None).await;
    assert_eq!(status, StatusCode::OK, "{retry}");
    assert_eq!((&retry["success"], &retry["key"]), (&json!(true), &json!(DEAD)));
    assert_eq!(retry["previousRetryCount"], before["deadLetter"]["retryCount"]);
    assert!(retry["scheduledFor"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    daemon.until_instance(DEAD, |row| row["deadLetter"]["retryCount"] == 1).await;

    let many = "/api/monitoring/dlq/retry?reason=permanent_failure&type=pbs&olderThan=1ms";
    let (status, dry) = answer(&daemon, Method::POST, &format!("{many}&dryRun=true"), None).await;
    assert_eq!(status, StatusCode::OK, "{dry}");
    assert_eq!((&dry["tasksRetried"], &dry["keys"]), (&json!(1), &json!([DEAD])));
    assert_eq!((&dry["dryRun"], &dry["results"][0]["result"]), (&json!(true), &json!("would_retry")));
    let (_, done) = answer(&daemon, Method::POST, many, Some(json!({"reason": "mended"}))).await;
    assert_eq!((&done["success"], &done["tasksRetried"], &done["keys"]), (&json!(true), &json!(1), &json!([DEAD])));
    assert!(done["results"][0]["scheduledFor"].is_string(), "{done}");
    let (_, none) = answer(&daemon, Method::POST, "/api/monitoring/dlq/retry?type=pve", None).await;
    assert_eq!((&none["tasksRetried"], &none["keys"]), (&json!(0), &json!([])));
    let entry = last_entry(&daemon, "dlq.retry_many").await;
    assert_eq!((&entry["outcome"], &entry["after"]["filter"]["type"]), (&json!("done"), &json!("pve")));

    // Those that were chosen by their keys, as far as they are dead letters.
    let chosen = json!({"reason": "chosen", "keys": ["pve::rack", "pve::nobody", DEAD]});
    let (_, one) = answer(&daemon, Method::POST, "/api/monitoring/dlq/retry?dryRun=true", Some(chosen)).await;
    assert_eq!(one["keys"], json!([DEAD]));
    let (status, _) = answer(&daemon, Method::POST, many, Some(json!({"keys": ["no key"]}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let entry = last_entry(&daemon, "dlq.retry_many").await;
    assert_eq!((&entry["outcome"], &entry["detail"]), (&json!("refused"), &json!("malformed_request")));
    daemon.until_instance(DEAD, |row| row["deadLetter"]["retryCount"] == 2).await;

    let (status, removed) = answer(&daemon, Method::DELETE, &path, Some(json!({"reason": "gone"}))).await;
    assert_eq!(status, StatusCode::OK, "{removed}");
    assert_eq!(removed, json!({"success": true, "key": DEAD, "reason": "permanent_failure"}));
    assert_eq!(daemon.instance(DEAD).await["deadLetter"]["present"], false);
    let entry = last_entry(&daemon, "dlq.remove").await;
    assert_eq!((&entry["before"]["place"], &entry["after"]["place"]), (&json!("dead_lettered"), &json!("paused")));

    for (method, path) in [(Method::DELETE, path.clone()), (Method::POST, format!("{path}/retry"))] {
        let (_, problem) = answer(&daemon, method, &path, None).await;
        assert_is_problem(&problem, 409, "not_dead_lettered");
    }
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn an_instance_is_polled_now_paused_and_resumed() {
    let (lab, _folder, daemon) = fleet().await;
    let act = async |what: &str, key: &str| {
        answer(&daemon, Method::POST, &format!("/api/monitoring/instances/{key}/{what}"), None).await
    };
    let (status, paused) = act("pause", "pve::rack").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(paused, json!({"success": true, "key": "pve::rack", "paused": true, "changed": true}));
    assert_eq!(act("pause", "pve::rack").await.1["changed"], false);
    assert_is_problem(&act("poll", "pve::rack").await.1, 409, "paused");
    assert_is_problem(&act("poll", DEAD_ENCODED).await.1, 409, "dead_lettered");
    let last = daemon.instance("pve::rack").await["pollStatus"]["lastSuccess"].clone();
    assert_eq!(act("resume", "pve::rack").await.1["paused"], false);
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"] != last).await;
    for key in ["pve::nobody", "nonsense", "vmware::x", "pve::"] {
        let (status, problem) = act("poll", key).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{key}");
        assert_is_problem(&problem, 404, "unknown_instance");
        let entry = last_entry(&daemon, "instance.poll").await;
        assert_eq!((&entry["key"], &entry["outcome"]), (&json!(key), &json!("refused")));
    }
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_command_line_does_the_same_over_the_socket_as_the_account_that_runs_it() {
    let (lab, folder, daemon) = fleet().await;
    let pulse = async |arguments: &[&str]| {
        let ended = run(&mut folder.pulse(arguments)).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    };
    let account = String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let said = pulse(&["breaker", "reset", "pve::rack", "--reason", "mended"]).await;
    assert_eq!(said, "The circuit breaker of pve::rack was closed and is closed.\n");
    let entry = last_entry(&daemon, "breaker.reset").await;
    assert_eq!((&entry["actor"], &entry["address"]), (&json!(format!("local:{}", account.trim())), &Value::Null));
    assert!(pulse(&["dlq", "list"]).await.contains(DEAD));
    let listed: Value = serde_json::from_str(&pulse(&["dlq", "list", "--json"]).await).unwrap();
    assert_eq!(listed[0]["key"], DEAD);
    assert!(pulse(&["dlq", "retry", "--all", "--type", "pbs", "--dry-run"]).await.contains("would be retried"));
    assert!(pulse(&["dlq", "retry", DEAD, "--reason", "mended"]).await.contains("is rechecked now"));
    daemon.until_instance(DEAD, |row| row["deadLetter"]["retryCount"] == 1).await;
    assert!(pulse(&["dlq", "remove", DEAD, "--json"]).await.contains("\"permanent_failure\""));
    let listed = pulse(&["audit", "list", "--action", "dlq."]).await;
    assert!(["dlq.retry_many", "dlq.retry", "dlq.remove"].iter().all(|action| listed.contains(action)), "{listed}");
    let exported = pulse(&["audit", "export"]).await;
    let entries: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>(), "all of them, the oldest first");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_eleventh_management_call_of_a_minute_waits_and_others_are_not_held_up() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let (one, other) = (daemon.new_token("one", Role::Admin).await, daemon.new_token("other", Role::Admin).await);
    let call = async |token: &str| {
        let request = daemon.anonymous(Method::POST, "/api/monitoring/instances/pve::x/pause");
        request.bearer_auth(token).send().await.unwrap()
    };
    for left in (0..10).rev() {
        let response = call(&one).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["ratelimit-limit"], "10");
        assert_eq!(response.headers()["ratelimit-remaining"], left.to_string());
    }
    for _ in 0..5 {
        let refused = call(&one).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
        assert_eq!(refused.headers()["ratelimit-remaining"], "0");
        assert_is_problem(&refused.json().await.unwrap(), 429, "too_many_calls");
    }
    assert_eq!(call(&other).await.status(), StatusCode::NOT_FOUND);
    let told = daemon.get("/api/audit?actor=token:one&outcome=refused").await;
    let told = told["entries"].as_array().unwrap().iter().filter(|entry| entry["detail"] == "too_many_calls").count();
    assert_eq!(told, 1, "a flood of calls is no flood of entries");
    let reads = daemon.request(Method::GET, "/api/version").send().await.unwrap();
    assert_eq!(reads.headers()["ratelimit-limit"], "500");
    daemon.stop().await;
}

#[tokio::test]
async fn an_address_that_calls_too_often_is_held_up_before_anything_is_looked_at() {
    let folder = Folder::quick(&json!({"instances": []}));
    let proxied = &["--trusted-proxy", "127.0.0.0/8,10.0.0.0/8"];
    let daemon = Daemon::start_with(&folder, proxied, &[]).await;
    let client = super::support::client();
    let from = async |forwarded: &str| {
        let request = client.get(format!("http://{}/api/version", daemon.address)).bearer_auth(&daemon.token);
        request.header("X-Forwarded-For", forwarded).send().await.unwrap().status()
    };
    let mut within = 0;
    // What the client writes itself, to the left, makes it nobody else.
    while from("198.51.100.250, 203.0.113.7, 10.1.1.1").await == StatusCode::OK {
        within += 1;
        assert!(within < 2_000, "there is no limit");
    }
    assert!(within >= 500, "{within}");
    assert_eq!(from("203.0.113.8").await, StatusCode::OK, "others are not held up");
    let url = format!("http://{}/api/version", daemon.address);
    let mut held_up = false;
    for _ in 0..50 {
        let stranger = client.get(&url).header("X-Forwarded-For", "203.0.113.7").send().await.unwrap();
        held_up |= stranger.status() == StatusCode::TOO_MANY_REQUESTS;
    }
    assert!(held_up, "with credentials or without, it is one address");
    let local = super::support::client_builder().unix_socket(daemon.socket()).build().unwrap();
    for _ in 0..600 {
        assert_eq!(local.get("http://localhost/api/version").send().await.unwrap().status(), StatusCode::OK);
    }
    daemon.stop().await;
}
