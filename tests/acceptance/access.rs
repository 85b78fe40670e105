//! Who may come in: every call, with each kind of token, by each door; and no answer or log line tells a secret.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use pulse::lab::{HostPlan, Lab};
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, HEALTH, SEED, client_builder, lab, run};

/// Every call: its method and path, and a body that it accepts.
fn calls() -> [(Method, &'static str, Option<Value>); 7] {
    [
        (Method::GET, HEALTH, None),
        (Method::GET, "/api/state", None),
        (Method::GET, "/api/system/settings", None),
        (Method::POST, "/api/system/settings/update", Some(json!({}))),
        (Method::GET, "/api/health", None),
        (Method::GET, "/api/version", None),
        (Method::GET, "/api/openapi.json", None),
    ]
}

#[tokio::test]
async fn every_documented_call_is_in_the_table_of_calls_and_the_other_way_round() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let document = daemon.get("/api/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    let documented: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())))
        .collect();
    let tabled = calls().map(|(method, path, _)| (method.as_str().to_lowercase(), path.to_owned())).into();
    assert_eq!(documented, tabled);
    for ((method, path), call) in documented.iter().map(|key| (key, &paths[&key.1][&key.0])) {
        assert!(call["responses"]["401"].is_object(), "{method} {path} tells nobody that it needs a token");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn every_call_is_refused_without_the_right_token_and_answered_with_it() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let nearly = &daemon.token[..daemon.token.len() - 1];
    for (method, path, body) in calls() {
        let call_at = |path: &str| {
            let request = daemon.anonymous(method.clone(), path);
            if let Some(body) = &body { request.json(body) } else { request }
        };
        let call = || call_at(path);
        let refused = [
            ("no token", call()),
            ("a wrong token", call().bearer_auth("pulse_wrong")),
            ("an empty token", call().bearer_auth("")),
            ("most of the token", call().bearer_auth(nearly)),
            ("the token by another scheme", call().header("Authorization", format!("Basic {}", daemon.token))),
            ("the token as password", call().basic_auth("admin", Some(&daemon.token))),
            ("a wrong token of the other kind", call().header("X-API-Token", "pulse_wrong")),
            ("the token in the address", call_at(&format!("{path}?token={}", daemon.token))),
            ("a claim to be local", call().header("X-Forwarded-For", "127.0.0.1")),
        ];
        for (with, request) in refused {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} with {with}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "unauthorized");
        }
        let answered = [call().bearer_auth(&daemon.token), call().header("X-API-Token", &daemon.token)];
        for request in answered {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_needs_no_token() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let metadata = daemon.socket().metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let local = client_builder().unix_socket(daemon.socket()).build().unwrap();
    for (method, path, body) in calls() {
        let request = local.request(method.clone(), format!("http://localhost{path}"));
        let request = if let Some(body) = &body { request.json(body) } else { request };
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{method} {path}");
    }
    let ended = run(&mut folder.pulse(["health", "--json"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let health: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(health["enabled"], true);
    daemon.stop().await;
}

#[tokio::test]
async fn a_stranger_learns_nothing_of_which_paths_there_are() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for (method, path) in [(Method::GET, "/"), (Method::GET, "/api/no-such-call"), (Method::DELETE, "/api/version")] {
        let response = daemon.anonymous(method, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_no_call_is_answered_with_a_problem() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/api/no-such-call", 404, "not_found"),
        (Method::GET, "/api/health/", 404, "not_found"),
        (Method::GET, "/api/../etc/passwd", 404, "not_found"),
        (Method::DELETE, "/api/health", 405, "method_not_allowed"),
        (Method::POST, HEALTH, 405, "method_not_allowed"),
        (Method::GET, "/api/system/settings/update", 405, "method_not_allowed"),
    ] {
        let response = daemon.request(method.clone(), path).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        if status == 405 {
            assert!(response.headers().contains_key("allow"), "RFC 9110 wants the methods that are allowed");
        }
        assert_is_problem(&response.json().await.unwrap(), status, code);
    }
    daemon.stop().await;
}

/// What RFC 9457 wants, and the code for programs.
pub(crate) fn assert_is_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["status"], status, "{problem:#}");
    assert_eq!(problem["code"], code, "{problem:#}");
    assert_eq!(problem["type"], format!("urn:pulse:problem:{code}"));
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem:#}");
    }
}

/// A fleet that signs in in every way, one of them refused, and everything in it that is secret.
async fn fleet_with_secrets() -> (Lab, Value, Vec<String>) {
    let lab = lab(vec![
        HostPlan::pve(SEED, "by-token", 3),
        HostPlan::pve(SEED, "by-password", 3).by_password(SEED),
        HostPlan::pbs(SEED, "refused-token", &["daily"]).with_rejected_secret(),
        HostPlan::pmg(SEED, "refused-password").by_password(SEED).with_rejected_secret(),
        HostPlan::pmg(SEED, "by-file"),
        HostPlan::pbs(SEED, "by-variable", &["daily"]),
    ])
    .await;
    let fleet = lab.instances_json(None);
    let secret = |instance: &Value| {
        let auth = &instance["auth"];
        auth["secret"].as_str().or(auth["password"].as_str()).unwrap().to_owned()
    };
    let secrets = fleet["instances"].as_array().unwrap().iter().map(secret).collect();
    (lab, fleet, secrets)
}

#[tokio::test]
async fn no_answer_and_no_log_line_holds_a_secret() {
    let (lab, mut fleet, mut secrets) = fleet_with_secrets().await;
    fleet["instances"][4]["auth"]["secret"] = json!({"file": "mail.secret"});
    fleet["instances"][5]["auth"]["secret"] = json!({"env": "VAULT_SECRET"});
    let folder = Folder::quick(&fleet);
    folder.write("mail.secret", &secrets[4]);
    let variables = [("VAULT_SECRET", secrets[5].as_str()), ("PULSE_LOG", "trace")];
    let daemon = Daemon::start_with(&folder, &[], &variables).await;
    for key in ["pve::by-token", "pve::by-password", "pmg::by-file", "pbs::by-variable"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    for key in ["pbs::refused-token", "pmg::refused-password"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastError"]["category"] == "unauthorized").await;
    }
    // An edit that is refused is shown with its errors, not with what it held.
    let mut broken = fleet.clone();
    broken["instances"][0]["auth"]["tokenid"] = json!("misspelt");
    broken["instances"][1]["type"] = json!("vmware");
    folder.write_json("instances.json", &broken);
    let refused = async || (daemon.get("/api/system/settings").await["refusedEdits"] != json!([])).then_some(());
    super::support::eventually("the edit is refused", super::support::PATIENCE, refused).await.unwrap();

    secrets.push(daemon.token.clone());
    let mut told = vec![("the log".to_owned(), daemon.program.stderr())];
    for (method, path, body) in calls() {
        let call = || {
            let request = daemon.anonymous(method.clone(), path);
            if let Some(body) = &body { request.json(body) } else { request }
        };
        let leaked = format!("{}-and-more", daemon.token);
        for request in [call().bearer_auth(&daemon.token), call(), call().bearer_auth(leaked)] {
            let response = request.send().await.unwrap();
            let headers = format!("{:?}", response.headers());
            told.push((format!("{method} {path}"), headers + &response.text().await.unwrap()));
        }
    }
    for command in [&["health"][..], &["health", "--json"], &["config", "info"], &["config", "validate"]] {
        let ended = run(folder.pulse(command).env("VAULT_SECRET", &secrets[5])).await;
        told.push((format!("pulse {command:?}"), ended.stdout + &ended.stderr));
    }
    told.push(("the log at the end".to_owned(), daemon.program.stderr()));
    told.push(("the token file".to_owned(), folder.read("tokens.json")));
    for (place, text) in &told {
        assert!(!text.is_empty(), "{place}");
        for (number, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret.as_str()), "secret {number} is told by {place}");
        }
    }
    daemon.stop().await;
    lab.shutdown().await;
}
