//! Time passes: what is due moves into the lanes, what has a slot starts, what took too long is given up.

use super::agenda::Lane;
use super::core::Engine;
use super::effect::{Effects, FleetEvent, InstanceEvent, PollOrder};
use super::instance::Place;
use super::outcome::{Failure, FailureKind, Outcome};
use super::time::Millis;

impl Engine {
    pub(super) fn tick(&mut self, effects: &mut Effects) {
        self.measure_load(effects);
        self.agenda.expire(self.now, &mut self.expired);
        // Looking at all of them first has the side effect that their cache misses overlap.
        if self.agenda.waiting() == 0 && self.expired.iter().all(|id| self.is_known_and_queued(*id)) {
            for index in 0..self.expired.len() {
                self.start_past_the_lanes(self.expired[index], effects);
            }
        } else {
            for index in 0..self.expired.len() {
                self.time_came(self.expired[index], effects);
            }
        }
        self.dispatch(effects);
    }

    fn is_known_and_queued(&self, id: u32) -> bool {
        self.instance(id).is_some_and(|instance| instance.place == Place::Queued && instance.lane() == Lane::Known)
    }

    /// What the lanes would come to for a known one while nobody else waits: it starts if there is a slot.
    fn start_past_the_lanes(&mut self, id: u32, effects: &mut Effects) {
        if self.census.in_flight_total >= self.settings.max_in_flight {
            self.agenda.push_lane(Lane::Known, id);
        } else {
            self.start_or_wait_for_host(id, Lane::Known, effects);
        }
    }

    fn measure_load(&mut self, effects: &mut Effects) {
        if !self.load.is_window_full(self.now, &self.settings) {
            return;
        }
        let live = self.in_flight() + self.queue_depth();
        if self.load.close_window(self.now, live, &self.settings) {
            let stretch_permille = (self.load.stretch() * 1_000.0).round() as u32;
            effects.fleet_event(self.now, FleetEvent::LoadChanged { stretch_permille });
        }
    }

    /// The time came that `id` was on the wheel for: its next poll, or the end of the poll under way.
    fn time_came(&mut self, id: u32, effects: &mut Effects) {
        let instance = self.instance_mut(id);
        match instance.place {
            Place::Queued | Place::DeadLettered => {
                let lane = instance.lane();
                self.agenda.push_lane(lane, id);
            }
            Place::InFlight => {
                let ticket = instance.ticket(id);
                let took = self.now.since(self.instance_mut(id).started);
                effects.cancel(ticket);
                let failure = Failure::new(FailureKind::Timeout, format!("no answer within {took}"));
                self.settle(id, Outcome::Failure(failure), effects);
            }
            // A paused instance is on no list; nothing to do keeps it so.
            Place::Paused => {}
        }
    }

    /// Starts what waits, as long as there are slots.
    fn dispatch(&mut self, effects: &mut Effects) {
        while let Some((lane, id)) = self.next_lane() {
            self.start_or_wait_for_host(id, lane, effects);
        }
    }

    fn start_or_wait_for_host(&mut self, id: u32, lane: Lane, effects: &mut Effects) {
        match self.full_host_of(id) {
            Some(host) => self.agenda.push_host(host, id),
            None => self.start(id, lane, effects),
        }
    }

    /// Who is started next, if there is a free slot for it: unknown ones first, then the one that waits longest.
    ///
    /// Unknown ones and suspects may hang: together they take three quarters of the slots at most, and suspects half, so
    /// that known ones never wait for the end of a hang.
    pub(super) fn next_lane(&self) -> Option<(Lane, u32)> {
        let (slots, census) = (self.settings.max_in_flight, &self.census);
        if self.agenda.waiting() == 0 || census.in_flight_total >= slots {
            return None;
        }
        let doubtful = census.unknown_in_flight + census.suspects_in_flight;
        let doubtful_may_start = u64::from(doubtful) * 4 < u64::from(slots) * 3;
        let unknown = self.agenda.lane_head(Lane::Unknown).filter(|_| doubtful_may_start);
        if let Some(id) = unknown {
            return Some((Lane::Unknown, id));
        }
        let known = self.agenda.lane_head(Lane::Known);
        let suspects_may_start = doubtful_may_start && census.suspects_in_flight < (slots / 2).max(1);
        let suspect = self.agenda.lane_head(Lane::Suspect).filter(|_| suspects_may_start);
        match (known, suspect) {
            (Some(known), Some(suspect)) if self.agenda.due(suspect) < self.agenda.due(known) => {
                Some((Lane::Suspect, suspect))
            }
            (Some(known), _) => Some((Lane::Known, known)),
            (None, suspect) => suspect.map(|id| (Lane::Suspect, id)),
        }
    }

    fn full_host_of(&self, id: u32) -> Option<u32> {
        let host = self.instance(id)?.host?;
        (self.hosts[host as usize] >= self.settings.max_in_flight_per_host).then_some(host)
    }

    fn start(&mut self, id: u32, lane: Lane, effects: &mut Effects) {
        let now = self.now;
        let lag = now.since(self.agenda.due(id));
        let Self { instances, census, settings, .. } = self;
        let Some(instance) = instances[id as usize].as_mut() else { return };
        census.put(instance, Place::InFlight);
        instance.serial = instance.serial.wrapping_add(1);
        instance.started = now;
        instance.lane_in_flight = lane;
        instance.started_late = lag.get() > instance.planned.get() / 2 && instance.last_success.is_some();
        let ticket = instance.ticket(id);
        let moved = instance.breaker.start(now);
        let failures = instance.breaker.failures();
        let host = instance.host;
        let timeout = instance.timeout(settings);
        match lane {
            Lane::Unknown => self.census.unknown_in_flight += 1,
            Lane::Known => {}
            Lane::Suspect => self.census.suspects_in_flight += 1,
        }
        if let Some(host) = host {
            self.hosts[host as usize] += 1;
        }
        self.agenda.schedule(id, now + timeout.max(Millis::new(1)));
        if lane != Lane::Suspect {
            // Suspects wait for their own share of the slots, which says nothing of the load.
            self.load.started(lag);
        }
        self.totals.started += 1;
        if let Some(moved) = moved {
            let (from, to) = (moved.from, moved.to);
            let what = InstanceEvent::BreakerMoved { from, to, failures, retry_at: None };
            effects.instance_event(now, ticket.instance, what);
        }
        effects.tell(now, ticket.instance, || InstanceEvent::PollStarted { ticket, lag });
        effects.start(PollOrder { ticket, timeout });
    }

    /// Gives back the slot of the poll of `id` that was under way, and lets the next of its host wait for a slot.
    pub(super) fn release_slot(&mut self, id: u32) {
        let instance = self.instance_mut(id);
        let host = instance.host;
        match instance.lane_in_flight {
            Lane::Unknown => self.census.unknown_in_flight -= 1,
            Lane::Known => {}
            Lane::Suspect => self.census.suspects_in_flight -= 1,
        }
        if let Some(host) = host {
            self.hosts[host as usize] -= 1;
            self.admit_next_of(host);
        }
    }

    /// Lets the next one that waits for `host` wait for a slot, if the host has room.
    pub(super) fn admit_next_of(&mut self, host: u32) {
        if self.hosts[host as usize] < self.settings.max_in_flight_per_host
            && let Some(next) = self.agenda.host_head(host)
        {
            self.admit_from_host(next);
        }
    }

    /// Moves an instance from the queue of its host into its lane. It was the host's cap that held it up, not the
    /// daemon's load, so its lag counts from now.
    pub(super) fn admit_from_host(&mut self, id: u32) {
        let lane = self.instance_mut(id).lane();
        self.agenda.set_due(id, self.now);
        self.agenda.push_lane(lane, id);
    }
}

impl super::instance::Instance {
    fn lane(&self) -> Lane {
        if !self.polled {
            Lane::Unknown
        } else if self.breaker.failures() > 0 {
            Lane::Suspect
        } else {
            Lane::Known
        }
    }
}
