//! One simulated host: how each of its polls ends, and when.

use std::sync::Arc;

use pulse::engine::{ChangeHash, Failure, FailureKind, InstanceKey, InstanceSpec, Millis, Outcome, Timestamp};

use crate::life::Life;
use crate::scenario::{Answer, Fault, FaultKind, HostGroup, Scenario};
use crate::streams::Stream;
use crate::values::Rate;

/// By how much a heavy tail or a slow host stretches an answer.
const TAIL: u64 = 20;
/// How long after its timeout a late answer comes, at the most.
const LATENESS: u64 = 5_000;

/// A host of the world.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) key: InstanceKey,
    pub(crate) group: usize,
    pub(crate) spec: InstanceSpec,
    /// The faults that befall it, by their number in the scenario.
    faults: Vec<usize>,
    life: Option<Life>,
    stream: Stream,
    polls: usize,
}

/// How a poll ends.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// When the answer comes; `None` is never.
    pub(crate) after: Option<Millis>,
    pub(crate) outcome: Outcome,
    /// The answer comes even if the poll was given up.
    pub(crate) insists: bool,
    /// The answer comes a second time.
    pub(crate) doubled: bool,
}

impl Host {
    /// Every host of a scenario, in the order of its groups.
    pub(crate) fn all(scenario: &Scenario, seed: u64) -> Vec<Self> {
        let numbered = scenario.hosts.iter().enumerate();
        numbered
            .flat_map(|(index, group)| (1..=group.count).map(move |n| (index, group, n)))
            .filter_map(|(index, group, n)| Self::new(scenario, seed, index, group, n))
            .collect()
    }

    fn new(scenario: &Scenario, seed: u64, index: usize, group: &HostGroup, n: u32) -> Option<Self> {
        let name = format!("{}-{n}", group.group);
        let key = InstanceKey::new(group.kind, &name).ok()?;
        let text = key.to_string();
        let befalls = |(number, fault): (usize, &Fault)| {
            let concerned = fault.group.as_ref().is_none_or(|name| *name == group.group);
            let drawn = Stream::new(seed, &format!("fault {number}"), &text).draw();
            (concerned && fault.share.hits(drawn)).then_some(number)
        };
        let machine = match group.per_machine {
            0 | 1 => String::new(),
            many => format!("{}-machine-{}", group.group, (n - 1) / many),
        };
        let interval = group.interval.map(|span| span.0);
        let spec = InstanceSpec { host: machine.as_str().into(), interval, ..InstanceSpec::new(key.clone()) };
        Some(Self {
            group: index,
            spec,
            faults: scenario.faults.iter().enumerate().filter_map(befalls).collect(),
            life: group.outages.map(|it| Life::draw(seed, group, it, &text, &machine, scenario.length())),
            stream: Stream::new(seed, "host", &text),
            polls: 0,
            key,
        })
    }

    /// How the poll that starts now ends. In a `calm` world everything answers.
    pub(crate) fn poll(&mut self, scenario: &Scenario, now: Timestamp, timeout: Millis, calm: bool) -> Ending {
        let group = &scenario.hosts[self.group];
        // Every poll draws the same number of times, so that one more fault moves no later draw.
        let [success, jitter, tail, fault_rate, lateness] = std::array::from_fn(|_| self.stream.draw());
        let poll = self.polls;
        self.polls += 1;
        let faults = self.faults.iter().map(|number| &scenario.faults[*number]);
        let active: Vec<&Fault> =
            faults.filter(|fault| !calm && is_active(fault, now) && fault.rate.hits(fault_rate)).collect();
        let has = |kind: FaultKind| active.iter().any(|fault| fault.kind == kind);
        let answer = match group.first.get(poll) {
            _ if calm => Answer::Success,
            Some(answer) => *answer,
            None if group.then_success.hits(success) => Answer::Success,
            None => group.otherwise,
        };
        let mut latency = match group.latency_quantiles {
            // In a calm world nobody is slower than usual.
            Some(quantiles) if calm => quantiles.p50.0,
            Some(quantiles) => quantiles.at(jitter),
            None => vary(group.latency.0, group.latency_jitter, jitter),
        };
        if !calm && (group.heavy_tail.hits(tail) || has(FaultKind::Slow)) {
            latency = Millis::new(latency.get().saturating_mul(TAIL));
        }
        let outcome = match active.iter().find_map(|fault| fault.kind.failure()) {
            Some(kind) => failure(kind, jitter),
            None if !calm && self.is_down(now) => failure(FailureKind::Refused, jitter),
            None => self.outcome(group, answer, now),
        };
        let hangs = has(FaultKind::Hang) || (answer == Answer::Hang && !calm);
        let insists = has(FaultKind::LateAnswers);
        if insists {
            let late = (u64::from(lateness) * LATENESS) >> 32;
            latency = timeout + Millis::new(1 + late);
        }
        let after = (!hangs || insists).then_some(latency);
        Ending { after, outcome, insists, doubled: has(FaultKind::DoubledAnswers) }
    }

    fn is_down(&self, now: Timestamp) -> bool {
        self.life.as_ref().is_some_and(|life| life.down_since(now).is_some())
    }

    /// When what makes its polls fail at `now` began.
    pub(crate) fn outage_began(&self, scenario: &Scenario, now: Timestamp) -> Option<Timestamp> {
        let faults = self.faults.iter().map(|number| &scenario.faults[*number]);
        let active = faults.filter(|fault| fault.kind.failure().is_some() && is_active(fault, now));
        let down_since = self.life.as_ref().and_then(|life| life.down_since(now));
        active.map(|fault| Timestamp::ZERO + fault.from.0).chain(down_since).min()
    }

    /// How often what it has to tell has changed up to `now`, as far as it has a life of its own.
    pub(crate) fn changes_until(&self, now: Timestamp) -> usize {
        self.life.as_ref().map_or(0, |life| life.changes_until(now))
    }

    /// When what it has to tell changes, as far as it has a life of its own.
    pub(crate) fn changes(&self) -> &[Timestamp] {
        self.life.as_ref().map_or(&[], Life::changes)
    }

    fn outcome(&self, group: &HostGroup, answer: Answer, now: Timestamp) -> Outcome {
        match answer {
            Answer::Success | Answer::Hang if self.life.is_some() => {
                Outcome::Success { reading: ChangeHash(self.changes_until(now) as u64) }
            }
            Answer::Success | Answer::Hang => {
                let period = group.changes_every.map_or(u64::MAX, |span| span.0.get().max(1));
                Outcome::Success { reading: ChangeHash(now.as_millis() / period) }
            }
            Answer::Transient => failure(FailureKind::ServerError, 0),
            Answer::Permanent => failure(FailureKind::Unauthorized, 0),
        }
    }
}

/// Whether a fault is on at `now`.
pub(crate) fn is_active(fault: &Fault, now: Timestamp) -> bool {
    let since = now.as_millis().checked_sub(fault.from.0.get());
    let Some(since) = since.filter(|since| *since < fault.lasts.0.get()) else { return false };
    fault.flapping.is_none_or(|period| (since * 2 / period.0.get().max(1)).is_multiple_of(2))
}

fn failure(kind: FailureKind, draw: u32) -> Outcome {
    let message: Arc<str> = format!("simulated: {}", kind.as_str()).into();
    let mut failure = Failure::new(kind, message);
    if kind == FailureKind::RateLimited {
        failure.retry_after = Some(Millis::from_secs(1 + u64::from(draw % 600)));
    }
    Outcome::Failure(failure)
}

fn vary(latency: Millis, jitter: Rate, draw: u32) -> Millis {
    let share = f64::from(draw) / 4_294_967_296.0 * 2.0 - 1.0;
    latency.scaled(1.0 + share * jitter.share()).max(Millis::new(1))
}
