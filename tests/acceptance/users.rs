//! `pulse user`, with and without a daemon.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Ended, Folder, run};

const PASSWORD: &str = "four words in a row";

async fn user(folder: &Folder, arguments: &[&str]) -> Ended {
    let ended = run(folder.pulse(["user"]).args(arguments)).await;
    assert!(!(ended.stdout.clone() + &ended.stderr).contains(PASSWORD), "{arguments:?} tells the password");
    ended
}

async fn done(folder: &Folder, arguments: &[&str]) -> String {
    let ended = user(folder, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

async fn sign_in(daemon: &Daemon, name: &str, password: &str) -> StatusCode {
    let body = json!({"name": name, "password": password});
    daemon.anonymous(Method::POST, "/api/login").json(&body).send().await.unwrap().status()
}

#[tokio::test]
async fn users_are_managed_by_the_running_daemon_and_without_one_alike() {
    let folder = Folder::new();
    folder.write("first.password", format!("{PASSWORD}\n"));
    folder.write("second.password", "five words in a row");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (first, second) = (file("first.password"), file("second.password"));
    done(&folder, &["add", "alice", "--role", "admin", "--password-file", &first]).await;

    let daemon = Daemon::start(&folder).await;
    assert_eq!(sign_in(&daemon, "alice", PASSWORD).await, StatusCode::OK);
    done(&folder, &["add", "bob", "--password-file", &first, "--reason", "new here"]).await;
    assert_eq!(sign_in(&daemon, "bob", PASSWORD).await, StatusCode::OK);
    done(&folder, &["passwd", "bob", "--password-file", &second]).await;
    assert_eq!(sign_in(&daemon, "bob", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&daemon, "bob", "five words in a row").await, StatusCode::OK);
    let table = done(&folder, &["list"]).await;
    assert!(table.contains("alice") && table.contains("viewer"), "{table}");
    let refused = user(&folder, &["remove", "alice"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("last admin"), "{refused:?}");
    let audit = daemon.get("/api/audit?action=user.add&key=bob").await;
    let entry = &audit["entries"][0];
    assert!(entry["actor"].as_str().unwrap().starts_with("local:"), "{audit:#}");
    assert_eq!(entry["reason"], "new here");
    daemon.stop().await;
    assert_eq!(folder.printed(), "", "there was a user, so there was nothing to set up");

    done(&folder, &["role", "bob", "admin"]).await;
    let removed = done(&folder, &["remove", "alice", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&removed).unwrap()["name"], "alice");
    let listed: Value = serde_json::from_str(&done(&folder, &["list", "--json"]).await).unwrap();
    let users = listed["users"].as_array().unwrap();
    assert_eq!((users.len(), &users[0]["name"], &users[0]["role"]), (1, &json!("bob"), &json!("admin")));
    let refused = user(&folder, &["role", "bob", "viewer"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[tokio::test]
async fn a_password_is_never_an_argument_and_needs_a_file_where_there_is_no_terminal() {
    let folder = Folder::new();
    let ended = user(&folder, &["add", "alice"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--password-file"), "{ended:?}");
    let help = done(&folder, &["add", "--help"]).await;
    assert!(!help.contains("--password ") && !help.contains("--password="), "{help}");
    folder.write("short.password", "short");
    let file = folder.path().join("short.password").display().to_string();
    let ended = user(&folder, &["add", "alice", "--password-file", &file]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("15 characters"), "{ended:?}");
}
