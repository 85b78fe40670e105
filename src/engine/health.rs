//! What operators see: a read of the whole engine, without side effects.

use std::ops::Bound;

use serde::Serialize;

use super::breaker::BreakerState;
use super::core::{Engine, Totals};
use super::dead_letter::DeadLetterReason;
use super::instance::{ErrorRecord, Instance, Place};
use super::key::InstanceKey;
use super::per_type::PerType;
use super::score::Score;
use super::time::{Millis, Timestamp};

/// Tasks due within this span count as due soon.
pub const DUE_SOON: Millis = Millis::from_secs(12);

/// The state of the scheduler at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SchedulerHealth {
    /// When it was read.
    pub at: Timestamp,
    /// Whether intervals adapt.
    pub adaptive: bool,
    /// The live queue.
    pub queue: QueueHealth,
    /// Polls under way.
    pub in_flight: PerType<u32>,
    /// How loaded the daemon is.
    pub load: LoadHealth,
    /// What was counted since the engine began.
    pub totals: Totals,
    /// Every instance, sorted by key.
    pub instances: Vec<InstanceHealth>,
}

/// What can be told of the scheduler without looking at every instance.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// When it was read.
    pub at: Timestamp,
    /// Whether intervals adapt.
    pub adaptive: bool,
    /// How many instances there are, paused ones included.
    pub instances: usize,
    /// How many of each type are in the live queue.
    pub queued: PerType<u32>,
    /// How many are due and wait for a slot.
    pub waiting: u32,
    /// Polls under way.
    pub in_flight: PerType<u32>,
    /// How loaded the daemon is.
    pub load: LoadHealth,
    /// What was counted since the engine began.
    pub totals: Totals,
}

impl Overview {
    /// How many instances are in the live queue.
    pub fn depth(&self) -> u32 {
        self.queued.iter().map(|(_, count)| *count).sum()
    }
}

/// The live queue: instances that wait for their time or for a slot.
#[derive(Clone, Debug, Serialize)]
pub struct QueueHealth {
    /// How many there are.
    pub depth: u32,
    /// How many of them are due within [`DUE_SOON`].
    pub due_soon: u32,
    /// How many there are of each type.
    pub per_type: PerType<u32>,
    /// How many are due and wait for a slot.
    pub waiting: u32,
}

/// Load as it was measured over the last window of one base interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoadHealth {
    /// Mean time between due and start.
    pub lag: Millis,
    /// Share of slots in use, 0 to 1.
    pub slots_used: f64,
    /// By how much every interval is stretched, 1 and up.
    pub stretch: f64,
}

/// The state of one instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceHealth {
    /// Its name.
    pub key: InstanceKey,
    /// Where it is.
    pub place: Place,
    /// When it is polled next; `None` while a poll is under way or it is paused.
    pub due: Option<Timestamp>,
    /// When a poll last succeeded.
    pub last_success: Option<Timestamp>,
    /// The last failure, if it has not succeeded since.
    pub last_error: Option<ErrorRecord>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// The first of the failures in a row.
    pub first_failure: Option<Timestamp>,
    /// Its breaker; `None` for availability checks.
    pub breaker: Option<BreakerHealth>,
    /// Its entry in the dead-letter queue.
    pub dead_letter: Option<DeadLetterHealth>,
    /// How stale its reading is.
    pub staleness: Score,
    /// The age of its last success, or the time since it is known where there was none.
    pub age: Millis,
    /// Whether the age exceeds twice its planned interval plus the timeout. Paused ones never are.
    pub late: bool,
    /// The interval planned after the last success.
    pub interval: Millis,
}

/// The state of one breaker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BreakerHealth {
    /// Whether polls may pass.
    pub state: BreakerState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// When it last changed its state; `None` if it never did.
    pub last_transition: Option<Timestamp>,
    /// When an open breaker is probed.
    pub retry_at: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
}

/// One entry of the dead-letter queue.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DeadLetterHealth {
    /// Why.
    pub reason: DeadLetterReason,
    /// The first of the failures in a row.
    pub first_attempt: Timestamp,
    /// The last failure.
    pub last_attempt: Timestamp,
    /// Rechecks that failed.
    pub retry_count: u32,
    /// When it is rechecked; `None` while the recheck is under way.
    pub next_retry: Option<Timestamp>,
}

impl Engine {
    /// The state of everything at `now`. Linear in the fleet; changes nothing.
    pub fn health(&self, now: Timestamp) -> SchedulerHealth {
        let Overview { at, adaptive, queued, waiting, in_flight, load, totals, .. } = self.overview(now);
        let now = at;
        let instances: Vec<InstanceHealth> = self.instances_health(now).collect();
        let soon = now + DUE_SOON;
        let is_due_soon =
            |instance: &&InstanceHealth| instance.place == Place::Queued && instance.due.is_some_and(|due| due <= soon);
        SchedulerHealth {
            at,
            adaptive,
            queue: QueueHealth {
                depth: self.queue_depth(),
                due_soon: instances.iter().filter(is_due_soon).count() as u32,
                per_type: queued,
                waiting,
            },
            in_flight,
            load,
            totals,
            instances,
        }
    }

    /// What can be told at `now` in constant time.
    pub fn overview(&self, now: Timestamp) -> Overview {
        Overview {
            at: self.now.max(now),
            adaptive: self.settings.adaptive,
            instances: self.ids.len(),
            queued: self.census.queued,
            waiting: self.agenda.waiting(),
            in_flight: self.census.in_flight,
            load: LoadHealth { lag: self.load.lag(), slots_used: self.load.slots_used(), stretch: self.load.stretch() },
            totals: self.totals,
        }
    }

    /// The state of each instance at `now`, sorted by key.
    pub fn instances_health(&self, now: Timestamp) -> impl Iterator<Item = InstanceHealth> + '_ {
        self.instances_after(None, now).map(|view| view.health())
    }

    /// The instances whose key comes after `key`, or all, as they are at `now`; sorted by key.
    pub fn instances_after<'a>(
        &'a self,
        key: Option<&InstanceKey>,
        now: Timestamp,
    ) -> impl Iterator<Item = InstanceView<'a>> + use<'a> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.ids.range((from, Bound::Unbounded)).map(|(_, id)| *id);
        ids.filter_map(move |id| Some(InstanceView { engine: self, id, instance: self.instance(id)?, now }))
    }

    /// The state of one instance at `now`.
    pub fn instance_health(&self, key: &InstanceKey, now: Timestamp) -> Option<InstanceHealth> {
        let id = *self.ids.get(key)?;
        Some(InstanceView { engine: self, id, instance: self.instance(id)?, now }.health())
    }

    /// How many instances are in the live queue.
    pub fn queue_depth(&self) -> u32 {
        self.census.queued_total
    }

    /// How many polls are under way.
    pub fn in_flight(&self) -> u32 {
        self.census.in_flight_total
    }

    /// The interval that lateness is measured against: the one planned last, or what a first poll would get.
    fn planned_interval(&self, instance: &Instance) -> Millis {
        match instance.planned {
            Millis::ZERO => instance.fixed_interval(&self.settings).unwrap_or(self.settings.base_interval),
            planned => planned,
        }
    }
}

/// One instance at one moment, of which only what is asked for is looked up.
#[derive(Clone, Copy, Debug)]
pub struct InstanceView<'a> {
    engine: &'a Engine,
    id: u32,
    instance: &'a Instance,
    now: Timestamp,
}

impl<'a> InstanceView<'a> {
    /// Its name.
    pub fn key(&self) -> &'a InstanceKey {
        &self.instance.spec().key
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.instance.place
    }

    /// When it is polled next; `None` while a poll is under way or it is paused.
    pub fn due(&self) -> Option<Timestamp> {
        match self.instance.place {
            Place::Queued | Place::DeadLettered => Some(self.engine.agenda.due(self.id)),
            Place::InFlight | Place::Paused => None,
        }
    }

    /// When a poll last succeeded.
    pub fn last_success(&self) -> Option<Timestamp> {
        self.instance.last_success
    }

    /// The last failure, if it has not succeeded since.
    pub fn last_error(&self) -> Option<&'a ErrorRecord> {
        self.instance.last_error()
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.instance.breaker.failures()
    }

    /// How stale its reading is.
    pub fn staleness(&self) -> Score {
        self.instance.staleness(self.now, self.engine.settings.max_interval)
    }

    /// Its breaker; `None` for availability checks.
    pub fn breaker(&self) -> Option<BreakerHealth> {
        let breaker = &self.instance.breaker;
        (!self.instance.is_availability_check()).then(|| BreakerHealth {
            state: breaker.state(),
            since: breaker.since(),
            last_transition: breaker.last_transition(),
            retry_at: self.due().filter(|_| breaker.state() == BreakerState::Open),
            failures: breaker.failures(),
        })
    }

    /// Its entry in the dead-letter queue.
    pub fn dead_letter(&self) -> Option<DeadLetterHealth> {
        let entry = self.instance.dead_letter()?;
        Some(DeadLetterHealth {
            reason: entry.reason,
            first_attempt: entry.first_attempt,
            last_attempt: entry.last_attempt,
            retry_count: entry.retry_count,
            next_retry: self.due(),
        })
    }

    /// All of it.
    pub fn health(&self) -> InstanceHealth {
        let Self { engine, instance, now, .. } = *self;
        let age = now.since(instance.last_success.unwrap_or(instance.known_since));
        // One that was paused is not late for the time of its pause.
        let waiting_since = instance.last_success.unwrap_or_default().max(instance.known_since);
        let interval = engine.planned_interval(instance);
        InstanceHealth {
            key: self.key().clone(),
            place: instance.place,
            due: self.due(),
            last_success: instance.last_success,
            last_error: self.last_error().cloned(),
            consecutive_failures: self.failures(),
            first_failure: instance.first_failure(),
            breaker: self.breaker(),
            dead_letter: self.dead_letter(),
            staleness: self.staleness(),
            age,
            late: instance.place != Place::Paused
                && now > waiting_since + (interval + interval + instance.timeout(&engine.settings)),
            interval,
        }
    }
}
