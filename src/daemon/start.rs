//! Starting and stopping: every door is open before the first poll, and nothing is left behind after the last.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::configure::Configurator;
use super::doors::{DoorError, open_port, open_socket, serve};
use crate::api::{Api, Door, router};
use crate::config::{Config, ConfigError, ConfigErrors, ConfigWatcher, DataDir, Environment, LiveConfig};
use crate::engine::{Engine, Millis};
use crate::fleet::Fleet;
use crate::runtime::{Clock, Drained, Driver, Handle, TokioClock};
use crate::security::{TokenError, TokenStore};
use crate::targets::Secret;
use crate::telemetry::{LogSubscriber, Metrics};

/// The name of the unix socket in the data folder.
pub const SOCKET: &str = "pulse.sock";
/// How many edits may wait to be applied.
const PENDING_EDITS: usize = 16;
/// How long calls under way may take after the scheduler has stopped.
const LAST_CALLS: Millis = Millis::from_secs(5);
/// The name of the token that the first start makes.
const FIRST_TOKEN: &str = "first start";

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
    /// What overrides the settings.
    pub environment: Environment,
    /// The seed of the jitter.
    pub seed: u64,
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
    /// The tokens cannot be read, or the first one not written.
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// A running daemon.
pub struct Daemon {
    /// Talks to the scheduler.
    pub handle: Handle,
    /// Where the API listens, with the port that was given where 0 was asked for.
    pub address: SocketAddr,
    /// Where the metrics listen.
    pub metrics_address: SocketAddr,
    /// The token that this start made, if it was the first. Shown once.
    pub first_token: Option<Secret>,
    socket: PathBuf,
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

/// What must be had before anything is changed.
struct Ground {
    config: Config,
    tokens: TokenStore,
    api: TcpListener,
    metrics: TcpListener,
    socket: UnixListener,
    socket_path: PathBuf,
    clock: Arc<TokioClock>,
}

impl Daemon {
    /// Starts a daemon on the current tokio runtime. It listens when this returns; hosts are polled from then on.
    ///
    /// # Errors
    /// A door cannot be opened, or the data folder, configuration or tokens cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let ground = Ground::prepare(&options).await?;
        let first_token = match ground.tokens.list()?.is_empty() {
            true => Some(ground.tokens.create(FIRST_TOKEN, ground.clock.wall())?.token),
            false => None,
        };
        Ok(Self::build(options, ground, first_token).await)
    }

    async fn build(options: Options, ground: Ground, first_token: Option<Secret>) -> Self {
        let Ground { config, tokens, api, metrics, socket, socket_path, clock } = ground;
        let (stop_polls, stop_calls) = (CancellationToken::new(), CancellationToken::new());
        let any_clock: Arc<dyn Clock> = clock.clone();
        let fleet = Fleet::new(any_clock.clone());
        let engine = Engine::new(config.system.settings().clone(), options.seed, clock.now());
        let counters = Metrics::new();
        let (driver, handle) = Driver::new(engine, clock.clone(), Arc::new(fleet.clone()));
        let driver = driver.subscribe(fleet.reading_keeper()).subscribe(counters.subscriber());
        let driver = spawn_driver(driver.subscribe(LogSubscriber), stop_polls.clone());

        let live = LiveConfig::new(config.system.clone());
        let calls = Api {
            handle: handle.clone(),
            clock: any_clock.clone(),
            fleet: fleet.clone(),
            config: live.clone(),
            system_file: config.system_file.clone(),
            tokens,
        };
        let address = api.local_addr().unwrap_or(options.listen);
        let metrics_address = metrics.local_addr().unwrap_or(options.metrics_listen);
        let scrape = counters.router(handle.clone(), any_clock);
        let tasks = TaskTracker::new();
        tasks.spawn(serve(api, router(calls.clone(), Door::Tcp), stop_calls.clone()));
        tasks.spawn(serve(socket, router(calls, Door::Local), stop_calls.clone()));
        tasks.spawn(serve(metrics, scrape, stop_calls.clone()));

        let specs = fleet.replace(&config.instances);
        // It fails only if the driver is gone, and then every call says so.
        let _ = handle.replace_inventory(specs).await;
        let (edits_out, edits) = mpsc::channel(PENDING_EDITS);
        tasks.spawn(ConfigWatcher::new(&config).run(edits_out, stop_polls.clone()));
        let configurator = Configurator { handle: handle.clone(), fleet, config: live, data_dir: config.data_dir };
        tasks.spawn(configurator.run(edits));
        let socket = socket_path;
        Self { handle, address, metrics_address, first_token, socket, clock, stop_polls, stop_calls, driver, tasks }
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
        // The next start replaces a socket that could not be removed.
        let _ = std::fs::remove_file(&self.socket);
        Stopped { polls, calls_ended }
    }
}

impl Ground {
    /// Ports come first: one that is taken leaves the data folder as it was.
    async fn prepare(options: &Options) -> Result<Self, StartError> {
        let api = open_port(options.listen, "--listen").await?;
        let metrics = open_port(options.metrics_listen, "--metrics-listen").await?;
        let data_dir = DataDir::open(&options.data_dir)?;
        let config = Config::load(data_dir, &options.environment)?;
        let tokens = TokenStore::new(config.data_dir.path());
        tokens.list()?;
        let socket_path = options.socket.clone().unwrap_or_else(|| config.data_dir.path().join(SOCKET));
        let socket = open_socket(&socket_path).await?;
        let clock = Arc::new(TokioClock::start());
        Ok(Self { config, tokens, api, metrics, socket, socket_path, clock })
    }
}

#[expect(clippy::disallowed_methods, reason = "`Daemon::stop` waits for this task and for what it brings")]
fn spawn_driver(driver: Driver<TokioClock, Fleet>, stop: CancellationToken) -> JoinHandle<Drained> {
    tokio::spawn(driver.run(stop))
}
