//! The judged process: one daemon, and what samples it. It keeps no sample, so that its memory is the daemon's.

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use pulse::config::Environment;
use pulse::daemon::{Daemon, Options};
use pulse::engine::{Engine, Millis, Timestamp};
use pulse::runtime::{Clock, TokioClock};
use pulse::security::TrustedProxies;
use pulse::telemetry::{LogFormat, LogOptions, init_logging};
use pulse::update::Program;
use tokio::runtime::Runtime;

use crate::leak::{Leak, Leaked};
use crate::protocol::{Asked, Told};
use crate::sample::{Descriptor, Leftover, Process, Sample, descriptors};

/// Frames kept of each allocation's backtrace.
pub(crate) const FRAMES: usize = 16;
/// Asked for and given back at once: the heap's peak from then on, at which the profile remembers what each site held.
/// Nothing is written to it, so it costs address space alone.
pub(crate) const PEAK_AT_START: usize = 256 << 20;
/// The same at the end of the warm-up, above the first.
pub(crate) const PEAK_AT_MARK: usize = 1 << 30;
/// Whatever closes a descriptor or ends a task from a thread of its own may take so long after the stop.
const SETTLING: Millis = Millis::from_secs(3);
/// How often it is looked whether everything is gone.
const LOOK_EVERY: Millis = Millis::new(50);

/// Runs a daemon and tells what it holds.
#[derive(Debug, Args)]
pub(crate) struct Judged {
    /// The daemon's data folder.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The seed of the jitter.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Milliseconds from one sample to the next.
    #[arg(long)]
    pub(crate) every: u64,
    /// Where the heap's profile goes.
    #[arg(long)]
    pub(crate) profile: PathBuf,
    /// What to leak after the warm-up.
    #[arg(long)]
    pub(crate) leak: Option<Leak>,
}

/// The daemon under watch.
struct Watched<'a> {
    runtime: &'a Runtime,
    daemon: Daemon,
    clock: TokioClock,
    profiler: Option<dhat::Profiler>,
    leak: Option<Leak>,
    leaked: Leaked,
    is_marked: bool,
}

/// What was there before the daemon started.
struct Before {
    tasks: usize,
    descriptors: Vec<Descriptor>,
}

impl Judged {
    /// Runs until it is told to stop, or nobody is there any more to tell it.
    pub(crate) fn run(self) -> Result<(), String> {
        let ended = self.watch();
        if let Err(reason) = &ended {
            // If nobody hears it, the exit code tells.
            let _ = tell(&Told::Failed { reason: reason.clone() });
        }
        ended
    }

    fn watch(self) -> Result<(), String> {
        let log = LogOptions { filter: "info".to_owned(), format: LogFormat::Text, journal_stream: None };
        let _logging = init_logging(&log).map_err(|error| error.to_string())?;
        // Fails only if a provider is there already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let profiler = dhat::Profiler::builder().file_name(&self.profile).trim_backtraces(Some(FRAMES)).build();
        plant_peak(PEAK_AT_START)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        let _entered = runtime.enter();
        let asked = listen()?;
        let tasks = runtime.metrics().num_alive_tasks();
        let before = Before { tasks, descriptors: descriptors().map_err(|error| error.to_string())? };

        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = Options {
            data_dir: self.data_dir,
            socket: None,
            listen: anywhere,
            metrics_listen: anywhere,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            environment: Environment::default(),
            seed: self.seed,
            program: Program::alone(env!("CARGO_PKG_VERSION")),
        };
        let daemon = runtime.block_on(Daemon::start(options)).map_err(|error| error.to_string())?;
        tell(&Told::Ready {
            address: daemon.address,
            metrics_address: daemon.metrics_address,
            setup_token: daemon.setup_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default(),
        })?;
        let watched = Watched {
            runtime: &runtime,
            daemon,
            clock: TokioClock::start(),
            profiler: Some(profiler),
            leak: self.leak,
            leaked: Leaked::default(),
            is_marked: false,
        };
        watched.until_stopped(&asked, Duration::from_millis(self.every), before)
    }
}

impl Watched<'_> {
    fn until_stopped(mut self, asked: &Receiver<Asked>, every: Duration, before: Before) -> Result<(), String> {
        let mut next = self.clock.now();
        loop {
            let patience = Duration::from(next - self.clock.now());
            match asked.recv_timeout(patience) {
                Ok(Asked::Mark) => {
                    plant_peak(PEAK_AT_MARK)?;
                    self.is_marked = true;
                }
                Ok(Asked::Profile) => {
                    self.profiler = None;
                    tell(&Told::Profiled)?;
                }
                Ok(Asked::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // A process that was held up does not catch up on the samples that it missed.
                    next = self.clock.now() + Millis::from(every);
                    self.sample()?;
                }
            }
        }
        tell(&Told::Stopped(self.stop(before)?))
    }

    fn sample(&mut self) -> Result<(), String> {
        let Some(_profiler) = &self.profiler else { return Ok(()) };
        let heap = dhat::HeapStats::get();
        let ports = [self.daemon.address.port(), self.daemon.metrics_address.port()];
        let look = |engine: &Engine, _: Timestamp| (engine.in_flight(), engine.queue_depth());
        let engine = self.runtime.block_on(self.daemon.handle.read(look));
        let (in_flight, queue_depth) = engine.map_err(|error| error.to_string())?;
        let tasks = self.runtime.metrics().num_alive_tasks();
        let process = Process::look(ports).map_err(|error| format!("/proc cannot be read: {error}"))?;
        tell(&Told::Sample(Sample {
            at: self.clock.now().as_millis(),
            heap_bytes: heap.curr_bytes as u64,
            heap_blocks: heap.curr_blocks as u64,
            resident_bytes: process.resident_bytes,
            tasks: tasks as u64,
            descriptors: process.descriptors.len() as u64,
            threads: process.threads,
            inbound: process.inbound,
            outbound: process.outbound,
            in_flight: in_flight.into(),
            queue_depth: queue_depth.into(),
            cpu_millis: process.cpu_millis,
        }))?;
        if let Some(leak) = self.leak.filter(|_| self.is_marked) {
            self.leaked.more(leak, Some(self.runtime.handle()));
        }
        Ok(())
    }

    /// Stops the daemon and looks what is left of it.
    fn stop(self, before: Before) -> Result<Leftover, String> {
        let Self { runtime, daemon, clock, profiler, leaked, .. } = self;
        // Nobody asked for the profile; writing it would take longer than the stop.
        std::mem::forget(profiler);
        let ports = [daemon.address.port(), daemon.metrics_address.port()];
        let began = clock.now();
        let stopped = runtime.block_on(daemon.stop());
        let ended = clock.now();
        let mut leftover;
        loop {
            let process = Process::look(ports).map_err(|error| format!("/proc cannot be read: {error}"))?;
            let tasks = runtime.metrics().num_alive_tasks().saturating_sub(before.tasks);
            let is_new = |descriptor: &Descriptor| !before.descriptors.contains(descriptor);
            let descriptors = process.descriptors.into_iter().filter(is_new);
            leftover = Leftover {
                tasks: tasks as u64,
                descriptors: descriptors.map(|descriptor| descriptor.target).collect(),
                connections: process.inbound + process.outbound,
                polls_cut_off: stopped.polls.aborted as u64,
                calls_ended: stopped.calls_ended,
                took_millis: (ended - began).get(),
            };
            let is_clean = leftover.tasks == 0 && leftover.descriptors.is_empty() && leftover.connections == 0;
            if is_clean || clock.now() > ended + SETTLING {
                break;
            }
            runtime.block_on(clock.sleep_until(clock.now() + LOOK_EVERY));
        }
        drop(leaked);
        Ok(leftover)
    }
}

/// Makes the heap's peak now.
pub(crate) fn plant_peak(bytes: usize) -> Result<(), String> {
    let mut peak: Vec<u8> = Vec::new();
    let reserved = peak.try_reserve_exact(bytes);
    reserved.map_err(|_| format!("{} MiB of address space cannot be had", bytes >> 20))?;
    drop(black_box(peak));
    Ok(())
}

/// A thread that waits for what is asked; it ends with the conductor's end of the pipe.
fn listen() -> Result<Receiver<Asked>, String> {
    let (out, asked) = mpsc::channel();
    let listener = move || {
        for line in io::stdin().lock().lines() {
            let Some(asked) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
            if out.send(asked).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("asked".to_owned()).spawn(listener).map_err(|error| error.to_string())?;
    Ok(asked)
}

fn tell(told: &Told) -> Result<(), String> {
    let mut line = serde_json::to_string(told).map_err(|error| error.to_string())?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("nobody listens: {error}"))
}
