//! `GET /api/monitoring/scheduler/health`, field by field as documented: names, nulls, order, and what each says of
//! hosts that are well, failing, given up, and back.

use pulse::lab::{FaultKind, HostPlan, Lab};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, SEED, lab, quick_settings, row};

/// What [`marked`] puts in place of a time.
const TIME: &str = "a time";

/// The same with every RFC 3339 time in UTC marked as such. One of year 1 is no time.
fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<jiff::Timestamp>() {
            Ok(time) if text.ends_with('Z') && time > jiff::Timestamp::UNIX_EPOCH => TIME.into(),
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(marked).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), marked(value))).collect(),
        other => other.clone(),
    }
}

fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

fn no_dead_letter() -> Value {
    json!({
        "present": false, "reason": null, "firstAttempt": null, "lastAttempt": null, "retryCount": null,
        "nextRetry": null,
    })
}

/// A fleet with one instance in each state, once all of them have come there.
async fn fleet_in_every_state() -> (Lab, Folder, Daemon) {
    let lab = lab(vec![
        HostPlan::pve(SEED, "well", 3),
        HostPlan::pve(SEED, "failing", 3).behaving(FaultKind::status(503)),
        HostPlan::pbs(SEED, "locked", &["daily"]).with_rejected_secret(),
        HostPlan::tcp("port"),
    ])
    .await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut settings = quick_settings();
    // A breaker that stays open long enough to be looked at.
    settings["breakerOpenInitial"] = json!("1m");
    settings["breakerOpenMax"] = json!("5m");
    settings["tcpPollingInterval"] = json!("300ms");
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::failing", |row| row["breaker"]["state"] == "open").await;
    daemon.until_instance("pbs::locked", |row| row["deadLetter"]["present"] == true).await;
    for key in ["pve::well", "tcp::port"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    (lab, folder, daemon)
}

#[tokio::test]
async fn each_row_has_the_documented_fields_and_null_for_what_does_not_exist() {
    let (lab, _folder, daemon) = fleet_in_every_state().await;
    let health = daemon.health().await;
    let found = |key: &str| marked(&row(&health["instances"], key));
    let [well, failing, locked, port] = [0, 1, 2, 3].map(|index| lab.hosts()[index].urls[0].clone());
    let message = |key: &str| row(&health["instances"], key)["pollStatus"]["lastError"]["message"].clone();
    assert!(message("pve::failing").as_str().unwrap().contains("503"));
    assert!(message("pbs::locked").as_str().unwrap().contains("the API token was refused"));

    let closed = json!({"state": "closed", "since": TIME, "lastTransition": null, "retryAt": null, "failureCount": 0});
    let succeeded = json!({"lastSuccess": TIME, "lastError": null, "consecutiveFailures": 0, "firstFailureAt": null});
    assert_eq!(
        found("pve::well"),
        json!({
            "key": "pve::well", "type": "pve", "displayName": "Well", "instance": "well", "connection": well,
            "pollStatus": succeeded, "breaker": closed, "deadLetter": no_dead_letter(),
        })
    );
    assert_eq!(
        found("pve::failing"),
        json!({
            "key": "pve::failing", "type": "pve", "displayName": "Failing", "instance": "failing",
            "connection": failing,
            "pollStatus": {
                "lastSuccess": null,
                "lastError": {"at": TIME, "message": message("pve::failing"), "category": "server_error"},
                "consecutiveFailures": 3, "firstFailureAt": TIME,
            },
            "breaker": {"state": "open", "since": TIME, "lastTransition": TIME, "retryAt": TIME, "failureCount": 3},
            "deadLetter": no_dead_letter(),
        })
    );
    let locked_row = found("pbs::locked");
    assert_eq!(locked_row["connection"], locked);
    assert_eq!(
        locked_row["deadLetter"],
        json!({
            "present": true, "reason": "permanent_failure", "firstAttempt": TIME, "lastAttempt": TIME,
            "retryCount": 0, "nextRetry": TIME,
        })
    );
    let unknown =
        json!({"state": "unknown", "since": null, "lastTransition": null, "retryAt": null, "failureCount": 0});
    assert_eq!(
        (&found("tcp::port")["breaker"], &found("tcp::port")["connection"]),
        (&unknown, &json!(port.trim_start_matches("tcp://")))
    );
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_lists_beside_the_rows_have_the_documented_fields_too() {
    let (lab, _folder, daemon) = fleet_in_every_state().await;
    let health = daemon.health().await;
    let documented = ["breakers", "deadLetter", "enabled", "instances", "queue", "staleness", "updatedAt"];
    assert_eq!(fields(&health), documented);
    assert_eq!((marked(&health["updatedAt"]), &health["enabled"]), (json!(TIME), &json!(true)));

    let queue = &health["queue"];
    assert_eq!(fields(queue), ["depth", "dueWithinSeconds", "perType"]);
    // The one with the open breaker waits for a minute; any of the others may be in flight.
    let count = |value: &Value| value.as_u64().unwrap();
    assert!((1..=3).contains(&count(&queue["depth"])), "{queue}");
    assert!(count(&queue["dueWithinSeconds"]) < count(&queue["depth"]), "{queue}");
    assert_eq!(fields(&queue["perType"]), ["pbs", "pve", "tcp"]);
    assert_eq!(queue["perType"]["pbs"], 0, "a dead letter is not in the queue");

    let last_error = &row(&health["instances"], "pbs::locked")["pollStatus"]["lastError"]["message"];
    let task = json!({"instance": "locked", "type": "pbs", "nextRun": TIME, "lastError": last_error, "failures": 1});
    assert_eq!(marked(&health["deadLetter"]), json!({"count": 1, "tasks": [task]}));
    assert_eq!(
        marked(&health["breakers"]),
        json!([
            {"instance": "locked", "type": "pbs", "state": "closed", "failures": 1, "retryAt": null},
            {"instance": "failing", "type": "pve", "state": "open", "failures": 3, "retryAt": TIME},
        ]),
        "only those that are not closed or have failures"
    );
    let staleness = marked(&health["staleness"]);
    let never = |name: &str, kind: &str| json!({"instance": name, "type": kind, "score": 1.0, "lastSuccess": null, "lastError": TIME});
    assert_eq!(staleness[0], never("locked", "pbs"), "what was never seen is as stale as can be");
    assert_eq!(staleness[1], never("failing", "pve"));
    let score = &health["staleness"][2]["score"];
    assert!((0.0..1.0).contains(&score.as_f64().unwrap()), "{score}");
    let well = json!({"instance": "well", "type": "pve", "score": score, "lastSuccess": TIME, "lastError": null});
    assert_eq!(staleness[2], well);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn every_list_is_sorted_by_key_and_dead_letters_are_listed_up_to_twenty_five() {
    // Written in an order of their own; the types interleave by name.
    let locked = |number: u32| HostPlan::pbs(SEED, format!("locked-{number:02}"), &["daily"]).with_rejected_secret();
    let hosts = (0..28).rev().map(locked).chain([HostPlan::pve(SEED, "a", 1), HostPlan::pmg(SEED, "z")]).collect();
    let lab = lab(hosts).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::a", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    for number in 0..28 {
        let key = format!("pbs::locked-{number:02}");
        daemon.until_instance(&key, |row| row["deadLetter"]["present"] == true).await;
    }
    let health = daemon.health().await;
    assert_eq!(health["deadLetter"]["count"], 28);
    assert_eq!(health["deadLetter"]["tasks"].as_array().unwrap().len(), 25);
    let keys: Vec<&str> =
        health["instances"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 30);
    assert!(keys.is_sorted(), "{keys:?}");
    for list in [&health["deadLetter"]["tasks"], &health["breakers"], &health["staleness"]] {
        let keys: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|row| format!("{}::{}", row["type"].as_str().unwrap(), row["instance"].as_str().unwrap()))
            .collect();
        assert!(keys.len() >= 25 && keys.is_sorted(), "{keys:?}");
    }
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn the_last_reading_stays_with_its_age_while_polls_fail_and_the_last_error_goes_with_recovery() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut settings = quick_settings();
    settings["deadLetterTransientRecheck"] = json!("300ms");
    settings["deadLetterTransientRecheckMax"] = json!("300ms");
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;

    lab.set_fault("rack", FaultKind::status(503)).await.unwrap();
    let failing = daemon.until_instance("pve::rack", |row| row["deadLetter"]["reason"] == "max_retry_attempts").await;
    assert!(failing["pollStatus"]["consecutiveFailures"].as_u64() >= Some(5), "{failing:#}");
    let state = daemon.state("pve::rack").await;
    assert_eq!(state["reading"]["nodes"][0]["name"], "rack", "the last reading stays: {state:#}");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&state["readAt"]) < time(&failing["pollStatus"]["lastError"]["at"]), "and its time tells its age");

    lab.clear_fault("rack").await.unwrap();
    let back = daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastError"].is_null()).await;
    assert_eq!(back["pollStatus"]["consecutiveFailures"], 0);
    assert_eq!(back["pollStatus"]["firstFailureAt"], Value::Null);
    assert_eq!(back["breaker"]["state"], "closed");
    assert_eq!(back["deadLetter"], no_dead_letter());
    let health = daemon.health().await;
    assert_eq!((&health["deadLetter"]["count"], &health["breakers"]), (&json!(0), &json!([])));
    assert_eq!(health["staleness"][0]["lastError"], Value::Null);
    daemon.stop().await;
    lab.shutdown().await;
}
