//! Secrets of instances: encrypted wherever they lie, shown nowhere, and only for who holds a private key file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pulse::lab::HostPlan;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, SEED, lab, quick_settings, run};

#[tokio::test]
async fn a_secret_in_plain_text_is_encrypted_where_it_stands_and_lies_nowhere_else() {
    let lab = lab(vec![
        HostPlan::pve(SEED, "rack", 3),
        HostPlan::pbs(SEED, "vault", &["daily"]).by_password(SEED),
        HostPlan::pmg(SEED, "mail").with_rejected_secret(),
    ])
    .await;
    let all = lab.instances_json(None);
    let secret_of = |at: usize| -> String {
        let auth = &all["instances"][at]["auth"];
        auth["secret"].as_str().or(auth["password"].as_str()).unwrap().to_owned()
    };
    let secrets: Vec<String> = (0..3).map(secret_of).collect();
    let folder = Folder::new();
    folder.write_json("system.json", &quick_settings());
    // By hand, in a way of its own.
    let by_hand = format!("{{\n\t\"instances\":   [\n\n{}\t]}}", all["instances"][0]);
    folder.write("instances.json", &by_hand);
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let sealed = folder.read("instances.json");
    let (before, rest) = by_hand.split_once(&format!("\"{}\"", secrets[0])).unwrap();
    assert!(sealed.starts_with(&format!("{before}{{\"encrypted\": \"1.")), "{sealed}");
    assert!(sealed.ends_with(&format!("\"}}{rest}")), "every other byte stays: {sealed}");

    for at in [1, 2] {
        let added =
            daemon.post("/api/config/nodes", &json!({"instance": all["instances"][at], "reason": "more"})).await;
        assert_eq!(added.status(), StatusCode::CREATED);
    }
    daemon.until_instance("pbs::vault", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    daemon.until_instance("pmg::mail", |row| row["deadLetter"]["present"] == true).await;
    let told = everything_told(&daemon, &all["instances"][2]).await;
    for secret in &secrets {
        assert!(!told.contains(secret), "a secret is told: {secret}");
    }
    assert!(!told.contains("encrypted\":"), "not even in encrypted form");
    for found in [folder.snapshot(), {
        daemon.stop().await;
        folder.snapshot()
    }] {
        for (path, (_, content)) in found {
            for secret in &secrets {
                let lies_there = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!lies_there, "{} holds a secret in the clear", path.display());
            }
        }
    }

    // And they are still good.
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pbs::vault", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let audit = folder.pulse(["config", "history", "--json"]);
    let ended = run(&mut { audit }).await;
    let history: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(history["versions"].as_array().unwrap().len(), 3, "encrypting a secret is no version: {history:#}");
    daemon.stop().await;
    lab.shutdown().await;
}

/// All that the daemon answers and prints when it is asked about its configuration, also in the wrong way.
async fn everything_told(daemon: &Daemon, instance: &Value) -> String {
    let mut broken = instance.clone();
    broken["url"] = json!("http://plain");
    let refused = daemon.post("/api/config/nodes", &json!({"instance": broken})).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let mut told = refused.text().await.unwrap();
    let tried = daemon.post("/api/config/nodes/test-connection", &json!({"key": "pmg::mail"})).await;
    told += &tried.text().await.unwrap();
    for path in [
        "/api/config/nodes",
        "/api/config/nodes/pbs::vault",
        "/api/config/history",
        "/api/config/history/1",
        "/api/config/history/3",
        "/api/audit?limit=500",
        "/api/system/settings",
        "/api/state",
        "/api/monitoring/scheduler/health",
    ] {
        told += &daemon.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
    }
    told += &daemon.program.stdout();
    told += &daemon.program.stderr();
    told
}

#[tokio::test]
async fn a_key_that_others_may_read_keeps_the_daemon_from_starting_and_is_left_alone() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    Daemon::start(&folder).await.stop().await;
    let key = folder.path().join("secrets.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let before = folder.configuration();
    let ended = run(folder.pulse(["serve"]).args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("has mode 640") && ended.stderr.contains("chmod"), "{ended:?}");
    assert_eq!(folder.configuration(), before);
    assert_eq!(fs::read(&key).unwrap(), whole);

    // Another key does not open it, and the message says where to look.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, [9; 32]).unwrap();
    let ended = run(&mut folder.pulse(["config", "validate"])).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("instances[0].auth.secret.encrypted: was encrypted with another key"), "{ended:?}");
    fs::remove_file(&key).unwrap();
    let ended = run(&mut folder.pulse(["config", "validate"])).await;
    assert!(ended.stderr.contains("secrets.key is not in the data folder"), "{ended:?}");
    fs::write(&key, whole).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(&mut folder.pulse(["config", "validate"])).await.code, Some(0));
    lab.shutdown().await;
}
