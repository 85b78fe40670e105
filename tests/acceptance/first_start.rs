//! The first start: nobody has a password or a token, and there is one way in from elsewhere.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, client};

const PASSWORD: &str = "four words in a row";

async fn set_up(daemon: &Daemon, token: &str) -> (StatusCode, Value) {
    let body = json!({"token": token, "name": "alice", "password": PASSWORD});
    let response = daemon.anonymous(Method::POST, "/api/setup").json(&body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn sign_in(client: &Client, daemon: &Daemon, name: &str, password: &str) -> reqwest::Response {
    let url = format!("http://{}/api/login", daemon.address);
    client.post(url).json(&json!({"name": name, "password": password})).send().await.unwrap()
}

#[tokio::test]
async fn the_printed_setup_token_makes_the_first_admin_once_and_is_in_no_log() {
    let folder = Folder::new();
    let daemon = Daemon::start_as_first(&folder, &[], &[("PULSE_LOG", "trace")]).await;
    let token = daemon.printed("setup_").await;
    assert_eq!(set_up(&daemon, "setup_guess").await.0, StatusCode::FORBIDDEN);
    let (status, made) = set_up(&daemon, &token).await;
    assert_eq!((status, made["role"].as_str()), (StatusCode::CREATED, Some("admin")), "{made:#}");
    let (status, again) = set_up(&daemon, &token).await;
    assert_eq!((status, again["code"].as_str()), (StatusCode::FORBIDDEN, Some("setup_token_wrong")));

    let client = client();
    let welcome = sign_in(&client, &daemon, "alice", PASSWORD).await;
    assert_eq!(welcome.status(), StatusCode::OK);
    let cookie = welcome.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let welcome: Value = welcome.json().await.unwrap();
    let users = daemon.anonymous(Method::GET, "/api/security/users").header("Cookie", &cookie).send().await.unwrap();
    assert_eq!(users.status(), StatusCode::OK);
    let log = daemon.program.stderr();
    for secret in
        [&token, PASSWORD, &cookie["pulse_session=".len()..], welcome["session"]["csrfToken"].as_str().unwrap()]
    {
        assert!(!log.contains(secret));
        for file in ["pulse.db", "pulse.db-wal"] {
            let content = std::fs::read(folder.path().join(file)).unwrap();
            assert!(!String::from_utf8_lossy(&content).contains(secret), "{file}");
        }
    }
    daemon.stop().await;

    let daemon = Daemon::start_as_first(&folder, &[], &[]).await;
    let still = daemon.anonymous(Method::GET, "/api/security/me").header("Cookie", &cookie).send().await.unwrap();
    assert_eq!(still.status(), StatusCode::OK, "a session outlives a restart");
    daemon.stop().await;
    assert_eq!(folder.printed(), "", "there is nothing to set up any more");
}

#[tokio::test]
async fn a_restart_makes_another_setup_token_as_long_as_nobody_can_sign_in() {
    let folder = Folder::new();
    let daemon = Daemon::start_as_first(&folder, &[], &[]).await;
    let first = daemon.printed("setup_").await;
    daemon.stop().await;
    let daemon = Daemon::start_as_first(&folder, &[], &[]).await;
    let second = daemon.printed("setup_").await;
    assert_ne!(first, second);
    assert_eq!(set_up(&daemon, &first).await.0, StatusCode::FORBIDDEN);
    assert_eq!(set_up(&daemon, &second).await.0, StatusCode::CREATED);
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_made_a_token_is_asked_for_no_setup() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder).await;
    daemon.stop().await;
    let daemon = Daemon::start(&folder).await;
    assert_eq!(daemon.request(Method::GET, "/api/version").send().await.unwrap().status(), StatusCode::OK);
    daemon.stop().await;
    assert_eq!(folder.printed(), "");
}

#[tokio::test]
async fn the_demo_prints_a_password_that_is_good_until_the_next_demo() {
    let folder = Folder::new();
    let mut passwords: Vec<String> = Vec::new();
    for _ in 0..2 {
        let daemon = Daemon::start_as_first(&folder, &["--demo"], &[]).await;
        daemon.printed("Its admin is `demo`").await;
        let stdout = daemon.program.stdout();
        let password = stdout.lines().last().unwrap().trim().to_owned();
        assert_eq!(sign_in(&client(), &daemon, "demo", &password).await.status(), StatusCode::OK, "{stdout}");
        for old in &passwords {
            assert_eq!(sign_in(&client(), &daemon, "demo", old).await.status(), StatusCode::UNAUTHORIZED);
        }
        passwords.push(password);
        daemon.stop().await;
    }
}
