//! The real router in process: operators who call it with every kind of credential while its audit database fails.
//!
//! It notes what each call was promised, and holds the audit log to it at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures::future::BoxFuture;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use pulse::api::{Api, Peer, router};
use pulse::config::{Config, DataDir, Environment, Follower, Keyring, LiveConfig};
use pulse::configure::{Configurator, Followers};
use pulse::engine::{Command, InstanceType, Millis};
use pulse::fleet::Fleet;
use pulse::runtime::{Clock, Handle};
use pulse::security::audit::{Attempt, AuditFilter, AuditLog, AuditPage, Conclusion, verify};
use pulse::security::{Books, Caller, HashCost, Hasher, KeyFile, NewToken, Role, TokenStore};
use pulse::store::{Store, StoreError, WriteGate};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use crate::host::Host;
use crate::scenario::Scenario;
use crate::streams::Stream;

type Failed = Box<dyn std::error::Error>;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How long the token lives that is soon expired.
const SHORT_LIFE: Millis = Millis::from_mins(2);
/// How long the disk stalls at the most: also longer than the log waits for it.
const LONGEST_STALL: u64 = 12_000;
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
    tokens: Tokens,
    expires_at: jiff::Timestamp,
    draws: Stream,
    calls: Vec<Call>,
    _folder: TempDir,
}

struct Tokens {
    admins: Vec<String>,
    operator: String,
    viewer: String,
    expiring: String,
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
    pub(crate) what: String,
}

impl Desk {
    pub(crate) async fn open(
        handle: Handle,
        clock: Arc<dyn Clock>,
        scenario: &Scenario,
        seed: u64,
    ) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("instances.json"), inventory(scenario, seed).to_string())?;
        let config = Config::load(DataDir::open(folder.path())?, &Environment::default())?;
        let gate = Arc::new(AuditFaults::new(Arc::clone(&clock)));
        let store = Store::in_memory()?.with_gate(gate.clone());
        let key = Arc::new(KeyFile::fixed([7; 32]));
        let audit = AuditLog::begin(store.clone(), Arc::clone(&key), Arc::clone(&clock), TaskTracker::new()).await?;
        let hasher = Hasher::new(HashCost::Least);
        let books = Books::open(store.clone(), audit.clone(), Arc::clone(&clock), hasher).await?;
        let fleet = Fleet::new(Arc::clone(&clock));
        fleet.replace(&config.instances);
        let live = LiveConfig::new(config.system.clone());
        let mut follower = Follower::new(&config);
        follower.use_keys(Arc::new(Keyring::read_or_make(folder.path())?));
        // Settings and inventory reach the scheduler by its handle here, as the scenario has them.
        let followers = Followers { live, scheduler: None };
        let expires_at = clock.wall().checked_add(jiff::SignedDuration::from_millis(SHORT_LIFE.get().cast_signed()))?;
        let held = Tokens::issue(&books.tokens, expires_at).await?;
        let configurator = Configurator::new(follower, followers, store.clone(), Arc::clone(&clock), audit.clone());
        let api = Api::new(handle, fleet, Arc::clone(&clock), configurator, books);
        Ok(Self {
            router: router(api, Router::new()),
            tokens: held,
            draws: Stream::new(seed, "desk", ""),
            calls: Vec::new(),
            _folder: folder,
            clock,
            audit,
            store,
            key,
            gate,
            expires_at,
        })
    }

    /// Has somebody ask for `command`, who may not have the role, while the disk may fail.
    pub(crate) async fn ask(&mut self, command: &Command) -> Answer {
        let number = self.calls.len();
        let (method, path, body) = call_of(command, &format!("call {number}"));
        let (token, allowed) = self.caller();
        if self.draws.below(12) == 0 {
            // A flood of somebody who may not; each of them is refused, and told in the log once a minute at the most.
            for _ in 0..15 {
                let viewer = self.tokens.viewer.clone();
                let status = self.send(method, &path, Some(&viewer), body.clone()).await.0;
                self.calls.push(Call { status, owed: None });
            }
        }
        let number = self.calls.len();
        let body = body.map(|_| json!({"reason": format!("call {number}")}));
        let fault = self.gate.draw(&mut self.draws);
        let (status, _) = self.send(method, &path, token.as_deref(), body).await;
        self.gate.heal();
        // What was begun has its outcome, whoever it was told to.
        let carried_out = allowed && !matches!(status.as_u16(), 400 | 429 | 503);
        let owed = carried_out.then_some(if status.is_success() { "done" } else { "refused" });
        self.calls.push(Call { status, owed });
        Answer { status, allowed, what: format!("{method} {path} (call {number}, {fault})") }
    }

    /// The health answer, as a viewer is told it.
    pub(crate) async fn health(&self) -> (StatusCode, Value) {
        self.send("GET", "/api/monitoring/scheduler/health", Some(&self.tokens.viewer), None).await
    }

    /// Some token, and whether the caller may manage with it.
    fn caller(&mut self) -> (Option<String>, bool) {
        match self.draws.below(12) {
            0 => (None, false),
            1 => (Some(self.tokens.viewer.clone()), false),
            2 => (Some(self.tokens.operator.clone()), false),
            3 => (Some("pulse_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()), false),
            4 => (Some(self.tokens.expiring.clone()), self.clock.wall() < self.expires_at),
            _ => {
                let number = self.draws.below(self.tokens.admins.len() as u64) as usize;
                (Some(self.tokens.admins[number].clone()), true)
            }
        }
    }

    async fn send(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let address = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let Ok(request) = request.extension(Peer::Tcp(address)).body(body) else {
            return (StatusCode::IM_A_TEAPOT, Value::Null);
        };
        let Ok(response) = TowerToHyperService::new(self.router.clone()).call(request).await;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), MAX_ANSWER).await.unwrap_or_default();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// How often calls were answered with each status.
    pub(crate) fn answers(&self) -> BTreeMap<u16, u64> {
        let mut answers = BTreeMap::new();
        self.calls.iter().for_each(|call| *answers.entry(call.status.as_u16()).or_default() += 1);
        answers
    }

    /// What is wrong with the audit log: every call that was carried out is in it once, no other is, and it proves itself.
    pub(crate) async fn audit(self) -> Result<Vec<String>, Failed> {
        // Outcomes that the disk did not take go before the next entry.
        self.audit.record(Attempt::new(Caller::SYSTEM, "sim.end"), Conclusion::done(None, None)).await?;
        let mut found = vec![Vec::new(); self.calls.len()];
        let mut after = 0;
        loop {
            let page = self.audit.list(AuditFilter::default(), AuditPage::After(after), 1_000).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for entry in &page {
                let number = entry.reason.as_deref().and_then(|reason| reason.strip_prefix("call "));
                if let Some(found) = number.and_then(|it| it.parse::<usize>().ok()).and_then(|it| found.get_mut(it)) {
                    found.push(format!("{} {}", entry.kind, entry.outcome.as_deref().unwrap_or("open")));
                }
            }
        }
        let mut wrong = Vec::new();
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
        Ok(wrong)
    }
}

impl Tokens {
    async fn issue(tokens: &TokenStore, expires_at: jiff::Timestamp) -> Result<Self, Failed> {
        let issue = async |name: &str, role, expires_at| -> Result<String, Failed> {
            let new = NewToken { name: name.to_owned(), role, expires_at };
            Ok(tokens.create(new, Caller::SYSTEM, None).await?.token.expose().to_owned())
        };
        Ok(Self {
            admins: vec![issue("admin 1", Role::Admin, None).await?, issue("admin 2", Role::Admin, None).await?],
            operator: issue("operator", Role::Operator, None).await?,
            viewer: issue("viewer", Role::Viewer, None).await?,
            expiring: issue("expiring", Role::Admin, Some(expires_at)).await?,
        })
    }
}

/// The hosts as an operator would write them down; nobody polls them by this.
fn inventory(scenario: &Scenario, seed: u64) -> Value {
    let entry = |host: Host| {
        let (kind, name) = (host.key.kind(), host.key.name());
        let mut entry = json!({"type": kind.to_string(), "name": name});
        match kind {
            InstanceType::Tcp => {
                entry["host"] = json!("127.0.0.1");
                entry["port"] = json!(9);
            }
            InstanceType::Http => entry["url"] = json!("https://127.0.0.1:9"),
            InstanceType::Pve | InstanceType::Pbs | InstanceType::Pmg => {
                entry["url"] = json!("https://127.0.0.1:9");
                entry["auth"] = json!({"tokenId": "pulse@pve!sim", "secret": "simulated"});
            }
        }
        entry
    };
    json!({"instances": Host::all(scenario, seed).into_iter().map(entry).collect::<Vec<_>>()})
}

/// How a command is asked for over HTTP.
fn call_of(command: &Command, reason: &str) -> (&'static str, String, Option<Value>) {
    let (method, path) = match command {
        Command::ResetBreaker { key } => ("POST", format!("breakers/{key}/reset")),
        Command::RetryDeadLetter { key } => ("POST", format!("dlq/{key}/retry")),
        Command::RetryDeadLetters { .. } => ("POST", "dlq/retry".to_owned()),
        Command::RemoveDeadLetter { key } => ("DELETE", format!("dlq/{key}")),
        Command::PollNow { key } => ("POST", format!("instances/{key}/poll")),
        Command::SetEnabled { key, enabled: false } => ("POST", format!("instances/{key}/pause")),
        Command::SetEnabled { key, enabled: true } => ("POST", format!("instances/{key}/resume")),
    };
    (method, format!("/api/monitoring/{path}"), Some(json!({"reason": reason})))
}

/// What befalls the next writes to the audit log.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    intent: Trouble,
    outcome: Trouble,
}

#[derive(Clone, Copy, Debug, Default)]
enum Trouble {
    #[default]
    None,
    Fails,
    Stalls(Millis),
}

/// Fails and stalls writes to the audit log.
struct AuditFaults {
    clock: Arc<dyn Clock>,
    plan: Mutex<Plan>,
}

impl AuditFaults {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, plan: Mutex::default() }
    }

    /// Plans the troubles of one call, and tells them.
    fn draw(&self, draws: &mut Stream) -> String {
        let mut trouble = |one_in| match draws.below(one_in) {
            0 => Trouble::Fails,
            1 => Trouble::Stalls(Millis::new(1 + draws.below(LONGEST_STALL))),
            _ => Trouble::None,
        };
        let plan = Plan { intent: trouble(10), outcome: trouble(10) };
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        format!("{plan:?}")
    }

    fn heal(&self) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Plan::default();
    }
}

impl WriteGate for AuditFaults {
    fn before_write(&self, what: &'static str) -> BoxFuture<'static, Result<(), StoreError>> {
        let plan = *self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = match what {
            "audit.intent" => plan.intent,
            "audit.outcome" => plan.outcome,
            _ => Trouble::None,
        };
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            match trouble {
                Trouble::None => Ok(()),
                Trouble::Fails => Err(StoreError::Full),
                Trouble::Stalls(span) => {
                    clock.sleep_until(clock.now() + span).await;
                    settle().await;
                    Ok(())
                }
            }
        })
    }
}
