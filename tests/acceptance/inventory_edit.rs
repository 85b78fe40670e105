//! `instances.json` edited while the daemon runs: surgical, refused whole when broken, and never a reason to forget.

use pulse::lab::{FaultKind, HostPlan};
use serde_json::{Value, json};

use super::support::{Daemon, EDIT_TAKES_EFFECT_WITHIN, Folder, SEED, eventually, lab};

fn keys(health: &Value) -> Vec<&str> {
    health["instances"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect()
}

async fn until_keys_are(daemon: &Daemon, wanted: &[&str]) {
    let look = async || (keys(&daemon.health().await) == wanted).then_some(());
    eventually(&format!("the instances are {wanted:?}"), EDIT_TAKES_EFFECT_WITHIN, look).await.unwrap();
}

async fn refused_edits(daemon: &Daemon) -> Value {
    daemon.get("/api/system/settings").await["refusedEdits"].clone()
}

/// A row that stays the same while nothing happens to the instance.
fn is_open(row: &Value) -> bool {
    row["breaker"]["state"] == "open"
}

fn fleet(instances: &[&Value]) -> Value {
    json!({ "instances": instances })
}

#[tokio::test]
async fn instances_come_and_go_and_are_edited_without_a_restart() {
    let lab = lab(vec![HostPlan::pve(SEED, "first", 3), HostPlan::pve(SEED, "second", 3)]).await;
    let all = lab.instances_json(None);
    let (first, second) = (&all["instances"][0], &all["instances"][1]);
    let folder = Folder::quick(&fleet(&[first]));
    let daemon = Daemon::start(&folder).await;
    until_keys_are(&daemon, &["pve::first"]).await;

    folder.write_json("instances.json", &fleet(&[first, second]));
    until_keys_are(&daemon, &["pve::first", "pve::second"]).await;
    daemon.until_instance("pve::second", |row| row["pollStatus"]["lastSuccess"].is_string()).await;

    let mut renamed = second.clone();
    renamed["displayName"] = json!("Second floor");
    folder.write_json("instances.json", &fleet(&[first, &renamed]));
    let row = daemon.until_instance("pve::second", |row| row["displayName"] == "Second floor").await;
    assert!(
        row["pollStatus"]["lastSuccess"].is_string(),
        "a new display name does not make it a new instance: {row:#}"
    );

    folder.write_json("instances.json", &fleet(&[&renamed]));
    until_keys_are(&daemon, &["pve::second"]).await;
    assert_eq!(daemon.get("/api/state").await["instances"].as_array().unwrap().len(), 1);
    // A poll that was under way when the edit came may still end.
    let polled = lab.stats("first").unwrap().requests;
    let read = daemon.state("pve::second").await["readAt"].clone();
    daemon.until_state("pve::second", |row| row["readAt"] != read).await;
    assert!(lab.stats("first").unwrap().requests <= polled + 4, "an instance that is gone is polled no more");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn an_edit_of_one_instance_leaves_the_breaker_of_another_as_it_is() {
    let lab =
        lab(vec![HostPlan::pve(SEED, "broken", 3).behaving(FaultKind::status(503)), HostPlan::pve(SEED, "sound", 3)])
            .await;
    let all = lab.instances_json(None);
    let (broken, sound) = (&all["instances"][0], &all["instances"][1]);
    let folder = Folder::quick(&fleet(&[broken, sound]));
    // Open for so long that nothing but an edit could move it.
    let settings = json!({
        "adaptivePollingBaseInterval": "300ms",
        "adaptivePollingMinInterval": "200ms",
        "pollingBackoffInitial": "100ms",
        "pollingBackoffMax": "200ms",
        "breakerOpenInitial": "1m",
    });
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    let before = daemon.until_instance("pve::broken", is_open).await;

    let mut edited = sound.clone();
    edited["auth"]["secret"] = json!("another-secret");
    folder.write_json("instances.json", &fleet(&[broken, &edited]));
    daemon.until_instance("pve::sound", |row| row["deadLetter"]["reason"] == "permanent_failure").await;

    let after = daemon.instance("pve::broken").await;
    assert_eq!(after["breaker"]["state"], "open");
    assert_eq!(after["breaker"]["failureCount"], before["breaker"]["failureCount"]);
    assert_eq!(after["pollStatus"]["consecutiveFailures"], before["pollStatus"]["consecutiveFailures"]);
    assert_same_moment(&after["breaker"]["retryAt"], &before["breaker"]["retryAt"]);
    assert_same_moment(&after["pollStatus"]["firstFailureAt"], &before["pollStatus"]["firstFailureAt"]);

    // The edited one, mended, comes back at once: to the scheduler it is a new instance.
    folder.write_json("instances.json", &fleet(&[broken, sound]));
    daemon.until_instance("pve::sound", |row| row["deadLetter"]["present"] == false).await;
    daemon.stop().await;
    lab.shutdown().await;
}

/// Wall times are told from the monotonic clock at each answer, so they may differ by a rounding.
fn assert_same_moment(left: &Value, right: &Value) {
    let moment = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let apart = moment(left).duration_since(moment(right)).abs();
    assert!(apart < jiff::SignedDuration::from_millis(50), "{left} and {right}");
}

#[tokio::test]
async fn a_broken_edit_is_refused_whole_and_shown_and_a_mended_one_clears_it() {
    let lab = lab(vec![HostPlan::pve(SEED, "first", 3), HostPlan::pve(SEED, "second", 3)]).await;
    let all = lab.instances_json(None);
    let (first, second) = (&all["instances"][0], &all["instances"][1]);
    let folder = Folder::quick(&fleet(&[first]));
    let daemon = Daemon::start(&folder).await;
    until_keys_are(&daemon, &["pve::first"]).await;

    // The good half of a broken edit is not taken either.
    let broken = json!({"type": "vmware", "name": "third"});
    folder.write_json("instances.json", &fleet(&[first, second, &broken]));
    let shown = async || Some(refused_edits(&daemon).await).filter(|edits| *edits != json!([]));
    let edits = eventually("the refusal is shown", EDIT_TAKES_EFFECT_WITHIN, shown).await.unwrap();
    assert_eq!(edits[0]["file"], folder.path().join("instances.json").display().to_string());
    let error = edits[0]["errors"][0].as_str().unwrap();
    assert!(error.contains("instances[2].type: must be one of http, pbs, pmg, pve, tcp"), "{error}");
    assert_eq!(keys(&daemon.health().await), ["pve::first"]);
    let read = daemon.state("pve::first").await["readAt"].clone();
    daemon.until_state("pve::first", |row| row["readAt"] != read).await;

    folder.write_json("instances.json", &fleet(&[first, second]));
    until_keys_are(&daemon, &["pve::first", "pve::second"]).await;
    assert_eq!(refused_edits(&daemon).await, json!([]));
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_paused_instance_is_silent_and_comes_back_when_it_is_enabled() {
    let lab = lab(vec![HostPlan::pve(SEED, "attic", 3), HostPlan::pve(SEED, "rack", 3)]).await;
    let all = lab.instances_json(None);
    let (attic, rack) = (&all["instances"][0], &all["instances"][1]);
    let mut paused = attic.clone();
    paused["enabled"] = json!(false);
    let folder = Folder::quick(&fleet(&[&paused, rack]));
    let daemon = Daemon::start(&folder).await;
    let first = daemon.until_state("pve::rack", |row| row["readAt"].is_string()).await;
    daemon.until_state("pve::rack", |row| row["readAt"] != first["readAt"]).await;
    assert_eq!(lab.stats("attic").unwrap().connections, 0);

    folder.write_json("instances.json", &fleet(&[attic, rack]));
    daemon.until_instance("pve::attic", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    daemon.stop().await;
    lab.shutdown().await;
}
