//! Hears a run and keeps what a report shows of it, in a bounded number of slices of time.
//!
//! It takes no part in the run: a run that is recorded has the same trace as one that is not.

use std::collections::BTreeMap;

use pulse::engine::{Command, Event, FleetEvent, InstanceEvent, InstanceKey, Millis, Timestamp, What};

use super::lane::{Lane, Mark};
use crate::operators::Request;
use crate::violation::Violation;

/// Slices of a run, at the most; the page is as wide.
const MAX_SLICES: u64 = 240;
/// The shortest slice: rates over less are noise.
const SHORTEST_SLICE: Millis = Millis::from_secs(1);
/// Hosts whose lanes are kept; of those beyond only counts.
const MAX_LANES: usize = 50_000;
/// Moments of the whole fleet that are kept.
const MAX_MOMENTS: usize = 60;

/// The fleet at the end of a slice, and its extremes within it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slice {
    /// Shorter than the others at the end of a run.
    pub(super) length: Millis,
    pub(super) polls: u64,
    pub(super) failures: u64,
    pub(super) deepest_queue: u32,
    pub(super) most_in_flight: u32,
    pub(super) most_stretch: f64,
    pub(super) open: u32,
    pub(super) dead: u32,
    /// Mean, 99th percentile and maximum, in milliseconds, of hosts in the live queue; `None` without any.
    pub(super) ages: Option<[f64; 3]>,
}

/// What a run left for its report.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(super) slice: Millis,
    pub(super) end: Timestamp,
    pub(super) slices: Vec<Slice>,
    /// Hosts in the order of the scenario.
    pub(super) lanes: Vec<Lane>,
    pub(super) moments: Vec<(Timestamp, String)>,
    pub(super) moments_left_out: u64,
    /// How many polls took so many milliseconds.
    pub(super) took: BTreeMap<u64, u64>,
    /// When the faults ended, if the run went on to see everybody get well.
    pub(super) calm_at: Option<Timestamp>,
}

/// Hears a run.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    recording: Recording,
    by_key: BTreeMap<InstanceKey, usize>,
    by_id: Vec<Option<usize>>,
    now: Timestamp,
    current: Slice,
    queue: u32,
    in_flight: u32,
    stretch: f64,
}

impl Recorder {
    /// A recorder of hosts by key and group, for a run of at most `longest`.
    pub(crate) fn new<'a>(hosts: impl Iterator<Item = (&'a InstanceKey, &'a str)>, longest: Millis) -> Self {
        // Whole seconds, which are good to read.
        let slice = SHORTEST_SLICE.max(Millis::from_secs(longest.get().div_ceil(MAX_SLICES * 1_000)));
        let count = longest.get() / slice.get() + 1;
        let mut by_key = BTreeMap::new();
        let mut lanes = Vec::new();
        for (number, (key, group)) in hosts.enumerate() {
            by_key.insert(key.clone(), number);
            let kept = if number < MAX_LANES { count as usize } else { 0 };
            lanes.push(Lane::new(key.to_string(), group.to_owned(), kept));
        }
        let recording = Recording {
            slice,
            end: Timestamp::ZERO,
            slices: Vec::new(),
            lanes,
            moments: Vec::new(),
            moments_left_out: 0,
            took: BTreeMap::new(),
            calm_at: None,
        };
        let current = Slice { most_stretch: 1.0, ..Slice::default() };
        Self {
            recording,
            by_key,
            by_id: Vec::new(),
            now: Timestamp::ZERO,
            current,
            queue: 0,
            in_flight: 0,
            stretch: 1.0,
        }
    }

    pub(crate) fn hear(&mut self, event: &Event) {
        self.advance(event.at);
        match &event.what {
            What::Instance { instance, what } => self.hear_instance(instance.index(), what),
            What::Fleet(FleetEvent::LoadChanged { stretch_permille }) => {
                self.stretch = f64::from(*stretch_permille) / 1_000.0;
                self.current.most_stretch = self.current.most_stretch.max(self.stretch);
            }
            What::Fleet(FleetEvent::InventoryApplied { added, removed, changed }) if self.now > Timestamp::ZERO => {
                self.say(|| format!("inventory applied: {added} added, {removed} removed, {changed} edited"));
            }
            What::Fleet(FleetEvent::SettingsApplied { replanned }) => {
                self.say(|| format!("settings applied, {replanned} hosts planned anew"));
            }
            What::Fleet(_) => {}
        }
    }

    fn hear_instance(&mut self, id: usize, what: &InstanceEvent) {
        if let InstanceEvent::Added { key } = what {
            if self.by_id.len() <= id {
                self.by_id.resize(id + 1, None);
            }
            self.by_id[id] = self.by_key.get(key).copied();
        }
        let Some(host) = self.by_id.get(id).copied().flatten() else { return };
        match what {
            InstanceEvent::PollStarted { .. } => self.current.polls += 1,
            InstanceEvent::PollFailed { took, .. } => {
                self.current.failures += 1;
                *self.recording.took.entry(took.get()).or_default() += 1;
            }
            InstanceEvent::PollSucceeded { took, .. } => {
                *self.recording.took.entry(took.get()).or_default() += 1;
            }
            _ => {}
        }
        let slice = self.slice_number();
        let lane = &mut self.recording.lanes[host];
        let before = lane.in_flight;
        lane.hear(self.now, slice, what);
        match (before, lane.in_flight) {
            (false, true) => self.in_flight += 1,
            (true, false) => self.in_flight = self.in_flight.saturating_sub(1),
            _ => {}
        }
        self.current.most_in_flight = self.current.most_in_flight.max(self.in_flight);
    }

    /// The engine has taken a step, and its live queue is `queue` deep.
    pub(crate) fn stepped(&mut self, now: Timestamp, queue: u32) {
        self.advance(now);
        self.queue = queue;
        self.current.deepest_queue = self.current.deepest_queue.max(queue);
    }

    /// An operator asks for something.
    pub(crate) fn asked(&mut self, now: Timestamp, request: &Request) {
        self.advance(now);
        match request {
            Request::Command(command) => self.asked_command(command),
            Request::ToggleAdaptive => self.say(|| "operator: adaptive polling toggled".to_owned()),
            Request::Settings(_) => self.say(|| "operator: other settings".to_owned()),
            Request::OriginalSettings => self.say(|| "operator: the scenario's settings again".to_owned()),
            Request::Discharge(hosts) => self.asked_of(hosts, "taken out of the inventory"),
            Request::Enlist(hosts) => self.asked_of(hosts, "put back into the inventory"),
            Request::EditHost(host) => self.asked_of(&[*host], "credentials edited"),
            Request::Inventory(specs) => self.say(|| format!("operator: an inventory of {} instances", specs.len())),
            Request::Look(_) => {}
        }
    }

    fn asked_command(&mut self, command: &Command) {
        let (key, what) = match command {
            Command::ResetBreaker { key } => (key, "breaker reset"),
            Command::RetryDeadLetter { key } => (key, "dead letter retried"),
            Command::RemoveDeadLetter { key } => (key, "dead letter removed"),
            Command::PollNow { key } => (key, "polled at once"),
            Command::SetEnabled { key, enabled: true } => (key, "enabled"),
            Command::SetEnabled { key, enabled: false } => (key, "paused"),
            Command::RetryDeadLetters { .. } => return self.say(|| "operator: dead letters retried".to_owned()),
        };
        if let Some(host) = self.by_key.get(key).copied() {
            self.asked_of(&[host], what);
        }
    }

    fn asked_of(&mut self, hosts: &[usize], what: &str) {
        let slice = self.slice_number();
        for host in hosts {
            let lane = &mut self.recording.lanes[*host];
            lane.mark(slice, Mark::Operator);
            lane.say(self.now, || format!("operator: {what}"));
        }
    }

    /// The daemon was killed and started again.
    pub(crate) fn restarted(&mut self, now: Timestamp) {
        self.advance(now);
        self.say(|| "the daemon was killed and started again".to_owned());
        self.by_id.clear();
        (self.in_flight, self.stretch) = (0, 1.0);
        self.recording.lanes.iter_mut().for_each(Lane::restarted);
    }

    /// Every fault ends.
    pub(crate) fn calmed_down(&mut self, now: Timestamp) {
        self.advance(now);
        self.recording.calm_at = Some(now);
        self.say(|| "every fault ends, and operators undo what they did".to_owned());
    }

    /// The recording of a run that ended at `end` with these violations.
    pub(crate) fn finish(mut self, end: Timestamp, violations: &[Violation]) -> Recording {
        self.advance(end);
        if self.current.polls > 0 || self.recording.slices.is_empty() {
            self.close_slice();
        }
        self.recording.end = end;
        for violation in violations {
            // What is found at the end belongs to the last slice.
            let last = self.recording.slices.len().saturating_sub(1);
            let slice = last.min((violation.at.as_millis() / self.recording.slice.get()) as usize);
            for lane in self.recording.lanes.iter_mut().filter(|lane| names(&violation.detail, &lane.key)) {
                lane.violations += 1;
                lane.mark(slice, Mark::Violation);
                lane.moments.push((violation.at, format!("violation: {violation}")));
            }
        }
        self.recording
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        match self.recording.moments.len() < MAX_MOMENTS {
            true => self.recording.moments.push((self.now, what())),
            false => self.recording.moments_left_out += 1,
        }
    }

    fn slice_number(&self) -> usize {
        self.recording.slices.len()
    }

    fn slice_end(&self) -> Timestamp {
        Timestamp::from_millis((self.recording.slices.len() as u64 + 1) * self.recording.slice.get())
    }

    fn advance(&mut self, now: Timestamp) {
        while now >= self.slice_end() {
            self.now = self.slice_end();
            self.close_slice();
        }
        self.now = now;
    }

    fn close_slice(&mut self) {
        let (number, now) = (self.slice_number(), self.now);
        let mut ages = Vec::new();
        for lane in &mut self.recording.lanes {
            lane.mark_states(number);
            self.current.open += u32::from(lane.is_open());
            self.current.dead += u32::from(lane.is_dead());
            ages.extend(lane.age(now).map(Millis::get));
        }
        self.current.ages = mean_p99_max(&mut ages);
        self.current.length = now - Timestamp::from_millis(number as u64 * self.recording.slice.get());
        self.recording.slices.push(self.current);
        self.current = Slice {
            deepest_queue: self.queue,
            most_in_flight: self.in_flight,
            most_stretch: self.stretch,
            ..Slice::default()
        };
    }
}

fn mean_p99_max(ages: &mut [u64]) -> Option<[f64; 3]> {
    let max = *ages.iter().max()?;
    let mean = ages.iter().sum::<u64>() as f64 / ages.len() as f64;
    let place = (ages.len() * 99 / 100).min(ages.len() - 1);
    let (_, p99, _) = ages.select_nth_unstable(place);
    Some([mean, *p99 as f64, max as f64])
}

/// Whether a sentence names this key, and not one of which it is the beginning.
fn names(sentence: &str, key: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|next: char| next.is_alphanumeric() || next == '-' || next == '_');
    sentence.match_indices(key).any(|(at, _)| !goes_on(&sentence[at + key.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_belongs_to_the_host_that_it_names_and_not_to_its_namesakes() {
        assert!(names("pve::a-1: late", "pve::a-1"));
        assert!(!names("pve::a-12: late", "pve::a-1"));
        assert!(names("pve::a-12 and pve::a-1", "pve::a-1"));
    }

    #[test]
    fn the_oldest_of_a_hundred_is_above_the_99th_percentile() {
        let mut ages: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(mean_p99_max(&mut ages), Some([100.5, 199.0, 200.0]));
        assert_eq!(mean_p99_max(&mut [7]), Some([7.0; 3]));
        assert_eq!(mean_p99_max(&mut []), None);
    }
}
