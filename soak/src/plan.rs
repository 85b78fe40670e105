//! A scenario of the simulator as a fleet of the lab: who answers how, and when that changes.
//!
//! What real sockets cannot play is listed, so that nobody takes a run for more than it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pulse::engine::{InstanceType, Millis};
use pulse::lab::{Behaviour, Fault as LabFault, FaultKind as LabFaultKind, HostPlan, LabPlan, POLL_PATH};
use sim::{Action, Answer, Fault, FaultKind, HostGroup, Operator, Scenario, ScenarioError};
use thiserror::Error;

/// A poll makes about so many calls one after the other; a latency of the scenario is that of a poll.
const CALLS_PER_POLL: u64 = 4;
/// By how much a slow host stretches an answer, as in the simulator.
const SLOW: u64 = 20;
/// What a host that limits its callers asks them to wait.
const RETRY_AFTER_SECS: u32 = 30;

/// A fleet to be played, and what becomes of it in the course of the run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario, with the length of this run.
    pub scenario: Scenario,
    /// The fleet.
    pub lab: LabPlan,
    /// The group of each host, by its name.
    pub groups: BTreeMap<String, usize>,
    /// When hosts change their behaviour, in the order of time.
    pub changes: Vec<Change>,
    /// What operators do by calls.
    pub operators: Vec<Operator>,
    /// When a host refuses connections, which the lab cannot count.
    pub refusals: Vec<(String, Millis, Millis)>,
    /// What of the scenario is not played, and why.
    pub unplayed: Vec<String>,
}

/// A host behaves differently from a moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When, from the beginning.
    pub at: Millis,
    /// Which host.
    pub host: String,
    /// How.
    pub behaviour: Behaviour,
}

/// Why a scenario cannot be soaked.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It is neither built in nor a file that can be read, or the file is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// No scenario has this name, and no file.
    #[error("there is no scenario {0:?}: give soak, integration, another that `sim list` names, or a TOML file")]
    Unknown(String),
}

impl Plan {
    /// The scenario of this name: a built-in one, or a TOML file.
    ///
    /// # Errors
    /// There is none, or the file is wrong.
    pub fn find(name: &str) -> Result<Scenario, PlanError> {
        if let Some(scenario) = sim::builtin(name) {
            return Ok(scenario);
        }
        match std::fs::read_to_string(name) {
            Ok(text) => Ok(Scenario::parse(&text, Path::new(name))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(PlanError::Unknown(name.to_owned())),
            Err(source) => Err(ScenarioError::Unreadable { file: name.to_owned(), source }.into()),
        }
    }

    /// How the lab plays `scenario`. Every figure of the fleet follows from `seed`.
    pub fn of(scenario: Scenario, seed: u64) -> Self {
        let mut plan = Self {
            lab: LabPlan::new(seed, Vec::new()),
            groups: BTreeMap::new(),
            changes: Vec::new(),
            operators: Vec::new(),
            refusals: Vec::new(),
            unplayed: Vec::new(),
            scenario,
        };
        let scenario = plan.scenario.clone();
        for (index, group) in scenario.hosts.iter().enumerate() {
            plan.add_group(seed, index, group);
        }
        plan.schedule_faults(&scenario);
        let (calls, others): (Vec<_>, Vec<_>) =
            scenario.operators.iter().cloned().partition(|operator| is_a_call(operator.action));
        plan.operators = calls;
        let mut unplayed = |what: String| plan.unplayed.push(what);
        for operator in others {
            unplayed(format!("operators who {}: a soak keeps the fleet as it is", snake(&operator.action)));
        }
        plan
    }

    /// The settings of the scenario as the text of a `system.json`.
    pub fn system_json(&self) -> String {
        let scenario = serde_json::to_value(&self.scenario).unwrap_or_default();
        format!("{:#}\n", scenario["settings"])
    }

    fn add_group(&mut self, seed: u64, index: usize, group: &HostGroup) {
        let behaviour = script(group.kind).map_or(Behaviour::Healthy, |path| Behaviour::Sequence {
            path: path.to_owned(),
            outcomes: group.first.iter().map(|answer| fault_of(*answer)).collect(),
            then_success: group.then_success.share(),
            otherwise: fault_of(group.otherwise).unwrap_or(LabFaultKind::status(503)),
        });
        for number in 1..=group.count {
            let host = host(seed, group, number).answering_in(group.latency.0.get() / CALLS_PER_POLL);
            let host = host.behaving(behaviour.clone());
            self.groups.insert(host.name.clone(), index);
            self.lab.hosts.push(host);
        }
        let mut unplayed = |what: &str| self.unplayed.push(format!("{}: {what}", group.group));
        if script(group.kind).is_none() && (!group.first.is_empty() || group.then_success.share() < 1.0) {
            unplayed("answers that fail; a tcp port of the lab only opens and closes");
        }
        if group.heavy_tail.share() > 0.0 {
            unplayed("answers that now and then take twenty times as long");
        }
        if group.changes_every.is_some() && group.kind != InstanceType::Pve {
            unplayed("readings that change; in the lab only those of pve hosts do");
        }
        if group.per_machine > 1 {
            unplayed("hosts that share a machine; in the lab each has its own address");
        }
    }

    fn schedule_faults(&mut self, scenario: &Scenario) {
        let playable: Vec<(&Fault, LabFaultKind)> = scenario
            .faults
            .iter()
            .filter_map(|fault| match playable(fault) {
                Ok(kind) => Some((fault, kind)),
                Err(why) => {
                    self.unplayed.push(format!("the fault {}: {why}", snake(&fault.kind)));
                    None
                }
            })
            .collect();
        for host in self.lab.hosts.clone() {
            let group = &scenario.hosts[self.groups[&host.name]];
            let befalls = |fault: &Fault| {
                let place = host.name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
                let concerned = fault.group.as_ref().is_none_or(|name| *name == group.group);
                concerned && f64::from(place.unwrap_or(1)) <= (fault.share.share() * f64::from(group.count)).ceil()
            };
            let faults: Vec<_> = playable.iter().copied().filter(|(fault, _)| befalls(fault)).collect();
            self.schedule(&host, &faults, scenario.length());
        }
        self.changes.sort_by_key(|change| change.at);
    }

    fn schedule(&mut self, host: &HostPlan, faults: &[(&Fault, LabFaultKind)], end: Millis) {
        let turns = faults.iter().flat_map(|(fault, _)| turns(fault)).filter(|at| *at < end);
        for at in turns.collect::<BTreeSet<Millis>>() {
            let active = faults.iter().rfind(|(fault, _)| is_active(fault, at));
            let behaviour =
                active.map_or_else(|| after_script(&host.behaviour), |(fault, kind)| struck(host, fault, *kind));
            self.changes.push(Change { at, host: host.name.clone(), behaviour });
        }
        let refused = faults.iter().filter(|(_, kind)| *kind == LabFaultKind::Refuse);
        self.refusals.extend(refused.map(|(fault, _)| (host.name.clone(), fault.from.0, fault.from.0 + fault.lasts.0)));
    }
}

/// The path that every poll of a host asks for exactly once, on which polls are scripted.
fn script(kind: InstanceType) -> Option<&'static str> {
    match kind {
        InstanceType::Pve => Some(POLL_PATH),
        InstanceType::Pbs | InstanceType::Pmg => Some("/version"),
        InstanceType::Http => Some("/health"),
        InstanceType::Tcp => None,
    }
}

fn host(seed: u64, group: &HostGroup, number: u32) -> HostPlan {
    let name = format!("{}-{number}", group.group);
    match group.kind {
        InstanceType::Pve => {
            let host = HostPlan::pve(seed, name, 4);
            let secs = group.changes_every.map(|span| u32::try_from(span.0.get() / 1_000).unwrap_or(u32::MAX).max(1));
            secs.map_or(host.clone(), |secs| host.changing_every(secs))
        }
        InstanceType::Pbs => HostPlan::pbs(seed, name, &["daily"]),
        InstanceType::Pmg => HostPlan::pmg(seed, name),
        InstanceType::Http => HostPlan::http(name, true, "all is well"),
        InstanceType::Tcp => HostPlan::tcp(name),
    }
}

fn fault_of(answer: Answer) -> Option<LabFaultKind> {
    match answer {
        Answer::Success => None,
        Answer::Transient => Some(LabFaultKind::status(503)),
        Answer::Permanent => Some(LabFaultKind::status(403)),
        Answer::Hang => Some(LabFaultKind::Hang),
    }
}

/// What the lab does for a fault; an error tells why it does nothing.
fn playable(fault: &Fault) -> Result<LabFaultKind, &'static str> {
    let kind = match fault.kind {
        FaultKind::Hang => LabFaultKind::Hang,
        FaultKind::Refuse => LabFaultKind::Refuse,
        FaultKind::Reset => LabFaultKind::CutBody,
        FaultKind::TlsHandshake => LabFaultKind::CutHandshake,
        FaultKind::Certificate => LabFaultKind::WrongCertificate,
        FaultKind::Unauthorized => LabFaultKind::status(401),
        FaultKind::Forbidden => LabFaultKind::status(403),
        FaultKind::NotFound => LabFaultKind::status(404),
        FaultKind::RateLimited => LabFaultKind::Status { code: 429, retry_after_secs: Some(RETRY_AFTER_SECS) },
        FaultKind::ServerError => LabFaultKind::status(503),
        FaultKind::BrokenAnswer => LabFaultKind::BrokenJson,
        FaultKind::TruncatedAnswer => LabFaultKind::TruncatedJson,
        FaultKind::Slow => LabFaultKind::Slow { delay_ms: 0, drip_ms: 0 },
        FaultKind::ClockAhead | FaultKind::ClockBehind => return Err("the machine's clock is left alone"),
        FaultKind::Dns => return Err("the lab's hosts have addresses and no names"),
        FaultKind::LateAnswers | FaultKind::DoubledAnswers => {
            return Err("an answer on a real connection cannot outlive its poll");
        }
        FaultKind::Stall | FaultKind::Crash => return Err("one process is judged from its start to its end"),
    };
    match kind.is_of_connection() && fault.rate.share() < 1.0 {
        true => Err("a host takes or refuses connections, not some of them"),
        false => Ok(kind),
    }
}

/// How `host` behaves while `fault` is on.
fn struck(host: &HostPlan, fault: &Fault, kind: LabFaultKind) -> Behaviour {
    let kind = match kind {
        LabFaultKind::Slow { .. } => LabFaultKind::Slow { delay_ms: host.latency_ms * (SLOW - 1), drip_ms: 0 },
        other => other,
    };
    match script(host.system.kind()) {
        Some(path) if !kind.is_of_connection() => Behaviour::Sequence {
            path: path.to_owned(),
            outcomes: Vec::new(),
            then_success: 1.0 - fault.rate.share(),
            otherwise: kind,
        },
        _ => LabFault::from(kind).into(),
    }
}

/// The script of a host without its first answers, which have been given.
fn after_script(behaviour: &Behaviour) -> Behaviour {
    let mut behaviour = behaviour.clone();
    if let Behaviour::Sequence { outcomes, .. } = &mut behaviour {
        outcomes.clear();
    }
    behaviour
}

/// When a fault comes and goes.
fn turns(fault: &Fault) -> Vec<Millis> {
    let (from, lasts) = (fault.from.0.get(), fault.lasts.0.get());
    let half = fault.flapping.map_or(u64::MAX, |period| (period.0.get() / 2).max(1));
    let inner = (1..).map(|turn: u64| turn.saturating_mul(half)).take_while(|since| *since < lasts);
    [0].into_iter().chain(inner).chain([lasts]).map(|since| Millis::new(from + since)).collect()
}

fn is_active(fault: &Fault, at: Millis) -> bool {
    let since = at.get().checked_sub(fault.from.0.get()).filter(|since| *since < fault.lasts.0.get());
    since.is_some_and(|since| {
        fault.flapping.is_none_or(|period| (since / (period.0.get() / 2).max(1)).is_multiple_of(2))
    })
}

/// Whether an operator can do it over the API.
fn is_a_call(action: Action) -> bool {
    match action {
        Action::ResetBreaker
        | Action::RetryDeadLetter
        | Action::RetryAll
        | Action::PollNow
        | Action::Pause
        | Action::ToggleAdaptive
        | Action::EditSettings => true,
        Action::RemoveDeadLetter | Action::EditInventory | Action::EditHost => false,
    }
}

/// The name of a unit variant in scenario files.
fn snake(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soak_scenario_is_the_labs_own_fleet_under_other_names() {
        let plan = Plan::of(Plan::find("soak").unwrap(), 80);
        let own = LabPlan::soak();
        assert_eq!(plan.lab.hosts.len(), 80);
        for (planned, known) in plan.lab.hosts.iter().zip(&own.hosts) {
            let script = |host: &HostPlan| match &host.behaviour {
                Behaviour::Sequence { path, outcomes, then_success, .. } => {
                    (path.clone(), outcomes.clone(), *then_success)
                }
                other => panic!("{}: {other:?}", host.name),
            };
            assert_eq!((script(planned), planned.latency_ms), (script(known), known.latency_ms), "{}", known.name);
        }
        assert!(plan.unplayed.is_empty() && plan.changes.is_empty());
        assert!(plan.system_json().contains("\"adaptivePollingBaseInterval\": \"3s\""), "{}", plan.system_json());
    }

    #[test]
    fn every_built_in_scenario_gives_a_fleet_and_says_what_it_leaves_out() {
        for (name, _) in sim::BUILTIN {
            let plan = Plan::of(Plan::find(name).unwrap(), 1);
            assert!(!plan.lab.hosts.is_empty(), "{name}");
        }
        let churn = Plan::of(Plan::find("inventory-churn").unwrap(), 1);
        assert!(churn.unplayed.iter().any(|what| what.contains("edit_inventory")), "{:?}", churn.unplayed);
    }

    #[test]
    fn a_flapping_fault_comes_goes_and_leaves_the_script_behind() {
        let text = "name = \"x\"\nduration = \"1m\"\n[[hosts]]\ngroup = \"a\"\ncount = 2\nfirst = [\"transient\"]\n\
                    [[faults]]\nkind = \"refuse\"\nshare = 0.5\nfrom = \"10s\"\nfor = \"20s\"\nflapping = \"10s\"\n";
        let plan = Plan::of(Scenario::parse(text, "x.toml".as_ref()).unwrap(), 1);
        let seen: Vec<(u64, bool)> = plan
            .changes
            .iter()
            .map(|it| (it.at.get() / 1_000, matches!(&it.behaviour, Behaviour::Faulty(_))))
            .collect();
        assert_eq!(seen, [(10, true), (15, false), (20, true), (25, false), (30, false)]);
        assert!(plan.changes.iter().all(|change| change.host == "a-1"));
        let Behaviour::Sequence { outcomes, .. } = &plan.changes[4].behaviour else { panic!("a script") };
        assert!(outcomes.is_empty());
    }

    #[test]
    fn an_unknown_name_is_told_in_one_line() {
        let error = Plan::find("no-such").unwrap_err().to_string();
        assert!(error.contains("no-such") && error.lines().count() == 1, "{error}");
    }
}
