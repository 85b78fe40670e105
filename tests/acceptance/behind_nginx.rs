//! The daemon behind the nginx of its documentation: where calls come from, over what, and that events are not held back.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::events::Stream;
use super::nginx::Nginx;
use super::support::{Daemon, Folder, client_builder, run};

const SECURITY: &str = include_str!("../../docs/security.md");
const PASSWORD: &str = "four words in a row";
/// Where the caller is; a proxy and a daemon of 127.0.0.1 are elsewhere.
const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// What a caller writes who wants to be taken for somebody else.
const FORGED: &str = "203.0.113.7";

/// The server of the documentation, with the addresses and the certificate of this test.
async fn nginx_before(daemon: &Daemon) -> Option<Nginx> {
    let (_, rest) = SECURITY.split_once("```nginx\n").unwrap();
    let (documented, _) = rest.split_once("```").unwrap();
    Nginx::start(|address, certificate| {
        let replaced = [
            ("listen 443 ssl;", format!("listen {address} ssl;")),
            ("ssl_certificate /etc/nginx/pulse.crt;", certificate.to_owned()),
            ("ssl_certificate_key /etc/nginx/pulse.key;", String::new()),
            ("http://127.0.0.1:7655", format!("http://{}", daemon.address)),
        ];
        replaced.iter().fold(documented.to_owned(), |server, (from, to)| {
            assert_eq!(server.matches(from).count(), 1, "{from} of {server}");
            server.replace(from, to)
        })
    })
    .await
}

/// A caller at [`CALLER`] who believes this nginx.
fn caller(nginx: &Nginx) -> Client {
    let authority = Certificate::from_pem(nginx.certificate.as_bytes()).unwrap();
    client_builder().local_address(CALLER).tls_certs_only([authority]).build().unwrap()
}

async fn behind_nginx() -> Option<(Folder, Daemon, Nginx)> {
    let folder = Folder::quick(&json!({"instances": []}));
    folder.write("alice.password", PASSWORD);
    let file = folder.path().join("alice.password").display().to_string();
    let added = run(&mut folder.pulse(["user", "add", "alice", "--role", "admin", "--password-file", &file])).await;
    assert_eq!(added.code, Some(0), "{added:?}");
    let daemon = Daemon::start_with(&folder, &["--trusted-proxy", "127.0.0.1"], &[]).await;
    let nginx = nginx_before(&daemon).await?;
    Some((folder, daemon, nginx))
}

async fn sign_in(client: &Client, base: &str) -> Response {
    let request = client.post(format!("{base}/api/login")).json(&json!({"name": "alice", "password": PASSWORD}));
    let forged = format!("for={FORGED};proto=https");
    let request = request.header("X-Forwarded-For", FORGED).header("Forwarded", forged);
    let answer = request.header("X-Forwarded-Proto", "https").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

/// The address of the newest entry of this action.
async fn audited_address(daemon: &Daemon, action: &str) -> Value {
    daemon.get(&format!("/api/audit?action={action}")).await["entries"][0]["address"].clone()
}

#[tokio::test]
async fn a_session_behind_nginx_is_of_its_caller_and_over_tls() {
    let Some((_folder, daemon, nginx)) = behind_nginx().await else { return };
    let (client, base) = (caller(&nginx), format!("https://{}", nginx.address));
    let answer = sign_in(&client, &base).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-pulse_session=") && cookie.contains("; Secure"), "{cookie}");
    assert!(answer.headers().contains_key("strict-transport-security"));
    assert_eq!(audited_address(&daemon, "session.sign_in").await, CALLER.to_string(), "not what the caller wrote");

    // The session opens what it is for, and what it does is told with the caller's address too.
    let answer: Value = answer.json().await.unwrap();
    let csrf = answer["session"]["csrfToken"].as_str().unwrap();
    let session = cookie.split(';').next().unwrap();
    let change = json!({"adaptivePollingMaxInterval": "4m", "reason": "from behind nginx"});
    let request = client.post(format!("{base}/api/system/settings/update")).json(&change);
    let changed = request.header("Cookie", session).header("X-CSRF-Token", csrf).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK, "{}", changed.text().await.unwrap());
    assert_eq!(audited_address(&daemon, "settings.update").await, CALLER.to_string());
    let page = client.get(format!("{base}/")).header("Cookie", session).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("data-csrf"), "the page of who is signed in");
    daemon.stop().await;
}

#[tokio::test]
async fn what_a_peer_writes_that_is_no_trusted_proxy_is_ignored() {
    let Some((_folder, daemon, _nginx)) = behind_nginx().await else { return };
    let client = client_builder().local_address(CALLER).build().unwrap();
    let answer = sign_in(&client, &format!("http://{}", daemon.address)).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("pulse_session=") && !cookie.contains("Secure"), "{cookie}");
    assert!(!answer.headers().contains_key("strict-transport-security"));
    assert_eq!(audited_address(&daemon, "session.sign_in").await, CALLER.to_string());
    daemon.stop().await;
}

#[tokio::test]
async fn events_come_through_nginx_while_they_happen() {
    let Some((folder, daemon, nginx)) = behind_nginx().await else { return };
    let request = caller(&nginx).request(Method::GET, format!("https://{}/api/events", nginx.address));
    let mut stream = Stream::of(request.bearer_auth(&daemon.token).send().await.unwrap());
    assert_eq!(stream.until("ready").await.name, "ready");
    // One by one: each is seen before there is another that could push it through a buffer.
    for name in ["first", "second"] {
        let instance = json!({"type": "tcp", "name": name, "host": "127.0.0.1", "port": 9, "enabled": false});
        folder.write_json("instances.json", &json!({"instances": [instance]}));
        let added = tokio::time::timeout(Duration::from_secs(5), stream.until("added")).await;
        assert_eq!(added.expect("it is not held back").data["key"], format!("tcp::{name}"));
    }
    daemon.stop().await;
}
