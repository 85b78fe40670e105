//! Answers of hosts, mutated, to the real clients: a server with TLS between them and the lab's fleet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pulse::engine::{ChangeHash, InstanceType, Millis, Outcome, Timestamp};
use pulse::lab::{Auth, HostPlan, Lab, LabClock, LabHost, LabPlan};
use pulse::targets::{
    Access, Client, Connector, Credentials, DiscoveryError, HttpCheck, ProxmoxAccess, Secret, Target, Trust,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::mutator::Mutator;
use crate::report::Report;
use crate::secrets::{Place, Secrets};
use crate::watch::Watch;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The stream of draws of this part of a run.
const STREAM: u64 = 1 << 41;
const LAB_SEED: u64 = 5;
/// What a poll may take.
const BUDGET: Millis = Millis::from_secs(4);
/// How far apart polls are for the client, so that each reads all parts and tickets come to their end.
const APART: Millis = Millis::from_mins(6);
/// Of so many turns of a Proxmox VE host, one asks for its cluster.
const CLUSTERS: u64 = 4;
/// The head of a request that is longer than this is none of ours.
const MAX_REQUEST: usize = 64 * 1024;

/// Gives so many answers.
///
/// # Panics
/// The lab or the server cannot be started.
#[expect(clippy::expect_used, reason = "without a server there is nothing to find")]
pub fn mistake_answers(seed: u64, count: u64) -> Report {
    let watch = Watch::begin();
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("tokio has a runtime").block_on(run(seed, count, &watch, &mut report)).expect("the lab starts");
    report
}

async fn run(seed: u64, count: u64, watch: &Watch, report: &mut Report) -> Result<(), Failed> {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hosts = vec![
        HostPlan::pve(LAB_SEED, "single", 3),
        HostPlan::pve(LAB_SEED, "cluster", 4).cluster_of(2).by_password(LAB_SEED),
        HostPlan::pbs(LAB_SEED, "vault", &["daily"]),
        HostPlan::pmg(LAB_SEED, "mail").by_password(LAB_SEED),
        HostPlan::http("site", true, "all is well"),
    ];
    let hosts = hosts.into_iter().map(|host| host.answering_in(0)).collect();
    let lab = Lab::start(LabPlan::new(LAB_SEED, hosts), LabClock::real()).await?;
    let mut secrets = Secrets::new();
    let mut liars = Vec::new();
    for host in lab.hosts() {
        let told = match &host.auth {
            Some(Auth::Token { secret, .. }) => secret.clone(),
            Some(Auth::Password { password, .. }) => password.clone(),
            None => "no secret at all".to_owned(),
        };
        secrets.keep("a host's secret", &told);
        liars.push(Liar::between(&host, lab.authority_pem(), told, Mutator::new(seed, STREAM)).await?);
    }
    // The first poll of each hears the truth, which is what is mutated from then on.
    for liar in &liars {
        let outcome = liar.poll(0).await;
        assert!(matches!(outcome.0, Outcome::Success { .. }), "the lab is understood: {outcome:?}");
        liar.discover(0).await;
        liar.script.lock().unwrap_or_else(PoisonError::into_inner).honest = false;
    }
    let mut number = 0;
    while report.inputs < count && !report.is_full() {
        number += 1;
        let liar = &liars[(number % liars.len() as u64) as usize];
        let (outcome, reading) = if number % CLUSTERS == 0 && liar.kind == InstanceType::Pve {
            liar.discover(number).await
        } else {
            liar.poll(number).await
        };
        let said = liar.said();
        report.inputs += said.len() as u64;
        let shown = || said.join(&b"\n---\n"[..]);
        watch.panics().iter().for_each(|panic| report.find(format!("a panic: {panic}"), number, &shown()));
        let (kind, text) = match &outcome {
            Outcome::Success { .. } if reading.contains("\"up\":false") => ("down", String::new()),
            Outcome::Success { .. } => ("success", String::new()),
            Outcome::Failure(failure) => (failure.kind.as_str(), format!("{failure:?}")),
        };
        report.reach(format!("{}: {kind}", liar.kind));
        let log = watch.log();
        report.log_bytes += log.len() as u64;
        for (place, text) in [("the failure", text.as_bytes()), ("the log", &log), ("a reading", reading.as_bytes())] {
            if let Some(what) = secrets.told(text, Place::Anywhere) {
                report.find(format!("{place} tells {what}: {}", text.escape_ascii()), number, &shown());
            }
        }
    }
    drop(liars);
    lab.shutdown().await;
    Ok(())
}

/// A server in front of a host of the lab, and the client that polls it.
struct Liar {
    kind: InstanceType,
    client: Client,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

/// What the server says next.
struct Script {
    honest: bool,
    draws: Mutator,
    secret: String,
    truth: BTreeMap<String, (u16, Vec<u8>)>,
    said: Vec<Vec<u8>>,
}

/// Asks the host itself.
#[derive(Clone)]
struct Upstream {
    client: reqwest::Client,
    url: String,
}

impl Liar {
    async fn between(host: &LabHost, authority: &str, secret: String, draws: Mutator) -> Result<Self, Failed> {
        let authority = reqwest::Certificate::from_pem(authority.as_bytes())?;
        let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build()?;
        let origin = |url: &str| url.split('/').take(3).collect::<Vec<_>>().join("/");
        let upstream = Upstream { client, url: origin(&host.urls[0]) };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("https://{}", listener.local_addr()?);
        let (acceptor, fingerprint) = identity()?;
        let script = Script { honest: true, draws, secret, truth: BTreeMap::new(), said: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, acceptor, upstream, Arc::clone(&script)));
        let target = target(host, &address, Trust::Fingerprint(fingerprint))?;
        let client = Client::new(target, &Arc::new(Connector::default()))?;
        Ok(Self { kind: host.kind, client, script, _server: server })
    }

    async fn poll(&self, number: u64) -> (Outcome, String) {
        #[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
        let began = std::time::Instant::now();
        let base = APART.get() * number;
        let now = || Timestamp::from_millis(base + Millis::from(began.elapsed()).get());
        let report = self.client.poll(&now, BUDGET).await;
        let reading = report.reading.map(|reading| serde_json::to_string(&reading).unwrap_or_default());
        (report.outcome, reading.unwrap_or_default())
    }

    /// Asks for the nodes of the cluster; what is in none has succeeded too.
    async fn discover(&self, number: u64) -> (Outcome, String) {
        let base = APART.get() * number;
        let now = || Timestamp::from_millis(base);
        match self.client.discover(&now, BUDGET, true).await {
            Ok(cluster) => (Outcome::Success { reading: ChangeHash(0) }, format!("{cluster:?}")),
            Err(DiscoveryError::Failed(failure)) => (Outcome::Failure(failure), String::new()),
            Err(other) => (Outcome::Success { reading: ChangeHash(0) }, other.to_string()),
        }
    }

    fn said(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner).said)
    }
}

fn identity() -> Result<(TlsAcceptor, [u8; 32]), Failed> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.into())?;
    Ok((TlsAcceptor::from(Arc::new(config)), Sha256::digest(certificate.der()).into()))
}

fn target(host: &LabHost, address: &str, trust: Trust) -> Result<Target, Failed> {
    let url = address.parse()?;
    let credentials = host.auth.clone().map(|auth| match auth {
        Auth::Token { id, secret, .. } => Credentials::Token { id, secret: Secret::new(secret) },
        Auth::Password { user, password, .. } => Credentials::Password { user, password: Secret::new(password) },
    });
    let key = format!("{}::{}", host.kind, host.name).parse()?;
    let access = match (host.kind, credentials) {
        (InstanceType::Http | InstanceType::Tcp, _) | (_, None) => Access::Http(HttpCheck {
            url: format!("{address}/health").parse()?,
            method: "GET".to_owned(),
            expected_status: 200..=299,
            body_contains: host.body.clone(),
            trust,
        }),
        (kind, Some(credentials)) => {
            let access = ProxmoxAccess { members: vec![url], credentials, trust };
            match kind {
                InstanceType::Pbs => Access::Pbs(access),
                InstanceType::Pmg => Access::Pmg(access),
                _ => Access::Pve(access),
            }
        }
    };
    Ok(Target { key, display_name: host.name.clone(), access })
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, upstream: Upstream, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        // Else an answer waits 40 ms for the acknowledgement of the handshake. Without it, it is merely slower.
        let _ = tcp.set_nodelay(true);
        // Those that have ended need not be kept.
        while connections.try_join_next().is_some() {}
        let (acceptor, upstream, script) = (acceptor.clone(), upstream.clone(), Arc::clone(&script));
        connections.spawn(async move {
            if let Ok(stream) = acceptor.accept(tcp).await {
                converse(stream, upstream, script).await;
            }
        });
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, upstream: Upstream, script: Arc<Mutex<Script>>) {
    let mut buffer = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut buffer).await {
        let mut line = request.lines().next().unwrap_or_default().split(' ');
        let call = format!("{} {}", line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let known = script.lock().unwrap_or_else(PoisonError::into_inner).truth.get(&call).cloned();
        let truth = match known {
            Some(truth) => truth,
            // A name that no host has.
            None if !script.lock().unwrap_or_else(PoisonError::into_inner).honest => (404, Vec::new()),
            None => {
                let Some(truth) = upstream.ask(&call, &request).await else { return };
                let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                script.truth.insert(call, truth.clone());
                truth
            }
        };
        let (answer, goes_on) = script.lock().unwrap_or_else(PoisonError::into_inner).next(truth);
        if stream.write_all(&answer).await.is_err() || !goes_on {
            // A client that has left needs no orderly end.
            let _ = stream.shutdown().await;
            return;
        }
        let _ = stream.flush().await;
    }
}

async fn next_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                buffer.clear();
                return Some(text);
            }
        }
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 && buffer.len() < MAX_REQUEST => buffer.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

impl Upstream {
    /// What the host itself answers.
    async fn ask(&self, call: &str, request: &str) -> Option<(u16, Vec<u8>)> {
        let (method, path) = call.split_once(' ')?;
        let (head, body) = request.split_once("\r\n\r\n")?;
        let mut asked = self.client.request(method.parse().ok()?, format!("{}{path}", self.url)).body(body.to_owned());
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ")?;
            if !["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()) {
                asked = asked.header(name, value);
            }
        }
        let answer = asked.send().await.ok()?;
        Some((answer.status().as_u16(), answer.bytes().await.ok()?.to_vec()))
    }
}

impl Script {
    /// What is said instead of the truth, and whether the connection goes on.
    fn next(&mut self, (status, truth): (u16, Vec<u8>)) -> (Vec<u8>, bool) {
        let (mut status, mut reason, mut headers, mut body) = (status, "Whatever".to_owned(), String::new(), truth);
        let mut goes_on = true;
        if self.honest {
            return (framed(status, &reason, &headers, &body), true);
        }
        match self.draws.below(10) {
            0..=3 => self.draws.mutate_json(&mut body),
            4 => {
                status = 200 + self.draws.below(400) as u16;
                let echoes =
                    [self.secret.clone(), String::from_utf8_lossy(&self.draws.awkward()).replace(['\r', '\n'], "")];
                reason = self.draws.pick(&echoes).clone();
                headers = self.header();
                if self.draws.one_in(2) {
                    body = format!("you said {}", self.secret).into_bytes();
                }
            }
            5 => {
                let mut answer = framed(status, &reason, &headers, &body);
                self.draws.mutate(&mut answer);
                self.said.push(answer.clone());
                return (answer, false);
            }
            6 if self.draws.one_in(3) => {
                let noise = self.draws.noise(300);
                self.said.push(noise.clone());
                return (noise, false);
            }
            7 if self.draws.one_in(2) => {
                let at = self.draws.below(body.len() + 1);
                let answer = framed(status, &reason, &headers, &body);
                goes_on = false;
                self.said.push(answer[..answer.len() - at].to_vec());
                return (answer[..answer.len() - at].to_vec(), goes_on);
            }
            _ => {}
        }
        // Nothing follows where nothing may.
        goes_on &= !matches!(status, 204 | 304);
        let answer = framed(status, &reason, &headers, &body);
        self.said.push(answer.clone());
        (answer, goes_on)
    }

    fn header(&mut self) -> String {
        let secret = &self.secret;
        let headers = [
            "Retry-After: 120\r\n".to_owned(),
            "Retry-After: 99999999999999999999999\r\n".to_owned(),
            "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\nDate: Wed, 21 Oct 1815 07:28:00 GMT\r\n".to_owned(),
            "Location: /health\r\n".to_owned(),
            format!("Location: https://127.0.0.1:1/?{secret}\r\n"),
            "Content-Encoding: gzip\r\n".to_owned(),
            format!("WWW-Authenticate: {secret}\r\n"),
            "Set-Cookie: PVEAuthCookie=x\r\n".to_owned(),
        ];
        self.draws.pick(&headers).clone()
    }
}

fn framed(status: u16, reason: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
