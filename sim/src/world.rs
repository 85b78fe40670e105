//! The world: virtual time, hosts that answer, operators who interfere, and the engine in the middle.
//!
//! At one instant the engine is handed answers by ticket, then requests as they arose, then a tick: the order that the
//! daemon's own driver keeps.

use std::collections::{BTreeMap, BTreeSet};

use pulse::engine::{
    Adaptive, Command, CommandId, Effect, Effects, Engine, Event, Input, InstanceSpec, IntervalPolicy, Millis, Outcome,
    PollOrder, Reference, Settings, Ticket, Timestamp, What,
};
use serde::{Deserialize, Serialize};

use crate::freshness::{Ages, Watch};
use crate::host::{Host, is_active};
use crate::judge::Judge;
use crate::operators::{Operators, Request, Script};
use crate::report::Recorder;
use crate::run::{RunOptions, longest_run};
use crate::scenario::{FaultKind, Scenario};
use crate::told::difference;
use crate::trace::Trace;
use crate::violation::Rule;

/// Steps at one instant before the world says that time stands still.
const MAX_STEPS_AT_ONCE: u32 = 100_000;
/// A fleet up to this size is verified after every step.
const SMALL_FLEET: usize = 24;
/// A larger one after so many steps.
const VERIFY_EVERY: u64 = 2_048;
/// The health answer is held against the truth after so many steps.
const COMPARE_EVERY: u64 = 4_096;
/// That of a small fleet.
const COMPARE_SMALL_EVERY: u64 = 32;

/// Which interval policy the engine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The default one.
    #[default]
    Default,
    /// The classic rule.
    Reference,
}

impl Policy {
    fn make(self) -> Box<dyn IntervalPolicy> {
        match self {
            Self::Default => Box::new(Adaptive),
            Self::Reference => Box::new(Reference),
        }
    }
}

/// Runs a scenario once.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    policy: Policy,
    settings: Settings,
    engine: Engine,
    effects: Effects,
    now: Timestamp,
    end: Timestamp,
    calm: bool,
    pub(crate) hosts: Vec<Host>,
    by_id: Vec<Option<usize>>,
    /// Hosts that are in the inventory.
    enlisted: BTreeSet<usize>,
    /// Answers on their way; the last part tells a doubled one apart.
    answers: BTreeMap<(Timestamp, Ticket, bool), Outcome>,
    /// Where the answer of a poll that may be called off is.
    cancellable: BTreeMap<Ticket, Timestamp>,
    operators: Operators,
    crashes: Vec<Timestamp>,
    pub(crate) judge: Judge,
    pub(crate) trace: Trace,
    /// Hears everything for a report, if one is wanted.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) steps: u64,
    pub(crate) polls: u64,
    pub(crate) deepest_queue: u32,
    /// Listens if ages are kept.
    watch: Option<Watch>,
    verify_cap: u32,
    commands: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: u64, options: RunOptions) -> Self {
        Self::with_hosts(Host::all(scenario, seed), scenario, seed, options)
    }

    /// The same with these hosts, which may be written down otherwise than the scenario says.
    pub(crate) fn with_hosts(hosts: Vec<Host>, scenario: &'a Scenario, seed: u64, options: RunOptions) -> Self {
        let RunOptions { policy, keep_trace, keep_ages, record } = options;
        let settings = scenario.valid_settings();
        let specs: Vec<_> = hosts.iter().map(|host| host.spec.clone()).collect();
        let count = hosts.len();
        let warm_up = Timestamp::ZERO + scenario.warm_up.0;
        let crashes = scenario.faults.iter().filter(|fault| fault.kind == FaultKind::Crash);
        let mut crashes: Vec<_> = crashes.map(|fault| Timestamp::ZERO + fault.from.0).collect();
        crashes.sort_unstable();
        let group_of = |host: &'_ Host| scenario.hosts[host.group].group.as_str();
        let recorder =
            record.then(|| Recorder::new(hosts.iter().map(|host| (&host.key, group_of(host))), longest_run(scenario)));
        Self {
            engine: Engine::with_policy(settings.clone(), policy.make(), seed, Timestamp::ZERO),
            judge: Judge::new(&specs, settings.clone(), warm_up, keep_ages),
            operators: Operators::new(scenario, seed),
            enlisted: (0..hosts.len()).collect(),
            verify_cap: settings.max_in_flight,
            scenario,
            seed,
            policy,
            settings,
            effects: Effects::new(),
            now: Timestamp::ZERO,
            end: Timestamp::ZERO + scenario.length(),
            calm: false,
            hosts,
            by_id: Vec::new(),
            answers: BTreeMap::new(),
            cancellable: BTreeMap::new(),
            crashes,
            recorder,
            trace: Trace::new(keep_trace),
            steps: 0,
            polls: 0,
            deepest_queue: 0,
            watch: keep_ages.then(|| Watch::new(count, warm_up)),
            commands: 0,
        }
    }

    /// Has operators ask for exactly this.
    pub(crate) fn follow(&mut self, script: Script) {
        self.operators.follow(script);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn queue_depth(&self) -> u32 {
        self.engine.queue_depth()
    }

    /// How old readings were up to now; nothing unless that was asked for.
    pub(crate) fn ages(&self) -> Ages {
        self.watch.as_ref().map_or_else(Ages::default, |watch| watch.ages(&self.judge.truths, self.now))
    }

    /// Runs the scenario to its end, with a pause to `watch` after `every` span of virtual time and at the end.
    pub(crate) fn run(&mut self, every: Millis, mut watch: impl FnMut(Timestamp)) {
        self.send_inventory();
        let every = every.max(Millis::new(1));
        let mut moment = self.now;
        // Time stands where something last happened, or a look would be an event of its own.
        loop {
            moment = self.end.min(moment + every);
            let goes_on = self.go_on_until(moment);
            watch(moment);
            if !goes_on || moment >= self.end {
                break;
            }
        }
        self.now = self.end;
        self.judge.compare_health(&self.engine, self.now);
    }

    /// Ends every fault and undoes what operators did, then lets `span` pass.
    pub(crate) fn calm_down(&mut self, span: Millis) {
        self.calm = true;
        if let Some(recorder) = &mut self.recorder {
            recorder.calmed_down(self.now);
        }
        self.operators.stop();
        self.enlisted = (0..self.hosts.len()).collect();
        self.replace_settings(self.scenario.valid_settings());
        self.send_inventory();
        for host in 0..self.hosts.len() {
            let key = self.hosts[host].key.clone();
            self.command(Command::SetEnabled { key, enabled: true });
        }
        self.run_until(self.now + span);
        self.judge.compare_health(&self.engine, self.now);
    }

    fn run_until(&mut self, end: Timestamp) {
        self.go_on_until(end);
        self.now = end;
    }

    /// Lets everything up to `end` happen; whether time went on until then.
    fn go_on_until(&mut self, end: Timestamp) -> bool {
        let mut steps_at_once = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            let now = self.after_stall(next.max(self.now));
            if now > end {
                break;
            }
            steps_at_once = if now > self.now { 0 } else { steps_at_once + 1 };
            if steps_at_once > MAX_STEPS_AT_ONCE {
                self.judge.accuse(Rule::Progress, || "the engine asks to be woken again and again".to_owned());
                return false;
            }
            self.now = now;
            self.happen();
        }
        true
    }

    fn next_time(&self) -> Option<Timestamp> {
        let answer = self.answers.first_key_value().map(|((at, _, _), _)| *at);
        let crash = self.crashes.first().copied().filter(|_| !self.calm);
        [answer, self.engine.next_wakeup(), self.operators.next_time(), crash].into_iter().flatten().min()
    }

    /// When what is due at `at` is dealt with: at once, or when the daemon wakes from its stall.
    fn after_stall(&self, at: Timestamp) -> Timestamp {
        let stalls = self.scenario.faults.iter().filter(|fault| fault.kind == FaultKind::Stall && !self.calm);
        stalls
            .filter(|fault| is_active(fault, at))
            .fold(at, |now, fault| now.max(Timestamp::ZERO + fault.from.0 + fault.lasts.0))
    }

    /// Everything that is due by now.
    fn happen(&mut self) {
        if !self.calm && self.crashes.first().is_some_and(|at| *at <= self.now) {
            self.crashes.remove(0);
            return self.restart();
        }
        self.judge.woke(self.now);
        let mut due = Vec::new();
        while let Some(entry) = self.answers.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let ((_, ticket, second), outcome) = entry.remove_entry();
            due.push((ticket, second, outcome));
        }
        due.sort_unstable_by_key(|(ticket, second, _)| (*ticket, *second));
        for (ticket, _, outcome) in due {
            self.cancellable.remove(&ticket);
            self.judge.delivering(ticket, &outcome);
            self.handle(Input::Finished { ticket, outcome });
        }
        let requests = self.operators.due(self.now, &self.hosts);
        if self.operators.ask_one_by_one() {
            self.tick_if_due();
            for request in requests {
                self.serve(request);
                self.tick_if_due();
            }
        } else {
            requests.into_iter().for_each(|request| self.serve(request));
            self.tick_if_due();
        }
        self.judge.judge_wakeup(self.engine.next_wakeup());
    }

    fn tick_if_due(&mut self) {
        if self.engine.next_wakeup().is_some_and(|at| at <= self.now) {
            self.handle(Input::Tick);
            if let Err(violation) = self.engine.verify_after_tick() {
                self.judge.accuse(Rule::Verify, || violation.to_string());
            }
            self.judge.judge_tick(self.now);
        }
    }

    fn serve(&mut self, request: Request) {
        if let Some(recorder) = &mut self.recorder {
            recorder.asked(self.now, &request);
        }
        match request {
            Request::Command(command) => self.command(command),
            Request::ToggleAdaptive => {
                let mut draft = self.settings.clone();
                let toggled = pulse::engine::SettingsDraft { adaptive: !draft.adaptive, ..draft.clone().into() };
                if let Ok(settings) = toggled.validate() {
                    draft = settings;
                }
                self.replace_settings(draft);
            }
            Request::Settings(settings) => self.replace_settings(*settings),
            Request::OriginalSettings => self.replace_settings(self.scenario.valid_settings()),
            Request::Discharge(hosts) => {
                self.enlisted.retain(|host| !hosts.contains(host));
                self.send_inventory();
            }
            Request::Enlist(hosts) => {
                self.enlisted.extend(hosts);
                self.send_inventory();
            }
            Request::EditHost(host) => {
                self.hosts[host].spec.revision += 1;
                self.send_inventory();
            }
            Request::Inventory(specs) => {
                self.enlisted.clear();
                for spec in specs.iter() {
                    if let Some(host) = self.judge.host(&spec.key) {
                        self.hosts[host].spec = spec.clone();
                        self.enlisted.insert(host);
                    }
                }
                self.send_inventory();
            }
            Request::Look(told) => {
                if let Some(detail) = difference(&told, &self.engine, self.now) {
                    self.judge.accuse(Rule::TrueHealth, || format!("over HTTP: {detail}"));
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.commands += 1;
        self.judge.commanded(command.clone());
        self.handle(Input::Command { id: CommandId(self.commands), command });
    }

    fn replace_settings(&mut self, settings: Settings) {
        self.verify_cap = self.verify_cap.max(settings.max_in_flight);
        self.settings = settings.clone();
        self.judge.settings_replaced(settings.clone());
        self.handle(Input::Settings(Box::new(settings)));
    }

    fn send_inventory(&mut self) {
        let specs: Vec<InstanceSpec> = self.enlisted.iter().map(|host| self.hosts[*host].spec.clone()).collect();
        self.judge.inventory_replaced(self.enlisted.iter().map(|host| (*host, &self.hosts[*host].spec)));
        self.handle(Input::Inventory(specs));
    }

    /// The daemon is killed and started again: polls under way are lost, and scheduling starts afresh.
    fn restart(&mut self) {
        self.engine = Engine::with_policy(self.settings.clone(), self.policy.make(), self.seed, self.now);
        self.answers.clear();
        self.cancellable.clear();
        self.by_id.clear();
        self.verify_cap = self.settings.max_in_flight;
        self.judge.restarted(self.settings.clone(), self.now);
        if let Some(recorder) = &mut self.recorder {
            recorder.restarted(self.now);
        }
        self.send_inventory();
    }

    fn handle(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.engine.handle(self.now, input, &mut effects);
        for effect in effects.drain() {
            self.judge.hear(self.now, &effect);
            match effect {
                Effect::Start(order) => self.start(order),
                Effect::Cancel(ticket) => {
                    if let Some(at) = self.cancellable.remove(&ticket) {
                        self.answers.remove(&(at, ticket, false));
                    }
                }
                Effect::Event(event) => {
                    self.trace.take(&event);
                    if let Some(recorder) = &mut self.recorder {
                        recorder.hear(&event);
                    }
                    self.watch(&event);
                }
            }
        }
        self.effects = effects;
        let touched = self.judge.stepped(self.now);
        if let Some(recorder) = &mut self.recorder {
            recorder.stepped(self.now, self.engine.queue_depth());
        }
        self.steps += 1;
        self.check(&touched);
    }

    fn watch(&mut self, event: &Event) {
        if let Some(watch) = &mut self.watch
            && let What::Instance { instance, .. } = event.what
            && let Some(host) = self.by_id.get(instance.index()).copied().flatten()
        {
            watch.hear(self.scenario, self.now, event, host, &self.hosts[host]);
        }
    }

    fn check(&mut self, touched: &[usize]) {
        if self.now >= Timestamp::ZERO + self.scenario.warm_up.0 {
            self.deepest_queue = self.deepest_queue.max(self.engine.queue_depth());
        }
        let due = self.hosts.len() <= SMALL_FLEET || self.is_time_to_check(VERIFY_EVERY);
        if due && let Err(violation) = self.engine.verify(self.verify_cap) {
            self.judge.accuse(Rule::Verify, || violation.to_string());
        }
        self.judge.compare_touched(&self.engine, touched);
        let every = if self.hosts.len() <= SMALL_FLEET { COMPARE_SMALL_EVERY } else { COMPARE_EVERY };
        if self.is_time_to_check(every) {
            self.judge.compare_health(&self.engine, self.now);
        }
    }

    /// A check is linear in the fleet: of a large one it comes more rarely.
    fn is_time_to_check(&self, steps: u64) -> bool {
        self.steps.is_multiple_of(steps.max(self.hosts.len() as u64))
    }

    fn start(&mut self, order: PollOrder) {
        self.polls += 1;
        let Some(host) = self.host_of(order.ticket) else { return };
        let ending = self.hosts[host].poll(self.scenario, self.now, order.timeout, self.calm);
        let Some(after) = ending.after else { return };
        let at = self.now + after;
        if !ending.insists {
            self.cancellable.insert(order.ticket, at);
        }
        if ending.doubled {
            let again = at + Millis::new(1 + u64::from(self.hosts[host].key.name().len() as u32) * 7);
            self.answers.insert((again, order.ticket, true), ending.outcome.clone());
        }
        self.answers.insert((at, order.ticket, false), ending.outcome);
    }

    fn host_of(&mut self, ticket: Ticket) -> Option<usize> {
        let id = ticket.instance();
        if self.by_id.len() <= id.index() {
            self.by_id.resize(id.index() + 1, None);
        }
        let key = self.engine.key(id)?;
        // A number is given to another host after its holder has left.
        let known = self.by_id[id.index()].filter(|host| self.hosts[*host].key == *key);
        let host = known.or_else(|| self.judge.host(key))?;
        self.by_id[id.index()] = Some(host);
        Some(host)
    }
}
