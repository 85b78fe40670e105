//! The real router in process: operators who call it with every kind of credential while its audit database fails.
//!
//! It notes what each call was promised, and holds the audit log to it at the end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use pulse::api::{Api, Peer, router};
use pulse::config::{Config, DataDir, Draft, Environment, Field, Follower, Keyring, LiveConfig, SETTINGS};
use pulse::configure::{Configurator, Followers};
use pulse::engine::{Command, InstanceSpec, Settings, SettingsDraft};
use pulse::fleet::Fleet;
use pulse::runtime::{Clock, Handle};
use pulse::security::audit::{Attempt, AuditFilter, AuditLog, AuditPage, Conclusion, verify};
use pulse::security::{self, Books, HashCost, Hasher, KeyFile, NewUser, Role};
use pulse::store::Store;
use pulse::targets::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use crate::audit_faults::AuditFaults;
use crate::callers::{Caller, PASSWORDS_ARE_GUESSED_FROM, SHORT_LIFE, Tokens, USERS_CALL_FROM};
use crate::host::Host;
use crate::nodes::{Change, Edit, Nodes, Tag, Written};
use crate::scenario::Scenario;
use crate::sessions::{self, Carried, Session, Sessions, Visit};
use crate::streams::Stream;

type Failed = Box<dyn std::error::Error>;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Turns that whatever happens at one moment may take.
const TURNS: usize = 64;

/// Lets whatever happens at this very moment take its turns.
pub(crate) async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Where operators call.
pub(crate) struct Desk {
    clock: Arc<dyn Clock>,
    router: Router,
    audit: AuditLog,
    store: Store,
    key: Arc<KeyFile>,
    gate: Arc<AuditFaults>,
    nodes: Nodes,
    tokens: Tokens,
    expires_at: jiff::Timestamp,
    sessions: Sessions,
    draws: Stream,
    calls: Vec<Call>,
    callers: BTreeMap<&'static str, u64>,
    /// What was wrong with the signing in and out.
    wrong: Vec<String>,
    _folder: TempDir,
}

/// An answer, read to its end.
struct Answered {
    status: StatusCode,
    /// The cookie that the browser is to keep.
    cookie: Option<String>,
    body: Value,
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Command(Command),
    Settings(Box<Settings>),
    Change(Change),
}

/// A call that was made.
#[derive(Debug)]
struct Call {
    status: StatusCode,
    /// Whether the audit log owes exactly one outcome for it, and which.
    owed: Option<&'static str>,
}

/// What came of a call.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Whether the caller had the role.
    pub(crate) allowed: bool,
    /// Whether the engine must have heard of it.
    pub(crate) reaches_engine: bool,
    /// What is wrong with the answer, or with the file that it tells of.
    pub(crate) wrong: Option<String>,
    pub(crate) what: String,
}

/// What the audit log has at the end.
pub(crate) struct Audited {
    /// What is wrong with it.
    pub(crate) wrong: Vec<String>,
    /// How often what was asked for was done, by the name of the action.
    pub(crate) done: BTreeMap<String, u64>,
}

impl Desk {
    pub(crate) async fn open(
        handle: Handle,
        clock: Arc<dyn Clock>,
        scenario: &Scenario,
        seed: u64,
    ) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let written = Written::new(&Host::all(scenario, seed));
        std::fs::write(folder.path().join("instances.json"), written.text())?;
        std::fs::write(folder.path().join("system.json"), by_name(&scenario.valid_settings()).to_string())?;
        let config = Config::load(DataDir::open(folder.path())?, &Environment::default())?;
        let gate = Arc::new(AuditFaults::new(Arc::clone(&clock)));
        let store = Store::in_memory()?.with_gate(gate.clone());
        let key = Arc::new(KeyFile::fixed([7; 32]));
        let audit = AuditLog::begin(store.clone(), Arc::clone(&key), Arc::clone(&clock), TaskTracker::new()).await?;
        let hasher = Hasher::new(HashCost::Least);
        let mut books = Books::open(store.clone(), audit.clone(), Arc::clone(&clock), hasher).await?;
        books.accounts = books.accounts.with_rules(sessions::RULES);
        for (name, role) in sessions::USERS.into_iter().zip([Role::Viewer, Role::Operator, Role::Admin]) {
            let user = NewUser { name: name.to_owned(), role, password: Secret::new(sessions::PASSWORD.to_owned()) };
            books.accounts.add(user, security::Caller::SYSTEM, None).await?;
        }
        let fleet = Fleet::new(Arc::clone(&clock));
        fleet.replace(&config.instances);
        let live = LiveConfig::new(config.system.clone());
        let mut follower = Follower::new(&config);
        let keys = Arc::new(Keyring::read_or_make(folder.path())?);
        follower.use_keys(Arc::clone(&keys));
        let nodes = Nodes::open(written, &config, keys, Arc::clone(&clock))?;
        let followers = Followers { live, scheduler: Some((handle.clone(), fleet.clone())) };
        let expires_at = clock.wall().checked_add(jiff::SignedDuration::from_millis(SHORT_LIFE.get().cast_signed()))?;
        let held = Tokens::issue(&books.tokens, expires_at).await?;
        let configurator = Configurator::new(follower, followers, store.clone(), Arc::clone(&clock), audit.clone());
        let api = Api::new(handle, fleet, Arc::clone(&clock), configurator, books);
        let mut desk = Self {
            router: router(api, Router::new()),
            nodes,
            tokens: held,
            sessions: Sessions::default(),
            callers: BTreeMap::new(),
            wrong: Vec::new(),
            draws: Stream::new(seed, "desk", ""),
            calls: Vec::new(),
            _folder: folder,
            clock,
            audit,
            store,
            key,
            gate,
            expires_at,
        };
        for user in 0..sessions::USERS.len() {
            desk.sign_in(user).await;
        }
        Ok(desk)
    }

    /// The inventory as the daemon gives it to its engine.
    pub(crate) fn specs(&self) -> Arc<[InstanceSpec]> {
        self.nodes.specs()
    }

    /// Those of `hosts` that `instances.json` does not have.
    pub(crate) fn unlisted(&self, hosts: &[usize]) -> Vec<usize> {
        hosts.iter().copied().filter(|host| !self.nodes.is_listed(*host)).collect()
    }

    /// What somebody wants of an instance, and which state of it they have seen.
    pub(crate) fn change(&mut self, host: usize, edit: Edit) -> Change {
        let tag = match self.draws.below(8) {
            _ if edit == Edit::Add => Tag::None,
            0 => Tag::Outdated,
            1..=3 => Tag::Current,
            _ => Tag::None,
        };
        Change { host, edit, tag }
    }

    /// How somebody edits an instance; one that was switched off is switched on again.
    pub(crate) fn edit(&mut self, host: usize) -> Change {
        let edit = match self.draws.below(6) {
            _ if !self.nodes.is_switched_on(host) => Edit::Switch,
            0 => Edit::Switch,
            1 => Edit::Rename,
            _ => Edit::Move,
        };
        self.change(host, edit)
    }

    /// Has somebody ask for something, who may not have the role, while the disk may fail.
    pub(crate) async fn ask(&mut self, asked: &Asked) -> Answer {
        let (method, path, mut body) = match asked {
            Asked::Command(command) => call_of(command),
            Asked::Settings(settings) => ("POST", "/api/system/settings/update".to_owned(), by_name(settings)),
            Asked::Change(change) => self.nodes.call_of(change),
        };
        let mut caller = self.caller().await;
        *self.callers.entry(caller.kind).or_default() += 1;
        if self.draws.below(12) == 0 {
            self.flood(method, &path, &body).await;
        }
        if let Asked::Change(change) = asked {
            caller.headers.extend(self.if_match(change).await.map(|tag| ("if-match", tag)));
        }
        let number = self.calls.len();
        body["reason"] = json!(format!("call {number}"));
        let fault = self.gate.draw(&mut self.draws);
        let status = self.send(method, &path, &caller, Some(body)).await.status;
        self.gate.heal();
        let Caller { kind, allowed, .. } = caller;
        // What was begun has its outcome, whoever it was told to.
        let carried_out = allowed && !matches!(status.as_u16(), 400 | 429 | 503);
        let owed = carried_out.then_some(if status.is_success() { "done" } else { "refused" });
        self.calls.push(Call { status, owed });
        let (reaches_engine, wrong) = match asked {
            Asked::Command(_) | Asked::Settings(_) => (carried_out, self.nodes.hold(None).err()),
            Asked::Change(change) => {
                let expected = self.nodes.expected(change);
                let done = carried_out && status.is_success();
                let held = self.nodes.hold(Some(change).filter(|_| done)).err();
                let other = || (carried_out && status.as_u16() != expected).then(|| format!("it should be {expected}"));
                (done, held.or_else(other))
            }
        };
        let what = format!("{method} {path} ({kind}, call {number}, {asked:?}, {fault})");
        Answer { status, allowed, reaches_engine, wrong, what }
    }

    /// A flood of somebody who may not; each of them is refused, and told in the log once a minute at the most.
    async fn flood(&mut self, method: &str, path: &str, body: &Value) {
        let viewer = Caller::with_token("flood", Some(&self.tokens.viewer), false);
        let mut body = body.clone();
        body["reason"] = json!("a flood");
        for _ in 0..15 {
            let status = self.send(method, path, &viewer, Some(body.clone())).await.status;
            self.calls.push(Call { status, owed: None });
        }
    }

    /// What the caller sends as `If-Match`.
    async fn if_match(&self, change: &Change) -> Option<String> {
        match change.tag {
            Tag::None => None,
            Tag::Outdated => Some("\"of another time\"".to_owned()),
            Tag::Current => {
                let viewer = Caller::with_token("viewer", Some(&self.tokens.viewer), false);
                let shown = self.send("GET", &self.nodes.path_of(change.host), &viewer, None).await;
                shown.body["tag"].as_str().map(|tag| format!("\"{tag}\""))
            }
        }
    }

    /// The health answer, as a viewer is told it.
    pub(crate) async fn health(&self) -> (StatusCode, Value) {
        let viewer = Caller::with_token("viewer", Some(&self.tokens.viewer), false);
        let answered = self.send("GET", "/api/monitoring/scheduler/health", &viewer, None).await;
        (answered.status, answered.body)
    }

    /// Somebody who calls next.
    async fn caller(&mut self) -> Caller {
        let Tokens { admins, operator, viewer, expiring } = &self.tokens;
        match self.draws.below(18) {
            0 => Caller::with_token("nobody", None, false),
            1 => Caller::with_token("viewer's token", Some(viewer), false),
            2 => Caller::with_token("operator's token", Some(operator), false),
            3 => {
                let wrong = "pulse_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
                Caller::with_token("wrong token", Some(&wrong), false)
            }
            4 => Caller::with_token("token with an end", Some(expiring), self.clock.wall() < self.expires_at),
            5..=10 => self.visitor().await,
            _ => {
                let number = self.draws.below(admins.len() as u64) as usize;
                Caller::with_token("admin's token", Some(&admins[number]), true)
            }
        }
    }

    /// Somebody who comes with a session.
    async fn visitor(&mut self) -> Caller {
        let now = self.now();
        let visit = self.sessions.next_visit(&mut self.draws, now);
        let carried = match visit {
            Visit::SignsOut(user) => self.sign_out(user).await,
            Visit::SignsIn(user) => {
                self.sign_in(user).await;
                self.sessions.carry(&visit, self.now())
            }
            Visit::Guesses(user) => {
                self.guess(user).await;
                self.sessions.carry(&visit, self.now())
            }
            _ => self.sessions.carry(&visit, now),
        };
        Caller::with_session(visit.name(), carried)
    }

    /// Signs a user in. Nobody else's failures may hold them up where they were before.
    async fn sign_in(&mut self, user: usize) {
        let (before, name) = (self.now(), sessions::USERS[user]);
        let answered = self.log_in(USERS_CALL_FROM, name, sessions::PASSWORD).await;
        let csrf = answered.body["session"]["csrfToken"].as_str().map(str::to_owned);
        match (answered.cookie, csrf) {
            (Some(cookie), Some(csrf)) if self.now() == before => {
                self.sessions.open(user, Session::opened(cookie, csrf, before));
            }
            _ => self.wrong.push(format!("the right password of {name} was answered with {}", answered.status)),
        }
    }

    async fn guess(&mut self, user: usize) {
        let name = sessions::USERS[user];
        let answered = self.log_in(PASSWORDS_ARE_GUESSED_FROM, name, "a lantern in the frog").await;
        if answered.cookie.is_some() || !matches!(answered.status.as_u16(), 401 | 429) {
            self.wrong.push(format!("a wrong password of {name} was answered with {}", answered.status));
        }
    }

    async fn log_in(&self, address: Ipv4Addr, name: &str, password: &str) -> Answered {
        let browser = Caller { kind: "browser", headers: Vec::new(), address, allowed: false };
        self.send("POST", "/api/login", &browser, Some(json!({"name": name, "password": password}))).await
    }

    /// Signs a user out, and gives what their browser would send if it did not know.
    async fn sign_out(&mut self, user: usize) -> Option<Carried> {
        let carried = self.sessions.carry(&Visit::Comes(user), self.now());
        let caller = Caller::with_session("browser", carried);
        let status = self.send("POST", "/api/logout", &caller, None).await.status;
        if status != StatusCode::NO_CONTENT {
            self.wrong.push(format!("{} could not sign out: {status}", sessions::USERS[user]));
        }
        self.sessions.signed_out(user)
    }

    /// In milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.wall().as_millisecond()
    }

    async fn send(&self, method: &str, path: &str, caller: &Caller, body: Option<Value>) -> Answered {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in &caller.headers {
            request = request.header(*name, value);
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let Ok(request) = request.extension(Peer::Tcp(caller.address.into())).body(body) else {
            return Answered { status: StatusCode::IM_A_TEAPOT, cookie: None, body: Value::Null };
        };
        let Ok(response) = TowerToHyperService::new(self.router.clone()).call(request).await;
        let status = response.status();
        let cookie = response.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        let bytes = to_bytes(response.into_body(), MAX_ANSWER).await.unwrap_or_default();
        Answered { status, cookie, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    /// How often there was a call of each kind of caller.
    pub(crate) fn callers(&self) -> BTreeMap<&'static str, u64> {
        self.callers.clone()
    }

    /// How often calls were answered with each status.
    pub(crate) fn answers(&self) -> BTreeMap<u16, u64> {
        let mut answers = BTreeMap::new();
        self.calls.iter().for_each(|call| *answers.entry(call.status.as_u16()).or_default() += 1);
        answers
    }

    /// What is wrong with the audit log: every call that was carried out is in it once, no other is, and it proves itself.
    pub(crate) async fn audit(self) -> Result<Audited, Failed> {
        // Outcomes that the disk did not take go before the next entry.
        self.audit.record(Attempt::new(security::Caller::SYSTEM, "sim.end"), Conclusion::done(None, None)).await?;
        let (mut found, mut done) = (vec![Vec::new(); self.calls.len()], BTreeMap::new());
        let mut after = 0;
        loop {
            let page = self.audit.list(AuditFilter::default(), AuditPage::After(after), 1_000).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for entry in &page {
                let number = entry.reason.as_deref().and_then(|reason| reason.strip_prefix("call "));
                if let Some(found) = number.and_then(|it| it.parse::<usize>().ok()).and_then(|it| found.get_mut(it)) {
                    if entry.outcome.as_deref() == Some("done") {
                        *done.entry(entry.action.clone()).or_default() += 1;
                    }
                    found.push(format!("{} {}", entry.kind, entry.outcome.as_deref().unwrap_or("open")));
                }
            }
        }
        let mut wrong = self.wrong;
        for (number, (call, found)) in self.calls.iter().zip(found).enumerate() {
            let outcomes: Vec<&String> = found.iter().filter(|entry| !entry.starts_with("intent")).collect();
            let owed: Vec<String> = call.owed.iter().map(|outcome| format!("outcome {outcome}")).collect();
            if outcomes.iter().map(|it| it.as_str()).ne(owed.iter().map(String::as_str)) {
                wrong.push(format!("call {number} ({}): the log has {found:?}, not {owed:?}", call.status));
            }
        }
        if let Err(fault) = verify(&self.store, self.key, Vec::new()).await? {
            wrong.push(format!("the audit log does not prove itself: {fault:?}"));
        }
        Ok(Audited { wrong, done })
    }
}

/// How a command is asked for over HTTP.
fn call_of(command: &Command) -> (&'static str, String, Value) {
    let (method, path) = match command {
        Command::ResetBreaker { key } => ("POST", format!("breakers/{key}/reset")),
        Command::RetryDeadLetter { key } => ("POST", format!("dlq/{key}/retry")),
        Command::RetryDeadLetters { .. } => ("POST", "dlq/retry".to_owned()),
        Command::RemoveDeadLetter { key } => ("DELETE", format!("dlq/{key}")),
        Command::PollNow { key } => ("POST", format!("instances/{key}/poll")),
        Command::SetEnabled { key, enabled: false } => ("POST", format!("instances/{key}/pause")),
        Command::SetEnabled { key, enabled: true } => ("POST", format!("instances/{key}/resume")),
    };
    (method, format!("/api/monitoring/{path}"), json!({}))
}

/// Settings as `system.json` has them.
fn by_name(settings: &Settings) -> Value {
    let draft = Draft::from(SettingsDraft::clone(settings));
    let ours = SETTINGS.iter().filter(|setting| matches!(setting.field, Field::Scheduler(_)));
    ours.map(|setting| (setting.name.to_owned(), setting.value(&draft))).collect::<serde_json::Map<_, _>>().into()
}
