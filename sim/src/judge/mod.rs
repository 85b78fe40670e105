//! The judge: knows the truth about each host, hears every effect of the engine, and holds it to the rules.
//!
//! It mirrors what the engine must believe from outside alone: from what hosts answered and what operators did. What
//! a poll comes to is judged here; the rest in `planning` (when next), `rhythm` (when next, of healthy ones), `asked`
//! (what was asked for), `fleet` (all of them together) and `demand` (whether their slots are enough).

mod asked;
mod demand;
mod fleet;
mod planning;
mod rhythm;
mod truth;

use std::collections::{BTreeMap, BTreeSet};

use pulse::engine::{
    BreakerState, ChangeHash, DeadLetterReason, Effect, Event, FailureClass, FailureKind, FleetEvent, InstanceEvent,
    InstanceKey, InstanceSpec, Millis, Outcome, PollOrder, Settings, Ticket, Timestamp, Totals, What,
};

use crate::violation::{Rule, Violation};
use asked::Request;
use fleet::Load;
use planning::Drawn;
use rhythm::Rhythm;
pub(crate) use truth::Truth;
use truth::{Breaker, Flight, Step};

/// Violations kept of one run; the rest would only repeat them.
const MAX_VIOLATIONS: usize = 10;

/// Rare states that a farm of runs should have reached.
pub const SOMETIMES: [&str; 25] = [
    "breaker opened",
    "half-open probe failed",
    "half-open probe succeeded",
    "late or doubled answer dropped",
    "dead letter by retries",
    "dead letter by a permanent failure",
    "recheck failed",
    "dead letter revived",
    "Retry-After above the own delay",
    "Retry-After cut to the longest backoff",
    "quiet instance polled later",
    "neighbour of a failure polled sooner",
    "changing instance polled sooner",
    "load stretched the fleet",
    "load let go of the fleet",
    "poll called off",
    "poll given up after its timeout",
    "herd of first polls spread",
    "herd of rechecks spread",
    "every slot in use",
    "machine at its cap",
    "command refused",
    "settings moved somebody's plan",
    "slots were too few for long",
    "edit took back a pause",
];

/// What a host answered in the step that the engine is taking.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    ticket: Ticket,
    answer: Result<ChangeHash, FailureKind>,
    asked: Option<Millis>,
}

/// Holds the engine to the rules.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) truths: Vec<Truth>,
    by_key: BTreeMap<InstanceKey, usize>,
    /// Which host has which number in the engine.
    by_id: Vec<Option<usize>>,
    /// The last poll of each number.
    last_tickets: Vec<Option<Ticket>>,
    settings: Settings,
    in_flight: u32,
    /// Polls under way on each machine that carries several hosts.
    machines: Vec<u32>,
    /// Who waits, and until when.
    waiting: BTreeSet<(Timestamp, usize)>,
    /// Who was never polled and waits.
    unknown: BTreeSet<(Timestamp, usize)>,
    /// When polls under way are given up.
    deadlines: BTreeSet<(Timestamp, usize)>,
    totals: Totals,
    load: Load,
    /// Intervals near the shortest and the longest.
    bounds: [Drawn; 2],
    delivered: Option<Delivered>,
    /// What the engine was asked for in this step.
    request: Request,
    /// Polls that were ordered to be dropped in this step.
    dropped: Vec<Ticket>,
    /// Who was heard of in this step.
    touched: Vec<usize>,
    now: Timestamp,
    warm_up: Timestamp,
    keep_ages: bool,
    pub(crate) violations: Vec<Violation>,
    pub(crate) sometimes: [u64; SOMETIMES.len()],
}

impl Judge {
    pub(crate) fn new(specs: &[InstanceSpec], settings: Settings, warm_up: Timestamp, keep_ages: bool) -> Self {
        let mut tenants: BTreeMap<&str, u32> = BTreeMap::new();
        for spec in specs.iter().filter(|spec| !spec.host.is_empty()) {
            *tenants.entry(&spec.host).or_default() += 1;
        }
        // Whoever has a machine for itself need not mind the others.
        let shared = tenants.iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name);
        let numbers: BTreeMap<&str, usize> = shared.zip(0..).collect();
        let machines = specs.iter().map(|spec| numbers.get(&*spec.host).copied());
        Self {
            truths: specs.iter().zip(machines).map(|(spec, machine)| Truth::new(spec.clone(), machine)).collect(),
            by_key: specs.iter().map(|spec| spec.key.clone()).zip(0..).collect(),
            by_id: Vec::new(),
            last_tickets: Vec::new(),
            load: Load::new(),
            bounds: [Drawn::default(); 2],
            settings,
            in_flight: 0,
            machines: vec![0; numbers.len()],
            waiting: BTreeSet::new(),
            unknown: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            totals: Totals::default(),
            delivered: None,
            request: Request::Nothing,
            dropped: Vec::new(),
            touched: Vec::new(),
            now: Timestamp::ZERO,
            warm_up,
            keep_ages,
            violations: Vec::new(),
            sometimes: [0; SOMETIMES.len()],
        }
    }

    /// The number of the host with this key.
    pub(crate) fn host(&self, key: &InstanceKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// The daemon was killed: everything but what truly happened is forgotten.
    pub(crate) fn restarted(&mut self, settings: Settings, now: Timestamp) {
        self.by_id.clear();
        self.last_tickets.clear();
        self.in_flight = 0;
        self.machines.fill(0);
        self.waiting.clear();
        self.unknown.clear();
        self.deadlines.clear();
        self.totals = Totals::default();
        self.load = Load::new();
        self.load.demand.begin(now);
        self.settings = settings;
        for truth in &mut self.truths {
            truth.forget_all(now);
        }
    }

    /// A host's answer is about to be handed to the engine.
    pub(crate) fn delivering(&mut self, ticket: Ticket, outcome: &Outcome) {
        let (answer, asked) = match outcome {
            Outcome::Success { reading } => (Ok(*reading), None),
            Outcome::Failure(failure) => (Err(failure.kind), failure.retry_after),
        };
        self.delivered = Some(Delivered { ticket, answer, asked });
    }

    /// The engine has taken a step; says who was heard of in it.
    pub(crate) fn stepped(&mut self, now: Timestamp) -> Vec<usize> {
        self.now = now;
        if let Some(Delivered { ticket, .. }) = self.delivered.take()
            && self
                .host_of(ticket)
                .is_some_and(|host| self.truths[host].in_flight.is_some_and(|it| it.ticket == ticket))
        {
            self.accuse(Rule::TrueOutcome, || format!("the answer to {ticket:?} was not taken"));
        }
        if let Some(ticket) = self.dropped.pop() {
            self.dropped.clear();
            self.accuse(Rule::TrueOutcome, || format!("{ticket:?} was dropped, and nothing says why"));
        }
        self.judge_request();
        self.judge_herd();
        self.judge_load();
        let touched = std::mem::take(&mut self.touched);
        for host in &touched {
            self.judge_settled(*host);
            self.judge_neighbours(*host);
        }
        for host in &touched {
            self.truths[*host].step = Step::default();
        }
        touched
    }

    pub(crate) fn accuse(&mut self, rule: Rule, detail: impl FnOnce() -> String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { rule, at: self.now, detail: detail() });
        }
    }

    fn accuse_host(&mut self, rule: Rule, host: usize, detail: impl FnOnce() -> String) {
        let key = self.truths[host].spec.key.clone();
        self.accuse(rule, || format!("{key}: {}", detail()));
    }

    fn reached(&mut self, state: &'static str) {
        if let Some(place) = SOMETIMES.iter().position(|known| *known == state) {
            self.sometimes[place] += 1;
        }
    }

    pub(crate) fn hear(&mut self, now: Timestamp, effect: &Effect) {
        self.now = now;
        match effect {
            Effect::Start(order) => self.ordered(order),
            Effect::Cancel(ticket) => self.dropped.push(*ticket),
            Effect::Event(Event { at, what }) => {
                if *at != now {
                    self.accuse(Rule::Progress, || format!("an event of {at:?} at {now:?}"));
                }
                match what {
                    What::Instance { instance, what } => {
                        let known = self.by_id.get(instance.index()).copied().flatten();
                        match (what, known) {
                            (InstanceEvent::Added { key }, _) => self.added(instance.index(), key),
                            (_, Some(host)) => self.hear_instance(instance.index(), host, what),
                            (_, None) => {
                                self.accuse(Rule::Verify, || format!("an event of unknown {instance:?}: {what:?}"));
                            }
                        }
                    }
                    What::Fleet(what) => self.hear_fleet(what),
                }
            }
        }
    }

    fn host_of(&self, ticket: Ticket) -> Option<usize> {
        self.by_id.get(ticket.instance().index()).copied().flatten()
    }

    fn added(&mut self, id: usize, key: &InstanceKey) {
        if self.by_id.len() <= id {
            self.by_id.resize(id + 1, None);
            self.last_tickets.resize(id + 1, None);
        }
        if let Some(holder) = self.by_id[id].filter(|holder| self.truths[*holder].present) {
            self.accuse_host(Rule::Verify, holder, || format!("{key} was given its number"));
        }
        self.by_id[id] = self.by_key.get(key).copied();
        let Some(host) = self.by_id[id] else {
            return self.accuse(Rule::Verify, || format!("{key} was added and is no host"));
        };
        self.touch(host);
        let now = self.now;
        let truth = &mut self.truths[host];
        truth.forget_all(now);
        truth.present = true;
        truth.paused = !truth.spec.enabled;
        (truth.step.added, truth.step.entered) = (true, true);
    }

    fn hear_fleet(&mut self, what: &FleetEvent) {
        match what {
            FleetEvent::CommandDone { result, .. } => self.command_done(result),
            FleetEvent::LoadChanged { stretch_permille } => self.load_changed(*stretch_permille),
            FleetEvent::UnknownTicket { ticket } => self.dropped_answer(*ticket),
            FleetEvent::InventoryApplied { added, removed, .. } => self.inventory_applied(*added, *removed),
            FleetEvent::SettingsApplied { replanned } => self.settings_applied(*replanned),
        }
    }

    /// Notes that the engine said something of `host` in this step.
    fn touch(&mut self, host: usize) {
        if !std::mem::replace(&mut self.truths[host].step.touched, true) {
            self.touched.push(host);
        }
    }

    fn hear_instance(&mut self, id: usize, host: usize, what: &InstanceEvent) {
        self.touch(host);
        let now = self.now;
        match what {
            InstanceEvent::PollStarted { ticket, lag } => self.poll_started(host, *ticket, *lag),
            InstanceEvent::PollSucceeded { ticket, took, changed } => {
                self.poll_succeeded(host, *ticket, *took, *changed);
            }
            InstanceEvent::PollFailed { ticket, took, failure, failures } => {
                self.poll_failed(host, *ticket, *took, failure.kind, *failures);
            }
            InstanceEvent::PollCancelled { ticket } => self.poll_cancelled(host, *ticket),
            InstanceEvent::StaleTicket { ticket } => self.dropped_answer(*ticket),
            InstanceEvent::Scheduled { due, interval, reason } => self.scheduled(host, *due, *interval, *reason),
            InstanceEvent::BreakerMoved { from, to, failures, retry_at } => {
                self.breaker_moved(host, *from, *to, *failures, *retry_at);
            }
            InstanceEvent::DeadLettered { reason, failures, .. } => self.dead_lettered(host, *reason, *failures),
            InstanceEvent::RecheckFailed { reason, retry_count, .. } => {
                self.recheck_failed(host, *reason, *retry_count);
            }
            InstanceEvent::Revived => {
                self.reached("dead letter revived");
                self.load.demand.begin(self.now);
                self.truths[host].dead = None;
            }
            InstanceEvent::Recovered { failures, down_for } => self.recovered(host, *failures, *down_for),
            InstanceEvent::Reconfigured => {
                self.stop_waiting(host);
                let truth = &mut self.truths[host];
                truth.forget_failures(now);
                (truth.polled, truth.reading, truth.rhythm) = (false, None, Rhythm::NEW);
                (truth.step.reconfigured, truth.step.entered) = (true, true);
            }
            InstanceEvent::Paused => {
                self.stop_waiting(host);
                self.truths[host].forget_failures(now);
                self.truths[host].paused = true;
            }
            InstanceEvent::Resumed => {
                let truth = &mut self.truths[host];
                (truth.paused, truth.known_since, truth.step.entered) = (false, now, true);
            }
            InstanceEvent::Removed { .. } => {
                self.stop_waiting(host);
                self.truths[host].present = false;
                self.by_id[id] = None;
            }
            InstanceEvent::Added { .. } => {}
        }
    }

    fn poll_started(&mut self, host: usize, ticket: Ticket, lag: Millis) {
        let (now, cap) = (self.now, self.settings.max_in_flight);
        let truth = &self.truths[host];
        let (due, flight, breaker, machine) = (truth.due, truth.in_flight, truth.breaker, truth.machine);
        if let Some(flight) = flight {
            self.accuse_host(Rule::SingleFlight, host, || format!("{ticket:?} started while {flight:?} is under way"));
        }
        if now < due {
            self.accuse_host(Rule::NotBeforeDue, host, || format!("{ticket:?} started {} early", due - now));
        }
        if breaker.state == BreakerState::Open {
            let detail = || format!("{ticket:?} passed a breaker that is open to {:?}", breaker.retry_at);
            self.accuse_host(Rule::Breaker, host, detail);
        }
        if !self.truths[host].waits() {
            let place = self.truths[host].place();
            self.accuse_host(Rule::SingleFlight, host, || format!("{ticket:?} started though it is {place:?}"));
        }
        if machine.is_none() && lag != now - due {
            self.accuse_host(Rule::TrueHealth, host, || format!("a lag of {lag}, truly {}", now - due));
        }
        self.judge_turn(host);
        self.started_late(lag);
        self.stop_waiting(host);
        self.truths[host].note_lag(lag);
        self.truths[host].step.started = true;
        self.truths[host].forgiven = false;
        self.totals.started += 1;
        self.in_flight += 1;
        let in_flight = self.in_flight;
        if in_flight > cap {
            self.accuse(Rule::Caps, || format!("{in_flight} polls at once where {cap} are allowed"));
        } else if in_flight == cap {
            self.reached("every slot in use");
        }
        if let Some(machine) = machine {
            self.machines[machine] += 1;
            let (polls, cap) = (self.machines[machine], self.settings.max_in_flight_per_host);
            if polls > cap {
                let detail = || format!("{polls} polls of its machine at once where {cap} are allowed");
                self.accuse_host(Rule::Caps, host, detail);
            } else if polls == cap {
                self.reached("machine at its cap");
            }
        }
    }

    fn ordered(&mut self, order: &PollOrder) {
        let Some(host) = self.host_of(order.ticket) else {
            return self.accuse(Rule::Verify, || format!("{order:?} is of no instance"));
        };
        let now = self.now;
        let id = order.ticket.instance().index();
        if self.last_tickets[id].is_some_and(|last| last >= order.ticket) {
            self.accuse_host(Rule::SingleFlight, host, || format!("{:?} is not new", order.ticket));
        }
        self.last_tickets[id] = Some(order.ticket);
        let timeout = self.truths[host].timeout(&self.settings);
        if order.timeout != timeout {
            self.accuse_host(Rule::Setting, host, || format!("a timeout of {}, and {timeout} is set", order.timeout));
        }
        let truth = &mut self.truths[host];
        truth.in_flight = Some(Flight { ticket: order.ticket, started: now, timeout });
        truth.last_start = Some(now);
        truth.step.ordered = true;
        self.deadlines.insert((now + timeout, host));
    }

    /// The poll of `host` is no longer under way.
    fn landed(&mut self, host: usize) -> Option<Flight> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(machine) = self.truths[host].machine {
            self.machines[machine] = self.machines[machine].saturating_sub(1);
        }
        let flight = self.truths[host].in_flight.take()?;
        self.deadlines.remove(&(flight.started + flight.timeout, host));
        Some(flight)
    }

    /// An answer was dropped: it must not be one that is waited for.
    fn dropped_answer(&mut self, ticket: Ticket) {
        self.reached("late or doubled answer dropped");
        self.totals.stale_tickets += 1;
        if self.host_of(ticket).is_some_and(|host| self.truths[host].in_flight.is_some_and(|it| it.ticket == ticket)) {
            self.accuse(Rule::TrueOutcome, || format!("the answer to {ticket:?} was dropped, and it is current"));
        }
    }

    fn poll_cancelled(&mut self, host: usize, ticket: Ticket) {
        self.reached("poll called off");
        self.totals.cancelled += 1;
        let flight = self.landed(host);
        let dropped = self.take_dropped(ticket);
        if !dropped || flight.is_none_or(|flight| flight.ticket != ticket) {
            self.accuse_host(Rule::TrueOutcome, host, || format!("{ticket:?} was called off; truly {flight:?}"));
        }
    }

    fn take_dropped(&mut self, ticket: Ticket) -> bool {
        let before = self.dropped.len();
        self.dropped.retain(|other| *other != ticket);
        self.dropped.len() < before
    }

    fn poll_succeeded(&mut self, host: usize, ticket: Ticket, took: Millis, changed: bool) {
        let flight = self.landed(host);
        let delivered = self.delivered.filter(|it| it.ticket == ticket);
        let reading = delivered.and_then(|it| it.answer.ok());
        let own = flight.filter(|flight| flight.ticket == ticket && self.now - flight.started == took);
        if reading.is_none() || own.is_none() {
            let detail = || format!("{ticket:?} counts as a success after {took}; truly {delivered:?} of {flight:?}");
            self.accuse_host(Rule::TrueOutcome, host, detail);
        }
        self.took(took);
        let (now, warm_up, keep_ages) = (self.now, self.warm_up, self.keep_ages);
        self.totals.succeeded += 1;
        let truth = &mut self.truths[host];
        let truly = truth.reading.is_some_and(|before| Some(before) != reading);
        truth.reading = reading;
        truth.successes += 1;
        if now >= warm_up {
            truth.successes_after_warm_up += 1;
            if let Some(before) = truth.last_success.filter(|_| keep_ages) {
                let gap = (now - before.max(warm_up)).get();
                truth.ages.push(u32::try_from(gap).unwrap_or(u32::MAX));
            }
        }
        truth.step.row_ended = truth.failures;
        truth.step.ended = truth.first_failure.take().map(|first| (truth.failures, first));
        (truth.last_success, truth.polled) = (Some(now), true);
        (truth.failures, truth.last_class, truth.last_error) = (0, None, None);
        (truth.step.succeeded, truth.step.changed) = (true, truly);
        if changed != truly {
            self.accuse_host(Rule::TrueOutcome, host, || format!("the reading changed: {changed}, truly {truly}"));
        }
    }

    fn recovered(&mut self, host: usize, failures: u32, down_for: Millis) {
        let now = self.now;
        let truth = &mut self.truths[host];
        truth.recoveries += 1;
        let ended = truth.step.ended.take();
        if ended.is_none_or(|(row, first)| row != failures || now - first != down_for) {
            let detail = || format!("recovered from {failures} failures in {down_for}; truly {ended:?}");
            self.accuse_host(Rule::FailureCount, host, detail);
        }
    }

    fn poll_failed(&mut self, host: usize, ticket: Ticket, took: Millis, kind: FailureKind, failures: u32) {
        let flight = self.landed(host);
        let delivered = self.delivered.filter(|it| it.ticket == ticket);
        let answered = delivered.is_some_and(|it| it.answer == Err(kind));
        let own = flight.filter(|flight| flight.ticket == ticket && self.now - flight.started == took);
        let over = own.is_some_and(|flight| self.now >= flight.started + flight.timeout);
        let given_up = kind == FailureKind::Timeout && over && self.take_dropped(ticket);
        if own.is_none() || !(answered || given_up) {
            let detail = || format!("{ticket:?} counts as {kind:?} after {took}; truly {delivered:?} of {flight:?}");
            self.accuse_host(Rule::TrueOutcome, host, detail);
        }
        if given_up {
            self.reached("poll given up after its timeout");
        }
        let now = self.now;
        self.totals.failed += 1;
        let truth = &mut self.truths[host];
        truth.failed += 1;
        truth.failures += 1;
        truth.polled = true;
        truth.last_class = Some(kind.class());
        truth.last_failure = Some(now);
        truth.last_error = Some((now, kind));
        truth.first_failure.get_or_insert(now);
        truth.asked = delivered.and_then(|it| it.asked);
        truth.step.failed = true;
        let counted = truth.failures;
        if failures != counted {
            let detail = || format!("{ticket:?} is failure {failures} in a row; truly {counted}");
            self.accuse_host(Rule::FailureCount, host, detail);
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
        let now = self.now;
        let threshold = self.settings.breaker.failure_threshold;
        let truth = &mut self.truths[host];
        let before = truth.breaker;
        let legal = before.state == from
            && !truth.is_availability_check()
            && retry_at.is_some() == (to == BreakerState::Open)
            && match (from, to) {
                (BreakerState::Closed, BreakerState::Open) => failures >= threshold && failures == truth.failures,
                (BreakerState::Open, BreakerState::HalfOpen) => now >= truth.due && failures == truth.failures,
                (BreakerState::HalfOpen, BreakerState::Open) => failures == truth.failures,
                (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => failures == 0,
                _ => false,
            };
        let trips = match to {
            BreakerState::Open => before.trips + 1,
            BreakerState::HalfOpen => before.trips,
            BreakerState::Closed => 0,
        };
        truth.step.tripped = to == BreakerState::Open;
        truth.breaker = Breaker { state: to, retry_at, since: now, last_transition: Some(now), trips };
        match (from, to) {
            (BreakerState::Closed, BreakerState::Open) => self.reached("breaker opened"),
            (BreakerState::HalfOpen, BreakerState::Open) => self.reached("half-open probe failed"),
            (BreakerState::HalfOpen, BreakerState::Closed) => self.reached("half-open probe succeeded"),
            _ => {}
        }
        if !legal {
            let detail = || format!("from {from:?} to {to:?} after {failures} failures; was {before:?}");
            self.accuse_host(Rule::Breaker, host, detail);
        }
    }

    fn dead_lettered(&mut self, host: usize, reason: DeadLetterReason, failures: u32) {
        let threshold = self.settings.dead_letter.after_transient_failures;
        let truth = &self.truths[host];
        let (counted, class) = (truth.failures, truth.last_class);
        let earned = match reason {
            DeadLetterReason::PermanentFailure => class == Some(FailureClass::Permanent),
            DeadLetterReason::MaxRetryAttempts => class == Some(FailureClass::Transient) && counted >= threshold,
        };
        if !earned || truth.dead.is_some() || failures != counted || truth.is_availability_check() {
            let detail = || format!("{reason:?} after {failures}, truly {counted} in a row, the last {class:?}");
            self.accuse_host(Rule::DeadLetterEarned, host, detail);
        }
        self.reached(match reason {
            DeadLetterReason::MaxRetryAttempts => "dead letter by retries",
            DeadLetterReason::PermanentFailure => "dead letter by a permanent failure",
        });
        let now = self.now;
        self.load.demand.begin(now);
        let truth = &mut self.truths[host];
        (truth.dead, truth.dead_since, truth.rechecks) = (Some(reason), now, 0);
        truth.first_attempt = truth.first_failure.unwrap_or(now);
    }

    fn recheck_failed(&mut self, host: usize, reason: DeadLetterReason, retry_count: u32) {
        self.reached("recheck failed");
        let truth = &mut self.truths[host];
        truth.rechecks += 1;
        let (before, rechecks) = (truth.dead, truth.rechecks);
        let truly = match truth.last_class {
            Some(FailureClass::Permanent) => Some(DeadLetterReason::PermanentFailure),
            _ => before,
        };
        truth.dead = Some(reason);
        if before.is_none() || truly != Some(reason) || retry_count != rechecks {
            let detail =
                || format!("recheck {retry_count} of {reason:?} failed; truly {rechecks} of {before:?}, now {truly:?}");
            self.accuse_host(Rule::DeadLetterEarned, host, detail);
        }
    }

    /// What must have come of everything that was heard of `host` in this step.
    fn judge_settled(&mut self, host: usize) {
        let settings = &self.settings;
        let truth = &self.truths[host];
        let step = truth.step;
        let has_breaker = !truth.is_availability_check();
        let opens = has_breaker && truth.failures >= settings.breaker.failure_threshold;
        let dies = has_breaker
            && (truth.last_class == Some(FailureClass::Permanent)
                || truth.failures >= settings.dead_letter.after_transient_failures);
        let open = truth.breaker.state == BreakerState::Open;
        let wrong = if step.started != step.ordered {
            Some((Rule::SingleFlight, "its poll was told or ordered, and not both"))
        } else if step.succeeded && (truth.breaker.state != BreakerState::Closed || truth.dead.is_some()) {
            Some((Rule::Breaker, "a success closes the breaker and ends the dead letter"))
        } else if step.ended.is_some_and(|(failures, _)| failures > 0) {
            Some((Rule::FailureCount, "a success ended a row of failures, and nothing says so"))
        } else if step.failed && opens && !open {
            Some((Rule::Breaker, "it failed often enough, and its breaker is not open"))
        } else if step.failed && dies && truth.dead.is_none() {
            Some((Rule::DeadLetterEarned, "it earned to be dead-lettered, and is not"))
        } else if truth.waits() && !step.scheduled && (step.succeeded || step.failed || step.entered) {
            Some((Rule::Liveness, "nobody says when it is polled next"))
        } else if step.tripped && truth.breaker.retry_at != Some(truth.due) {
            Some((Rule::Breaker, "it is not due when its breaker lets a probe pass"))
        } else {
            None
        };
        if let Some((rule, detail)) = wrong {
            self.accuse_host(rule, host, || format!("{detail}; {step:?}"));
        }
    }
}
