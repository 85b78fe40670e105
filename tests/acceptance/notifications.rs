//! Operators are told what happens: by a real HTTP receiver and a real mail server, grouped, retried, and with no secret
//! in any log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::serve::Listener;
use pulse::engine::Millis;
use pulse::lab::{FaultKind, HostPlan};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::access::assert_is_problem;
use super::python::{SCRIPTS, python_with};
use super::support::{
    Daemon, Folder, PATIENCE, Program, SEED, eventually, free_address, lab, pause, quick_settings, run,
};

const TOKEN: &str = "hunter2-webhook-token";
const PASSWORD: &str = "hunter2-mail-password";

/// A receiver of webhooks that answers as it is told.
#[derive(Clone)]
struct Receiver {
    url: String,
    answer: Arc<Mutex<StatusCode>>,
    taken: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    refused: Arc<Mutex<u32>>,
}

impl Receiver {
    async fn start() -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).await.unwrap();
        Self::on(listener, format!("http://{address}/hooks/{TOKEN}"))
    }

    /// One that speaks TLS alone, with a certificate that it has in this file too.
    async fn encrypted(certificate: &Path) -> Self {
        let address = free_address();
        let pair = rcgen::generate_simple_self_signed([address.ip().to_string()]).unwrap();
        std::fs::write(certificate, pair.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = Encrypted { listener: TcpListener::bind(address).await.unwrap(), acceptor };
        Self::on(listener, format!("https://{address}/hooks/{TOKEN}"))
    }

    fn on<L: Listener<Addr = SocketAddr>>(listener: L, url: String) -> Self {
        let receiver = Self {
            url,
            answer: Arc::new(Mutex::new(StatusCode::NO_CONTENT)),
            taken: Arc::default(),
            refused: Arc::default(),
        };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn answer(&self, status: u16) {
        *self.answer.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    fn bodies(&self) -> Vec<Value> {
        self.taken.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    async fn until(&self, count: usize) -> Vec<Value> {
        self.until_within(count, PATIENCE).await
    }

    async fn until_within(&self, count: usize, patience: Duration) -> Vec<Value> {
        let look = async || Some(self.bodies()).filter(|bodies| bodies.len() >= count);
        eventually("so many messages came", patience, look)
            .await
            .unwrap_or_else(|late| panic!("{late} ({count}): {:#?}", self.bodies()))
    }
}

/// Connections whose peer believed the certificate.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let answer = *receiver.answer.lock().unwrap();
    if answer.is_success() {
        receiver.taken.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
    } else {
        *receiver.refused.lock().unwrap() += 1;
    }
    answer
}

/// The settings of quick tests, with these channels; their secrets are in files.
fn settings(channels: &Value) -> Value {
    let mut settings = quick_settings();
    settings["notifications"] = json!({
        "groupWindow": "1s", "quietPeriod": "10m", "retryInitial": "200ms", "retryMax": "400ms", "channels": channels,
    });
    settings
}

fn chat(url: &Value) -> Value {
    json!({"type": "webhook", "name": "chat", "url": url, "events": ["breaker_open", "dead_letter", "recovery", "down"]})
}

fn events(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    message["events"].as_array().unwrap().iter().map(|row| (text(&row["key"]), text(&row["event"]))).collect()
}

fn pair(key: &str, event: &str) -> (String, String) {
    (key.to_owned(), event.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_breaks_and_recovers_is_one_message_each_and_a_receiver_that_is_away_is_tried_again() {
    let receiver = Receiver::start().await;
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), HostPlan::pve(SEED, "fine", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    folder.write("chat-url", &receiver.url);
    folder.write("chat-auth", format!("Bearer {TOKEN}"));
    let mut channel = chat(&json!({"file": "chat-url"}));
    channel["headers"] = json!({"Authorization": {"file": "chat-auth"}});
    folder.write_json("system.json", &settings(&json!([channel])));
    let daemon = Daemon::start(&folder).await;
    for key in ["pve::rack", "pve::fine"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    receiver.answer(503);
    lab.set_fault("rack", FaultKind::status(503)).await.unwrap();
    daemon.until_instance("pve::rack", |row| row["deadLetter"]["present"] == true).await;
    let refused = async || (*receiver.refused.lock().unwrap() >= 2).then_some(());
    eventually("it is tried again", PATIENCE, refused).await.unwrap();
    let channels = daemon.get("/api/notifications").await;
    assert_eq!(channels["channels"][0]["lastError"], "the receiver answered 503", "{channels:#}");
    receiver.answer(204);
    let broken = receiver.until(1).await;
    assert_eq!(events(&broken[0]), [pair("pve::rack", "breaker_open"), pair("pve::rack", "dead_letter")]);
    let row = &broken[0]["events"][0];
    assert_eq!((&row["displayName"], &row["category"]), (&json!("Rack"), &json!("server_error")), "{row:#}");
    assert!(row["since"].as_str().unwrap() <= row["at"].as_str().unwrap());
    assert!(!row["action"].as_str().unwrap().is_empty() && row["connection"].as_str().unwrap().starts_with("https://"));
    assert!(broken[0]["text"].as_str().unwrap().contains("to do: "), "{:#}", broken[0]);

    lab.clear_fault("rack").await.unwrap();
    let retry = daemon.post("/api/monitoring/dlq/pve%3A%3Arack/retry", &json!({})).await;
    assert_eq!(retry.status(), StatusCode::OK);
    let all = receiver.until(2).await;
    assert_eq!(events(&all[1]), [pair("pve::rack", "recovery")]);
    pause(Millis::from_secs(2)).await;
    assert_eq!(receiver.bodies().len(), 2, "one message each");
    {
        let taken = receiver.taken.lock().unwrap();
        assert_eq!(taken[0].0["authorization"], format!("Bearer {TOKEN}"));
        assert_ne!(taken[0].0["idempotency-key"], taken[1].0["idempotency-key"]);
    }
    let metrics = reqwest::get(format!("http://{}/metrics", daemon.metrics)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("pulse_notifications_sent_total{channel=\"chat\"} 2\n"), "{metrics}");
    let told = [daemon.program.stderr(), metrics, daemon.get("/api/notifications").await.to_string()].concat();
    assert!(told.contains("a notification was delivered") && !told.contains("hunter2"), "{told}");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_is_told_in_the_operators_own_words_and_channels_are_followed_live() {
    let receiver = Receiver::start().await;
    let address = free_address();
    let listener = TcpListener::bind(address).await.unwrap();
    let endpoint = json!({
        "type": "tcp", "name": "db", "host": address.ip().to_string(), "port": address.port(), "interval": "200ms",
    });
    let folder = Folder::quick(&json!({"instances": [endpoint]}));
    let daemon = Daemon::start(&folder).await;
    daemon.until_state("tcp::db", |row| row["reading"]["up"] == true).await;
    folder.write("url", &receiver.url);
    let mut channel = chat(&json!({"file": "url"}));
    channel["template"] = json!(
        "{\"words\": {{ title | tojson }}, \"rows\": [{% for it in events %}{{ it.key | tojson }}{{ \",\" if not loop.last }}{% endfor %}]}"
    );
    folder.write_json("system.json", &settings(&json!([channel])));
    let listed = async || Some(daemon.get("/api/notifications").await).filter(|it| it["channels"][0]["name"] == "chat");
    eventually("the channel is there", PATIENCE, listed).await.unwrap();
    drop(listener);
    let bodies = receiver.until(1).await;
    assert_eq!(bodies[0], json!({"words": "Pulse: 1 down (tcp::db)", "rows": ["tcp::db"]}));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_late_is_told_once_and_so_is_its_end() {
    /// Who is late is looked for every 15 seconds.
    const LOOKED_FOR_WITHIN: Duration = Duration::from_secs(40);
    let receiver = Receiver::start().await;
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3), HostPlan::pve(SEED, "fine", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    folder.write("url", &receiver.url);
    // Nothing worse is told here, so that being late is.
    let mut channel = chat(&json!({"file": "url"}));
    channel["events"] = json!(["late", "recovery"]);
    let mut settings = settings(&json!([channel]));
    settings["pvePollingTimeout"] = json!("500ms");
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    for key in ["pve::rack", "pve::fine"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    lab.set_fault("rack", FaultKind::Hang).await.unwrap();
    let last = daemon.until_instance("pve::rack", |row| row["pollStatus"]["consecutiveFailures"] != 0).await;
    let told = receiver.until_within(1, LOOKED_FOR_WITHIN).await;
    assert_eq!(events(&told[0]), [pair("pve::rack", "late")], "{:#}", told[0]);
    assert_eq!(told[0]["title"], "Pulse: 1 late (pve::rack)");
    let row = &told[0]["events"][0];
    let instant = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let apart = instant(&row["since"]).duration_since(instant(&last["pollStatus"]["lastSuccess"])).unsigned_abs();
    assert!(apart < Duration::from_millis(2), "since its last success: {row:#}");
    assert!(!row["action"].as_str().unwrap().is_empty(), "{row:#}");

    daemon.until_instance("pve::rack", |row| row["deadLetter"]["present"] == true).await;
    lab.clear_fault("rack").await.unwrap();
    let retry = daemon.post("/api/monitoring/dlq/pve%3A%3Arack/retry", &json!({})).await;
    assert_eq!(retry.status(), StatusCode::OK);
    let told = receiver.until_within(2, LOOKED_FOR_WITHIN).await;
    assert_eq!(events(&told[1]), [pair("pve::rack", "recovery")], "{:#}", told[1]);
    daemon.stop().await;
    assert_eq!(receiver.bodies().len(), 2, "each once, and nothing of the one that is fine");
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_over_tls_goes_to_a_receiver_of_its_authority_alone() {
    let folder = Folder::quick(&json!({"instances": []}));
    let receiver = Receiver::encrypted(&folder.path().join("receiver.pem")).await;
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    folder.write("stranger.pem", stranger.cert.pem());
    folder.write("url", &receiver.url);
    folder.write("auth", format!("Bearer {TOKEN}"));
    let channel = |name: &str, authority: Option<&str>| {
        let mut channel = chat(&json!({"file": "url"}));
        channel["name"] = json!(name);
        channel["headers"] = json!({"Authorization": {"file": "auth"}});
        channel["caFile"] = json!(authority);
        channel
    };
    let channels =
        [channel("right", Some("receiver.pem")), channel("other", Some("stranger.pem")), channel("none", None)];
    folder.write_json("system.json", &settings(&json!(channels)));
    let daemon = Daemon::start(&folder).await;
    let ended = run(&mut folder.pulse(["notify", "test", "--json"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    let results = answer["results"].as_array().unwrap();
    let delivered: Vec<&Value> = results.iter().map(|row| &row["delivered"]).collect();
    assert_eq!(delivered, [true, false, false], "{answer:#}");
    for row in &results[1..] {
        let error = row["error"].as_str().unwrap();
        assert!(error.contains("cannot be reached") && error.contains("certificate"), "{row:#}");
    }
    let bodies = receiver.bodies();
    assert_eq!((bodies.len(), &bodies[0]["test"]), (1, &json!(true)), "nothing goes to whom nobody believes");
    assert_eq!(receiver.taken.lock().unwrap()[0].0["authorization"], format!("Bearer {TOKEN}"));

    // A renewed authority is followed; until then its receiver is a stranger.
    std::fs::copy(folder.path().join("receiver.pem"), folder.path().join("stranger.pem")).unwrap();
    let renewed = async || (run(&mut folder.pulse(["notify", "test", "other"])).await.code == Some(0)).then_some(());
    eventually("the authority is followed", Duration::from_secs(40), renewed).await.unwrap();
    assert!(!daemon.program.stderr().contains("hunter2"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_cannot_work_are_refused_and_secrets_do_not_stand_in_the_file() {
    let folder = Folder::quick(&json!({"instances": []}));
    folder.write("auth", TOKEN);
    let channels = json!([
        {"type": "webhook", "name": "a", "url": "http://example.org/", "headers": {"Authorization": {"file": "auth"}}},
        {"type": "webhook", "name": "b", "url": "https://example.org/", "headers": {"Authorization": TOKEN}},
        {"type": "webhook", "name": "c", "url": "https://example.org/", "template": "{\"text\": {{ titel }}}"},
        {"type": "webhook", "name": "d", "url": "https://example.org/", "template": "{{ title }}"},
        {"type": "mail", "name": "d", "host": "mail.example.org", "from": "pulse@example.org", "to": []},
        {"type": "mail", "name": "e e", "host": "mail.example.org", "from": "pulse", "to": ["ops@example.org"],
         "user": "pulse", "password": {"file": "auth"}, "security": "none", "events": ["everything"]},
        {"type": "pager", "name": "f"},
    ]);
    folder.write_json("system.json", &settings(&channels));
    let ended = run(&mut folder.pulse(["config", "validate"])).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for wrong in [
        "channels[0].url: must begin with https://",
        "channels[1].headers.Authorization: must be {\"file\": …}",
        "channels[2].template: cannot be used as a template",
        "channels[3].template: does not make JSON",
        "channels[4].to: must not be empty",
        "channels[5].name: must be made of letters",
        "channels[5].password: would be sent in clear",
        "channels[5].from: must be an address",
        "channels[5].events: must be one of breaker_open",
        "channels[6].type: must be one of webhook, mail",
    ] {
        assert!(ended.stderr.contains(wrong), "{wrong} is not in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains(TOKEN));
    folder.write_json("system.json", &quick_settings());
    let daemon = Daemon::start(&folder).await;
    let patch = json!({"notifications": {"channels": []}});
    let answer = daemon.post("/api/system/settings/update", &patch).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "a call cannot have files sent elsewhere");
    let answer = daemon.post("/api/notifications/test", &json!({})).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_is_problem(&answer.json().await.unwrap(), 404, "not_found");
    let ended = run(&mut folder.pulse(["notify", "status"])).await;
    assert!(ended.code == Some(0) && ended.stdout.contains("nobody is told"), "{ended:?}");
    daemon.stop().await;
}

/// A mail server of aiosmtpd.
struct MailServer {
    program: Program,
    port: u16,
    _output: tempfile::TempDir,
}

impl MailServer {
    async fn start(python: &Path, mode: &str, folder: &Folder, refusals: u32) -> Self {
        let output = tempfile::tempdir().unwrap();
        let mut command = Command::new(python);
        command.arg(Path::new(SCRIPTS).join("smtp_server.py")).arg(mode);
        command.args(["mail.crt", "mail.key"].map(|name| folder.path().join(name)));
        command.args(["pulse", PASSWORD, &refusals.to_string()]);
        let program = Program::start(&mut command, output.path());
        let port = async || {
            let first = program.stdout().lines().next().map(str::to_owned)?;
            serde_json::from_str::<Value>(&first).ok()?["port"].as_u64()
        };
        let port = eventually("the mail server listens", PATIENCE, port).await;
        let port = port.unwrap_or_else(|late| panic!("{late}: {}", program.stderr()));
        Self { program, port: u16::try_from(port).unwrap(), _output: output }
    }

    /// What it printed behind its port: a mail, or that it put one off.
    fn lines(&self) -> Vec<Value> {
        self.program.stdout().lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn until(&self, count: usize) -> Vec<Value> {
        let look = async || Some(self.lines()).filter(|lines| lines.len() >= count);
        eventually("so many mails came", PATIENCE, look)
            .await
            .unwrap_or_else(|late| panic!("{late}: {:#?} {}", self.lines(), self.program.stderr()))
    }
}

async fn python() -> Option<PathBuf> {
    tokio::task::spawn_blocking(|| python_with("smtp.txt")).await.unwrap()
}

fn mail(name: &str, server: &MailServer, security: &str) -> Value {
    json!({
        "type": "mail", "name": name, "host": "localhost", "port": server.port, "security": security,
        "user": "pulse", "password": {"file": "mail-password"}, "caFile": "mail.crt",
        "from": "Pulse <pulse@example.org>", "to": ["ops@example.org", "night@example.org"],
        "events": ["breaker_open", "dead_letter", "recovery"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_over_tls_to_a_server_that_is_believed_and_are_tried_again_when_put_off() {
    let Some(python) = python().await else { return };
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    folder.write("mail.crt", pair.cert.pem());
    folder.write("mail.key", pair.signing_key.serialize_pem());
    folder.write("mail-password", PASSWORD);
    let by_upgrade = MailServer::start(&python, "starttls", &folder, 1).await;
    let encrypted = MailServer::start(&python, "tls", &folder, 0).await;
    let mut stranger = mail("stranger", &encrypted, "tls");
    stranger.as_object_mut().unwrap().remove("caFile");
    let channels = json!([mail("ops", &by_upgrade, "starttls"), mail("night", &encrypted, "tls"), stranger]);
    folder.write_json("system.json", &settings(&channels));
    let daemon = Daemon::start(&folder).await;
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;

    // A test goes past the queue and is tried once: one server puts it off, one is not believed.
    let ended = run(&mut folder.pulse(["notify", "test", "--json"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    let delivered: Vec<&Value> = answer["results"].as_array().unwrap().iter().map(|row| &row["delivered"]).collect();
    assert_eq!(delivered, [false, true, false], "{answer:#}");
    let ended = run(&mut folder.pulse(["notify", "test", "ops"])).await;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "ops: delivered"), "{ended:?}");

    lab.set_fault("rack", FaultKind::status(503)).await.unwrap();
    let mails = encrypted.until(2).await;
    assert_eq!(mails[1]["subject"], "Pulse: 1 circuit breaker open, 1 dead-lettered (pve::rack)", "{:#}", mails[1]);
    assert_eq!((&mails[1]["from"], &mails[1]["encrypted"]), (&json!("pulse@example.org"), &json!(true)));
    assert_eq!(mails[1]["to"], json!(["ops@example.org", "night@example.org"]));
    let text = mails[1]["text"].as_str().unwrap();
    assert!(text.contains("pve::rack circuit breaker opened") && text.contains("to do:"), "{text}");
    let mails = by_upgrade.until(3).await;
    assert_eq!((&mails[0], &mails[2]["encrypted"]), (&json!({"refused": true}), &json!(true)));
    assert!(!daemon.program.stderr().contains("hunter2"));
    daemon.stop().await;
    lab.shutdown().await;
}
