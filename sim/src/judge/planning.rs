//! When a host is polled next: every interval and delay is what the contract says, from what happened.

use pulse::engine::{BreakerState, DeadLetterReason, IntervalReason, Millis, Timestamp};

use super::Judge;
use super::asked::Request;
use super::rhythm::Rhythm;
use crate::violation::Rule;

/// Intervals are drawn from ± one twentieth, backoff from ± one fifth.
pub(super) const INTERVAL_JITTER: f64 = 0.05;
const BACKOFF_JITTER: f64 = 0.2;
/// Milliseconds that rounding may add or take.
const ROUNDING: u64 = 2;

/// So many intervals that are a bound itself are no chance.
const MEETING: u32 = 20;

/// How many intervals were drawn next to a bound, and how many are the bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drawn {
    near: u32,
    at: u32,
}

/// The spans that are allowed, both ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) low: Millis,
    pub(super) high: Millis,
}

impl Allowed {
    pub(super) const fn upto(high: Millis) -> Self {
        Self { low: Millis::ZERO, high }
    }

    pub(super) const fn exactly(span: Millis) -> Self {
        Self { low: span, high: span }
    }

    /// From `below` of `low` less to `above` of `high` more.
    pub(super) fn around(low: Millis, below: f64, high: Millis, above: f64) -> Self {
        let slack = Millis::new(ROUNDING);
        Self { low: low.scaled(1.0 - below).saturating_sub(slack), high: high.scaled(1.0 + above) + slack }
    }

    pub(super) fn within(self, low: Millis, high: Millis) -> Self {
        Self { low: self.low.max(low), high: self.high.min(high) }
    }

    fn contains(self, span: Millis) -> bool {
        (self.low..=self.high).contains(&span)
    }
}

impl Judge {
    pub(super) fn scheduled(&mut self, host: usize, due: Timestamp, interval: Millis, reason: IntervalReason) {
        let now = self.now;
        let last_start = self.truths[host].last_start.unwrap_or_default();
        let ended = self.truths[host].step.succeeded || self.truths[host].step.failed;
        // Who is overdue by an edit waits for a moment of its own, whatever its interval is now.
        let overdue = !ended && last_start + interval != due;
        let allowed = self.allowed(host, reason, overdue);
        if !allowed.is_some_and(|allowed| allowed.contains(interval)) {
            let detail = || format!("{reason:?} gives {interval}; allowed {allowed:?}");
            self.accuse_host(Rule::IntervalBounds, host, detail);
        }
        let healthy = is_healthy(reason) || (reason == IntervalReason::Fixed && ended);
        let replanned = matches!(reason, IntervalReason::Replanned | IntervalReason::Fixed) && !ended;
        let anchored = if healthy {
            // A poll that took longer than the interval is followed by a rest.
            let rest = interval.min(self.settings.min_interval);
            (last_start + interval..=(last_start + interval).max(now + rest)).contains(&due)
        } else if reason == IntervalReason::NeighbourFailed {
            let soonest = (now + Millis::new(1)).max(last_start + self.settings.min_interval);
            due == soonest && due < self.truths[host].due
        } else {
            due == now + interval || (replanned && due == last_start + interval)
        };
        if !anchored || due < now {
            let detail = || format!("{reason:?} plans {due:?} at {now:?}, {interval} after {last_start:?}");
            self.accuse_host(Rule::Anchored, host, detail);
        }
        if is_healthy(reason) {
            self.judge_bounds(host, interval);
        }
        if self.truths[host].step.succeeded {
            self.wanted(host, reason);
        }
        match reason {
            IntervalReason::RetryAfter => self.reached("Retry-After above the own delay"),
            IntervalReason::Quiet => self.reached("quiet instance polled later"),
            IntervalReason::Changing => self.reached("changing instance polled sooner"),
            IntervalReason::NeighbourFailed => self.reached("neighbour of a failure polled sooner"),
            _ => {}
        }
        self.stop_waiting(host);
        let truth = &mut self.truths[host];
        let is_well = truth.polled && (truth.failures == 0 || truth.is_availability_check());
        if replanned && is_well && truth.dead.is_none() {
            truth.rhythm = Rhythm::NEW;
        }
        if healthy || (replanned && is_well && !overdue) {
            truth.planned = Some(interval);
        } else if replanned && is_well {
            // Its interval is not told.
            truth.planned = None;
        }
        truth.due = due;
        truth.step.scheduled = true;
        self.waiting.insert((due, host));
        if !self.truths[host].polled {
            self.unknown.insert((due, host));
        }
        // Whoever is planned from its own last start keeps its distance to the others, large or small.
        let moves = reason == IntervalReason::Replanned && due != last_start + interval;
        if moves || matches!(reason, IntervalReason::First | IntervalReason::Operator) {
            self.load.herd.insert(host);
        }
    }

    /// Jitter lies inside the bounds. Were it cut off there, half of those that are polled as seldom as may be would meet.
    fn judge_bounds(&mut self, host: usize, interval: Millis) {
        let (min, max) = (self.settings.min_interval, self.settings.max_interval);
        if max < min.scaled(1.0 + 4.0 * INTERVAL_JITTER) {
            return;
        }
        let near = [interval <= min.scaled(1.0 + INTERVAL_JITTER), interval >= max.scaled(1.0 - INTERVAL_JITTER)];
        let at = [interval == min, interval == max];
        for side in 0..2 {
            let drawn = &mut self.bounds[side];
            drawn.near += u32::from(near[side]);
            drawn.at += u32::from(at[side]);
            let Drawn { near, at } = *drawn;
            if at >= MEETING && at * 4 > near {
                self.bounds[side] = Drawn::default();
                let detail = || format!("{at} of {near} intervals about it are the bound itself, as its {interval} is");
                self.accuse_host(Rule::Herd, host, detail);
            }
        }
    }

    pub(super) fn stop_waiting(&mut self, host: usize) {
        let due = self.truths[host].due;
        self.waiting.remove(&(due, host));
        self.unknown.remove(&(due, host));
    }

    /// The spans that the contract allows for `reason`; `None` if the reason itself is wrong.
    fn allowed(&mut self, host: usize, reason: IntervalReason, overdue: bool) -> Option<Allowed> {
        match reason {
            IntervalReason::Base
            | IntervalReason::Changing
            | IntervalReason::CatchingUp
            | IntervalReason::Quiet
            | IntervalReason::Policy => self.allowed_when_healthy(host, reason),
            IntervalReason::NeighbourFailed => self.allowed_for_neighbour(host),
            IntervalReason::Fixed => self.allowed_when_fixed(host, overdue),
            IntervalReason::First => {
                let base = self.settings.base_interval;
                let truth = &self.truths[host];
                truth
                    .step
                    .entered
                    .then(|| Allowed::upto(truth.fixed_interval(&self.settings).unwrap_or(base).min(base)))
            }
            IntervalReason::Backoff | IntervalReason::RetryAfter | IntervalReason::BreakerOpen => {
                self.allowed_after_failure(host, reason)
            }
            IntervalReason::Recheck => self.allowed_recheck(host),
            IntervalReason::Operator => self.request.operators_span(&self.settings),
            IntervalReason::Replanned => self.allowed_replan(host, overdue),
        }
    }

    /// By how much every interval is stretched, at the least and at the most: it is told in thousandths.
    pub(super) fn stretched(&self, span: Millis) -> (Millis, Millis) {
        let (low, high) = (self.load.stretch - 0.0005, self.load.stretch + 0.0005);
        (span.scaled(low), span.scaled(high))
    }

    /// A fixed interval is the operator's word: load alone may stretch it.
    fn allowed_when_fixed(&self, host: usize, overdue: bool) -> Option<Allowed> {
        let settings = &self.settings;
        let truth = &self.truths[host];
        let fixed = truth.fixed_interval(settings);
        let fixed = fixed.or(truth.is_availability_check().then_some(settings.base_interval))?;
        let (_, high) = self.stretched(fixed);
        let high = high.min(fixed.max(settings.max_interval));
        match overdue {
            true => Some(Allowed::upto(high)),
            false => Some(Allowed::around(fixed, INTERVAL_JITTER, high, INTERVAL_JITTER)),
        }
    }

    fn allowed_after_failure(&mut self, host: usize, reason: IntervalReason) -> Option<Allowed> {
        let settings = &self.settings;
        let truth = &self.truths[host];
        if !truth.step.failed || truth.dead.is_some() {
            return None;
        }
        let open = truth.breaker.state == BreakerState::Open;
        let backoff = settings.backoff;
        let nominal = backoff.initial.doubled(truth.failures.saturating_sub(1)).min(backoff.max);
        let own = match open {
            true => {
                let trips = truth.breaker.trips.saturating_sub(1);
                Allowed::exactly(settings.breaker.open_initial.doubled(trips).min(settings.breaker.open_max))
            }
            false => {
                Allowed::around(nominal, BACKOFF_JITTER, nominal, BACKOFF_JITTER).within(Millis::ZERO, backoff.max)
            }
        };
        let asked = truth.asked.unwrap_or_default();
        let honoured = asked.min(backoff.max);
        if asked > honoured {
            self.reached("Retry-After cut to the longest backoff");
        }
        match reason {
            IntervalReason::RetryAfter => (honoured > own.low).then_some(Allowed::exactly(honoured)),
            IntervalReason::BreakerOpen => open.then_some(Allowed { low: own.low.max(honoured), ..own }),
            _ => (!open).then_some(Allowed { low: own.low.max(honoured), ..own }),
        }
    }

    /// Permanent ones at their interval, transient ones after delays that double; up to a twentieth sooner.
    fn allowed_recheck(&self, host: usize) -> Option<Allowed> {
        let rules = self.settings.dead_letter;
        let truth = &self.truths[host];
        let nominal = match truth.dead.filter(|_| truth.step.failed)? {
            DeadLetterReason::PermanentFailure => rules.permanent_recheck,
            DeadLetterReason::MaxRetryAttempts => {
                rules.transient_recheck_initial.doubled(truth.rechecks).min(rules.transient_recheck_max)
            }
        };
        let honoured = truth.asked.unwrap_or_default().min(self.settings.backoff.max);
        let own = Allowed::around(nominal, INTERVAL_JITTER, nominal, 0.0);
        Some(Allowed { low: own.low.max(honoured), high: nominal.max(honoured) })
    }

    /// What an edit moves is planned by the settings in force.
    fn allowed_replan(&self, host: usize, overdue: bool) -> Option<Allowed> {
        if !matches!(self.request, Request::Settings | Request::Inventory { .. }) {
            return None;
        }
        let settings = &self.settings;
        let truth = &self.truths[host];
        let longest = match truth.dead {
            Some(DeadLetterReason::PermanentFailure) => settings.dead_letter.permanent_recheck,
            Some(DeadLetterReason::MaxRetryAttempts) => settings.dead_letter.transient_recheck_max,
            None if truth.failures > 0 && !truth.is_availability_check() => {
                settings.backoff.max.max(settings.breaker.open_max)
            }
            None => {
                let (low, high) = self.stretched(settings.base_interval);
                let (low, high) = (low.min(settings.max_interval), high.min(settings.max_interval));
                let about_base = Allowed::around(low, INTERVAL_JITTER, high, INTERVAL_JITTER);
                let about_base = about_base.within(settings.min_interval, settings.max_interval);
                let low = if overdue || !truth.polled { Millis::ZERO } else { about_base.low };
                return Some(Allowed { low, ..about_base });
            }
        };
        Some(Allowed::upto(longest))
    }

    /// Unknown ones come first, and of the healthy ones the one that waits longest.
    pub(super) fn judge_turn(&mut self, host: usize) {
        let truth = &self.truths[host];
        if !truth.is_known_healthy() || truth.machine.is_some() {
            return;
        }
        let (now, due, cap) = (self.now, truth.due, self.settings.max_in_flight);
        let eligible = |(_, other): &&(Timestamp, usize)| {
            let it = &self.truths[*other];
            *other != host && it.waits() && it.machine.is_none()
        };
        // Unknown ones may hang: while half of the slots are taken they may have to leave the rest to the others.
        if self.in_flight < cap.div_ceil(2)
            && let Some((since, other)) =
                self.unknown.iter().take(8).filter(eligible).find(|(at, _)| *at <= now).copied()
        {
            let key = self.truths[other].spec.key.clone();
            return self
                .accuse_host(Rule::Turn, host, || format!("it is polled while unknown {key} waits since {since:?}"));
        }
        let longer = self.waiting.iter().take(8).filter(eligible);
        let longer =
            longer.filter(|(_, other)| self.truths[*other].is_known_healthy() && !self.truths[*other].forgiven);
        let before = longer.copied().find(|(at, _)| *at + Millis::new(1) < due);
        if let Some((since, other)) = before.filter(|_| !self.truths[host].forgiven) {
            let key = self.truths[other].spec.key.clone();
            self.accuse_host(Rule::Turn, host, || {
                format!("due at {due:?}, it is polled while {key} waits since {since:?}")
            });
        }
    }
}

const fn is_healthy(reason: IntervalReason) -> bool {
    matches!(
        reason,
        IntervalReason::Base
            | IntervalReason::Changing
            | IntervalReason::CatchingUp
            | IntervalReason::Quiet
            | IntervalReason::Policy
    )
}
