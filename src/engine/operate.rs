//! Operators' commands: each is carried out whole or refused with the reason and without a trace.

use super::breaker::BreakerState;
use super::command::{Command, CommandError, CommandId, Reply, Retry, RetryFilter, RetryResult};
use super::core::Engine;
use super::effect::{Effects, FleetEvent, InstanceEvent};
use super::instance::Place;
use super::interval::IntervalReason;
use super::key::{InstanceId, InstanceKey};
use super::time::{Millis, Timestamp};

/// How far apart the rechecks of many dead letters are at the least, on average.
const RETRY_SPACING: Millis = Millis::new(20);

impl Engine {
    pub(super) fn operate(&mut self, id: CommandId, command: Command, effects: &mut Effects) {
        let result = match command {
            Command::ResetBreaker { key } => self.reset_breaker(&key, effects),
            Command::RetryDeadLetter { key } => self.retry_dead_letter(&key, effects),
            Command::RetryDeadLetters { filter, dry_run: true } => Ok(self.would_retry(&filter)),
            Command::RetryDeadLetters { filter, dry_run: false } => Ok(self.retry_dead_letters(&filter, effects)),
            Command::RemoveDeadLetter { key } => self.remove_dead_letter(&key, effects),
            Command::PollNow { key } => self.poll_now(&key, effects),
            Command::SetEnabled { key, enabled } => self.set_enabled(&key, enabled, effects),
        };
        effects.fleet_event(self.now, FleetEvent::CommandDone { id, result });
    }

    fn find(&self, key: &InstanceKey) -> Result<u32, CommandError> {
        self.ids.get(key).copied().ok_or(CommandError::UnknownInstance)
    }

    fn reset_breaker(&mut self, key: &InstanceKey, effects: &mut Effects) -> Result<Reply, CommandError> {
        let id = self.find(key)?;
        let now = self.now;
        let instance = self.instance_mut(id);
        if instance.is_availability_check() {
            return Err(CommandError::NoBreaker);
        }
        let previous = instance.breaker.state();
        let had_failures = instance.breaker.failures() > 0;
        instance.forget_first_failure();
        if let Some(moved) = instance.breaker.succeeded(now) {
            let (from, to) = (moved.from, moved.to);
            let what = InstanceEvent::BreakerMoved { from, to, failures: 0, retry_at: None };
            effects.instance_event(now, InstanceId(id), what);
        }
        if had_failures && self.instance_mut(id).place == Place::Queued {
            self.poll_soon(id, effects);
        }
        Ok(Reply::BreakerReset { previous })
    }

    fn retry_dead_letter(&mut self, key: &InstanceKey, effects: &mut Effects) -> Result<Reply, CommandError> {
        let id = self.find(key)?;
        let instance = self.instance_mut(id);
        let entry = instance.dead_letter().ok_or(CommandError::NotDeadLettered)?;
        if instance.place == Place::InFlight {
            return Err(CommandError::PollInFlight);
        }
        let scheduled_for = self.poll_soon(id, effects);
        Ok(Reply::RetryScheduled { previous_retry_count: entry.retry_count, scheduled_for })
    }

    /// The dead letters that `filter` lets through, in the order of their keys.
    fn dead_letters(&self, filter: &RetryFilter) -> Vec<u32> {
        let matches = |id: &u32| {
            self.instance(*id).is_some_and(|instance| {
                instance.dead_letter().is_some_and(|entry| {
                    let key = &instance.spec().key;
                    filter.keys.as_ref().is_none_or(|keys| keys.contains(key))
                        && filter.kind.is_none_or(|kind| kind == key.kind())
                        && filter.reason.is_none_or(|reason| reason == entry.reason)
                        && filter.older_than.is_none_or(|age| self.now - entry.first_attempt > age)
                })
            })
        };
        self.ids.values().copied().filter(matches).collect()
    }

    fn would_retry(&self, filter: &RetryFilter) -> Reply {
        let retry = |id| self.retry(id, RetryResult::WouldRetry);
        Reply::RetriesScheduled { retries: self.dead_letters(filter).into_iter().filter_map(retry).collect() }
    }

    fn retry(&self, id: u32, result: RetryResult) -> Option<Retry> {
        self.instance(id).map(|instance| match instance.place {
            Place::InFlight => Retry { key: instance.spec().key.clone(), result: RetryResult::UnderWay },
            _ => Retry { key: instance.spec().key.clone(), result },
        })
    }

    fn retry_dead_letters(&mut self, filter: &RetryFilter, effects: &mut Effects) -> Reply {
        let ids = self.dead_letters(filter);
        let waits = |id: &&u32| self.instance(**id).is_some_and(|instance| instance.place == Place::DeadLettered);
        let count = ids.iter().filter(waits).count() as u64;
        let window = self.settings.base_interval.max(Millis::new(RETRY_SPACING.get().saturating_mul(count)));
        let share = Millis::new(window.get() / count.max(1));
        let mut rank = 0;
        let mut retries = Vec::with_capacity(ids.len());
        for id in ids {
            if self.instance(id).is_some_and(|instance| instance.place == Place::DeadLettered) {
                let own_share = self.draw_between(id, Millis::ZERO, share);
                let wait = Millis::new(share.get().saturating_mul(rank)) + own_share;
                rank += 1;
                if self.agenda.is_on_wheel(id) && self.now + wait < self.agenda.due(id) {
                    self.plan(id, self.now + wait, wait, IntervalReason::Operator, effects);
                }
            }
            retries.extend(self.retry(id, RetryResult::ScheduledFor(self.agenda.due(id))));
        }
        Reply::RetriesScheduled { retries }
    }

    fn remove_dead_letter(&mut self, key: &InstanceKey, effects: &mut Effects) -> Result<Reply, CommandError> {
        let id = self.find(key)?;
        let instance = self.instance_mut(id);
        let reason = instance.dead_letter().ok_or(CommandError::NotDeadLettered)?.reason;
        instance.enabled_by_operator = Some(false);
        self.follow_enabled(id, effects);
        Ok(Reply::DeadLetterRemoved { reason })
    }

    fn poll_now(&mut self, key: &InstanceKey, effects: &mut Effects) -> Result<Reply, CommandError> {
        let id = self.find(key)?;
        let instance = self.instance_mut(id);
        match instance.place {
            Place::Paused => return Err(CommandError::Paused),
            Place::InFlight => return Err(CommandError::PollInFlight),
            Place::DeadLettered => return Err(CommandError::DeadLettered),
            Place::Queued if instance.breaker.state() == BreakerState::Open => return Err(CommandError::BreakerOpen),
            Place::Queued => {}
        }
        let scheduled_for = self.poll_soon(id, effects);
        Ok(Reply::PollScheduled { scheduled_for })
    }

    fn set_enabled(&mut self, key: &InstanceKey, enabled: bool, effects: &mut Effects) -> Result<Reply, CommandError> {
        let id = self.find(key)?;
        self.instance_mut(id).enabled_by_operator = Some(enabled);
        let changed = self.follow_enabled(id, effects);
        Ok(Reply::EnabledSet { changed })
    }

    /// Plans the next poll for now; one that already waits for a slot keeps its place in the lane.
    fn poll_soon(&mut self, id: u32, effects: &mut Effects) -> Timestamp {
        let now = self.now;
        if !self.agenda.is_waiting_for_a_slot(id) {
            self.plan(id, now, Millis::ZERO, IntervalReason::Operator, effects);
        }
        now
    }
}
