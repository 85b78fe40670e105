//! `POST /api/system/settings/update`: at once and kept, or refused whole with every reason and nothing changed.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::access::assert_is_problem;
use super::support::{Daemon, Folder};

const UPDATE: &str = "/api/system/settings/update";

fn setting<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap()
}

async fn problem(response: Response, status: StatusCode, code: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let problem = response.json().await.unwrap();
    assert_is_problem(&problem, status.as_u16(), code);
    problem
}

#[tokio::test]
async fn an_update_is_in_force_when_it_is_answered_and_after_a_restart() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder).await;
    let answer = daemon.get("/api/system/settings").await;
    assert_eq!(setting(&answer, "adaptivePollingEnabled")["value"], true);
    assert_eq!(setting(&answer, "adaptivePollingEnabled")["origin"], "default");

    let update = json!({"adaptivePollingEnabled": false, "adaptivePollingBaseInterval": "20s"});
    let response = daemon.post(UPDATE, &update).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(daemon.health().await["enabled"], false);
    for (name, value) in update.as_object().unwrap() {
        assert_eq!((&setting(&answer, name)["value"], &setting(&answer, name)["origin"]), (value, &json!("file")));
    }
    assert_eq!(daemon.get("/api/system/settings").await, answer);
    daemon.stop().await;

    let daemon = Daemon::start(&folder).await;
    assert_eq!(daemon.get("/api/system/settings").await, answer);
    // `null` is the default again.
    let response = daemon.post(UPDATE, &json!({"adaptivePollingEnabled": null})).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!(setting(&answer, "adaptivePollingEnabled")["origin"], "default");
    assert_eq!(setting(&answer, "adaptivePollingBaseInterval")["value"], "20s");
    assert_eq!(daemon.health().await["enabled"], true);
    daemon.stop().await;
}

#[tokio::test]
async fn an_update_with_faults_is_refused_whole_with_every_reason() {
    let folder = Folder::new();
    let variables = [("ADAPTIVE_POLLING_MAX_INTERVAL", "2m"), ("ADAPTIVE_POLLING_ENABLED", "yes")];
    let daemon = Daemon::start_with(&folder, &[], &variables).await;
    let (files, before) = (folder.configuration(), daemon.get("/api/system/settings").await);
    assert_eq!(setting(&before, "adaptivePollingMaxInterval")["origin"], "environment");

    let update = json!({
        "adaptivePollingEnabled": false,
        "adaptivePollingMaxInterval": "10m",
        "adaptivePollingBaseInterval": "often",
        "pollingMaxInFlight": -1,
        "colour": "red",
        "breakerFailureThreshold": 7,
    });
    let problem =
        problem(daemon.post(UPDATE, &update).await, StatusCode::UNPROCESSABLE_ENTITY, "settings_refused").await;
    let errors = problem["errors"].as_array().unwrap();
    for (name, words) in [
        ("adaptivePollingEnabled", "is pinned by the environment variable ADAPTIVE_POLLING_ENABLED"),
        ("adaptivePollingMaxInterval", "is pinned by the environment variable ADAPTIVE_POLLING_MAX_INTERVAL"),
        ("adaptivePollingBaseInterval", "10s"),
        ("pollingMaxInFlight", "whole number"),
        ("colour", "unknown setting"),
    ] {
        let error = errors.iter().find(|error| error["at"] == name).unwrap_or_else(|| panic!("{name}: {problem:#}"));
        assert!(error["detail"].as_str().unwrap().contains(words), "{words:?} is not in {error}");
    }
    assert_eq!(errors.len(), 5, "what is sound is not complained of: {problem:#}");
    assert_eq!(folder.configuration(), files);
    assert_eq!(daemon.get("/api/system/settings").await, before);

    let update = json!({"adaptivePollingMinInterval": "1m"});
    let response = daemon.post(UPDATE, &update).await;
    let problem = self::problem(response, StatusCode::UNPROCESSABLE_ENTITY, "settings_refused").await;
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("must not exceed"), "{problem:#}");
    assert_eq!(folder.configuration(), files);
    daemon.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_update_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder).await;
    let files = folder.configuration();
    for body in ["", "{", "[]", "null", "\"adaptivePollingEnabled\"", "{\"a\": 1} {}", "\u{0}"] {
        let response = daemon.request(Method::POST, UPDATE).body(body).send().await.unwrap();
        problem(response, StatusCode::BAD_REQUEST, "malformed_request").await;
    }
    let large = format!("{{\"colour\": \"{}\"}}", "x".repeat(256 * 1024));
    let response = daemon.request(Method::POST, UPDATE).body(large.clone()).send().await.unwrap();
    problem(response, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
    let pieces: Vec<_> = large
        .as_bytes()
        .chunks(1000)
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let of_unknown_length = reqwest::Body::wrap(StreamBody::new(futures::stream::iter(pieces)));
    let response = daemon.request(Method::POST, UPDATE).body(of_unknown_length).send().await.unwrap();
    problem(response, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
    assert_eq!(folder.configuration(), files);
    daemon.stop().await;
}
