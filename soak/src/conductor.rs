//! One run in real time: fleet and callers here, the daemon in its own process, and everything that is seen of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use pulse::config::SOCKET;
use pulse::engine::{Millis, Timestamp};
use pulse::lab::{Lab, LabClock, LabError};
use pulse::runtime::{Clock, TokioClock};
use serde_json::Value;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::checks::{Check, growth, heap_rose, shutdown};
use crate::child::Child;
use crate::format::{self, Summary};
use crate::leak::Leak;
use crate::load::{Calls, HEALTH, Load, Target, fetch};
use crate::outcome::{Ending, Stats};
use crate::people::set_up;
use crate::plan::Plan;
use crate::protocol::{Asked, Told};
use crate::sample::{Leftover, Sample};
use crate::sites::{GrownSite, grown_sites};

/// How long a connection may take to be closed at both ends.
const CLOSING: Millis = Millis::from_secs(2);
const LOOK_EVERY: Millis = Millis::new(100);
/// So many samples are wanted after the warm-up, but neither more often nor more seldom than this.
const SAMPLES: u64 = 240;
const OFTEN_MILLIS: u64 = 250;
const SELDOM_MILLIS: u64 = 1_000;

/// What is to be run.
pub(crate) struct Orders {
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) leak: Option<Leak>,
    /// Whether anybody calls the daemon.
    pub(crate) with_callers: bool,
    /// Where log and profile go.
    pub(crate) folder: PathBuf,
    pub(crate) bar: ProgressBar,
}

/// Why a run could not be made.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("the fleet cannot be played: {0}")]
    Lab(#[from] LabError),
    #[error("cannot write {file}: {source}")]
    Write { file: PathBuf, source: io::Error },
    #[error("{0}")]
    Judged(String),
}

/// A run under way.
struct Run {
    plan: Plan,
    clock: Arc<TokioClock>,
    lab: Arc<Lab>,
    child: Child,
    interrupt: Signal,
    terminate: Signal,
    bar: ProgressBar,
    samples: Vec<Sample>,
    /// The sample after which the warm-up was over.
    marked: usize,
    marked_stats: Stats,
    is_early: bool,
}

/// How the daemon can be reached.
struct Doors {
    api: String,
    metrics: String,
    token: String,
}

/// Makes a run and judges it.
pub(crate) async fn conduct(orders: Orders) -> Result<Summary, RunError> {
    let Orders { plan, seed, leak, with_callers, folder, bar } = orders;
    let data = tempfile::tempdir().map_err(|source| RunError::Write { file: std::env::temp_dir(), source })?;
    let clock = Arc::new(TokioClock::start());
    let labs_clock = Arc::clone(&clock);
    let lab = Lab::start(plan.lab.clone(), LabClock::new(move || labs_clock.now())).await?;
    let instances = configure(data.path(), &plan, &lab)?;
    let profile = folder.join("heap.dhat.json");
    let arguments = arguments(&plan, seed, leak, data.path(), &profile);
    let mut child = Child::spawn(&arguments, &folder.join("daemon.log")).map_err(RunError::Judged)?;
    let told = child.next().await.map_err(RunError::Judged)?;
    let Told::Ready { address, metrics_address, setup_token } = told else {
        return Err(RunError::Judged(format!("the judged process began with {told:?}")));
    };
    let password = format!("a password for seed {seed}");
    let socket = data.path().join(SOCKET);
    let token =
        set_up(&format!("http://{address}"), &socket, &setup_token, &password).await.map_err(RunError::Judged)?;
    let doors = Doors {
        api: format!("http://{address}{HEALTH}"),
        metrics: format!("http://{metrics_address}/metrics"),
        token: token.clone(),
    };
    let lost = |source| RunError::Judged(format!("no signals: {source}"));
    let run = Run {
        clock,
        lab: Arc::new(lab),
        child,
        interrupt: signal(SignalKind::interrupt()).map_err(lost)?,
        terminate: signal(SignalKind::terminate()).map_err(lost)?,
        bar,
        samples: Vec::new(),
        marked: 0,
        marked_stats: Stats::new(),
        is_early: false,
        plan,
    };
    let target = Target {
        api: address,
        metrics: metrics_address,
        token,
        password,
        instances_file: data.path().join("instances.json"),
        keys: keys(&instances),
        instances,
        max_in_flight: run.plan.scenario.valid_settings().max_in_flight,
    };
    let load = match with_callers {
        true => Some(Load::start(target, &run.plan.operators).await),
        false => None,
    };
    run.finish(load, &doors, &profile).await.map_err(RunError::Judged)
}

/// What the judged process is told at its start.
fn arguments(plan: &Plan, seed: u64, leak: Option<Leak>, data: &Path, profile: &Path) -> Vec<String> {
    let every = (plan.scenario.duration.0.get() / SAMPLES).clamp(OFTEN_MILLIS, SELDOM_MILLIS);
    let leak = leak.map(|leak| format!("--leak={}", format!("{leak:?}").to_lowercase()));
    let arguments = [
        format!("--data-dir={}", data.display()),
        format!("--seed={seed}"),
        format!("--every={every}"),
        format!("--profile={}", profile.display()),
    ];
    arguments.into_iter().chain(leak).collect()
}

impl Run {
    async fn finish(mut self, load: Option<Load>, doors: &Doors, profile: &Path) -> Result<Summary, String> {
        let (began, scenario) = (self.clock.now(), self.plan.scenario.clone());
        let faults = self.play_faults(began);
        let watched = tokio::select! {
            watched = self.watch_both_parts(began + scenario.warm_up.0, began + scenario.length()) => watched,
            () = faults => Ok(()),
        };
        watched?;
        let mut absent = Vec::new();
        let mut calls = BTreeMap::new();
        if let Some(load) = load {
            absent.clone_from(&load.absent);
            calls = load.leave().await.read();
        }
        let warm = &self.samples[self.marked..];
        let (mut checks, heap_rose) = (growth(warm), heap_rose(warm));
        checks.extend(self.ask_both_sides(doors).await?);
        checks.extend(calls.iter().map(|(who, calls)| answered_rightly(who, calls)));
        // A task or a descriptor that leaks is allocated somewhere, so the profile names it as well.
        let sites = match heap_rose || checks.iter().any(Check::failed) {
            true => self.profile(profile).await?,
            false => Vec::new(),
        };
        let left = self.stop().await?;
        let open = self.open_connections().await;
        checks.extend(shutdown(&left, open));
        let Self { lab, child, samples, marked, is_early, plan, bar, .. } = self;
        child.ended().await?;
        if let Some(lab) = Arc::into_inner(lab) {
            lab.shutdown().await;
        }
        bar.finish_and_clear();
        Ok(Summary {
            scenario: plan.scenario.name.clone(),
            unplayed: plan.unplayed.into_iter().chain(absent).collect(),
            checks,
            calls,
            sites,
            samples,
            warm_up_samples: marked,
            is_early,
            leftover: Some(left),
        })
    }

    /// Changes hosts as the scenario says. Never ends.
    fn play_faults(&self, began: Timestamp) -> impl Future<Output = ()> + use<> {
        let (lab, clock, changes) = (Arc::downgrade(&self.lab), Arc::clone(&self.clock), self.plan.changes.clone());
        async move {
            for change in changes {
                clock.sleep_until(began + change.at).await;
                let Some(lab) = lab.upgrade() else { return };
                // The lab has checked every host and behaviour of the plan but for those that follow from a fault.
                if let Err(error) = lab.set_behaviour(&change.host, change.behaviour).await {
                    eprintln!("soak: {}: {error}", change.host);
                }
            }
            std::future::pending().await
        }
    }

    async fn watch_both_parts(&mut self, warm: Timestamp, end: Timestamp) -> Result<(), String> {
        self.watch(warm).await?;
        if !self.is_early {
            self.child.ask(Asked::Mark).await?;
            self.marked_stats = self.stats();
        }
        self.marked = self.samples.len();
        if !self.is_early {
            self.watch(end).await?;
        }
        Ok(())
    }

    /// Takes samples until `end`, or until somebody has enough.
    async fn watch(&mut self, end: Timestamp) -> Result<(), String> {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => break self.is_early = true,
                _ = self.terminate.recv() => break self.is_early = true,
                () = self.clock.sleep_until(end) => break,
                told = self.child.next() => if let Told::Sample(sample) = told? {
                    format::progress(&self.bar, &sample);
                    self.samples.push(sample);
                },
            }
        }
        Ok(())
    }

    fn stats(&self) -> Stats {
        let stats = |name: &String| Some((name.clone(), self.lab.stats(name).ok()?));
        self.plan.groups.keys().filter_map(stats).collect()
    }

    /// Asks the daemon how it stands, and the hosts before and after that.
    async fn ask_both_sides(&self, doors: &Doors) -> Result<Vec<Check>, String> {
        let before = self.stats();
        let metrics = fetch(&doors.metrics, &doors.token).await?;
        let health = fetch(&doors.api, &doors.token).await?;
        let health: Value = serde_json::from_str(&health).map_err(|error| error.to_string())?;
        let after = self.stats();
        let ending = Ending {
            plan: &self.plan,
            samples: &self.samples[self.marked..],
            now: self.clock.now(),
            health: &health,
            metrics: &metrics,
            marked: &self.marked_stats,
            before: &before,
            after: &after,
            is_early: self.is_early,
        };
        Ok(ending.judge())
    }

    async fn profile(&mut self, file: &Path) -> Result<Vec<GrownSite>, String> {
        self.bar.set_message("writing the heap's profile");
        self.child.ask(Asked::Profile).await?;
        while !matches!(self.child.next().await?, Told::Profiled) {}
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        grown_sites(&text).map_err(|error| format!("{} is no profile of a heap: {error}", file.display()))
    }

    async fn stop(&mut self) -> Result<Leftover, String> {
        self.bar.set_message("stopping");
        self.child.ask(Asked::Stop).await?;
        loop {
            if let Told::Stopped(left) = self.child.next().await? {
                return Ok(left);
            }
        }
    }

    /// Connections that hosts still have when both sides have had time to close them.
    async fn open_connections(&self) -> u64 {
        let deadline = self.clock.now() + CLOSING;
        loop {
            let open = self.stats().values().map(|stats| stats.open_connections).sum();
            if open == 0 || self.clock.now() >= deadline {
                return open;
            }
            self.clock.sleep_until(self.clock.now() + LOOK_EVERY).await;
        }
    }
}

fn answered_rightly(who: &str, calls: &Calls) -> Check {
    let wrong = calls.made - calls.right;
    let first = calls.wrong.first().map(|what| format!(", such as: {what}")).unwrap_or_default();
    let measured = format!("{} made, {wrong} not answered rightly{first}", calls.made);
    Check::new(format!("calls of {who}"), measured, "0", wrong == 0)
}

/// Writes the daemon's configuration into `folder`; returns the instances.
fn configure(folder: &Path, plan: &Plan, lab: &Lab) -> Result<Value, RunError> {
    let authority = folder.join("authority.pem");
    write(&authority, lab.authority_pem())?;
    let mut instances = lab.instances_json(Some(&authority));
    for instance in instances["instances"].as_array_mut().into_iter().flatten() {
        let group = instance["name"].as_str().and_then(|name| plan.groups.get(name));
        if let Some(interval) = group.and_then(|index| plan.scenario.hosts[*index].interval) {
            instance["interval"] = interval.to_string().into();
        }
    }
    write(&folder.join("instances.json"), &format!("{instances:#}\n"))?;
    write(&folder.join("system.json"), &plan.system_json())?;
    Ok(instances)
}

fn keys(instances: &Value) -> Vec<String> {
    let rows = instances["instances"].as_array().into_iter().flatten();
    rows.filter_map(|row| Some(format!("{}::{}", row["type"].as_str()?, row["name"].as_str()?))).collect()
}

fn write(file: &Path, text: &str) -> Result<(), RunError> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened
        .and_then(|mut out| io::Write::write_all(&mut out, text.as_bytes()))
        .map_err(|source| RunError::Write { file: file.to_owned(), source })
}
