//! The engine itself: its state, the one door in, and the reads.
//!
//! What each input does lies in its own file: `dispatch` (time), `finish` (outcomes), `inventory` (fleet and
//! settings) and `operate` (commands).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agenda::Agenda;
use super::command::{Command, CommandId};
use super::effect::{Effects, Ticket};
use super::instance::{Instance, InstanceSpec, Place};
use super::interval::{Adaptive, IntervalPolicy};
use super::jitter::JitterSource;
use super::key::{InstanceId, InstanceKey};
use super::load::LoadMeter;
use super::outcome::Outcome;
use super::per_type::PerType;
use super::settings::Settings;
use super::time::Timestamp;

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed. Only this input starts polls and gives up those whose time is over.
    Tick,
    /// A poll ended.
    Finished {
        /// The ticket that it was ordered with.
        ticket: Ticket,
        /// What it came to.
        outcome: Outcome,
    },
    /// This is the whole fleet from now on. Of two specs with one key the first counts.
    Inventory(Vec<InstanceSpec>),
    /// These are the settings from now on.
    Settings(Box<Settings>),
    /// An operator wants something done.
    Command {
        /// Names the command in its reply.
        id: CommandId,
        /// What is wanted.
        command: Command,
    },
}

/// The scheduler of one fleet: a value that takes time and inputs and answers with effects.
///
/// Same seed and inputs, same effects. No input makes it panic or leaves it invalid.
///
/// ```
/// use pulse::engine::*;
///
/// let mut engine = Engine::new(Settings::default(), 42, Timestamp::ZERO);
/// let mut effects = Effects::new();
/// let fleet = vec![InstanceSpec::new("pve::rack-1".parse()?)];
/// engine.handle(Timestamp::ZERO, Input::Inventory(fleet), &mut effects);
/// effects.clear();
///
/// // The first poll comes within the base interval …
/// let due = engine.next_wakeup().expect("one instance is queued");
/// assert!(due <= Timestamp::from_millis(10_000));
/// engine.handle(due, Input::Tick, &mut effects);
/// let order = effects.drain().find_map(|effect| match effect {
///     Effect::Start(order) => Some(order),
///     _ => None,
/// });
///
/// // … and once it succeeded, the next one comes a base interval later, give or take five percent.
/// let outcome = Outcome::Success { reading: ChangeHash(7) };
/// engine.handle(due, Input::Finished { ticket: order.expect("it is due").ticket, outcome }, &mut effects);
/// let next = engine.next_wakeup().expect("it is queued again");
/// assert!((9_500..=10_500).contains(&(next - due).get()));
/// # Ok::<(), pulse::engine::KeyError>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    pub(super) settings: Box<Settings>,
    pub(super) policy: Box<dyn IntervalPolicy>,
    pub(super) jitter: JitterSource,
    pub(super) now: Timestamp,
    pub(super) agenda: Agenda,
    /// By number; a free number has no instance.
    pub(super) instances: Vec<Option<Instance>>,
    pub(super) ids: BTreeMap<InstanceKey, u32>,
    /// Numbers given up in this step: free from the next step on, so that its effects can still be read.
    pub(super) vacated: Vec<Vacancy>,
    pub(super) free: Vec<Vacancy>,
    /// Polls under way on each host that carries several instances.
    pub(super) hosts: Vec<u32>,
    /// The instances of each of those hosts, by number.
    pub(super) tenants: Vec<Vec<u32>>,
    pub(super) load: LoadMeter,
    pub(super) census: Census,
    pub(super) totals: Totals,
    /// Reused between ticks.
    pub(super) expired: Vec<u32>,
}

/// A free number. The serial goes on, so that a late answer to a former holder is not taken for the new one's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    pub(super) id: u32,
    pub(super) serial: u32,
}

/// How many instances are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) queued: PerType<u32>,
    pub(super) queued_total: u32,
    pub(super) in_flight: PerType<u32>,
    pub(super) in_flight_total: u32,
    pub(super) unknown_in_flight: u32,
    pub(super) suspects_in_flight: u32,
}

/// What the engine has counted since it began. Every poll that was started is in exactly one of the others, or
/// under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Polls ordered.
    pub started: u64,
    /// Polls that succeeded.
    pub succeeded: u64,
    /// Polls that failed, those given up after their timeout included.
    pub failed: u64,
    /// Polls called off.
    pub cancelled: u64,
    /// Answers that came with a ticket that was not the current one.
    pub stale_tickets: u64,
}

impl Engine {
    /// An engine without instances, with the default interval policy.
    pub fn new(settings: Settings, seed: u64, now: Timestamp) -> Self {
        Self::with_policy(settings, Box::new(Adaptive), seed, now)
    }

    /// An engine without instances that chooses intervals by `policy`.
    pub fn with_policy(settings: Settings, policy: Box<dyn IntervalPolicy>, seed: u64, now: Timestamp) -> Self {
        Self {
            settings: Box::new(settings),
            policy,
            jitter: JitterSource::new(seed),
            now,
            agenda: Agenda::new(),
            instances: Vec::new(),
            ids: BTreeMap::new(),
            vacated: Vec::new(),
            free: Vec::new(),
            hosts: Vec::new(),
            tenants: Vec::new(),
            load: LoadMeter::new(now),
            census: Census::default(),
            totals: Totals::default(),
            // More than come due at once in all but large fleets, so that no cycle waits for memory.
            expired: Vec::with_capacity(64),
        }
    }

    /// Takes one input and appends what is to be done to `effects`. The only way in.
    ///
    /// Time that goes back counts as time that stands still. Constant time for a finished poll and for each poll
    /// that a tick starts; linear in the fleet for inventory, settings and the retry of all dead letters.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Effects) {
        self.now = self.now.max(now);
        self.load.pass(self.now, self.census.in_flight_total);
        if !self.vacated.is_empty() {
            self.recycle_vacated();
        }
        match input {
            Input::Tick => self.tick(effects),
            Input::Finished { ticket, outcome } => self.finished(ticket, outcome, effects),
            Input::Inventory(specs) => self.replace_inventory(specs, effects),
            Input::Settings(settings) => self.replace_settings(settings, effects),
            Input::Command { id, command } => self.operate(id, command, effects),
        }
    }

    /// When to hand in the next [`Input::Tick`] if nothing else happens; `None` if there is nothing to wait for.
    #[inline]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        if self.next_lane().is_some() { Some(self.now) } else { self.agenda.next_due() }
    }

    /// The key of an instance; of one removed by the last step too.
    pub fn key(&self, id: InstanceId) -> Option<&InstanceKey> {
        self.instance(id.0).map(|instance| &instance.spec().key)
    }

    /// The number of an instance.
    pub fn id(&self, key: &InstanceKey) -> Option<InstanceId> {
        self.ids.get(key).copied().map(InstanceId)
    }

    /// Whether an answer with this ticket is still waited for.
    pub fn is_current(&self, ticket: Ticket) -> bool {
        let instance = self.instance(ticket.instance.0);
        instance.is_some_and(|it| it.place == Place::InFlight && it.serial == ticket.serial)
    }

    /// How many instances there are, paused ones included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no instance.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was counted since the engine began.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn recycle_vacated(&mut self) {
        for vacancy in self.vacated.drain(..) {
            self.instances[vacancy.id as usize] = None;
            self.free.push(vacancy);
        }
    }

    pub(super) fn instance(&self, id: u32) -> Option<&Instance> {
        self.instances.get(id as usize)?.as_ref()
    }

    pub(super) fn instance_mut(&mut self, id: u32) -> &mut Instance {
        self.instances[id as usize].as_mut().expect("only numbers of living instances are on the agenda or in `ids`")
    }

    /// Puts the instance to `place` and keeps the census. The agenda is the caller's.
    pub(super) fn set_place(&mut self, id: u32, place: Place) {
        let Self { instances, census, .. } = self;
        if let Some(instance) = instances[id as usize].as_mut() {
            census.put(instance, place);
        }
    }
}

impl Census {
    /// Puts `instance` to the place `to`.
    pub(super) fn put(&mut self, instance: &mut Instance, to: Place) {
        let kind = instance.kind;
        match std::mem::replace(&mut instance.place, to) {
            Place::Queued => {
                self.queued[kind] -= 1;
                self.queued_total -= 1;
            }
            Place::InFlight => {
                self.in_flight[kind] -= 1;
                self.in_flight_total -= 1;
            }
            Place::DeadLettered | Place::Paused => {}
        }
        match to {
            Place::Queued => {
                self.queued[kind] += 1;
                self.queued_total += 1;
            }
            Place::InFlight => {
                self.in_flight[kind] += 1;
                self.in_flight_total += 1;
            }
            Place::DeadLettered | Place::Paused => {}
        }
    }
}
