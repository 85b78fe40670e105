//! The daemon in this process, on virtual time: everything behind the router but doors, and hosts that are nowhere.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures::future::BoxFuture;
use pulse::api::{Api, EventFeed, router};
use pulse::config::{Config, DataDir, Environment, Follower, Keyring, LiveConfig};
use pulse::configure::{Configurator, Followers};
use pulse::engine::{ChangeHash, Engine, Failure, FailureKind, Millis, Outcome};
use pulse::fleet::Fleet;
use pulse::runtime::{Clock, Driver, Handle, PollCost, PollReport, PollRequest, TokioClock, Transport};
use pulse::security::audit::AuditLog;
use pulse::security::{Books, Caller, HashCost, Hasher, KeyFile, NewToken, NewUser, Role, SignIn, TrustedProxies};
use pulse::store::{Store, StoreError, WriteGate};
use pulse::targets::{Reading, Secret, TcpReading};
use pulse::telemetry::{LogSubscriber, PollLog};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::corpus::{self, PASSWORD};
use crate::mutator::Mutator;
use crate::secrets::{Place, Secrets};

type Failed = Box<dyn std::error::Error>;

/// Where users call from.
pub(crate) const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The key of the audit log.
const AUDIT_KEY: [u8; 32] = *b"the-audit-key-of-a-fuzzing-run!!";
const USERS: [(&str, Role); 3] = [("alice", Role::Admin), ("olga", Role::Operator), ("victor", Role::Viewer)];

/// The daemon, without doors.
pub(crate) struct Daemon {
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) fleet: Fleet,
    pub(crate) router: Router,
    pub(crate) setup_token: String,
    /// What opens it, by the role that it has.
    pub(crate) keys: Vec<Key>,
    /// What the router answered since the last look: method, path and status.
    pub(crate) answered: Answered,
    pub(crate) stop: CancellationToken,
    pub(crate) books: Books,
    renewed: u32,
    _stop: DropGuard,
}

pub(crate) type Answered = Arc<Mutex<Vec<(String, String, u16)>>>;

/// What opens the daemon.
#[derive(Clone)]
pub(crate) enum Key {
    Token(String),
    Session { id: String, cookie: String, csrf: String },
}

/// How it is run.
pub(crate) struct Circumstances {
    /// One write of so many fails.
    pub(crate) failing_writes: Option<u32>,
    /// Whether a proxy on loopback is trusted.
    pub(crate) proxied: bool,
}

impl Daemon {
    pub(crate) async fn start(folder: &Path, how: &Circumstances, secrets: &mut Secrets) -> Result<Self, Failed> {
        std::fs::write(folder.join("instances.json"), corpus::fleet().to_string())?;
        let config = Config::load(DataDir::open(folder)?, &Environment::default())?;
        let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse()?));
        let any_clock: Arc<dyn Clock> = clock.clone();
        let gate = Arc::new(FailingWrites::default());
        let store = Store::in_memory()?.with_gate(gate.clone());
        let key = Arc::new(KeyFile::fixed(AUDIT_KEY));
        let audit = AuditLog::begin(store.clone(), key, any_clock.clone(), TaskTracker::new()).await?;
        let hasher = Hasher::new(HashCost::Least);
        let books = Books::open(store.clone(), audit.clone(), any_clock.clone(), hasher).await?;
        let setup_token = books.accounts.make_setup_token().await?.expose().to_owned();
        let fleet = Fleet::new(any_clock.clone());
        let stop = CancellationToken::new();
        let (handle, events, poll_log) = schedule(&config, &fleet, &clock, &stop);
        let mut follower = Follower::new(&config);
        follower.use_keys(Arc::new(Keyring::read_or_make(folder)?));
        keep_keys(folder, secrets)?;
        handle.replace_inventory(fleet.replace(&config.instances)).await?;
        let live = LiveConfig::new(config.system.clone());
        let followers = Followers { live, scheduler: Some((handle.clone(), fleet.clone())) };
        let configurator = Configurator::new(follower, followers, store, any_clock.clone(), audit);
        configurator.begin().await;
        let networks = if how.proxied { vec!["127.0.0.0/8".parse()?, "2001:db8::/32".parse()?] } else { Vec::new() };
        let api = Api::new(handle, fleet.clone(), any_clock, configurator, books.clone())
            .with_proxies(TrustedProxies { networks, ..TrustedProxies::default() })
            .with_events(events, poll_log)
            .with_stop(stop.clone());
        let answered = Answered::default();
        let router = router(api, pulse::ui::pages()).layer(from_fn_with_state(Arc::clone(&answered), note));
        secrets.issue("the setup token", &setup_token, Place::Anywhere);
        let mut daemon = Self {
            clock,
            fleet,
            router,
            setup_token,
            keys: Vec::new(),
            answered,
            _stop: stop.clone().drop_guard(),
            stop,
            books,
            renewed: 0,
        };
        match how.failing_writes {
            // Later nobody could be added.
            Some(_) => daemon.renew(secrets).await?,
            None => daemon.renew_tokens(secrets).await?,
        }
        gate.one_in.store(how.failing_writes.unwrap_or(0), Ordering::Relaxed);
        Ok(daemon)
    }

    /// Has a token of each role that opens it. There is no user yet, so the setup token is good.
    async fn renew_tokens(&mut self, secrets: &mut Secrets) -> Result<(), Failed> {
        self.renewed += 1;
        self.keys.clear();
        for (name, role) in USERS {
            let new = NewToken { name: format!("{name} {}", self.renewed), role, expires_at: None };
            let token = self.books.tokens.create(new, Caller::SYSTEM, None).await?.token;
            secrets.issue("a token", token.expose(), Place::Anywhere);
            self.keys.push(Key::Token(token.expose().to_owned()));
        }
        Ok(())
    }

    /// Has a token and two sessions of each role that open it, whatever became of those before.
    pub(crate) async fn renew(&mut self, secrets: &mut Secrets) -> Result<(), Failed> {
        self.renew_tokens(secrets).await?;
        for (name, role) in USERS {
            let password = || Secret::new(PASSWORD.to_owned());
            let user = NewUser { name: name.to_owned(), role, password: password() };
            if self.books.accounts.add(user, Caller::SYSTEM, None).await.is_err() {
                // They are there.
                self.books.accounts.set_password(name, password(), Caller::SYSTEM, None).await?;
                self.books.accounts.set_role(name, role, Caller::SYSTEM, None).await?;
            }
            for address in [HOME, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))] {
                let sign_in = SignIn { address: Some(address), ..SignIn::new(name, password()) };
                // Others' failures may hold it up for a while.
                let Ok(signed_in) = self.books.accounts.sign_in(sign_in).await else { continue };
                let (cookie, csrf) = (signed_in.cookie.expose().to_owned(), signed_in.session.csrf_token().to_owned());
                secrets.issue("a session's cookie", &cookie, Place::Anywhere);
                secrets.issue("a CSRF token", &csrf, Place::Logs);
                let id = serde_json::to_string(&signed_in.session.id)?;
                self.keys.push(Key::Session { id, cookie, csrf });
            }
        }
        Ok(())
    }

    pub(crate) async fn pass(&self, span: Millis) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }
}

/// Has the scheduler run until `stop`.
fn schedule(
    config: &Config,
    fleet: &Fleet,
    clock: &Arc<TokioClock>,
    stop: &CancellationToken,
) -> (Handle, EventFeed, PollLog) {
    let (events, fed, pump) = EventFeed::new(clock.clone());
    let (poll_log, logged, keeper) = PollLog::new();
    let engine = Engine::new(config.system.settings().clone(), 1, clock.now());
    let (driver, handle) = Driver::new(engine, Arc::clone(clock), Arc::new(Nowhere));
    let driver = driver.subscribe(LogSubscriber).subscribe(fleet.reading_keeper()).subscribe(fed).subscribe(logged);
    let tasks = TaskTracker::new();
    tasks.spawn(driver.run(stop.clone()));
    tasks.spawn(pump.run());
    tasks.spawn(keeper.run(stop.clone()));
    (handle, events, poll_log)
}

/// The keys in the data folder are secrets, in every form in which somebody might print them.
fn keep_keys(folder: &Path, secrets: &mut Secrets) -> std::io::Result<()> {
    use base64::Engine as _;
    let key = std::fs::read(folder.join("secrets.key"))?;
    for key in [&key[..], &AUDIT_KEY] {
        secrets.issue("a key", key, Place::Anywhere);
        secrets.issue("a key", base64::engine::general_purpose::STANDARD.encode(key), Place::Anywhere);
        secrets.issue("a key", key.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), Place::Anywhere);
        secrets.issue("a key", format!("{key:?}"), Place::Anywhere);
    }
    Ok(())
}

/// Notes what every answer of the router was.
async fn note(State(answered): State<Answered>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let path = request.extensions().get::<MatchedPath>().map_or("(no path)", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
    answered.push((method, path, response.status().as_u16()));
    response
}

/// Hosts that answer by their names.
struct Nowhere;

impl Transport for Nowhere {
    type Reading = Reading;

    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<Reading>> + Send + 'static {
        let failure = match request.key.name() {
            "failing" => Some(FailureKind::Refused),
            "refusing" => Some(FailureKind::Unauthorized),
            _ => None,
        };
        let up = Reading::Tcp(TcpReading { up: true, latency: Millis::new(3), reason: None });
        let (outcome, reading) = match failure {
            Some(kind) => (Outcome::Failure(Failure::new(kind, "nobody is there")), None),
            None => (Outcome::Success { reading: ChangeHash(1) }, Some(Arc::new(up))),
        };
        std::future::ready(PollReport { outcome, reading, cost: PollCost::default() })
    }
}

/// Fails one write of so many; none for 0.
#[derive(Default)]
struct FailingWrites {
    one_in: AtomicU32,
    writes: AtomicU32,
}

impl WriteGate for FailingWrites {
    fn before_write(&self, _what: &'static str) -> BoxFuture<'static, Result<(), StoreError>> {
        let (one_in, number) = (self.one_in.load(Ordering::Relaxed), self.writes.fetch_add(1, Ordering::Relaxed));
        let fails = one_in > 0 && Mutator::new(number.into(), 0).one_in(one_in as usize);
        Box::pin(async move { if fails { Err(StoreError::Full) } else { Ok(()) } })
    }
}
