//! A poll ended: what is learnt from its outcome, and when the instance is polled next.
//!
//! This is the one place that records results (lesson 1): transports only return them.

use super::breaker::BreakerState;
use super::core::Engine;
use super::dead_letter::{DeadLetter, DeadLetterReason};
use super::effect::{Effects, FleetEvent, InstanceEvent, Ticket};
use super::instance::{ErrorRecord, Place};
use super::interval::{Choice, IntervalPolicy, IntervalReason, Observation};
use super::key::InstanceId;
use super::outcome::{ChangeHash, Failure, FailureClass, Outcome};
use super::score::Score;
use super::settings::Settings;
use super::time::{Millis, Timestamp};

/// Jitter of intervals: ± one twentieth.
const INTERVAL_JITTER: u64 = 20;
/// Jitter of backoff: ± one fifth.
const BACKOFF_JITTER: u64 = 5;

impl Engine {
    pub(super) fn finished(&mut self, ticket: Ticket, outcome: Outcome, effects: &mut Effects) {
        let id = ticket.instance.0;
        if self.is_current(ticket) {
            return self.settle(id, outcome, effects);
        }
        self.totals.stale_tickets += 1;
        match self.instance(id) {
            Some(_) => effects.instance_event(self.now, ticket.instance, InstanceEvent::StaleTicket { ticket }),
            None => effects.fleet_event(self.now, FleetEvent::UnknownTicket { ticket }),
        }
    }

    /// Ends the poll of `id` that is under way with `outcome`, and plans the next one in place of its deadline.
    pub(super) fn settle(&mut self, id: u32, outcome: Outcome, effects: &mut Effects) {
        self.release_slot(id);
        self.instance_mut(id).polled = true;
        match outcome {
            Outcome::Success { reading } => self.succeeded(id, reading, effects),
            Outcome::Failure(failure) => self.failed(id, failure, effects),
        }
    }

    fn succeeded(&mut self, id: u32, reading: ChangeHash, effects: &mut Effects) {
        let now = self.now;
        self.totals.succeeded += 1;
        let Self { instances, census, load, settings, policy, .. } = self;
        let Some(instance) = instances[id as usize].as_mut() else { return };
        let ticket = instance.ticket(id);
        let changed = instance.reading.replace(reading).is_some_and(|before| before != reading);
        let failures = instance.breaker.failures();
        // Where everybody is late, polling sooner would only add to the load.
        let stretched = load.stretch() > 1.0;
        let seen = Observation {
            changed,
            late: (instance.started_late && !stretched) || failures > 0,
            staleness: instance.staleness(now, settings.max_interval),
            failures,
            queue_depth: census.queued_total,
        };
        instance.last_success = Some(now);
        let trouble = instance.take_trouble();
        let moved = instance.breaker.succeeded(now);
        let took = now.since(instance.started);
        effects.tell(now, ticket.instance, || InstanceEvent::PollSucceeded { ticket, took, changed });
        if let Some(moved) = moved {
            let (from, to) = (moved.from, moved.to);
            let what = InstanceEvent::BreakerMoved { from, to, failures: 0, retry_at: None };
            effects.instance_event(now, ticket.instance, what);
        }
        if let Some(trouble) = trouble {
            if trouble.dead_letter.is_some() {
                effects.instance_event(now, ticket.instance, InstanceEvent::Revived);
            }
            if let Some(first) = trouble.first_failure {
                let down_for = now.since(first);
                effects.instance_event(now, ticket.instance, InstanceEvent::Recovered { failures, down_for });
            }
        }
        census.put(instance, Place::Queued);
        let choice = instance.choose_interval(settings, policy.as_ref(), &seen);
        load.succeeded(took, choice.interval);
        self.plan_from_start(id, choice, effects);
    }

    /// Plans the next poll one interval after the start of the last one, with load, bounds and jitter.
    ///
    /// Anchored on what happened, so planning twice changes nothing (lesson 8).
    #[inline]
    fn plan_from_start(&mut self, id: u32, choice: Choice, effects: &mut Effects) {
        let interval = self.draw_interval(id, choice);
        let started = self.instance_mut(id).started;
        // However long a poll takes, the host has a rest before the next.
        let rest = Millis::new(self.settings.min_interval.min(interval).get() / 2);
        let due = (started + interval).max(self.now + rest);
        self.plan(id, due, interval, choice.reason, effects);
    }

    /// Draws the interval to the next poll and keeps it as the planned one.
    #[inline]
    pub(super) fn draw_interval(&mut self, id: u32, choice: Choice) -> Millis {
        let interval = self.spread(id, choice);
        self.instance_mut(id).planned = interval;
        interval
    }

    fn spread(&mut self, id: u32, choice: Choice) -> Millis {
        let settings = &self.settings;
        // A fixed interval is the operator's word: the bounds are for the others.
        let fixed = choice.reason == IntervalReason::Fixed;
        let (min, max) = match fixed {
            true => (choice.interval, choice.interval.max(settings.max_interval)),
            false => (settings.min_interval, settings.max_interval),
        };
        let stretch = self.load.stretch();
        let interval = choice.interval.scaled(stretch).clamp(min, max);
        let margin = Millis::new(interval.get() / INTERVAL_JITTER);
        let low = interval.saturating_sub(margin).min(choice.earliest.scaled(stretch));
        let (low, high) = match fixed {
            true => (low, interval + margin),
            false => (low.max(min), (interval + margin).min(max)),
        };
        self.draw_between(id, low, high)
    }

    fn failed(&mut self, id: u32, failure: Failure, effects: &mut Effects) {
        let now = self.now;
        self.totals.failed += 1;
        let instance = self.instance_mut(id);
        let ticket = instance.ticket(id);
        let took = now.since(instance.started);
        let availability = instance.is_availability_check();
        let trouble = instance.trouble_mut();
        trouble.first_failure.get_or_insert(now);
        trouble.last_error = Some(ErrorRecord { at: now, kind: failure.kind, message: failure.message.clone() });
        let (kind, class, retry_after) = (failure.kind, failure.kind.class(), failure.retry_after);
        let breaker_settings = self.settings.breaker;
        let instance = self.instance_mut(id);
        let moved = match availability {
            true => instance.breaker.count_failure(),
            false => instance.breaker.failed(now, &breaker_settings),
        };
        let failures = instance.breaker.failures();
        effects.instance_event(now, ticket.instance, InstanceEvent::PollFailed { ticket, took, failure, failures });
        if failures == 1 {
            self.doubt_neighbours(id, kind, effects);
        }
        let (due, delay, reason) = if availability {
            self.set_place(id, Place::Queued);
            let interval = self.instance(id).and_then(|instance| instance.fixed_interval(&self.settings));
            let interval = interval.unwrap_or(self.settings.base_interval);
            return self.plan_from_start(id, Choice::exactly(interval, IntervalReason::Fixed), effects);
        } else if self.is_dead_letter_after(id, class, failures) {
            self.dead_letter(id, class, self.asked_for(retry_after), effects)
        } else {
            self.set_place(id, Place::Queued);
            self.back_off(id, retry_after)
        };
        if let Some(moved) = moved {
            let retry_at = (moved.to == BreakerState::Open).then_some(due);
            let what = InstanceEvent::BreakerMoved { from: moved.from, to: moved.to, failures, retry_at };
            effects.instance_event(now, ticket.instance, what);
        }
        self.plan(id, due, delay, reason, effects);
    }

    fn is_dead_letter_after(&self, id: u32, class: FailureClass, failures: u32) -> bool {
        class == FailureClass::Permanent
            || failures >= self.settings.dead_letter.after_transient_failures
            || self.instance(id).is_some_and(|instance| instance.dead_letter().is_some())
    }

    /// Enters `id` into the dead-letter queue, or keeps it there after a failed recheck.
    fn dead_letter(
        &mut self,
        id: u32,
        class: FailureClass,
        asked: Millis,
        effects: &mut Effects,
    ) -> (Timestamp, Millis, IntervalReason) {
        self.set_place(id, Place::DeadLettered);
        let now = self.now;
        let instance = self.instance_mut(id);
        let before = instance.dead_letter();
        let reason = match (class, before) {
            (FailureClass::Permanent, _) => DeadLetterReason::PermanentFailure,
            (FailureClass::Transient, Some(entry)) => entry.reason,
            (FailureClass::Transient, None) => DeadLetterReason::MaxRetryAttempts,
        };
        let retry_count = before.map_or(0, |entry| entry.retry_count.saturating_add(1));
        let first_attempt = before.map(|entry| entry.first_attempt).or(instance.first_failure()).unwrap_or(now);
        instance.trouble_mut().dead_letter = Some(DeadLetter { reason, first_attempt, last_attempt: now, retry_count });
        let failures = instance.breaker.failures();
        let rules = self.settings.dead_letter;
        let nominal = match reason {
            DeadLetterReason::PermanentFailure => rules.permanent_recheck,
            DeadLetterReason::MaxRetryAttempts => {
                rules.transient_recheck_initial.doubled(retry_count).min(rules.transient_recheck_max)
            }
        };
        let margin = Millis::new(nominal.get() / INTERVAL_JITTER);
        let delay = self.draw_between(id, nominal.saturating_sub(margin), nominal).max(asked);
        let next_retry = self.now + delay;
        let what = match before {
            None => InstanceEvent::DeadLettered { reason, next_retry, failures },
            Some(_) => InstanceEvent::RecheckFailed { reason, next_retry, retry_count },
        };
        effects.instance_event(self.now, InstanceId(id), what);
        (next_retry, delay, IntervalReason::Recheck)
    }

    /// When a live instance that failed is tried again: when its breaker lets it, or else after its backoff.
    fn back_off(&mut self, id: u32, retry_after: Option<Millis>) -> (Timestamp, Millis, IntervalReason) {
        let settings = &self.settings;
        let breaker_settings = settings.breaker;
        let breaker = &self.instance_mut(id).breaker;
        let open = breaker.state() == BreakerState::Open;
        let (own, reason) = if open {
            (breaker.open_delay(&breaker_settings), IntervalReason::BreakerOpen)
        } else {
            (self.backoff_delay(id), IntervalReason::Backoff)
        };
        let asked = self.asked_for(retry_after);
        let (delay, reason) = if asked > own { (asked, IntervalReason::RetryAfter) } else { (own, reason) };
        (self.now + delay, delay, reason)
    }

    /// What a host may ask for: `Retry-After`, up to the longest backoff.
    fn asked_for(&self, retry_after: Option<Millis>) -> Millis {
        retry_after.unwrap_or(Millis::ZERO).min(self.settings.backoff.max)
    }

    fn backoff_delay(&mut self, id: u32) -> Millis {
        let backoff = self.settings.backoff;
        let doublings = self.instance_mut(id).breaker.failures().saturating_sub(1);
        let nominal = backoff.initial.doubled(doublings).min(backoff.max);
        let margin = Millis::new(nominal.get() / BACKOFF_JITTER);
        self.draw_between(id, nominal.saturating_sub(margin), (nominal + margin).min(backoff.max))
    }

    /// Puts `id` on the wheel for `due` and tells so.
    #[inline]
    pub(super) fn plan(
        &mut self,
        id: u32,
        due: Timestamp,
        interval: Millis,
        reason: IntervalReason,
        effects: &mut Effects,
    ) {
        self.agenda.schedule(id, due);
        effects.tell(self.now, InstanceId(id), || InstanceEvent::Scheduled { due, interval, reason });
    }

    /// A span between both ends, from the instance's own stream.
    #[inline]
    pub(super) fn draw_between(&mut self, id: u32, low: Millis, high: Millis) -> Millis {
        match self.instances[id as usize].as_mut() {
            Some(instance) => instance.jitter.between(&self.jitter, low, high),
            None => low,
        }
    }
}

impl super::instance::Instance {
    fn choose_interval(&mut self, settings: &Settings, policy: &dyn IntervalPolicy, seen: &Observation) -> Choice {
        match self.fixed_interval(settings) {
            Some(interval) => Choice::exactly(interval, IntervalReason::Fixed),
            None if settings.adaptive => policy.choose(settings, seen, &mut self.memory),
            None => Choice::exactly(settings.base_interval, IntervalReason::Base),
        }
    }

    /// The age of the last success against the maximum interval; 1 if there was none.
    pub(super) fn staleness(&self, now: Timestamp, max_interval: Millis) -> Score {
        self.last_success.map_or(Score::ONE, |at| Score::of(now.since(at), max_interval))
    }
}
