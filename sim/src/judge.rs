//! The judge: knows the truth about each host, hears every effect of the engine, and holds it to the rules.
//!
//! It mirrors what the engine must believe from outside alone: from what hosts answered and what operators did.

use std::collections::BTreeMap;

use pulse::engine::{
    BreakerState, Command, DeadLetterReason, Effect, Engine, Event, FailureClass, FailureKind, FleetEvent,
    InstanceEvent, InstanceHealth, InstanceKey, IntervalReason, Millis, Outcome, Settings, Ticket, Timestamp, What,
};

use crate::violation::{Rule, Violation};

/// Violations kept of one run; the rest would only repeat them.
const MAX_VIOLATIONS: usize = 10;

/// Rare states that a farm of runs should have reached.
pub const SOMETIMES: [&str; 12] = [
    "breaker opened",
    "half-open probe failed",
    "half-open probe succeeded",
    "late or doubled answer dropped",
    "dead letter by retries",
    "dead letter by a permanent failure",
    "recheck failed",
    "dead letter revived",
    "Retry-After above the own delay",
    "quiet instance polled later",
    "load stretched the fleet",
    "poll called off",
];

/// What is known of one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) present: bool,
    pub(crate) paused: bool,
    in_flight: Option<Flight>,
    breaker: Breaker,
    due: Timestamp,
    pub(crate) failures: u32,
    last_failure: Option<Timestamp>,
    last_class: Option<FailureClass>,
    pub(crate) dead: Option<DeadLetterReason>,
    pub(crate) dead_since: Timestamp,
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) successes: u64,
    pub(crate) successes_after_warm_up: u64,
    pub(crate) failed: u64,
    pub(crate) recoveries: u64,
    pub(crate) age_sum: u128,
    pub(crate) ages: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    ticket: Ticket,
    started: Timestamp,
    timeout: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Breaker {
    state: BreakerState,
    retry_at: Option<Timestamp>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, retry_at: None }
    }
}

/// What a host answered in the step that the engine is taking.
#[derive(Clone, Debug)]
struct Delivered {
    ticket: Ticket,
    failure: Option<FailureKind>,
}

/// Holds the engine to the rules.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) truths: Vec<Truth>,
    by_key: BTreeMap<InstanceKey, usize>,
    /// Which host has which number in the engine.
    by_id: Vec<Option<usize>>,
    settings: Settings,
    in_flight: u32,
    delivered: Option<Delivered>,
    /// The command that the engine has yet to answer.
    command: Option<Command>,
    now: Timestamp,
    warm_up: Timestamp,
    keep_ages: bool,
    pub(crate) violations: Vec<Violation>,
    pub(crate) sometimes: [u64; SOMETIMES.len()],
}

impl Judge {
    pub(crate) fn new(keys: &[InstanceKey], settings: Settings, warm_up: Timestamp, keep_ages: bool) -> Self {
        Self {
            truths: vec![Truth::default(); keys.len()],
            by_key: keys.iter().cloned().zip(0..).collect(),
            by_id: Vec::new(),
            settings,
            in_flight: 0,
            delivered: None,
            command: None,
            now: Timestamp::ZERO,
            warm_up,
            keep_ages,
            violations: Vec::new(),
            sometimes: [0; SOMETIMES.len()],
        }
    }

    /// The daemon was killed: everything but what truly happened is forgotten.
    pub(crate) fn restarted(&mut self, settings: Settings) {
        self.by_id.clear();
        self.in_flight = 0;
        self.command = None;
        self.settings = settings;
        for truth in &mut self.truths {
            truth.forget_failures();
            (truth.present, truth.paused, truth.in_flight) = (false, false, None);
        }
    }

    pub(crate) fn settings_replaced(&mut self, settings: Settings) {
        self.settings = settings;
    }

    pub(crate) fn commanded(&mut self, command: Command) {
        self.command = Some(command);
    }

    /// A host's answer is about to be handed to the engine.
    pub(crate) fn delivering(&mut self, ticket: Ticket, outcome: &Outcome) {
        let failure = match outcome {
            Outcome::Success { .. } => None,
            Outcome::Failure(failure) => Some(failure.kind),
        };
        self.delivered = Some(Delivered { ticket, failure });
    }

    /// The engine has taken a step.
    pub(crate) fn stepped(&mut self) {
        self.delivered = None;
        if let Some(command) = self.command.take() {
            self.accuse(Rule::CommandAnswered, || format!("{command:?} was not answered in its own step"));
        }
    }

    pub(crate) fn accuse(&mut self, rule: Rule, detail: impl FnOnce() -> String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { rule, at: self.now, detail: detail() });
        }
    }

    fn reached(&mut self, state: &'static str) {
        if let Some(place) = SOMETIMES.iter().position(|known| *known == state) {
            self.sometimes[place] += 1;
        }
    }

    pub(crate) fn hear(&mut self, now: Timestamp, effect: &Effect) {
        self.now = now;
        match effect {
            Effect::Start(order) => {
                let flight = Flight { ticket: order.ticket, started: now, timeout: order.timeout };
                if let Some(host) = self.host_of(order.ticket) {
                    self.truths[host].in_flight = Some(flight);
                }
            }
            Effect::Cancel(_) => {}
            Effect::Event(Event { what: What::Instance { instance, what }, .. }) => {
                let known = self.by_id.get(instance.index()).copied().flatten();
                match (what, known) {
                    (InstanceEvent::Added { key }, _) => self.added(instance.index(), key),
                    (_, Some(host)) => self.hear_instance(host, what),
                    (_, None) => self.accuse(Rule::Verify, || format!("an event of unknown {instance:?}: {what:?}")),
                }
            }
            Effect::Event(Event { what: What::Fleet(what), .. }) => self.hear_fleet(what),
        }
    }

    fn host_of(&self, ticket: Ticket) -> Option<usize> {
        self.by_id.get(ticket.instance().index()).copied().flatten()
    }

    fn added(&mut self, id: usize, key: &InstanceKey) {
        if self.by_id.len() <= id {
            self.by_id.resize(id + 1, None);
        }
        self.by_id[id] = self.by_key.get(key).copied();
        let Some(host) = self.by_id[id] else {
            return self.accuse(Rule::Verify, || format!("{key} was added and is no host"));
        };
        let truth = &mut self.truths[host];
        truth.forget_failures();
        (truth.present, truth.paused, truth.in_flight) = (true, false, None);
        truth.last_success = None;
    }

    fn hear_fleet(&mut self, what: &FleetEvent) {
        match what {
            FleetEvent::CommandDone { result, .. } => match (self.command.take(), result) {
                (None, _) => self.accuse(Rule::CommandAnswered, || format!("an answer to no command: {result:?}")),
                (Some(Command::ResetBreaker { key }), Ok(_)) => self.breaker_reset(&key),
                _ => {}
            },
            FleetEvent::LoadChanged { stretch_permille } if *stretch_permille > 1_000 => {
                self.reached("load stretched the fleet");
            }
            FleetEvent::UnknownTicket { .. } => self.reached("late or doubled answer dropped"),
            _ => {}
        }
    }

    /// An operator had the failures in a row forgotten; a breaker that was closed all along does not move.
    fn breaker_reset(&mut self, key: &InstanceKey) {
        if let Some(host) = self.by_key.get(key).copied() {
            self.truths[host].failures = 0;
        }
    }

    fn hear_instance(&mut self, host: usize, what: &InstanceEvent) {
        match what {
            InstanceEvent::PollStarted { ticket, .. } => self.poll_started(host, *ticket),
            InstanceEvent::PollSucceeded { ticket, .. } => self.poll_succeeded(host, *ticket),
            InstanceEvent::PollFailed { ticket, failure, failures, .. } => {
                self.poll_failed(host, *ticket, failure.kind, *failures);
            }
            InstanceEvent::PollCancelled { .. } => {
                self.reached("poll called off");
                self.landed(host);
            }
            InstanceEvent::StaleTicket { .. } => self.reached("late or doubled answer dropped"),
            InstanceEvent::Scheduled { due, interval, reason } => self.scheduled(host, *due, *interval, *reason),
            InstanceEvent::BreakerMoved { from, to, failures, retry_at } => {
                self.breaker_moved(host, *from, *to, *failures, *retry_at);
            }
            InstanceEvent::DeadLettered { reason, .. } => self.dead_lettered(host, *reason),
            InstanceEvent::RecheckFailed { reason, .. } => {
                self.reached("recheck failed");
                self.truths[host].dead = Some(*reason);
            }
            InstanceEvent::Revived => {
                self.reached("dead letter revived");
                self.truths[host].dead = None;
            }
            InstanceEvent::Recovered { .. } => self.truths[host].recoveries += 1,
            InstanceEvent::Reconfigured => self.truths[host].forget_failures(),
            InstanceEvent::Paused => {
                self.truths[host].forget_failures();
                self.truths[host].paused = true;
            }
            InstanceEvent::Resumed => self.truths[host].paused = false,
            InstanceEvent::Removed { .. } => self.truths[host].present = false,
            InstanceEvent::Added { .. } => {}
        }
    }

    fn poll_started(&mut self, host: usize, ticket: Ticket) {
        let (now, cap) = (self.now, self.settings.max_in_flight);
        let truth = &self.truths[host];
        let (due, flight, breaker) = (truth.due, truth.in_flight, truth.breaker);
        if let Some(flight) = flight {
            self.accuse(Rule::SingleFlight, || format!("{ticket:?} started while {flight:?} is under way"));
        }
        if now < due {
            self.accuse(Rule::NotBeforeDue, || format!("{ticket:?} started {} early", due - now));
        }
        if breaker.state == BreakerState::Open {
            self.accuse(Rule::Breaker, || {
                format!("{ticket:?} passed a breaker that is open to {:?}", breaker.retry_at)
            });
        }
        self.in_flight += 1;
        if self.in_flight > cap {
            let in_flight = self.in_flight;
            self.accuse(Rule::Caps, || format!("{in_flight} polls at once where {cap} are allowed"));
        }
    }

    /// The poll of `host` is no longer under way.
    fn landed(&mut self, host: usize) -> Option<Flight> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.truths[host].in_flight.take()
    }

    fn poll_succeeded(&mut self, host: usize, ticket: Ticket) {
        let flight = self.landed(host);
        let answered = self.delivered.as_ref().is_some_and(|it| it.ticket == ticket && it.failure.is_none());
        if !answered || flight.is_none_or(|flight| flight.ticket != ticket) {
            let delivered = self.delivered.clone();
            self.accuse(Rule::TrueOutcome, || {
                format!("{ticket:?} counts as a success; truly {delivered:?} of {flight:?}")
            });
        }
        let (now, warm_up, keep_ages) = (self.now, self.warm_up, self.keep_ages);
        let truth = &mut self.truths[host];
        truth.successes += 1;
        if now >= warm_up {
            truth.successes_after_warm_up += 1;
            if let Some(before) = truth.last_success.filter(|_| keep_ages) {
                let gap = (now - before.max(warm_up)).get();
                truth.age_sum += u128::from(gap) * u128::from(gap) / 2;
                truth.ages.push(u32::try_from(gap).unwrap_or(u32::MAX));
            }
        }
        truth.last_success = Some(now);
        truth.failures = 0;
        truth.last_class = None;
    }

    fn poll_failed(&mut self, host: usize, ticket: Ticket, kind: FailureKind, failures: u32) {
        let flight = self.landed(host);
        let answered = self.delivered.as_ref().is_some_and(|it| it.ticket == ticket && it.failure == Some(kind));
        let over = |flight: Flight| flight.ticket == ticket && self.now >= flight.started + flight.timeout;
        let timed_out = kind == FailureKind::Timeout && flight.is_some_and(over);
        if !answered && !timed_out {
            let delivered = self.delivered.clone();
            let detail = || format!("{ticket:?} counts as {}; truly {delivered:?} of {flight:?}", kind.as_str());
            self.accuse(Rule::TrueOutcome, detail);
        }
        let now = self.now;
        let truth = &mut self.truths[host];
        truth.failed += 1;
        truth.failures += 1;
        truth.last_class = Some(kind.class());
        truth.last_failure = Some(now);
        let counted = truth.failures;
        if failures != counted {
            self.accuse(Rule::FailureCount, || format!("{ticket:?} is failure {failures} in a row; truly {counted}"));
        }
    }

    fn scheduled(&mut self, host: usize, due: Timestamp, interval: Millis, reason: IntervalReason) {
        self.truths[host].due = due;
        let settings = &self.settings;
        let (low, high) = match reason {
            IntervalReason::Base
            | IntervalReason::Changing
            | IntervalReason::CatchingUp
            | IntervalReason::Quiet
            | IntervalReason::Policy => (settings.min_interval, settings.max_interval),
            IntervalReason::First => (Millis::ZERO, settings.base_interval),
            IntervalReason::Backoff | IntervalReason::RetryAfter => (Millis::ZERO, settings.backoff.max),
            IntervalReason::BreakerOpen => (settings.breaker.open_initial, settings.breaker.open_max),
            IntervalReason::Recheck => {
                let rules = settings.dead_letter;
                (Millis::ZERO, rules.permanent_recheck.max(rules.transient_recheck_max))
            }
            IntervalReason::Fixed | IntervalReason::Operator | IntervalReason::Replanned => (Millis::ZERO, Millis::MAX),
        };
        match reason {
            IntervalReason::RetryAfter => self.reached("Retry-After above the own delay"),
            IntervalReason::Quiet => self.reached("quiet instance polled later"),
            _ => {}
        }
        let now = self.now;
        if !(low..=high).contains(&interval) || due < now {
            let detail = || format!("{reason:?} gives {interval}, due {due:?} at {now:?}; allowed {low} to {high}");
            self.accuse(Rule::IntervalBounds, detail);
        }
    }

    fn breaker_moved(
        &mut self,
        host: usize,
        from: BreakerState,
        to: BreakerState,
        failures: u32,
        retry_at: Option<Timestamp>,
    ) {
        let before = self.truths[host].breaker;
        let now = self.now;
        let threshold = self.settings.breaker.failure_threshold;
        let legal = before.state == from
            && match (from, to) {
                (BreakerState::Closed, BreakerState::Open) => failures >= threshold,
                (BreakerState::Open, BreakerState::HalfOpen) => now >= self.truths[host].due,
                (BreakerState::HalfOpen, BreakerState::Open) => true,
                (_, BreakerState::Closed) => failures == 0,
                _ => false,
            };
        if !legal {
            self.accuse(Rule::Breaker, || format!("from {from:?} to {to:?} after {failures} failures; was {before:?}"));
        }
        match (from, to) {
            (BreakerState::Closed, BreakerState::Open) => self.reached("breaker opened"),
            (BreakerState::HalfOpen, BreakerState::Open) => self.reached("half-open probe failed"),
            (BreakerState::HalfOpen, BreakerState::Closed) => self.reached("half-open probe succeeded"),
            _ => {}
        }
        let truth = &mut self.truths[host];
        truth.breaker = Breaker { state: to, retry_at };
        if to == BreakerState::Closed {
            truth.failures = 0;
        }
    }

    fn dead_lettered(&mut self, host: usize, reason: DeadLetterReason) {
        let threshold = self.settings.dead_letter.after_transient_failures;
        let truth = &self.truths[host];
        let (failures, class) = (truth.failures, truth.last_class);
        let earned = match reason {
            DeadLetterReason::PermanentFailure => class == Some(FailureClass::Permanent),
            DeadLetterReason::MaxRetryAttempts => class == Some(FailureClass::Transient) && failures >= threshold,
        };
        if !earned || truth.dead.is_some() {
            self.accuse(Rule::DeadLetterEarned, || format!("{reason:?} after {failures} in a row, the last {class:?}"));
        }
        self.reached(match reason {
            DeadLetterReason::MaxRetryAttempts => "dead letter by retries",
            DeadLetterReason::PermanentFailure => "dead letter by a permanent failure",
        });
        let now = self.now;
        let truth = &mut self.truths[host];
        (truth.dead, truth.dead_since) = (Some(reason), now);
    }

    /// Holds the whole health answer against the truth.
    pub(crate) fn compare_health(&mut self, engine: &Engine, now: Timestamp) {
        self.now = now;
        let health = engine.health(now);
        let present = self.truths.iter().filter(|truth| truth.present).count();
        if present != health.instances.len() {
            self.accuse(Rule::TrueHealth, || format!("{} instances, truly {present}", health.instances.len()));
        }
        for instance in &health.instances {
            let Some(host) = self.by_key.get(&instance.key).copied() else { continue };
            if let Some(difference) = self.truths[host].difference(instance) {
                self.accuse(Rule::TrueHealth, || format!("{}: {difference}", instance.key));
            }
        }
    }
}

impl Truth {
    fn forget_failures(&mut self) {
        self.failures = 0;
        self.last_class = None;
        self.dead = None;
        self.breaker = Breaker::default();
    }

    fn difference(&self, health: &InstanceHealth) -> Option<String> {
        let dead = health.dead_letter.map(|entry| entry.reason);
        let breaker = health.breaker.map_or(BreakerState::Closed, |breaker| breaker.state);
        if health.consecutive_failures != self.failures {
            return Some(format!("{} failures in a row, truly {}", health.consecutive_failures, self.failures));
        }
        if health.last_success != self.last_success {
            return Some(format!("last success {:?}, truly {:?}", health.last_success, self.last_success));
        }
        if dead != self.dead {
            return Some(format!("dead-lettered {dead:?}, truly {:?}", self.dead));
        }
        (breaker != self.breaker.state).then(|| format!("breaker {breaker:?}, truly {:?}", self.breaker.state))
    }

    /// Whether it has failed `count` times in a row or more, the last time since `since`.
    pub(crate) fn fails_in_a_row(&self, count: u32, since: Timestamp) -> bool {
        self.failures >= count && self.last_failure.is_some_and(|at| at >= since)
    }
}
