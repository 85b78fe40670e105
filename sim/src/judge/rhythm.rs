//! What the default policy must choose for a healthy instance, from its readings alone.

use pulse::engine::{FailureKind, IntervalReason, Millis, Settings};

use super::Judge;
use super::planning::{Allowed, INTERVAL_JITTER};
use super::truth::Truth;
use crate::violation::Rule;

/// How many polls after a change come sooner.
const ALERT_POLLS: u32 = 12;
/// How many readings in a row without news prove quiet.
const QUIET_AFTER: u32 = 360;
/// How many others of its machine the first failure of an instance brings forward.
const DOUBTED: usize = 8;

/// The readings that the policy chose by. Those of a time with a fixed interval, or with adaptive polling off, are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    since_change: u32,
    since_news: u32,
}

impl Rhythm {
    /// Nothing was read yet.
    pub(super) const NEW: Self = Self { since_change: ALERT_POLLS, since_news: 0 };

    fn read(&mut self, changed: bool, late: bool) {
        self.since_change = if changed { 0 } else { self.since_change.saturating_add(1) };
        self.since_news = if changed || late { 0 } else { self.since_news.saturating_add(1) };
    }

    /// The reason that an instance must be given which is not late.
    fn reason(self) -> IntervalReason {
        if self.since_change < ALERT_POLLS {
            IntervalReason::Changing
        } else if self.since_news >= QUIET_AFTER {
            IntervalReason::Quiet
        } else {
            IntervalReason::Base
        }
    }
}

impl Judge {
    pub(super) fn allowed_when_healthy(&mut self, host: usize, reason: IntervalReason) -> Option<Allowed> {
        let truth = &self.truths[host];
        let adaptive = self.settings.adaptive;
        let may = adaptive || reason == IntervalReason::Base;
        if truth.fixed_interval(&self.settings).is_some() || !truth.step.succeeded || !may {
            return None;
        }
        let (min, max) = (self.settings.min_interval, self.settings.max_interval);
        if reason == IntervalReason::Policy {
            return Some(Allowed { low: min, high: max });
        }
        if adaptive && !self.is_right(host, reason) {
            return None;
        }
        let (least, most) = chosen_for(reason, &self.settings)?;
        let (low, _) = self.stretched(least);
        let (_, high) = self.stretched(most);
        let allowed = Allowed::around(low.clamp(min, max), INTERVAL_JITTER, high.clamp(min, max), INTERVAL_JITTER);
        Some(allowed.within(min, max))
    }

    /// Notes the reading, and whether the policy had to give this reason for what comes of it.
    fn is_right(&mut self, host: usize, reason: IntervalReason) -> bool {
        let late = reason == IntervalReason::CatchingUp;
        let (stretched, ever_stretched) = (self.load.stretch > 1.0, self.load.ever_changed());
        let truth = &mut self.truths[host];
        truth.rhythm.read(truth.step.changed, late);
        let failed_before = truth.step.row_ended > 0;
        // Where everybody is late, nobody is polled sooner for it; a stretch below a thousandth is not told.
        let came_late = truth.came_late;
        let may_be_late = failed_before || (!stretched && came_late != Some(false));
        let must_be_late = failed_before || (!ever_stretched && came_late == Some(true));
        if late { may_be_late } else { !must_be_late && reason == truth.rhythm.reason() }
    }

    /// A healthy one is asked as soon as the minimum allows, when another of its machine has just begun to be silent.
    pub(super) fn allowed_for_neighbour(&self, host: usize) -> Option<Allowed> {
        let settings = &self.settings;
        let truth = &self.truths[host];
        let asked = |it: &Truth| it.machine == truth.machine && it.began_to_be_silent();
        let may = truth.machine.is_some() && truth.may_be_doubted(settings) && self.truths.iter().any(asked);
        let soonest = self.now + Millis::new(1) - truth.last_start?;
        may.then(|| Allowed::exactly(soonest.max(settings.min_interval).min(settings.max_interval)))
    }

    /// The first failure in a row of `host` has all others of its machine asked, where they are few.
    pub(super) fn judge_neighbours(&mut self, host: usize) {
        let truth = &self.truths[host];
        if truth.machine.is_none() || !truth.began_to_be_silent() {
            return;
        }
        let (soon, min) = (self.now + Millis::new(1), self.settings.min_interval);
        let others = || (0..).zip(&self.truths).filter(|(other, it)| *other != host && it.machine == truth.machine);
        let forgotten = |it: &Truth| {
            let soonest = it.last_start.map_or(soon, |at| soon.max(at + min));
            it.waits() && it.may_be_doubted(&self.settings) && it.due > soonest
        };
        let forgotten = others().find(|(_, it)| forgotten(it)).map(|(other, it)| (other, it.due));
        if let Some((other, due)) = forgotten.filter(|_| others().count() <= DOUBTED) {
            let key = truth.spec.key.clone();
            self.accuse_host(Rule::Anchored, other, || format!("it waits until {due:?} though {key} fell silent"));
        }
    }
}

/// The least and the most that the default policy chooses for a healthy one, before load and bounds.
pub(super) fn chosen_for(reason: IntervalReason, settings: &Settings) -> Option<(Millis, Millis)> {
    let (min, base) = (settings.min_interval, settings.base_interval);
    // In whole milliseconds: half of one grows with the stretch.
    let part = |of: u64| base.get() / of;
    let sooner = Millis::new(base.get() - part(4)).max(min);
    let later = Millis::new(base.get() + part(16));
    match reason {
        IntervalReason::Base => Some((base, base)),
        IntervalReason::CatchingUp => Some((Millis::new(part(2)).max(min), base)),
        IntervalReason::Changing => Some((sooner, sooner)),
        IntervalReason::Quiet => Some((later, later)),
        _ => None,
    }
}

impl Truth {
    /// Whether its first failure in a row came in this step, and no live machine answers so.
    fn began_to_be_silent(&self) -> bool {
        use FailureKind::{Dns, Refused, Reset, Timeout, TlsHandshake};
        let silent = |(_, kind)| matches!(kind, Timeout | Refused | Reset | Dns | TlsHandshake);
        self.step.failed && self.failures == 1 && self.last_error.is_some_and(silent)
    }

    /// Whether it is healthy and lives by the rhythm of the policy.
    fn may_be_doubted(&self, settings: &Settings) -> bool {
        settings.adaptive && self.is_known_healthy() && self.fixed_interval(settings).is_none()
    }

    /// The poll that starts now is late by more than half of its interval; `None` where that was not told.
    pub(super) fn note_lag(&mut self, lag: Millis) {
        let half = self.planned.map(|planned| Millis::new(planned.get() / 2));
        self.came_late = match self.last_success {
            None => Some(false),
            Some(_) => half.map(|half| lag > half),
        };
    }
}
