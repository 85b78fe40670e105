//! What is true of one host: what it answered, and what follows from that by the rules of the contract.

use pulse::engine::{
    BreakerState, ChangeHash, DeadLetterReason, FailureClass, FailureKind, InstanceHealth, InstanceSpec, Millis, Place,
    Settings, Ticket, Timestamp,
};

use super::rhythm::Rhythm;

/// What is known of one host.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(super) spec: InstanceSpec,
    /// Which machine carries it together with others.
    pub(super) machine: Option<usize>,
    pub(crate) present: bool,
    pub(crate) paused: bool,
    pub(super) in_flight: Option<Flight>,
    pub(super) last_start: Option<Timestamp>,
    /// Whether a poll has ended since it was added or edited.
    pub(super) polled: bool,
    pub(super) breaker: Breaker,
    /// An operator had its failures forgotten while it waited among those that fail.
    pub(super) forgiven: bool,
    /// Its revision was raised in the inventory that the engine is about to be handed.
    pub(super) edited: bool,
    pub(super) due: Timestamp,
    /// Since when it is known, or polled again after a pause.
    pub(super) known_since: Timestamp,
    /// The interval planned after the last success, where it was told.
    pub(super) planned: Option<Millis>,
    /// What the policy has read of it.
    pub(super) rhythm: Rhythm,
    /// Whether the poll under way began late by more than half of its interval, where that is known.
    pub(super) came_late: Option<bool>,
    pub(crate) failures: u32,
    pub(super) first_failure: Option<Timestamp>,
    pub(super) last_failure: Option<Timestamp>,
    pub(super) last_error: Option<(Timestamp, FailureKind)>,
    pub(super) last_class: Option<FailureClass>,
    /// What the last failure asked for by `Retry-After`.
    pub(super) asked: Option<Millis>,
    pub(crate) dead: Option<DeadLetterReason>,
    pub(crate) dead_since: Timestamp,
    /// The first of the failures that led to the dead letter.
    pub(super) first_attempt: Timestamp,
    /// Rechecks that failed.
    pub(super) rechecks: u32,
    pub(super) reading: Option<ChangeHash>,
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) successes: u64,
    pub(crate) successes_after_warm_up: u64,
    pub(crate) failed: u64,
    pub(crate) recoveries: u64,
    pub(crate) ages: Vec<u32>,
    /// What the engine said of it in the step that it is taking.
    pub(super) step: Step,
}

/// A poll under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) ticket: Ticket,
    pub(super) started: Timestamp,
    pub(super) timeout: Millis,
}

/// The breaker as its moves were told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker {
    pub(super) state: BreakerState,
    pub(super) retry_at: Option<Timestamp>,
    pub(super) since: Timestamp,
    pub(super) last_transition: Option<Timestamp>,
    /// How often in a row it opened.
    pub(super) trips: u32,
}

/// What was heard of a host in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) touched: bool,
    pub(super) started: bool,
    pub(super) ordered: bool,
    pub(super) succeeded: bool,
    pub(super) changed: bool,
    pub(super) failed: bool,
    pub(super) scheduled: bool,
    pub(super) tripped: bool,
    /// Failures in a row, and the first of them, that the success of this step ended.
    pub(super) ended: Option<(u32, Timestamp)>,
    /// Failures in a row before the success of this step.
    pub(super) row_ended: u32,
    pub(super) added: bool,
    pub(super) reconfigured: bool,
    /// It was added, edited or resumed, and begins afresh.
    pub(super) entered: bool,
}

impl Breaker {
    fn new(now: Timestamp) -> Self {
        Self { state: BreakerState::Closed, retry_at: None, since: now, last_transition: None, trips: 0 }
    }
}

impl Truth {
    pub(super) fn new(spec: InstanceSpec, machine: Option<usize>) -> Self {
        Self {
            spec,
            machine,
            present: false,
            paused: false,
            in_flight: None,
            last_start: None,
            polled: false,
            breaker: Breaker::new(Timestamp::ZERO),
            forgiven: false,
            edited: false,
            due: Timestamp::ZERO,
            known_since: Timestamp::ZERO,
            planned: None,
            rhythm: Rhythm::NEW,
            came_late: None,
            failures: 0,
            first_failure: None,
            last_failure: None,
            last_error: None,
            last_class: None,
            asked: None,
            dead: None,
            dead_since: Timestamp::ZERO,
            first_attempt: Timestamp::ZERO,
            rechecks: 0,
            reading: None,
            last_success: None,
            successes: 0,
            successes_after_warm_up: 0,
            failed: 0,
            recoveries: 0,
            ages: Vec::new(),
            step: Step::default(),
        }
    }

    pub(super) fn forget_failures(&mut self, now: Timestamp) {
        self.failures = 0;
        self.first_failure = None;
        self.last_error = None;
        self.last_class = None;
        self.asked = None;
        self.dead = None;
        self.rechecks = 0;
        self.breaker = Breaker::new(now);
    }

    /// The daemon knows nothing of it any more, or not yet.
    pub(super) fn forget_all(&mut self, now: Timestamp) {
        self.forget_failures(now);
        (self.present, self.paused, self.polled, self.in_flight) = (false, false, false, None);
        (self.planned, self.reading, self.last_success, self.last_start) = (None, None, None, None);
        (self.rhythm, self.known_since) = (Rhythm::NEW, now);
    }

    pub(super) fn is_availability_check(&self) -> bool {
        self.spec.key.kind().is_availability_check()
    }

    /// The interval that an operator fixed for it or for its type.
    pub(super) fn fixed_interval(&self, settings: &Settings) -> Option<Millis> {
        self.spec.interval.or(settings.types[self.spec.key.kind()].interval)
    }

    pub(super) fn timeout(&self, settings: &Settings) -> Millis {
        self.spec.timeout.unwrap_or(settings.types[self.spec.key.kind()].timeout)
    }

    pub(super) fn place(&self) -> Place {
        match (self.paused, self.in_flight, self.dead) {
            (true, _, _) => Place::Paused,
            (_, Some(_), _) => Place::InFlight,
            (_, _, Some(_)) => Place::DeadLettered,
            _ => Place::Queued,
        }
    }

    /// Whether it waits for its time or for a slot.
    pub(super) fn waits(&self) -> bool {
        self.present && !self.paused && self.in_flight.is_none()
    }

    /// Whether its last poll succeeded.
    pub(super) fn is_known_healthy(&self) -> bool {
        self.polled && self.failures == 0 && self.dead.is_none()
    }

    /// Whether it has failed `count` times in a row or more, the last time since `since`.
    pub(crate) fn fails_in_a_row(&self, count: u32, since: Timestamp) -> bool {
        self.failures >= count && self.last_failure.is_some_and(|at| at >= since)
    }

    /// What is wrong about the health answer for it, if anything is.
    pub(super) fn difference(&self, health: &InstanceHealth, settings: &Settings, now: Timestamp) -> Option<String> {
        fn differs<T: PartialEq + std::fmt::Debug>(what: &str, said: T, truly: T) -> Option<String> {
            (said != truly).then(|| format!("{what} {said:?}, truly {truly:?}"))
        }
        let place = self.place();
        let waits = matches!(place, Place::Queued | Place::DeadLettered);
        // One that waits for its machine counts as due when the machine let it through.
        let due = if self.machine.is_some() { health.due } else { waits.then_some(self.due) };
        let last_error = health.last_error.as_ref().map(|error| (error.at, error.kind));
        differs("place", health.place, place)
            .or_else(|| differs("due", health.due, due))
            .or_else(|| differs("due at all", health.due.is_some(), waits))
            .or_else(|| differs("failures in a row", health.consecutive_failures, self.failures))
            .or_else(|| differs("first failure", health.first_failure, self.first_failure))
            .or_else(|| differs("last error", last_error, self.last_error))
            .or_else(|| differs("last success", health.last_success, self.last_success))
            .or_else(|| self.breaker_difference(health))
            .or_else(|| self.dead_letter_difference(health))
            .or_else(|| self.freshness_difference(health, settings, now))
    }

    fn breaker_difference(&self, health: &InstanceHealth) -> Option<String> {
        let said = health.breaker.map(|it| (it.state, it.since, it.last_transition, it.failures, it.retry_at));
        let Breaker { state, since, last_transition, .. } = self.breaker;
        let retry_at = health.due.filter(|_| state == BreakerState::Open);
        let truly = (!self.is_availability_check()).then_some((state, since, last_transition, self.failures, retry_at));
        (said != truly).then(|| format!("breaker {said:?}, truly {truly:?}"))
    }

    fn dead_letter_difference(&self, health: &InstanceHealth) -> Option<String> {
        let said =
            health.dead_letter.map(|it| (it.reason, it.first_attempt, it.last_attempt, it.retry_count, it.next_retry));
        let last_attempt = self.last_failure.unwrap_or_default();
        let truly = self.dead.map(|reason| (reason, self.first_attempt, last_attempt, self.rechecks, health.due));
        (said != truly).then(|| format!("dead letter {said:?}, truly {truly:?}"))
    }

    /// Age, staleness and lateness, which change while nothing happens. Late is relative to the plan.
    fn freshness_difference(&self, health: &InstanceHealth, settings: &Settings, now: Timestamp) -> Option<String> {
        let first = self.fixed_interval(settings).unwrap_or(settings.base_interval);
        let planned = self.planned.unwrap_or(if self.last_start.is_some() { health.interval } else { first });
        let age = now - self.last_success.unwrap_or(self.known_since);
        let overdue = now - self.last_success.unwrap_or_default().max(self.known_since);
        let late = !self.paused && overdue > planned + planned + self.timeout(settings);
        if (health.interval, health.age, health.late) != (planned, age, late) {
            let said = format!("planned {}, age {}, late {}", health.interval, health.age, health.late);
            return Some(format!("{said}; truly planned {planned}, age {age}, late {late}"));
        }
        let share = |at| (now - at).as_secs_f64() / settings.max_interval.as_secs_f64();
        let staleness = self.last_success.map_or(1.0, share).min(1.0);
        let off = (health.staleness.get() - staleness).abs();
        (off > 1e-9).then(|| format!("staleness {}, truly {staleness}", health.staleness.get()))
    }
}
