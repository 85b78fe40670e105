//! The fleet or the settings are replaced while running: surgically, so that nobody else's schedule or failures move.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::{Engine, Vacancy};
use super::dead_letter::DeadLetterReason;
use super::effect::{Effects, FleetEvent, InstanceEvent};
use super::instance::{Instance, InstanceSpec, Place};
use super::interval::{Choice, IntervalReason, PolicyMemory};
use super::key::{InstanceId, InstanceKey};
use super::settings::Settings;
use super::time::Millis;

impl Engine {
    pub(super) fn replace_inventory(&mut self, specs: Vec<InstanceSpec>, effects: &mut Effects) {
        let mut wanted: BTreeMap<InstanceKey, InstanceSpec> = BTreeMap::new();
        for spec in specs {
            wanted.entry(spec.key.clone()).or_insert(spec);
        }
        let gone: Vec<u32> = self.ids.iter().filter(|(key, _)| !wanted.contains_key(*key)).map(|(_, id)| *id).collect();
        let (mut added, mut changed) = (0, 0);
        for id in &gone {
            self.remove(*id, effects);
        }
        for (key, spec) in wanted {
            match self.ids.get(&key) {
                Some(id) => changed += u32::from(self.update(*id, spec, effects)),
                None => {
                    self.add(key, spec, effects);
                    added += 1;
                }
            }
        }
        self.assign_hosts();
        let removed = gone.len() as u32;
        effects.fleet_event(self.now, FleetEvent::InventoryApplied { added, removed, changed });
    }

    fn add(&mut self, key: InstanceKey, spec: InstanceSpec, effects: &mut Effects) {
        let vacancy = self.free.pop().unwrap_or(Vacancy { id: self.instances.len() as u32, serial: 0 });
        let id = vacancy.id;
        let enabled = spec.enabled;
        let instance = Instance::new(spec, vacancy.serial, self.now);
        match self.instances.get_mut(id as usize) {
            Some(place) => *place = Some(instance),
            None => self.instances.push(Some(instance)),
        }
        self.agenda.grow(self.instances.len());
        self.ids.insert(key.clone(), id);
        effects.instance_event(self.now, InstanceId(id), InstanceEvent::Added { key });
        if enabled {
            self.enter_queue(id, effects);
        }
    }

    fn remove(&mut self, id: u32, effects: &mut Effects) {
        self.withdraw(id, effects);
        let instance = self.instance_mut(id);
        let (key, serial) = (instance.spec().key.clone(), instance.serial);
        self.ids.remove(&key);
        self.vacated.push(Vacancy { id, serial });
        effects.instance_event(self.now, InstanceId(id), InstanceEvent::Removed { key });
    }

    /// Takes over an edited spec; says whether anything about the polling changed.
    fn update(&mut self, id: u32, spec: InstanceSpec, effects: &mut Effects) -> bool {
        let instance = self.instance_mut(id);
        let before = instance.replace_spec(spec);
        let spec = instance.spec();
        let reconfigured = spec.revision != before.revision;
        let interval_changed = spec.interval != before.interval;
        let changed = *spec != before;
        if reconfigured || spec.enabled != before.enabled {
            instance.enabled_by_operator = None;
        }
        if reconfigured {
            self.forget_and_requeue(id, effects);
        } else {
            self.follow_enabled(id, effects);
            if interval_changed {
                self.replan(id, None, effects);
            }
        }
        changed
    }

    /// The instance was edited: what failed may work now, so everything starts afresh.
    fn forget_and_requeue(&mut self, id: u32, effects: &mut Effects) {
        let was_paused = self.instance_mut(id).place == Place::Paused;
        self.withdraw(id, effects);
        let now = self.now;
        let instance = self.instance_mut(id);
        let was_dead = instance.dead_letter().is_some();
        instance.forget_failures(now);
        instance.polled = false;
        instance.reading = None;
        instance.memory = PolicyMemory::default();
        effects.instance_event(now, InstanceId(id), InstanceEvent::Reconfigured);
        if was_dead {
            effects.instance_event(now, InstanceId(id), InstanceEvent::Revived);
        }
        match (was_paused, self.instance_mut(id).is_enabled()) {
            (true, true) => {
                self.follow_enabled(id, effects);
            }
            (false, true) => self.enter_queue(id, effects),
            (false, false) => effects.instance_event(now, InstanceId(id), InstanceEvent::Paused),
            (true, false) => {}
        }
    }

    /// Pauses or resumes the instance where its switches and its place disagree; says whether they did.
    pub(super) fn follow_enabled(&mut self, id: u32, effects: &mut Effects) -> bool {
        let now = self.now;
        let instance = self.instance_mut(id);
        match (instance.is_enabled(), instance.place == Place::Paused) {
            (false, false) => {
                self.withdraw(id, effects);
                self.instance_mut(id).forget_failures(now);
                effects.instance_event(now, InstanceId(id), InstanceEvent::Paused);
                true
            }
            (true, true) => {
                instance.known_since = now;
                effects.instance_event(now, InstanceId(id), InstanceEvent::Resumed);
                self.enter_queue(id, effects);
                true
            }
            _ => false,
        }
    }

    /// Takes the instance out of wherever it is, calling off a poll under way. It is paused afterwards.
    fn withdraw(&mut self, id: u32, effects: &mut Effects) {
        let host = self.instance_mut(id).host.filter(|_| self.agenda.is_waiting_for_a_slot(id));
        self.agenda.unlink(id);
        if let Some(host) = host {
            // It may have been the one that its host had let through.
            self.admit_next_of(host);
        }
        let instance = self.instance_mut(id);
        if instance.place == Place::InFlight {
            let ticket = instance.ticket(id);
            self.release_slot(id);
            self.totals.cancelled += 1;
            effects.cancel(ticket);
            effects.instance_event(self.now, InstanceId(id), InstanceEvent::PollCancelled { ticket });
        }
        self.set_place(id, Place::Paused);
    }

    /// Queues an instance for its first poll, at a moment of its own within the base interval (lesson 15).
    fn enter_queue(&mut self, id: u32, effects: &mut Effects) {
        self.set_place(id, Place::Queued);
        let base = self.settings.base_interval;
        let fixed = self.instance(id).and_then(|instance| instance.fixed_interval(&self.settings));
        let wait = self.draw_between(id, Millis::ZERO, fixed.unwrap_or(base).min(base));
        self.plan(id, self.now + wait, wait, IntervalReason::First, effects);
    }

    /// Counts anew which hosts carry several instances, and how many polls are under way on each.
    fn assign_hosts(&mut self) {
        self.release_host_queues();
        let mut tenants: BTreeMap<Arc<str>, (u32, Option<u32>)> = BTreeMap::new();
        let live = || self.ids.values().filter_map(|id| self.instance(*id));
        for instance in live().filter(|instance| !instance.spec().host.is_empty()) {
            tenants.entry(instance.spec().host.clone()).or_default().0 += 1;
        }
        let mut hosts = 0;
        for (_, host) in tenants.values_mut().filter(|(count, _)| *count > 1) {
            *host = Some(hosts);
            hosts += 1;
        }
        self.hosts = vec![0; hosts as usize];
        self.tenants = vec![Vec::new(); hosts as usize];
        self.agenda.resize_hosts(hosts as usize);
        for (id, instance) in (0..).zip(&mut self.instances) {
            let Some(instance) = instance else { continue };
            instance.host = tenants.get(&instance.spec().host).and_then(|(_, host)| *host);
            if let Some(host) = instance.host {
                self.tenants[host as usize].push(id);
            }
            if let (Some(host), Place::InFlight) = (instance.host, instance.place) {
                self.hosts[host as usize] += 1;
            }
        }
    }

    /// Lets everything that waits for its host wait for a slot; the next dispatch sorts out what must wait on.
    fn release_host_queues(&mut self) {
        for host in 0..self.hosts.len() as u32 {
            while let Some(id) = self.agenda.host_head(host) {
                self.admit_from_host(id);
            }
        }
    }

    pub(super) fn replace_settings(&mut self, settings: Box<Settings>, effects: &mut Effects) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.release_host_queues();
        let ids: Vec<u32> = self.ids.values().copied().collect();
        let replanned = ids.into_iter().filter(|id| self.replan(*id, Some(&before), effects)).count() as u32;
        effects.fleet_event(self.now, FleetEvent::SettingsApplied { replanned });
    }

    /// Moves the due time of a waiting instance to where the settings in force put it; says whether it moved.
    ///
    /// Given the settings `before`, the rhythm of a healthy instance is left alone unless they had another one for it.
    fn replan(&mut self, id: u32, before: Option<&Settings>, effects: &mut Effects) -> bool {
        if !self.agenda.is_on_wheel(id) {
            return false;
        }
        let Some(instance) = self.instance(id) else { return false };
        match instance.place {
            Place::InFlight | Place::Paused => false,
            Place::Queued if instance.breaker.failures() == 0 || instance.is_availability_check() => {
                let same = before.is_some_and(|before| self.has_same_rhythm(instance, before));
                !same && self.replan_healthy(id, effects)
            }
            Place::Queued => {
                let longest = self.settings.backoff.max.max(self.settings.breaker.open_max);
                self.bring_forward(id, longest, effects)
            }
            Place::DeadLettered => {
                let rules = self.settings.dead_letter;
                let longest = match instance.dead_letter().map(|entry| entry.reason) {
                    Some(DeadLetterReason::PermanentFailure) => rules.permanent_recheck,
                    Some(DeadLetterReason::MaxRetryAttempts) | None => rules.transient_recheck_max,
                };
                self.bring_forward(id, longest, effects)
            }
        }
    }

    fn has_same_rhythm(&self, instance: &Instance, before: &Settings) -> bool {
        let fixed_before = instance.spec().interval.or(before.types[instance.kind].interval);
        let fixed = instance.fixed_interval(&self.settings);
        let rhythm = |it: &Settings| (it.adaptive, it.base_interval, it.min_interval, it.max_interval);
        fixed == fixed_before && (fixed.is_some() || rhythm(before) == rhythm(&self.settings))
    }

    fn replan_healthy(&mut self, id: u32, effects: &mut Effects) -> bool {
        let base = self.settings.base_interval;
        let Some(instance) = self.instance(id) else { return false };
        let (interval, reason) = match instance.fixed_interval(&self.settings) {
            Some(fixed) => (fixed, IntervalReason::Fixed),
            None => (base, IntervalReason::Replanned),
        };
        if !instance.polled {
            return self.bring_forward(id, base, effects);
        }
        let stretched = interval.scaled(self.load.stretch());
        let tolerance = Millis::new(stretched.get() / 20);
        if (stretched.saturating_sub(tolerance)..=stretched + tolerance).contains(&instance.planned) {
            return false;
        }
        self.instance_mut(id).memory = PolicyMemory::default();
        let planned = self.draw_interval(id, Choice::exactly(interval, reason));
        let due = self.instance_mut(id).started + planned;
        if due > self.now {
            self.plan(id, due, planned, reason, effects);
        } else {
            // All of those that are overdue now would be a herd if they were polled at once.
            let wait = self.draw_between(id, Millis::ZERO, interval.min(base));
            self.plan(id, self.now + wait, wait, reason, effects);
        }
        true
    }

    fn bring_forward(&mut self, id: u32, longest: Millis, effects: &mut Effects) -> bool {
        if self.agenda.due(id) <= self.now + longest {
            return false;
        }
        let wait = self.draw_between(id, Millis::ZERO, longest);
        self.plan(id, self.now + wait, wait, IntervalReason::Replanned, effects);
        true
    }
}
