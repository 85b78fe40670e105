//! TLS of the API's port: what it serves, and how it follows its files.

use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair};
use reqwest::{Certificate, Client, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::support::{Daemon, Folder, client_builder, eventually, free_address, run};

/// Two looks at the files, and some patience for a busy machine.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(10);

struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        Self::of("localhost")
    }

    fn of(name: &str) -> Self {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { certificate: cert.pem(), key: signing_key.serialize_pem() }
    }

    fn expired() -> Self {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn write(&self, folder: &Folder) {
        folder.write("pulse.crt", &self.certificate);
        folder.write("pulse.key", &self.key);
    }

    /// A client that believes this certificate alone, and makes a new connection for each call.
    fn client(&self, daemon: &Daemon) -> Client {
        let authority = Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        client_builder()
            .tls_certs_only([authority])
            .resolve("localhost", daemon.address)
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    }
}

async fn start(folder: &Folder) -> Daemon {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let variables = [("PULSE_TLS_CERT", file("pulse.crt")), ("PULSE_TLS_KEY", file("pulse.key"))];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Daemon::start_with(folder, &[], &variables).await
}

async fn version(client: &Client, daemon: &Daemon) -> Result<reqwest::Response, reqwest::Error> {
    let url = format!("https://localhost:{}/api/version", daemon.address.port());
    client.get(url).bearer_auth(&daemon.token).send().await
}

async fn logged(daemon: &Daemon, text: &str) {
    let look = async || daemon.program.stderr().contains(text).then_some(());
    eventually(text, TAKEN_UP_WITHIN, look).await.unwrap_or_else(|late| panic!("{late}: {}", daemon.program.stderr()));
}

#[tokio::test]
async fn the_port_speaks_tls_alone_and_sets_the_cookie_of_encrypted_connections() {
    let folder = Folder::quick(&json!({"instances": []}));
    let pair = Pair::new();
    pair.write(&folder);
    let daemon = start(&folder).await;
    let client = pair.client(&daemon);
    let answer = version(&client, &daemon).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert!(daemon.request(reqwest::Method::GET, "/api/version").send().await.is_err(), "plain HTTP is not answered");
    let password = "four words in a row";
    let add = json!({"name": "alice", "role": "viewer", "password": password});
    let base = format!("https://localhost:{}", daemon.address.port());
    let added = client.post(format!("{base}/api/security/users")).bearer_auth(&daemon.token).json(&add).send().await;
    assert_eq!(added.unwrap().status(), StatusCode::CREATED);
    let login = client.post(format!("{base}/api/login")).json(&json!({"name": "alice", "password": password}));
    let cookie = login.send().await.unwrap().headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-pulse_session=") && cookie.ends_with("; Secure"), "{cookie}");
    let health = run(&mut folder.pulse(["health", "--json"])).await;
    assert_eq!(health.code, Some(0), "the socket needs no TLS: {health:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_new_pair_is_taken_up_under_live_clients_and_a_broken_one_is_not() {
    let folder = Folder::quick(&json!({"instances": []}));
    let (first, second, expired) = (Pair::new(), Pair::new(), Pair::expired());
    first.write(&folder);
    let daemon = start(&folder).await;
    let (old, new) = (first.client(&daemon), second.client(&daemon));
    let lasting = client_builder()
        .tls_certs_only([Certificate::from_pem(first.certificate.as_bytes()).unwrap()])
        .resolve("localhost", daemon.address)
        .build()
        .unwrap();
    assert!(version(&lasting, &daemon).await.is_ok() && version(&new, &daemon).await.is_err());

    folder.write("pulse.crt", &second.certificate);
    logged(&daemon, "is not that of the certificate").await;
    assert!(version(&old, &daemon).await.is_ok(), "the old pair stays");
    folder.write("pulse.crt", "no certificate at all");
    logged(&daemon, "holds no certificate in PEM").await;
    expired.write(&folder);
    logged(&daemon, "expired at 2021-01-01").await;
    std::fs::remove_file(folder.path().join("pulse.key")).unwrap();
    logged(&daemon, "cannot read").await;
    assert!(version(&old, &daemon).await.is_ok());

    second.write(&folder);
    let taken_up = async || version(&new, &daemon).await.ok();
    let answer = eventually("the new pair is in use", TAKEN_UP_WITHIN, taken_up).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(version(&old, &daemon).await.is_err(), "and the old one is not");
    assert!(version(&lasting, &daemon).await.is_ok(), "a connection that is open goes on");
    daemon.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_does_not_keep_the_daemon_from_polling() {
    let folder = Folder::quick(&json!({"instances": []}));
    Pair::expired().write(&folder);
    let daemon = start(&folder).await;
    logged(&daemon, "the TLS certificate has expired").await;
    assert_eq!(run(&mut folder.pulse(["health", "--json"])).await.code, Some(0));
    daemon.stop().await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_at_the_start_with_its_reason() {
    let folder = Folder::new();
    Pair::new().write(&folder);
    folder.write("other.key", Pair::new().key);
    let file = |name: &str| folder.path().join(name).display().to_string();
    for (certificate, key, reason) in [
        ("pulse.crt", "other.key", "is not that of the certificate"),
        ("pulse.crt", "missing.key", "cannot read"),
        ("pulse.key", "pulse.key", "holds no certificate"),
    ] {
        let listen = super::support::free_address().to_string();
        let metrics = super::support::free_address().to_string();
        let ended = run(&mut folder.pulse([
            "serve",
            "--listen",
            &listen,
            "--metrics-listen",
            &metrics,
            "--tls-cert",
            &file(certificate),
            "--tls-key",
            &file(key),
        ]))
        .await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(reason), "{ended:?}");
    }
    let half = run(&mut folder.pulse(["serve", "--tls-cert", &file("pulse.crt")])).await;
    assert_eq!(half.code, Some(2), "{half:?}");
}

#[tokio::test]
async fn commands_believe_the_certificate_that_is_named_and_no_other() {
    let (folder, pair) = (Folder::quick(&json!({"instances": []})), Pair::of(&free_address().ip().to_string()));
    pair.write(&folder);
    let daemon = start(&folder).await;
    folder.write("token", &daemon.token);
    folder.write("other.crt", Pair::new().certificate);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let url = format!("https://{}", daemon.address);
    let health = async |trust: &[&str]| {
        let mut command = folder.pulse(["health", "--json", "--url", &url, "--token-file", &file("token")]);
        run(command.args(trust)).await
    };
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    let fingerprint: String = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    for trust in [["--ca-file", &file("pulse.crt")], ["--fingerprint", &fingerprint]] {
        let believed = health(&trust).await;
        assert_eq!(believed.code, Some(0), "{trust:?}: {believed:?}");
    }
    for (trust, told) in [
        (&[][..], "issuer is not trusted"),
        (&["--ca-file", &file("other.crt")], "is not trusted"),
        (&["--fingerprint", &"0".repeat(64)], "not the pinned one"),
    ] {
        let refused = health(trust).await;
        assert_eq!(refused.code, Some(4), "{trust:?}: {refused:?}");
        assert!(refused.stderr.contains("is not believed") && refused.stderr.contains(told), "{trust:?}: {refused:?}");
        assert!(!refused.stderr.contains(&daemon.token));
    }
    let unreadable = health(&["--ca-file", &file("token")]).await;
    assert!(unreadable.code == Some(1) && unreadable.stderr.contains("certificates in PEM form"), "{unreadable:?}");
    daemon.stop().await;
}
