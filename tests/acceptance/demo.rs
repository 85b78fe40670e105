//! `pulse serve --demo` in an empty folder shows within 15 seconds what Pulse is for.

use std::time::Duration;

use serde_json::Value;

use super::support::{Daemon, Folder, eventually, run};

const SHOWN_WITHIN: Duration = Duration::from_secs(15);

fn shows_everything(health: &Value) -> bool {
    let rows = health["instances"].as_array().unwrap();
    let succeeded = |row: &&Value| row["pollStatus"]["lastSuccess"].is_string();
    let open = |row: &&Value| row["breaker"]["state"] == "open";
    let dead = |row: &&Value| row["deadLetter"]["present"] == true;
    rows.iter().filter(succeeded).count() >= 10
        && rows.iter().any(|row| open(&row))
        && rows.iter().any(|row| dead(&row))
        && health["deadLetter"]["count"].as_u64() >= Some(1)
}

#[tokio::test]
async fn the_demo_shows_successes_an_open_breaker_and_a_dead_letter_within_fifteen_seconds() {
    let folder = Folder::new();
    let began = async {
        let daemon = Daemon::start_with(&folder, &["--demo"], &[]).await;
        let look = async || {
            let ended = run(&mut folder.pulse(["health", "--json"])).await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            Some(serde_json::from_str::<Value>(&ended.stdout).unwrap()).filter(shows_everything)
        };
        eventually("the demo shows everything", SHOWN_WITHIN, look).await.map(|health| (daemon, health))
    };
    let (daemon, health) = tokio::time::timeout(SHOWN_WITHIN, began).await.expect("it is quick enough").unwrap();

    // The table for people says the same.
    let table = run(&mut folder.pulse(["health"])).await.stdout;
    for row in health["instances"].as_array().unwrap() {
        assert!(table.contains(row["key"].as_str().unwrap()), "{table}");
    }
    assert!(table.contains("open, retry in"), "{table}");
    assert!(table.contains("permanent_failure, retry in"), "{table}");
    daemon.stop().await;

    // Nothing of the operator's own configuration is touched.
    let outside = |path: &std::path::PathBuf| !path.starts_with(folder.path().join("demo"));
    assert_eq!(folder.snapshot().into_keys().filter(outside).count(), 0);
}
