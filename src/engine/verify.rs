//! The rules that hold after every step, checked from scratch.
//!
//! Property tests and the simulator call this after each input; nothing in production does.

use thiserror::Error;

use super::agenda::Lane;
use super::breaker::BreakerState;
use super::core::{Census, Engine};
use super::instance::{Instance, Place};
use super::key::InstanceKey;

/// A rule that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// An instance does not wait where its place says.
    #[error("{key} is {place:?} but {found}")]
    WrongPlace {
        /// Which.
        key: InstanceKey,
        /// Where it should be.
        place: Place,
        /// What was found instead.
        found: &'static str,
    },
    /// A dead-lettered instance without an entry, or an entry of an instance that is neither dead nor rechecked.
    #[error("{key} is {place:?} with {entry}")]
    WrongEntry {
        /// Which.
        key: InstanceKey,
        /// Where it is.
        place: Place,
        /// What was found.
        entry: &'static str,
    },
    /// A poll is under way through an open breaker, or a half-open breaker has no probe.
    #[error("{key} is {place:?} with its breaker {state:?}")]
    BreakerBypassed {
        /// Which.
        key: InstanceKey,
        /// Where it is.
        place: Place,
        /// The breaker's state.
        state: BreakerState,
    },
    /// The counts do not agree with what is there.
    #[error("the census says {counted}, a recount {found}")]
    WrongCensus {
        /// What the engine believes.
        counted: String,
        /// What is there.
        found: String,
    },
    /// Polls were started that neither ended nor are under way.
    #[error("{started} polls started, {accounted} accounted for")]
    LostPolls {
        /// How many were started.
        started: u64,
        /// How many ended or are under way.
        accounted: u64,
    },
    /// More polls are under way than the global cap allowed when they started.
    #[error("{in_flight} polls under way where {cap} are allowed")]
    OverCap {
        /// How many are.
        in_flight: u32,
        /// How many may be.
        cap: u32,
    },
    /// A slot is free and something that may start waits, right after a tick.
    #[error("{key} waits though there is a free slot")]
    IdleSlot {
        /// Who waits.
        key: InstanceKey,
    },
}

impl Engine {
    /// Checks every rule that must hold after each step. Linear in the fleet.
    ///
    /// `cap` is the largest global cap that was in force while the polls under way were started.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn verify(&self, cap: u32) -> Result<(), Violation> {
        let mut recount = Census::default();
        let mut hosts = vec![0; self.hosts.len()];
        for id in self.ids.values().copied() {
            let Some(instance) = self.instance(id) else { continue };
            self.verify_place(id, instance)?;
            verify_entry(instance)?;
            verify_breaker(instance)?;
            recount_one(&mut recount, instance);
            if let (Some(host), Place::InFlight) = (instance.host, instance.place) {
                hosts[host as usize] += 1;
            }
        }
        if recount != self.census || hosts != self.hosts {
            let counted = format!("{:?} {:?}", self.census, self.hosts);
            return Err(Violation::WrongCensus { counted, found: format!("{recount:?} {hosts:?}") });
        }
        let totals = self.totals;
        let accounted = totals.succeeded + totals.failed + totals.cancelled + u64::from(recount.in_flight_total);
        if accounted != totals.started {
            return Err(Violation::LostPolls { started: totals.started, accounted });
        }
        if recount.in_flight_total > cap {
            return Err(Violation::OverCap { in_flight: recount.in_flight_total, cap });
        }
        Ok(())
    }

    /// Checks that a tick left no free slot beside an instance that could use it.
    ///
    /// # Errors
    /// [`Violation::IdleSlot`] names who waits.
    pub fn verify_after_tick(&self) -> Result<(), Violation> {
        let startable = self.next_lane().map(|(_, id)| id);
        match startable.or_else(|| self.forgotten_by_its_host()).and_then(|id| self.instance(id)) {
            Some(instance) => Err(Violation::IdleSlot { key: instance.spec().key.clone() }),
            None => Ok(()),
        }
    }

    /// Who waits for a host that has room, while nobody else waits for a slot.
    fn forgotten_by_its_host(&self) -> Option<u32> {
        if Lane::ALL.into_iter().any(|lane| self.agenda.lane_head(lane).is_some()) {
            return None;
        }
        let has_room = |host: &u32| self.hosts[*host as usize] < self.settings.max_in_flight_per_host;
        (0..self.hosts.len() as u32).filter(has_room).find_map(|host| self.agenda.host_head(host))
    }

    fn verify_place(&self, id: u32, instance: &Instance) -> Result<(), Violation> {
        let on_wheel = self.agenda.is_on_wheel(id);
        let waiting = self.agenda.is_waiting_for_a_slot(id);
        let found = match instance.place {
            Place::Queued | Place::DeadLettered if !on_wheel && !waiting => "waits nowhere",
            Place::InFlight if !on_wheel => "has no deadline",
            Place::Paused if on_wheel || waiting => "waits",
            _ => return Ok(()),
        };
        Err(Violation::WrongPlace { key: instance.spec().key.clone(), place: instance.place, found })
    }
}

fn verify_entry(instance: &Instance) -> Result<(), Violation> {
    let entry = match (instance.place, instance.dead_letter()) {
        (Place::DeadLettered, None) => "no entry",
        (Place::Queued | Place::Paused, Some(_)) => "an entry",
        _ => return Ok(()),
    };
    Err(Violation::WrongEntry { key: instance.spec().key.clone(), place: instance.place, entry })
}

fn verify_breaker(instance: &Instance) -> Result<(), Violation> {
    let state = instance.breaker.state();
    match (state, instance.place) {
        (BreakerState::Open, Place::InFlight) => {}
        (BreakerState::HalfOpen, place) if place != Place::InFlight => {}
        _ => return Ok(()),
    }
    Err(Violation::BreakerBypassed { key: instance.spec().key.clone(), place: instance.place, state })
}

fn recount_one(census: &mut Census, instance: &Instance) {
    let kind = instance.kind;
    match instance.place {
        Place::Queued => {
            census.queued[kind] += 1;
            census.queued_total += 1;
        }
        Place::InFlight => {
            census.in_flight[kind] += 1;
            census.in_flight_total += 1;
            census.unknown_in_flight += u32::from(instance.lane_in_flight == Lane::Unknown);
            census.suspects_in_flight += u32::from(instance.lane_in_flight == Lane::Suspect);
        }
        Place::DeadLettered | Place::Paused => {}
    }
}
