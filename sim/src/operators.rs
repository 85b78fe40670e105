//! Operators: people and tools that interfere at bad moments.

use std::collections::BTreeMap;
use std::sync::Arc;

use pulse::engine::{Command, InstanceSpec, Millis, Settings, SettingsDraft, Timestamp};
use serde_json::Value;

use crate::host::Host;
use crate::scenario::{Action, Operator, Scenario};
use crate::streams::Stream;

/// How long until an operator undoes what they did, at the most.
const SECOND_THOUGHTS: u64 = 60_000;

/// Something that somebody asks of the daemon.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Command(Command),
    ToggleAdaptive,
    Settings(Box<Settings>),
    OriginalSettings,
    Discharge(Vec<usize>),
    Enlist(Vec<usize>),
    EditHost(usize),
    /// This is the whole fleet from now on.
    Inventory(Arc<[InstanceSpec]>),
    /// The health answer as it was told at this moment, to be held against the truth.
    Look(Arc<Value>),
}

/// What is asked, and when.
pub(crate) type Script = Vec<(Timestamp, Request)>;

/// Everybody who interferes, and what they have yet to undo.
#[derive(Debug)]
pub(crate) struct Operators {
    people: Vec<Person>,
    errands: BTreeMap<(Timestamp, u64), Request>,
    errand: u64,
    other_settings: Settings,
    /// Whether they ask one by one, when everything else of the moment has happened.
    one_by_one: bool,
}

#[derive(Debug)]
struct Person {
    plan: Operator,
    stream: Stream,
    next: Option<Timestamp>,
}

impl Operators {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let person = |(number, plan): (usize, &Operator)| {
            let mut stream = Stream::new(seed, "operator", &number.to_string());
            let next = next_visit(plan, Timestamp::ZERO + plan.from.0, &mut stream);
            Person { plan: plan.clone(), stream, next }
        };
        Self {
            people: scenario.operators.iter().enumerate().map(person).collect(),
            errands: BTreeMap::new(),
            errand: 0,
            other_settings: other_settings(scenario),
            one_by_one: false,
        }
    }

    /// Operators who ask for exactly this from now on, one by one.
    pub(crate) fn follow(&mut self, script: Script) {
        self.people.clear();
        self.errands = script.into_iter().zip(0..).map(|((at, request), number)| ((at, number), request)).collect();
        self.one_by_one = true;
    }

    pub(crate) fn ask_one_by_one(&self) -> bool {
        self.one_by_one
    }

    pub(crate) fn stop(&mut self) {
        self.people.clear();
        self.errands.clear();
    }

    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        let errand = self.errands.first_key_value().map(|((at, _), _)| *at);
        self.people.iter().filter_map(|person| person.next).chain(errand).min()
    }

    /// What is asked by `now`, in order.
    pub(crate) fn due(&mut self, now: Timestamp, hosts: &[Host]) -> Vec<Request> {
        let mut requests = Vec::new();
        while let Some(entry) = self.errands.first_entry().filter(|entry| entry.key().0 <= now) {
            requests.push(entry.remove());
        }
        for number in 0..self.people.len() {
            if self.people[number].next.is_some_and(|at| at <= now) {
                requests.push(self.visit(number, now, hosts));
                let Person { plan, stream, next } = &mut self.people[number];
                *next = next_visit(plan, now, stream);
            }
        }
        requests
    }

    fn visit(&mut self, number: usize, now: Timestamp, hosts: &[Host]) -> Request {
        let Person { plan, stream, .. } = &mut self.people[number];
        let host = stream.below(hosts.len() as u64) as usize;
        let later = now + Millis::new(1 + stream.below(SECOND_THOUGHTS));
        let share = stream.below(hosts.len() as u64 / 4 + 1) as usize + 1;
        let key = hosts[host].key.clone();
        let enable = Request::Command(Command::SetEnabled { key: key.clone(), enabled: true });
        let (request, undo) = match plan.action {
            Action::ResetBreaker => (Request::Command(Command::ResetBreaker { key }), None),
            Action::RetryDeadLetter => (Request::Command(Command::RetryDeadLetter { key }), None),
            Action::RetryAll => {
                (Request::Command(Command::RetryDeadLetters { filter: Default::default(), dry_run: false }), None)
            }
            Action::RemoveDeadLetter => (Request::Command(Command::RemoveDeadLetter { key }), Some(enable)),
            Action::PollNow => (Request::Command(Command::PollNow { key }), None),
            Action::Pause => (Request::Command(Command::SetEnabled { key, enabled: false }), Some(enable)),
            Action::ToggleAdaptive => (Request::ToggleAdaptive, Some(Request::OriginalSettings)),
            Action::EditSettings => {
                (Request::Settings(Box::new(self.other_settings.clone())), Some(Request::OriginalSettings))
            }
            Action::EditInventory => {
                let some: Vec<usize> = (0..share).map(|n| (host + n) % hosts.len()).collect();
                (Request::Discharge(some.clone()), Some(Request::Enlist(some)))
            }
            Action::EditHost => (Request::EditHost(host), None),
        };
        if let Some(undo) = undo {
            self.ask_later(later, undo);
        }
        request
    }

    /// Has somebody ask for this at `at`.
    pub(crate) fn ask_later(&mut self, at: Timestamp, request: Request) {
        self.errand += 1;
        self.errands.insert((at, self.errand), request);
    }
}

/// Waits between half and one and a half times the period of the plan.
fn next_visit(plan: &Operator, after: Timestamp, stream: &mut Stream) -> Option<Timestamp> {
    let every = plan.every.0.get().max(1);
    let next = after + Millis::new(every / 2 + stream.below(every) + 1);
    (next <= Timestamp::ZERO + plan.until.0).then_some(next)
}

/// What somebody who means well might try: fewer slots, longer intervals, a shorter temper.
fn other_settings(scenario: &Scenario) -> Settings {
    let original = scenario.valid_settings();
    let mut draft: SettingsDraft = original.clone().into();
    draft.max_in_flight = (draft.max_in_flight / 4).max(1);
    draft.base_interval = Millis::new(draft.base_interval.get() * 2).min(draft.max_interval);
    draft.breaker.failure_threshold = (draft.breaker.failure_threshold - 1).max(1);
    draft.validate().unwrap_or(original)
}
