//! Starting and stopping: every door is open before the first poll, and nothing is left behind after the last.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::doors::{DoorError, Doors, Traces, serve};
use super::housekeeping::keep_house;
use super::spans::SpanExport;
use super::tls::{Tls, TlsError, TlsFiles};
use crate::api::{Api, EventFeed, router, with_security_headers};
use crate::config::{Config, ConfigError, ConfigErrors, DataDir, Environment, Follower, Keyring, LiveConfig, SOCKET};
use crate::configure::{Configurator, Followers};
use crate::engine::{Engine, Millis};
use crate::fleet::Fleet;
use crate::notify::Notifications;
use crate::runtime::{Clock, Drained, Driver, Handle, TokioClock};
use crate::security::audit::{AuditError, AuditLog};
use crate::security::{AccountError, Accounts, Books, HashCost, Hasher, KeyFileError, TrustedProxies};
use crate::store::{DATABASE, Store, StoreError};
use crate::targets::Secret;
#[cfg(feature = "otel")]
use crate::telemetry::OtlpError;
use crate::telemetry::{LogSubscriber, Metrics, PollLog};
use crate::ui;
use crate::update::Program;

/// How long calls under way may take after the scheduler has stopped.
const LAST_CALLS: Millis = Millis::from_secs(5);

/// How a daemon is to be started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept; made if it is not there.
    pub data_dir: PathBuf,
    /// Where the unix socket is made, if not in the data folder.
    pub socket: Option<PathBuf>,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where the metrics listen.
    pub metrics_listen: SocketAddr,
    /// The certificate and key of the API's port; without them it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What overrides the settings.
    pub environment: Environment,
    /// Whose word is taken for where a call came from.
    pub trusted_proxies: TrustedProxies,
    /// The seed of the jitter.
    pub seed: u64,
    /// The program that the daemon runs.
    pub program: Program,
}

impl Options {
    /// Where the unix socket is made.
    pub(super) fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.data_dir.join(SOCKET))
    }
}

/// Why a daemon could not be started. Nothing was changed.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port or the socket cannot be had.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] ConfigError),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be continued.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The key of the secrets cannot be used or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The setup token cannot be made.
    #[error(transparent)]
    Setup(#[from] AccountError),
    /// The certificate or the key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Spans cannot be exported.
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// A running daemon.
pub struct Daemon {
    /// Talks to the scheduler.
    pub handle: Handle,
    /// Where the API listens, with the port that was given where 0 was asked for.
    pub address: SocketAddr,
    /// Where the metrics listen.
    pub metrics_address: SocketAddr,
    /// The users and their sessions.
    pub accounts: Accounts,
    /// What makes the first admin, while nobody has a user or a token. Shown once.
    pub setup_token: Option<Secret>,
    traces: Traces,
    clock: Arc<TokioClock>,
    stop_polls: CancellationToken,
    stop_calls: CancellationToken,
    driver: JoinHandle<Drained>,
    tasks: TaskTracker,
}

/// How a daemon came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What became of the polls under way.
    pub polls: Drained,
    /// Whether every call under way was answered in time.
    pub calls_ended: bool,
}

/// What the daemon works on.
struct Ground {
    config: Config,
    keys: Keyring,
    store: Store,
    books: Books,
    tls: Option<Tls>,
    clock: Arc<TokioClock>,
    tasks: TaskTracker,
    stop_calls: CancellationToken,
    spans: SpanExport,
}

impl Daemon {
    /// Starts a daemon on the current tokio runtime. It listens when this returns; hosts are polled from then on.
    ///
    /// # Errors
    /// A door cannot be opened, or the data folder, configuration or tokens cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let doors = Doors::open(&options).await?;
        Self::start_behind(doors, options).await
    }

    /// The same behind doors that are open already, for a caller who has to prepare what the daemon will read.
    ///
    /// # Errors
    /// The data folder, configuration or tokens cannot be used.
    pub async fn start_behind(doors: Doors, options: Options) -> Result<Self, StartError> {
        let ground = Ground::prepare(&options).await?;
        let nobody = ground.books.tokens.list().is_empty() && ground.books.accounts.is_empty().await?;
        let setup_token = match nobody {
            true => Some(ground.books.accounts.make_setup_token().await?),
            false => None,
        };
        Ok(Self::build(options, doors, ground, setup_token).await)
    }

    async fn build(options: Options, doors: Doors, ground: Ground, setup_token: Option<Secret>) -> Self {
        let Doors { api, metrics, socket, traces } = doors;
        let Ground { config, keys, store, books, tls, clock, tasks, stop_calls, spans } = ground;
        let stop_polls = CancellationToken::new();
        let any_clock: Arc<dyn Clock> = clock.clone();
        let fleet = spans.overhear(Fleet::new(any_clock.clone()));
        let engine = Engine::new(config.system.settings().clone(), options.seed, clock.now());
        let (driver, handle) = Driver::new(engine, clock.clone(), Arc::new(fleet.clone()));
        let live = LiveConfig::new(config.system.clone());
        let (notifications, news, notifier) = Notifications::new(live.clone(), any_clock.clone(), fleet.clone());
        tasks.spawn(notifier.run(handle.clone(), stop_polls.clone()));
        let (driver, Listeners { counters, events, poll_log }) = listen(
            driver.subscribe(news),
            &fleet,
            (&notifications, &spans, &books, &live),
            &any_clock,
            (&tasks, &stop_calls),
        );
        let driver = spawn_driver(driver, stop_polls.clone());

        let scheduler = (handle.clone(), fleet.clone());
        let ways = (live, any_clock.clone());
        let configurator = configure(&config, keys, store, ways, books.audit.clone(), scheduler).await;
        let accounts = books.accounts.clone();
        tasks.spawn(keep_house(books.clone(), configurator.live().clone(), any_clock.clone(), stop_calls.clone()));
        let calls = Api::new(handle.clone(), fleet, any_clock.clone(), configurator.clone(), books)
            .with_proxies(options.trusted_proxies)
            .with_events(events, poll_log)
            .with_notifications(notifications)
            .with_stop(stop_calls.clone())
            .with_program(options.program);
        let address = api.local_addr().unwrap_or(options.listen);
        let metrics_address = metrics.local_addr().unwrap_or(options.metrics_listen);
        let scrape = with_security_headers(counters.router(handle.clone(), any_clock.clone()));
        if let Some(tls) = &tls {
            tasks.spawn(tls.clone().follow(any_clock, stop_calls.clone()));
        }
        let calls = spans.of_calls(router(calls, ui::pages()));
        tasks.spawn(serve(api, tls, calls.clone(), stop_calls.clone()));
        tasks.spawn(serve(socket, None, calls, stop_calls.clone()));
        tasks.spawn(serve(metrics, None, scrape, stop_calls.clone()));
        tasks.spawn(configurator.follow_edits(stop_polls.clone()));
        Self {
            handle,
            address,
            metrics_address,
            accounts,
            setup_token,
            traces,
            clock,
            stop_polls,
            stop_calls,
            driver,
            tasks,
        }
    }

    /// Stops polling, lets polls and calls under way end, and leaves neither task nor socket behind. Takes 15 seconds
    /// at the most.
    pub async fn stop(self) -> Stopped {
        self.stop_polls.cancel();
        let polls = self.driver.await.unwrap_or_default();
        self.stop_calls.cancel();
        self.tasks.close();
        let deadline = self.clock.now() + LAST_CALLS;
        let calls_ended = tokio::select! {
            () = self.tasks.wait() => true,
            () = self.clock.sleep_until(deadline) => false,
        };
        drop(self.traces);
        Stopped { polls, calls_ended }
    }
}

/// What is made of the events of the driver.
struct Listeners {
    counters: Metrics,
    events: EventFeed,
    poll_log: PollLog,
}

/// Has everybody listen who tells what happens: metrics, log, event stream, poll log, spans.
fn listen(
    driver: Driver<TokioClock, Fleet>,
    fleet: &Fleet,
    (notifications, spans, books, live): (&Notifications, &SpanExport, &Books, &LiveConfig),
    clock: &Arc<dyn Clock>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> (Driver<TokioClock, Fleet>, Listeners) {
    let counters = Metrics::with(|registry| {
        registry.register_collector(Box::new(notifications.board().clone()));
        registry.register_collector(Box::new(live.clone()));
        registry.register_collector(Box::new(books.accounts.refusals().counts().clone()));
        spans.register(registry);
    });
    let (events, to_events, pump) = EventFeed::new(clock.clone());
    let (poll_log, poll_log_writer, poll_log_keeper) = PollLog::new();
    tasks.spawn(pump.run());
    tasks.spawn(poll_log_keeper.run(stop.clone()));
    let driver = spans.listen(driver.subscribe(fleet.reading_keeper()).subscribe(counters.subscriber()));
    let driver = driver.subscribe(LogSubscriber).subscribe(to_events).subscribe(poll_log_writer);
    (driver, Listeners { counters, events, poll_log })
}

/// Hands the scheduler its fleet, and gives what changes the configuration from then on.
async fn configure(
    config: &Config,
    keys: Keyring,
    store: Store,
    (live, clock): (LiveConfig, Arc<dyn Clock>),
    audit: AuditLog,
    (handle, fleet): (Handle, Fleet),
) -> Configurator {
    let specs = fleet.replace(&config.instances);
    // It fails only if the driver is gone, and then every call says so.
    let _ = handle.replace_inventory(specs).await;
    let followers = Followers { live, scheduler: Some((handle, fleet)) };
    let mut follower = Follower::new(config);
    follower.use_keys(Arc::new(keys));
    let configurator = Configurator::new(follower, followers, store, clock, audit);
    // Callers wait meanwhile, so that the first version is what was found.
    configurator.begin().await;
    configurator
}

impl Ground {
    async fn prepare(options: &Options) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&options.data_dir)?;
        let config = Config::load(data_dir, &options.environment)?;
        let tls = options.tls.clone().map(Tls::open).transpose()?;
        let clock = Arc::new(TokioClock::start());
        let tasks = TaskTracker::new();
        let store = Store::open(&config.data_dir.path().join(DATABASE))?;
        let folder = config.data_dir.path();
        let audit = AuditLog::open(store.clone(), folder, clock.clone(), tasks.clone()).await?;
        let books = Books::open(store.clone(), audit, clock.clone(), Hasher::new(HashCost::Full)).await?;
        let keys = Keyring::read_or_make(folder)?;
        let stop_calls = CancellationToken::new();
        let spans = SpanExport::begin(&options.environment, &clock, (&tasks, &stop_calls))?;
        Ok(Self { config, keys, store, books, tls, clock, tasks, stop_calls, spans })
    }
}

#[expect(clippy::disallowed_methods, reason = "`Daemon::stop` waits for this task and for what it brings")]
fn spawn_driver(driver: Driver<TokioClock, Fleet>, stop: CancellationToken) -> JoinHandle<Drained> {
    tokio::spawn(driver.run(stop))
}
