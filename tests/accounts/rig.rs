//! The router with everything behind it but polls and disks, and a browser in front of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use pulse::api::{Api, Encrypted, Peer, router};
use pulse::config::{Config, DataDir, Environment, Follower, Keyring, LiveConfig};
use pulse::configure::{Configurator, Followers};
use pulse::engine::{Engine, Millis};
use pulse::fleet::Fleet;
use pulse::runtime::{Clock, Driver, TokioClock};
use pulse::security::audit::{AuditEntry, AuditFilter, AuditLog, AuditPage};
use pulse::security::{Books, Caller, HashCost, Hasher, KeyFile, NewUser, Role, TrustedProxies};
use pulse::store::Store;
use pulse::targets::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The password of every user here.
pub(crate) const PASSWORD: &str = "four words in a row";
/// Where a browser calls from unless it says otherwise.
pub(crate) const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A daemon without doors.
pub(crate) struct Rig {
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) books: Books,
    router: Router,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::behind(TrustedProxies::default()).await
    }

    /// The same behind proxies that are trusted.
    pub(crate) async fn behind(proxies: TrustedProxies) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(DataDir::open(folder.path()).unwrap(), &Environment::default()).unwrap();
        let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let any_clock: Arc<dyn Clock> = clock.clone();
        let store = Store::in_memory().unwrap();
        let key = Arc::new(KeyFile::fixed([7; 32]));
        let audit = AuditLog::begin(store.clone(), key, any_clock.clone(), TaskTracker::new()).await.unwrap();
        let hasher = Hasher::new(HashCost::Least);
        let books = Books::open(store.clone(), audit, any_clock.clone(), hasher).await.unwrap();
        let fleet = Fleet::new(any_clock.clone());
        let engine = Engine::new(config.system.settings().clone(), 1, clock.now());
        let (driver, handle) = Driver::new(engine, clock.clone(), Arc::new(fleet.clone()));
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(driver.run(stop.clone()));
        let live = LiveConfig::new(config.system.clone());
        let followers = Followers { live, scheduler: Some((handle.clone(), fleet.clone())) };
        let mut follower = Follower::new(&config);
        follower.use_keys(Arc::new(Keyring::read_or_make(folder.path()).unwrap()));
        let configurator = Configurator::new(follower, followers, store, any_clock.clone(), books.audit.clone());
        let api = Api::new(handle, fleet, any_clock, configurator, books.clone());
        let api = api.with_stop(stop.clone()).with_proxies(proxies);
        Self { clock, books, router: router(api, pulse::ui::pages()), _folder: folder, _stop: stop.drop_guard() }
    }

    pub(crate) async fn with_users(users: &[(&str, Role)]) -> Self {
        let rig = Self::new().await;
        rig.add(users).await;
        rig
    }

    pub(crate) async fn add(&self, users: &[(&str, Role)]) {
        for (name, role) in users {
            let new = NewUser { name: (*name).to_owned(), role: *role, password: Secret::new(PASSWORD.to_owned()) };
            self.books.accounts.add(new, Caller::SYSTEM, None).await.unwrap();
        }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, span: Millis) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        TowerToHyperService::new(self.router.clone()).call(request).await.unwrap()
    }

    pub(crate) fn browser(&self) -> Browser<'_> {
        Browser { rig: self, address: HOME, encrypted: false, cookie: None, csrf: None }
    }

    /// A browser whose user has signed in.
    pub(crate) async fn signed_in(&self, name: &str) -> Browser<'_> {
        let mut browser = self.browser();
        let answer = browser.sign_in(name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
        browser
    }

    /// What the audit log has of an action: who, on what, what came of it.
    pub(crate) async fn audited(&self, action: &str) -> Vec<(String, Option<String>, String)> {
        let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
        let entries = self.books.audit.list(filter, AuditPage::After(0), 1_000).await.unwrap();
        let row = |entry: AuditEntry| (entry.actor, entry.key, entry.outcome.unwrap_or_default());
        entries.into_iter().map(row).collect()
    }

    /// The whole audit log as text.
    pub(crate) async fn audit_text(&self) -> String {
        let entries = self.books.audit.list(AuditFilter::default(), AuditPage::After(0), 1_000).await.unwrap();
        serde_json::to_string(&entries).unwrap()
    }
}

/// A browser that keeps a cookie, and the CSRF token of its page.
#[derive(Clone)]
pub(crate) struct Browser<'a> {
    rig: &'a Rig,
    pub(crate) address: IpAddr,
    pub(crate) encrypted: bool,
    pub(crate) cookie: Option<String>,
    pub(crate) csrf: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Browser<'_> {
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        let answer = self.post("/api/login", json!({"name": name, "password": password})).await;
        if let Some(token) = answer.body["session"]["csrfToken"].as_str() {
            self.csrf = Some(token.to_owned());
        }
        answer
    }

    /// Whether the session is good for a read.
    pub(crate) async fn is_signed_in(&mut self) -> bool {
        let answer = self.get("/api/security/me").await;
        assert!([StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&answer.status), "{answer:?}");
        answer.status == StatusCode::OK
    }

    pub(crate) async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).extension(Peer::Tcp(self.address));
        if self.encrypted {
            request = request.extension(Encrypted);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        if let Some(token) = &self.csrf {
            request = request.header("X-CSRF-Token", token);
        }
        let request = match body {
            None => request.body(Body::empty()),
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        };
        let (parts, body) = self.rig.send(request.unwrap()).await.into_parts();
        if let Some(cookie) = parts.headers.get(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
        }
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, body, text }
    }
}
