//! `pulse serve`: runs the daemon until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::demo::Demo;
use super::{DataDirOption, Failed};
use crate::config::Environment;
use crate::daemon::{Daemon, Doors, Options, ServiceManager, StartError, TlsFiles};
use crate::runtime::TokioClock;
use crate::security::{ProxyHeader, TrustedProxies, TrustedProxy};
#[cfg(feature = "otel")]
use crate::telemetry::OtlpOptions;
use crate::telemetry::{LogFormat, LogOptions, Logging, init_logging};
use crate::update::Program;

const EXAMPLES: &str = "\
Examples:
  pulse serve --demo
      Start an emulated fleet on loopback and watch it; nothing of your own configuration is touched.
  pulse serve --data-dir /var/lib/pulse --listen 0.0.0.0:7655
      Watch the fleet of /var/lib/pulse/instances.json and serve the API on all addresses.
  ADAPTIVE_POLLING_BASE_INTERVAL=30s pulse serve
      Poll healthy instances every 30 seconds, whatever system.json says.";

/// Runs the daemon in the foreground until SIGINT or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// Watch an emulated fleet that this command starts, instead of your own.
    #[arg(long)]
    demo: bool,

    /// Where the API listens.
    #[arg(long, value_name = "ADDRESS", env = "PULSE_LISTEN", default_value = "127.0.0.1:7655")]
    listen: SocketAddr,

    /// Where the Prometheus metrics listen.
    #[arg(long, value_name = "ADDRESS", env = "PULSE_METRICS_LISTEN", default_value = "127.0.0.1:9091")]
    metrics_listen: SocketAddr,

    /// The certificate of the API's port, in PEM, with those of the authorities after it; the port speaks HTTPS then.
    /// The files are followed as they change.
    #[arg(long, value_name = "FILE", env = "PULSE_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, in PEM.
    #[arg(long, value_name = "FILE", env = "PULSE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// A proxy in front of the daemon, or a network of them: its word is taken for where a call came from. May be given
    /// more than once; none is trusted by default.
    #[arg(long = "trusted-proxy", value_name = "NETWORK", env = "PULSE_TRUSTED_PROXIES", value_delimiter = ',')]
    trusted_proxies: Vec<TrustedProxy>,

    /// The header in which the trusted proxies write where a call came from; they have to set or clear it themselves.
    #[arg(long, value_name = "HEADER", env = "PULSE_TRUSTED_PROXY_HEADER", default_value = "x-forwarded-for")]
    trusted_proxy_header: ForwardingHeader,

    /// What to log: error, warn, info, debug or trace, or a filter such as `pulse=debug`.
    #[arg(long, value_name = "FILTER", env = "PULSE_LOG", default_value = "info")]
    log: String,

    /// How to log.
    #[arg(long, value_name = "FORMAT", env = "PULSE_LOG_FORMAT", default_value = "text")]
    log_format: Format,

    /// The OpenTelemetry collector that is told of every poll and call, by OTLP over HTTP; nothing is exported without
    /// one. Headers and the like are set by the variables that OpenTelemetry defines.
    #[cfg(feature = "otel")]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<url::Url>,

    #[command(flatten)]
    data_dir: DataDirOption,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ForwardingHeader {
    XForwardedFor,
    Forwarded,
}

impl Serve {
    pub(super) fn run(self, environment: Environment, version: &'static str) -> Result<(), Failed> {
        let _logging = self.start_logging(&environment)?;
        // Fails only if a provider is there already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failed::because)?;
        runtime.block_on(self.serve(environment, version))
    }

    fn start_logging(&self, environment: &Environment) -> Result<Logging, Failed> {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        let journal_stream = environment.get("JOURNAL_STREAM").and_then(std::ffi::OsStr::to_str).map(str::to_owned);
        init_logging(&LogOptions { filter: self.log.clone(), format, journal_stream }).map_err(Failed::because)
    }

    async fn serve(self, environment: Environment, version: &'static str) -> Result<(), Failed> {
        let mut signals = Signals::listen().map_err(Failed::because)?;
        let manager = ServiceManager::of(&environment);
        let data_dir = self.data_dir.choose(&environment).map_err(Failed::configuration)?;
        let header = match self.trusted_proxy_header {
            ForwardingHeader::XForwardedFor => ProxyHeader::XForwardedFor,
            ForwardingHeader::Forwarded => ProxyHeader::Forwarded,
        };
        #[cfg(feature = "otel")]
        let environment = match self.otlp_endpoint {
            Some(base) => OtlpOptions::prefer(base, environment).map_err(Failed::configuration)?,
            None => environment,
        };
        let mut options = Options {
            data_dir,
            socket: None,
            listen: self.listen,
            metrics_listen: self.metrics_listen,
            tls: self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsFiles { certificate, key }),
            environment,
            trusted_proxies: TrustedProxies { networks: self.trusted_proxies, header },
            seed: seed(),
            program: Program::of_process(version),
        };
        if self.demo {
            Demo::redirect(&mut options);
        }
        let data_dir = options.data_dir.clone();
        let doors = Doors::open(&options).await.map_err(failed)?;
        let demo = match self.demo {
            true => Some(Demo::start(&data_dir).await?),
            false => None,
        };
        let daemon = match Daemon::start_behind(doors, options).await {
            Ok(daemon) => daemon,
            Err(error) => {
                if let Some(demo) = demo {
                    demo.stop().await;
                }
                return Err(failed(error));
            }
        };
        announce(&daemon, &data_dir, self.demo).await?;
        manager.ready();
        let clock = TokioClock::start();
        let signal = tokio::select! {
            signal = signals.next() => signal,
            never = manager.keep_alive(&daemon.handle, &clock) => match never {},
        };
        tracing::info!("{signal}: stopping");
        manager.stopping();
        let stopped = daemon.stop().await;
        if let Some(demo) = demo {
            demo.stop().await;
        }
        tracing::info!(cut_off = stopped.polls.aborted, "stopped");
        Ok(())
    }
}

fn failed(error: StartError) -> Failed {
    match error {
        StartError::Config(_) | StartError::Key(_) | StartError::DataDir(_) | StartError::Tls(_) => {
            Failed::configuration(error)
        }
        #[cfg(feature = "otel")]
        StartError::Otlp(_) => Failed::configuration(error),
        StartError::Door(_) | StartError::Store(_) | StartError::Audit(_) | StartError::Setup(_) => {
            Failed::because(error)
        }
    }
}

async fn announce(daemon: &Daemon, data_dir: &Path, demo: bool) -> Result<(), Failed> {
    tracing::info!(api = %daemon.address, metrics = %daemon.metrics_address, data = %data_dir.display(), "listening");
    if demo {
        let password = Demo::invite(&daemon.accounts).await?;
        return super::print_line(&format!(
            "The demo runs: open http://{} in a browser, or in another terminal run `pulse health`.\n\n\
             Its admin is `{}`, until the demo ends with the password\n\n    {}",
            daemon.address,
            Demo::ADMIN,
            password.expose()
        ));
    }
    let Some(token) = &daemon.setup_token else { return Ok(()) };
    super::print_line(&format!(
        "Nobody can sign in yet. On this machine, `pulse user add NAME --role admin` makes the first admin; in a browser,\n\
         the page at {} does with this setup token, which is good once and for an hour:\n\n    {}",
        daemon.address,
        token.expose()
    ))
}

/// Two daemons must not share a rhythm; nothing secret depends on it.
fn seed() -> u64 {
    u64::from(std::process::id())
}

/// The signals that end the daemon.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
