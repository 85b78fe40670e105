//! Calls of the API: valid, mutated and plain noise, to the router itself and over a connection as the daemon serves it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use memchr::memmem::find;
use pulse::api::{Encrypted, Peer};
use pulse::daemon::converse;
use pulse::engine::Millis;
use pulse::security::audit::{AuditFilter, AuditPage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::corpus::{self, HOST_SECRETS, OTHER_PASSWORD, PASSPHRASE, PASSWORD, Seed};
use crate::daemon::{Circumstances, Daemon, HOME, Key};
use crate::mutator::Mutator;
use crate::report::Report;
use crate::request::Call;
use crate::secrets::{Place, Secrets};
use crate::watch::Watch;

/// Calls to one daemon; then there is a new one, so that memory stays bounded and each is in other circumstances.
const CALLS_A_DAEMON: u64 = 10_000;
/// Calls after which the credentials are made anew.
const CALLS_A_RENEWAL: u64 = 400;
/// Calls after which the audit log is looked through.
const CALLS_A_LOOK: u64 = 500;
/// More than any limit of calls asks for between two of them.
const SPACE: Millis = Millis::new(6_100);
/// How long an answer may take that never ends, on virtual time.
const PATIENCE: Duration = Duration::from_secs(50);
/// What a connection keeps for the other end.
const PIPE_BYTES: usize = 64 * 1024;

/// Makes so many calls.
///
/// # Panics
/// The daemon cannot be started, or tokio has no runtime to give.
#[expect(clippy::expect_used, reason = "without a daemon there is nothing to find")]
pub fn make_calls(seed: u64, calls: u64) -> Report {
    let watch = Watch::begin();
    let mut report = Report::default();
    for part in 0..calls.div_ceil(CALLS_A_DAEMON) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let count = CALLS_A_DAEMON.min(calls - part * CALLS_A_DAEMON);
        let run = Run::of(seed, part, count, &watch, &mut report);
        runtime.expect("tokio has a runtime").block_on(run.go()).expect("the daemon starts");
        if report.is_full() {
            break;
        }
    }
    report
}

/// The calls to one daemon.
struct Run<'a> {
    draws: Mutator,
    first: u64,
    count: u64,
    how: Circumstances,
    /// Whether calls keep to the limits, so that these hide nothing.
    spaced: bool,
    secrets: Secrets,
    watch: &'a Watch,
    report: &'a mut Report,
    audited: i64,
    /// An export of the configuration, to be imported again.
    exported: Vec<u8>,
}

/// One input.
struct Input {
    call: Call,
    /// What goes over a connection, if it does.
    bytes: Option<Vec<u8>>,
    peer: Peer,
    encrypted: bool,
}

impl<'a> Run<'a> {
    fn of(seed: u64, part: u64, count: u64, watch: &'a Watch, report: &'a mut Report) -> Self {
        let mut draws = Mutator::new(seed, part);
        let how = Circumstances { failing_writes: (part % 8 == 5).then_some(4), proxied: draws.one_in(2) };
        let mut secrets = Secrets::new();
        for (what, text) in [("a password", OTHER_PASSWORD), ("a password", PASSWORD), ("the passphrase", PASSPHRASE)] {
            secrets.keep(what, text);
        }
        HOST_SECRETS.iter().take(3).for_each(|secret| secrets.keep("a host's secret", secret));
        secrets.issue("the secret in a query", HOST_SECRETS[3], Place::Logs);
        Self {
            draws,
            first: part * CALLS_A_DAEMON,
            count,
            how,
            spaced: part % 4 != 3,
            secrets,
            watch,
            report,
            audited: 0,
            exported: Vec::new(),
        }
    }

    async fn go(mut self) -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir_in(memory_folder())?;
        let mut daemon = Daemon::start(folder.path(), &self.how, &mut self.secrets).await?;
        let seeds = corpus::calls(&daemon.setup_token);
        for number in 0..self.count {
            if number % CALLS_A_RENEWAL == 0 && number > 0 && self.how.failing_writes.is_none() {
                daemon.renew(&mut self.secrets).await?;
            }
            let input = self.draw(&seeds, &daemon);
            if !is_safe_to_try(&input, &daemon) {
                continue;
            }
            if self.spaced {
                daemon.pass(SPACE).await;
            }
            let answer = answer(&daemon, &input).await;
            self.judge(self.first + number, &input, &answer, &daemon);
            self.learn(&input, &answer);
            if number % CALLS_A_LOOK == CALLS_A_LOOK - 1 {
                self.look_through_audit(self.first + number, &daemon).await?;
            }
            if self.report.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn draw(&mut self, seeds: &[Seed], daemon: &Daemon) -> Input {
        let draws = &mut self.draws;
        let seed = loop {
            let seed = draws.pick(seeds);
            if draws.one_in(seed.one_in) {
                break seed;
            }
        };
        let mut call = seed.call.clone();
        let [exports, imports] = ["/export", "/import"].map(|what| find(&call.target, what.as_bytes()).is_some());
        if imports && !self.exported.is_empty() && !draws.one_in(4) {
            call.body = [PASSPHRASE.as_bytes(), b"\n", &self.exported].concat();
        }
        let peer = match draws.below(20) {
            // These are for the daemon's owner alone.
            0..=15 if exports || imports => Peer::Local { account: "owner".into() },
            0 | 1 => Peer::Local { account: "owner".into() },
            2..=12 => Peer::Tcp(HOME),
            13 => Peer::Tcp(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | draws.below(99) as u128))),
            _ => Peer::Tcp(IpAddr::V4(Ipv4Addr::new(127, 0, 1, draws.below(250) as u8))),
        };
        let encrypted = draws.one_in(4);
        if !draws.one_in(10) {
            sign(&mut call, draws.pick(&daemon.keys), encrypted, draws);
        }
        if draws.below(10) > 2 {
            for _ in 0..=draws.below(3) {
                call.mutate(draws);
            }
        }
        let raw = draws.one_in(3) || call.to_request().is_none();
        let bytes = raw.then(|| {
            let mut bytes = match draws.below(30) {
                0 => draws.noise(600),
                1 => [call.to_bytes(false), seed.call.to_bytes(true)].concat(),
                2..=4 => call.to_bytes(true),
                _ => call.to_bytes(false),
            };
            if draws.one_in(2) {
                draws.mutate(&mut bytes);
            }
            bytes
        });
        Input { call, bytes, peer, encrypted }
    }

    fn judge(&mut self, number: u64, input: &Input, answer: &[u8], daemon: &Daemon) {
        let shown = || input.bytes.clone().unwrap_or_else(|| input.call.to_bytes(false));
        self.report.inputs += 1;
        for panic in self.watch.panics() {
            self.report.find(format!("a panic: {panic}"), number, &shown());
        }
        let answered = std::mem::take(&mut *daemon.answered.lock().unwrap_or_else(PoisonError::into_inner));
        for (method, path, status) in &answered {
            let broken = *status >= 500 && !(*status == 503 && self.how.failing_writes.is_some());
            if broken {
                let text = String::from_utf8_lossy(answer);
                self.report.find(format!("{method} {path} was answered with {status}: {text}"), number, &shown());
            }
            let method = if METHODS.contains(&method.as_str()) { method } else { "another method" };
            self.report.reach(format!("{method} {path} {status}"));
        }
        if answered.is_empty() {
            let status = answer.get(9..12).map_or("none".into(), String::from_utf8_lossy);
            self.report.reach(format!("the connection itself: {status}"));
        }
        if let Some(what) = self.secrets.told(answer, Place::Anywhere) {
            let text = String::from_utf8_lossy(answer);
            self.report.find(format!("an answer tells {what}: {text}"), number, &shown());
        }
        let log = self.watch.log();
        self.report.log_bytes += log.len() as u64;
        if let Some(what) = self.secrets.told(&log, Place::Logs) {
            let text = String::from_utf8_lossy(&log);
            self.report.find(format!("the log tells {what}: {text}"), number, &shown());
        }
    }

    /// Takes note of what an answer has issued; nothing later may tell it.
    fn learn(&mut self, input: &Input, answer: &[u8]) {
        if input.call.target == b"/api/config/export"
            && input.bytes.is_none()
            && answer.starts_with(b"HTTP/1.1 200")
            && let Some(at) = find(answer, b"\r\n\r\n")
        {
            self.exported = answer[at + 4..].to_vec();
        }
        for (before, after, what, place) in [
            (&b"pulse_session="[..], b';', "a session's cookie", Place::Anywhere),
            (b"\"token\":\"", b'"', "a token", Place::Anywhere),
            (b"\"csrfToken\":\"", b'"', "a CSRF token", Place::Logs),
        ] {
            let Some(at) = find(answer, before) else { continue };
            let rest = &answer[at + before.len()..];
            let end = rest.iter().position(|byte| *byte == after).unwrap_or(0);
            self.secrets.issue(what, &rest[..end], place);
        }
    }

    async fn look_through_audit(&mut self, number: u64, daemon: &Daemon) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let page = daemon.books.audit.list(AuditFilter::default(), AuditPage::After(self.audited), 500).await?;
            let Some(last) = page.last() else { return Ok(()) };
            self.audited = last.seq;
            self.report.audit_entries += page.len() as u64;
            for entry in &page {
                let text = serde_json::to_vec(entry)?;
                if let Some(what) = self.secrets.told(&text, Place::Logs) {
                    self.report.find(format!("the audit log tells {what}"), number, &text);
                }
            }
        }
    }
}

const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "QUERY"];

fn sign(call: &mut Call, key: &Key, encrypted: bool, draws: &mut Mutator) {
    let add = |call: &mut Call, name: &str, value: String| call.headers.push((name.into(), value.into_bytes()));
    match key {
        Key::Token(token) if draws.one_in(2) => add(call, "authorization", format!("Bearer {token}")),
        Key::Token(token) => add(call, "x-api-token", token.clone()),
        Key::Session { id, cookie, csrf } => {
            if call.target == b"/api/security/me/sessions/3" {
                call.target = format!("/api/security/me/sessions/{id}").into_bytes();
            }
            let prefix = if encrypted { "__Host-" } else { "" };
            add(call, "cookie", format!("theme=dark; {prefix}pulse_session={cookie}"));
            if !draws.one_in(12) {
                add(call, "x-csrf-token", csrf.clone());
            }
        }
    }
}

async fn answer(daemon: &Daemon, input: &Input) -> Vec<u8> {
    let request = match &input.bytes {
        Some(bytes) => return over_a_connection(daemon, bytes, input).await,
        None => input.call.to_request(),
    };
    let Some(mut request) = request else { return Vec::new() };
    request.extensions_mut().insert(input.peer.clone());
    if input.encrypted {
        request.extensions_mut().insert(Encrypted);
    }
    directly(daemon, request).await
}

/// The answer of the router, written as over a connection.
async fn directly(daemon: &Daemon, request: Request<Body>) -> Vec<u8> {
    let Ok(response) = TowerToHyperService::new(daemon.router.clone()).call(request).await;
    let (head, mut body) = response.into_parts();
    let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend(b"\r\n");
    let whole = async {
        while let Some(Ok(frame)) = body.frame().await {
            text.extend(frame.data_ref().into_iter().flatten());
        }
    };
    // Events go on for ever.
    let _ = tokio::time::timeout(PATIENCE, whole).await;
    text
}

/// Everything that comes back over a connection on which `bytes` are sent and nothing more.
async fn over_a_connection(daemon: &Daemon, bytes: &[u8], input: &Input) -> Vec<u8> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let encrypted = input.encrypted.then_some(Encrypted);
    let served = converse(far, encrypted, daemon.router.clone(), input.peer.clone(), daemon.stop.clone());
    let (mut reading, mut writing) = tokio::io::split(near);
    let mut text = Vec::new();
    let talk = async {
        let send = async {
            // A server may hang up on nonsense.
            let _ = writing.write_all(bytes).await;
        };
        tokio::join!(send, reading.read_to_end(&mut text), served)
    };
    let _ = tokio::time::timeout(PATIENCE, talk).await;
    text
}

/// Whether a call that tries a connection stays on this machine, whatever it was mutated to.
fn is_safe_to_try(input: &Input, daemon: &Daemon) -> bool {
    let tries = |bytes: &[u8]| find(bytes, b"test-connection").is_some();
    let all = input.bytes.as_ref().map_or_else(|| input.call.to_bytes(false), Clone::clone);
    if !tries(&all) && find(&all, b"test").is_none() {
        return true;
    }
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&input.call.body) else {
        return input.bytes.is_none();
    };
    if input.bytes.is_some() {
        return false;
    }
    if let Some(key) = body["key"].as_str() {
        let members = daemon.fleet.members();
        let member = key.parse().ok().and_then(|key| members.get(&key).cloned());
        return member.is_none_or(|member| is_loopback(&member.connection()));
    }
    let text = String::from_utf8_lossy(&input.call.body);
    let once = |name: &str| text.matches(name).count() <= 1;
    let host = body["instance"]["host"].as_str();
    once("host") && !text.contains("url") && !text.contains("\\u") && host.is_none_or(|host| host == "127.0.0.1")
}

fn is_loopback(connection: &str) -> bool {
    let address = connection.rsplit("://").next().unwrap_or_default();
    let host = address.split([':', '/']).next().unwrap_or_default();
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A folder in memory where there is one: no disk is to be worn down by this.
pub(crate) fn memory_folder() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
