//! A daemon without sockets: the real driver, subscribers and routers, and polls that are answered in the process.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use futures::StreamExt;
use pulse::api::{Api, EventFeed, Peer, router};
use pulse::config::{Config, DataDir, Environment, Follower, LiveConfig};
use pulse::configure::{Configurator, Followers};
use pulse::engine::{ChangeHash, Engine, Failure, FailureKind, Millis, Outcome, Settings};
use pulse::fleet::Fleet;
use pulse::runtime::{
    Clock, Drained, Driver, Handle, PollCost, PollReport, PollRequest, Subscriber, TokioClock, Transport,
};
use pulse::security::audit::AuditLog;
use pulse::security::{Books, HashCost, Hasher};
use pulse::store::Store;
use pulse::targets::{Reading, TcpReading};
use pulse::telemetry::{LogSubscriber, Metrics, PollLog};
use pulse::ui::pages;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub(crate) const HEALTH: &str = "/api/monitoring/scheduler/health";

/// Answers every poll after a while; one instance in a hundred refuses every second time.
pub(crate) struct InProcess {
    clock: Arc<TokioClock>,
    latency: Millis,
}

impl Transport for InProcess {
    type Reading = Reading;

    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<Reading>> + Send + 'static {
        let (clock, latency) = (Arc::clone(&self.clock), self.latency);
        async move {
            let began = clock.now();
            clock.sleep_until(began + latency).await;
            let reading = Reading::Tcp(TcpReading { up: true, latency, reason: None });
            let refuses = request.key.name().ends_with("99") && began.as_millis() % 2 == 0;
            let outcome = match refuses {
                true => Outcome::Failure(Failure::new(FailureKind::Refused, "the connection was refused")),
                false => Outcome::Success { reading: ChangeHash(1) },
            };
            let cost = PollCost { calls: 4, bytes: 2_000, ..PollCost::default() };
            PollReport { outcome, reading: (!refuses).then(|| Arc::new(reading)), cost }
        }
    }
}

/// What runs, until it is stopped.
pub(crate) struct Daemon {
    /// Talks to the scheduler.
    #[allow(dead_code, reason = "the benchmarks of calls have no need of it")]
    pub(crate) handle: Handle,
    pub(crate) api: Router,
    pub(crate) metrics: Router,
    stop: CancellationToken,
    driver: JoinHandle<Drained>,
    pump: JoinHandle<()>,
    keeper: JoinHandle<()>,
    _folder: TempDir,
}

impl Daemon {
    /// Starts a daemon with `instances` pve hosts, to which `watcher` listens beside the usual subscribers.
    pub(crate) async fn start(
        instances: usize,
        settings: Settings,
        latency: Millis,
        watcher: impl Subscriber<Reading> + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        write_fleet(folder.path(), instances);
        let data_dir = DataDir::open(folder.path()).expect("the folder was just made");
        let config = Config::load(data_dir, &Environment::default()).expect("the fleet was just written");
        let clock = Arc::new(TokioClock::start());
        let store = Store::open(&folder.path().join("pulse.db")).expect("the database can be made");
        let audit = AuditLog::open(store.clone(), folder.path(), clock.clone(), TaskTracker::new()).await;
        let audit = audit.expect("the audit log can be begun");
        let books = Books::open(store.clone(), audit, clock.clone(), Hasher::new(HashCost::Full)).await;
        let books = books.expect("the tables are there");

        let fleet = Fleet::new(clock.clone());
        let counters = Metrics::new();
        let engine = Engine::new(settings, 42, clock.now());
        let transport = Arc::new(InProcess { clock: Arc::clone(&clock), latency });
        let (driver, handle) = Driver::new(engine, Arc::clone(&clock), transport);
        let driver = driver.subscribe(fleet.reading_keeper()).subscribe(counters.subscriber());
        let (events, to_events, pump) = EventFeed::new(clock.clone());
        let (poll_log, to_poll_log, poll_log_keeper) = PollLog::new();
        let driver = driver.subscribe(LogSubscriber).subscribe(to_events).subscribe(to_poll_log).subscribe(watcher);
        let stop = CancellationToken::new();
        let keeper = spawn(poll_log_keeper.run(stop.clone()));
        let driver = spawn(driver.run(stop.clone()));
        let pump = spawn(pump.run());
        let metrics = counters.router(handle.clone(), clock.clone());
        let specs = fleet.replace(&config.instances);
        handle.replace_inventory(specs).await.expect("the driver runs");
        let live = LiveConfig::new(config.system.clone());
        let followers = Followers { live, scheduler: Some((handle.clone(), fleet.clone())) };
        let configurator =
            Configurator::new(Follower::new(&config), followers, store, clock.clone(), books.audit.clone());
        let api = Api::new(handle.clone(), fleet, clock, configurator, books)
            .with_events(events, poll_log)
            .with_stop(stop.clone());
        Self { handle, api: router(api, pages()), metrics, stop, driver, pump, keeper, _folder: folder }
    }

    /// Makes a call as the daemon's owner, takes the whole answer, and tells how long it is.
    pub(crate) async fn get(router: &Router, path: &str) -> usize {
        let mut request = Request::get(path).body(Body::empty()).expect("the path is well formed");
        request.extensions_mut().insert(Peer::Local { account: "bench".into() });
        let answer = match router.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        // As a socket would: it keeps nothing of what it passed on.
        let mut body = answer.into_body().into_data_stream();
        let mut length = 0;
        while let Some(part) = body.next().await {
            length += part.expect("the answer has an end").len();
        }
        length
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.driver.await.expect("the driver does not panic");
        // It ends with the driver that feeds it.
        self.pump.await.expect("the feed does not panic");
        self.keeper.await.expect("the poll log does not panic");
    }
}

/// What this process has used of all cores.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[expect(clippy::disallowed_methods, reason = "`Daemon::stop` waits for this task")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

fn write_fleet(folder: &Path, instances: usize) {
    let auth = json!({"tokenId": "pulse@pve!monitor", "secret": "00000000-0000-0000-0000-000000000000"});
    let fleet: Vec<_> = (0..instances)
        .map(|n| json!({"type": "pve", "name": format!("host-{n:06}"), "url": format!("https://10.{}.{}.{}:8006", n >> 16, n >> 8 & 255, n & 255), "auth": auth}))
        .collect();
    let text = json!({"instances": fleet}).to_string();
    std::fs::write(folder.join("instances.json"), text).expect("there is room for temporary files");
}
