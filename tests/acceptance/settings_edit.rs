//! `system.json` edited while the daemon runs: in force within two seconds, with no poll lost and none doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use pulse::engine::Millis;
use pulse::lab::{HostPlan, Lab};
use serde_json::{Value, json};

use super::support::{
    Daemon, EDIT_TAKES_EFFECT_WITHIN, Folder, PATIENCE, SEED, Stopwatch, eventually, lab, pause, quick_settings,
};

const HOSTS: usize = 6;
/// Every poll begins with it.
const FIRST_CALL: &str = "/api2/json/version";

fn names() -> impl Iterator<Item = String> {
    (0..HOSTS).map(|number| format!("rack-{number}"))
}

fn calls(lab: &Lab, host: &str, path: &str) -> u64 {
    lab.stats(host).unwrap().requests_by_path.get(path).copied().unwrap_or(0)
}

/// Settings that leave no choice of interval, whether intervals adapt or not.
fn settings(enabled: bool) -> Value {
    json!({
        "adaptivePollingEnabled": enabled,
        "adaptivePollingBaseInterval": "1s",
        "adaptivePollingMinInterval": "1s",
        "adaptivePollingMaxInterval": "1s",
    })
}

/// Writes the settings and measures how long it takes until the health answer shows them.
async fn toggle(folder: &Folder, daemon: &Daemon, enabled: bool) -> Duration {
    let stopwatch = Stopwatch::start();
    folder.write_json("system.json", &settings(enabled));
    let shown = async || (daemon.health().await["enabled"] == enabled).then_some(());
    eventually("the health answer shows the edit", PATIENCE, shown).await.unwrap();
    stopwatch.elapsed()
}

/// When each host's polls began, as the hosts saw it.
async fn watch_polls(lab: &Lab) -> BTreeMap<String, Vec<Duration>> {
    let stopwatch = Stopwatch::start();
    let mut began: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut seen: BTreeMap<String, u64> = names().map(|name| (name.clone(), calls(lab, &name, FIRST_CALL))).collect();
    loop {
        for (name, seen) in &mut seen {
            let polls = calls(lab, name, FIRST_CALL);
            // Two at one look are a gap of nothing.
            for _ in *seen..polls {
                began.entry(name.clone()).or_default().push(stopwatch.elapsed());
            }
            *seen = polls;
        }
        if stopwatch.elapsed() > Duration::from_secs(12) {
            return began;
        }
        pause(Millis::new(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switching_adaptive_polling_off_and_on_shows_within_two_seconds_and_neither_loses_nor_doubles_a_poll() {
    // Each poll takes about a quarter of its interval, so that edits meet polls under way.
    let lab = lab(names().map(|name| HostPlan::pve(SEED, name, 3).answering_in(60)).collect()).await;
    let folder = Folder::quick(&lab.instances_json(None));
    folder.write_json("system.json", &settings(true));
    let daemon = Daemon::start(&folder).await;
    for name in names() {
        daemon.until_instance(&format!("pve::{name}"), |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }

    let toggles = async {
        for turn in 0..8 {
            let took = toggle(&folder, &daemon, turn % 2 == 1).await;
            assert!(took < EDIT_TAKES_EFFECT_WITHIN, "edit {turn} took {took:?}");
            // Edits fall on ever other moments of the interval.
            pause(Millis::new(430)).await;
        }
    };
    let (began, ()) = tokio::join!(watch_polls(&lab), toggles);
    daemon.stop().await;

    for name in names() {
        let began = &began[&name];
        let gaps: Vec<Duration> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() >= 7, "{name} was polled {} times in 12 s", began.len());
        let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*shortest > Duration::from_millis(700), "a poll of {name} was doubled: {gaps:?}");
        assert!(*longest < Duration::from_millis(1_900), "a poll of {name} was lost: {gaps:?}");
        let last_call = format!("/api2/json/nodes/{name}/status");
        let (begun, ended) = (calls(&lab, &name, FIRST_CALL), calls(&lab, &name, &last_call));
        assert_eq!(begun, ended, "every poll of {name} that began was carried to its end");
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn with_adaptive_polling_off_polling_goes_on_and_the_lists_about_it_are_empty() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut settings = quick_settings();
    settings["adaptivePollingEnabled"] = json!(false);
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    let first = daemon.until_state("pve::rack", |row| row["readAt"].is_string()).await;
    daemon.until_state("pve::rack", |row| row["readAt"] != first["readAt"]).await;

    let health = daemon.health().await;
    assert_eq!(health["enabled"], false);
    for list in ["breakers", "staleness", "instances"] {
        assert_eq!(health[list], json!([]), "{list}");
    }
    assert_eq!(health["queue"]["perType"].as_object().unwrap().len(), 1);
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_broken_edit_is_refused_and_shown_until_it_is_mended() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    folder.write_json("system.json", &json!({"adaptivePollingMinInterval": "10m"}));
    let refused = async || {
        let edits = daemon.get("/api/system/settings").await["refusedEdits"].clone();
        (edits != json!([])).then_some(edits)
    };
    let edits = eventually("the refusal is shown", EDIT_TAKES_EFFECT_WITHIN, refused).await.unwrap();
    assert_eq!(edits[0]["file"], folder.path().join("system.json").display().to_string());
    assert!(edits[0]["errors"][0].as_str().unwrap().contains("must not exceed"), "{edits:#}");
    assert_eq!(setting(&daemon, "adaptivePollingMinInterval").await["value"], "200ms", "what was in force stays");

    folder.write_json("system.json", &json!({"adaptivePollingMinInterval": "1s"}));
    let mended = async || (setting(&daemon, "adaptivePollingMinInterval").await["value"] == "1s").then_some(());
    eventually("the mended edit is in force", EDIT_TAKES_EFFECT_WITHIN, mended).await.unwrap();
    assert!(refused().await.is_none(), "a mended edit clears the refusal");
    daemon.stop().await;
}

async fn setting(daemon: &Daemon, name: &str) -> Value {
    let answer = daemon.get("/api/system/settings").await;
    answer["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap().clone()
}
