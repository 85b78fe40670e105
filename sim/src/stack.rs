//! The daemon's own driver in the simulated world, on tokio's paused clock.
//!
//! It must give the same events as the simulator's loop: the same seed is run both ways and the traces are compared, so
//! whatever the judge says of one holds for the other. Faults of the driver's surroundings (stalls, crashes, answers that
//! come after a poll was dropped) have no place here and are left out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt, join_all};
use pulse::engine::{
    Adaptive, Command, Engine, Event, FleetEvent, InstanceKey, InstanceSpec, IntervalPolicy, Millis, Reference,
    Settings, SettingsDraft, Timestamp, What,
};
use pulse::runtime::{Clock, Driver, Handle, PollCost, PollReport, PollRequest, Subscriber, TokioClock, Transport};
use tokio_util::sync::CancellationToken;

use crate::clock::SteppedClock;
use crate::desk::settle;
use crate::host::Host;
use crate::operators::{Operators, Request};
use crate::run::{Report, RunOptions, longest_penalty, run};
use crate::scenario::{FaultKind, Scenario};
use crate::trace::Trace;
use crate::violation::{Rule, Violation};
use crate::with_router::Shift;
use crate::world::Policy;

/// Runs `scenario` both by the simulator's loop and by the daemon's driver, and compares the traces.
///
/// # Panics
/// The operating system gives no runtime.
pub fn run_stack(scenario: &Scenario, seed: u64, options: RunOptions) -> Report {
    let scenario = without_foreign_faults(scenario);
    let mut report = run(&scenario, seed, options);
    report.mode = "stack";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing that a system could refuse");
    let trace = runtime.block_on(drive(&scenario, seed, options.policy));
    let hash = format!("{trace:016x}");
    if report.passed() && hash != report.trace_hash {
        let detail = format!("the simulator's loop gives {}, the daemon's driver {hash}", report.trace_hash);
        report.violations.push(Violation { rule: Rule::Determinism, at: Timestamp::ZERO, detail });
        report.verdict = "fail";
    }
    report.trace_hash = hash;
    report
}

pub(crate) fn without_foreign_faults(scenario: &Scenario) -> Scenario {
    const FOREIGN: [FaultKind; 4] =
        [FaultKind::Stall, FaultKind::Crash, FaultKind::LateAnswers, FaultKind::DoubledAnswers];
    let mut scenario = scenario.clone();
    scenario.faults.retain(|fault| !FOREIGN.contains(&fault.kind));
    scenario
}

/// What the hosts, the operators and the test share.
struct Shared {
    scenario: Scenario,
    hosts: Vec<Host>,
    calm: bool,
}

type SharedWorld = Arc<Mutex<Shared>>;

fn lock(world: &SharedWorld) -> std::sync::MutexGuard<'_, Shared> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct SimulatedHosts {
    world: SharedWorld,
    clock: Arc<TokioClock>,
}

impl Transport for SimulatedHosts {
    type Reading = ();

    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<()>> + Send + 'static {
        let (world, clock) = (Arc::clone(&self.world), Arc::clone(&self.clock));
        async move {
            let now = clock.now();
            let ending = {
                let Shared { scenario, hosts, calm } = &mut *lock(&world);
                let host = hosts.iter_mut().find(|host| host.key == request.key);
                host.map(|host| host.poll(scenario, now, request.timeout, *calm))
            };
            let Some((ending, after)) = ending.and_then(|it| it.after.map(|after| (it, after))) else {
                return std::future::pending().await;
            };
            clock.sleep_until(now + after).await;
            PollReport { outcome: ending.outcome, reading: None, cost: PollCost::default() }
        }
    }
}

/// What is heard of the driver.
pub(crate) struct Heard {
    trace: Trace,
    /// When each command was done, or refused by the engine, and when settings and inventories came into force.
    pub(crate) requests: Vec<(Timestamp, Arrived)>,
}

/// What reached the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Command,
    Settings,
    Inventory,
}

pub(crate) type SharedTrace = Arc<Mutex<Heard>>;

pub(crate) fn lock_trace(trace: &SharedTrace) -> std::sync::MutexGuard<'_, Heard> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    pub(crate) fn hash(&self) -> u64 {
        self.trace.hash()
    }
}

struct Tracer(SharedTrace);

impl Subscriber<()> for Tracer {
    fn event(&mut self, event: &Event, _key: Option<&InstanceKey>) {
        let mut heard = lock_trace(&self.0);
        heard.trace.take(event);
        let arrived = match event.what {
            What::Fleet(FleetEvent::CommandDone { .. }) => Arrived::Command,
            What::Fleet(FleetEvent::SettingsApplied { .. }) => Arrived::Settings,
            What::Fleet(FleetEvent::InventoryApplied { .. }) => Arrived::Inventory,
            What::Fleet(FleetEvent::LoadChanged { .. } | FleetEvent::UnknownTicket { .. }) | What::Instance { .. } => {
                return;
            }
        };
        heard.requests.push((event.at, arrived));
    }
}

/// The driver, its hosts and its operators, before anything happens.
pub(crate) struct Stage<'a> {
    pub(crate) driver: Driver<SteppedClock, SimulatedHosts>,
    pub(crate) handle: Handle,
    pub(crate) stepped: Arc<SteppedClock>,
    pub(crate) people: People<'a>,
    pub(crate) trace: SharedTrace,
}

impl<'a> Stage<'a> {
    pub(crate) fn set(scenario: &'a Scenario, seed: u64, policy: Policy) -> Self {
        let clock = Arc::new(TokioClock::start_at(jiff::Timestamp::UNIX_EPOCH));
        let hosts = Host::all(scenario, seed);
        let world = Arc::new(Mutex::new(Shared { scenario: scenario.clone(), hosts, calm: false }));
        let policy: Box<dyn IntervalPolicy> = match policy {
            Policy::Default => Box::new(Adaptive),
            Policy::Reference => Box::new(Reference),
        };
        let engine = Engine::with_policy(scenario.valid_settings(), policy, seed, Timestamp::ZERO);
        let transport = SimulatedHosts { world: Arc::clone(&world), clock: Arc::clone(&clock) };
        let stepped = Arc::new(SteppedClock::new(Arc::clone(&clock), scenario));
        let (driver, handle) = Driver::new(engine, Arc::clone(&stepped), Arc::new(transport));
        let trace = Arc::new(Mutex::new(Heard { trace: Trace::new(false), requests: Vec::new() }));
        let driver = driver.subscribe(Tracer(Arc::clone(&trace)));
        let people = People::new(scenario, seed, world, handle.clone(), clock);
        Self { driver, handle, stepped, people, trace }
    }
}

async fn drive(scenario: &Scenario, seed: u64, policy: Policy) -> u64 {
    let stop = CancellationToken::new();
    let Stage { driver, people, trace, .. } = Stage::set(scenario, seed, policy);
    let ((), _) = tokio::join!(people.act(stop.clone()), driver.run(stop));
    lock_trace(&trace).hash()
}

/// Everybody who talks to the daemon, at the moments that the scenario says.
pub(crate) struct People<'a> {
    scenario: &'a Scenario,
    operators: Operators,
    enlisted: Vec<bool>,
    settings: Settings,
    world: SharedWorld,
    handle: Handle,
    clock: Arc<TokioClock>,
}

impl<'a> People<'a> {
    fn new(scenario: &'a Scenario, seed: u64, world: SharedWorld, handle: Handle, clock: Arc<TokioClock>) -> Self {
        let enlisted = vec![true; lock(&world).hosts.len()];
        let operators = Operators::new(scenario, seed);
        Self { scenario, operators, enlisted, settings: scenario.valid_settings(), world, handle, clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn act(mut self, stop: CancellationToken) {
        let end = self.begin().await;
        while let Some(at) = self.operators.next_time().filter(|at| *at <= end) {
            self.clock.sleep_until(at).await;
            let due = self.operators.due(self.clock.now(), &lock(&self.world).hosts);
            let asked = due.into_iter().map(|request| self.ask(request)).collect();
            self.send(asked).await;
        }
        self.end(end, stop).await;
    }

    /// The same, with everything asked for one by one and through the router.
    pub(crate) async fn act_through(mut self, shift: &mut Shift, trace: &SharedTrace, stop: CancellationToken) {
        let end = self.begin().await;
        let begun = lock_trace(trace).requests.len();
        while let Some(at) = self.operators.next_time().filter(|at| Shift::is_open(*at, end)) {
            self.clock.sleep_until(at).await;
            let now = self.clock.now();
            let due = self.operators.due(now, &lock(&self.world).hosts);
            for request in due.into_iter().filter(|_| Shift::is_open(now, end)) {
                shift.serve(request, &mut self, trace).await;
            }
        }
        self.let_pass(end).await;
        shift.close(lock_trace(trace).requests.len() - begun, end);
        self.end(end, stop).await;
    }

    /// When the scenario ends.
    pub(crate) fn end_of_scenario(&self) -> Timestamp {
        Timestamp::ZERO + self.scenario.length()
    }

    /// Asks for something after `wait`.
    pub(crate) fn ask_later(&mut self, wait: Millis, request: Request) {
        self.operators.ask_later(self.clock.now() + wait, request);
    }

    /// This is the fleet from now on; whoever is not in it keeps the spec that they had.
    pub(crate) fn follow_inventory(&mut self, specs: &[InstanceSpec]) {
        let listed: BTreeMap<&InstanceKey, &InstanceSpec> = specs.iter().map(|spec| (&spec.key, spec)).collect();
        for (host, enlisted) in lock(&self.world).hosts.iter_mut().zip(&mut self.enlisted) {
            let spec = listed.get(&host.key);
            *enlisted = spec.is_some();
            host.spec = spec.map_or_else(|| host.spec.clone(), |spec| InstanceSpec::clone(spec));
        }
    }

    async fn begin(&mut self) -> Timestamp {
        let first = vec![self.inventory()];
        self.send(first).await;
        settle().await;
        self.end_of_scenario()
    }

    async fn end(mut self, end: Timestamp, stop: CancellationToken) {
        self.let_pass(end).await;
        if self.scenario.expect.liveness {
            self.calm_down(end).await;
        }
        stop.cancel();
    }

    /// Lets everything up to and at `moment` happen.
    async fn let_pass(&self, moment: Timestamp) {
        self.clock.sleep_until(moment).await;
        // Whatever happens at this very moment takes its turns before anything else is asked.
        settle().await;
    }

    async fn calm_down(&mut self, end: Timestamp) {
        lock(&self.world).calm = true;
        self.operators.stop();
        self.enlisted.fill(true);
        self.settings = self.scenario.valid_settings();
        let keys: Vec<_> = lock(&self.world).hosts.iter().map(|host| host.key.clone()).collect();
        let mut asked = vec![self.ask(Request::OriginalSettings), self.inventory()];
        asked
            .extend(keys.into_iter().map(|key| self.ask(Request::Command(Command::SetEnabled { key, enabled: true }))));
        self.send(asked).await;
        self.let_pass(end + longest_penalty(self.scenario)).await;
    }

    /// Sends everything in order without waiting in between, as the simulator's loop does.
    async fn send(&self, asked: Vec<BoxFuture<'static, ()>>) {
        join_all(asked).await;
    }

    /// The driver outlives everybody who asks, so no call can fail.
    pub(crate) fn ask(&mut self, request: Request) -> BoxFuture<'static, ()> {
        let handle = self.handle.clone();
        match request {
            Request::Command(command) => async move {
                let _ = handle.command(command).await;
            }
            .boxed(),
            Request::ToggleAdaptive | Request::Settings(_) | Request::OriginalSettings => {
                let wanted = self.wanted_settings(&request).unwrap_or_else(|| self.settings.clone());
                self.replace_settings(wanted)
            }
            Request::Discharge(hosts) => self.enlist(&hosts, false),
            Request::Enlist(hosts) => self.enlist(&hosts, true),
            Request::EditHost(host) => {
                lock(&self.world).hosts[host].spec.revision += 1;
                self.inventory()
            }
            Request::Inventory(_) | Request::Look(_) => async {}.boxed(),
        }
    }

    /// The settings that somebody asks for, if they do.
    pub(crate) fn wanted_settings(&self, request: &Request) -> Option<Settings> {
        match request {
            Request::ToggleAdaptive => {
                let draft = SettingsDraft { adaptive: !self.settings.adaptive, ..self.settings.clone().into() };
                Some(draft.validate().unwrap_or_else(|_| self.settings.clone()))
            }
            Request::Settings(settings) => Some(Settings::clone(settings)),
            Request::OriginalSettings => Some(self.scenario.valid_settings()),
            _ => None,
        }
    }

    /// The settings in force, as far as people know.
    pub(crate) fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn replace_settings(&mut self, settings: Settings) -> BoxFuture<'static, ()> {
        let handle = self.handle.clone();
        self.settings = settings.clone();
        async move {
            let _ = handle.replace_settings(settings).await;
        }
        .boxed()
    }

    fn enlist(&mut self, hosts: &[usize], enlisted: bool) -> BoxFuture<'static, ()> {
        for host in hosts {
            self.enlisted[*host] = enlisted;
        }
        self.inventory()
    }

    fn inventory(&self) -> BoxFuture<'static, ()> {
        let handle = self.handle.clone();
        let world = lock(&self.world);
        let listed = world.hosts.iter().zip(&self.enlisted).filter(|(_, enlisted)| **enlisted);
        let specs: Vec<InstanceSpec> = listed.map(|(host, _)| host.spec.clone()).collect();
        async move {
            let _ = handle.replace_inventory(specs).await;
        }
        .boxed()
    }
}
