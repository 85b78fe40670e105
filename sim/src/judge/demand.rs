//! Whether there are slots enough: a fleet that wants many more than there are, for long, must have been stretched.
//!
//! What it wants follows from how long its polls took and how soon each host is to be polled again. Queue depth is no part
//! of it, nor is how the daemon measures.

use pulse::engine::{IntervalReason, Millis, Place, Timestamp};

use super::Judge;
use super::rhythm::chosen_for;
use crate::violation::Rule;

/// Base intervals that are looked at together.
const SPAN: f64 = 4.4;
/// For so many spans in a row a fleet must want too much before it must have been stretched.
const FOR_LONG: u32 = 5;
/// The share of slots that it may use.
const TARGET_USE: f64 = 0.8;
/// So many times what there is are too much beyond doubt.
const TOO_MUCH: f64 = 1.4;
/// A stretch by less than this is none.
const STRETCHED: f64 = 1.08;

/// What the fleet wants, while nobody interferes and nobody comes or goes.
#[derive(Debug, Default)]
pub(super) struct Demand {
    since: Timestamp,
    took: Millis,
    wanted: Millis,
    longest: Millis,
    /// The poll that has just succeeded.
    last: Millis,
    /// Spans in a row in which it was too much.
    spans: u32,
    most_stretched: f64,
}

impl Demand {
    /// Looks at what is wanted from `now` on.
    pub(super) fn begin(&mut self, now: Timestamp) {
        *self = Self { since: now, last: self.last, ..Self::default() };
    }

    pub(super) fn took(&mut self, took: Millis) {
        self.last = took;
    }

    pub(super) fn stretched(&mut self, stretch: f64) {
        self.most_stretched = self.most_stretched.max(stretch);
    }

    fn next_span(&mut self, now: Timestamp, was_too_much: bool) {
        let spans = if was_too_much { self.spans + 1 } else { 0 };
        let most_stretched = if was_too_much { self.most_stretched } else { 0.0 };
        *self = Self { since: now, last: self.last, spans, most_stretched, ..Self::default() };
    }
}

impl Judge {
    /// A poll succeeded, and for `reason` its host is polled again.
    pub(super) fn wanted(&mut self, host: usize, reason: IntervalReason) {
        let settings = &self.settings;
        let interval = match reason {
            IntervalReason::Fixed => self.truths[host].fixed_interval(settings),
            reason => chosen_for(reason, settings).map(|(_, most)| most.min(settings.max_interval)),
        };
        let demand = &mut self.load.demand;
        match interval {
            Some(interval) => {
                demand.took = demand.took + demand.last;
                demand.wanted = demand.wanted + interval;
                demand.longest = demand.longest.max(demand.last);
            }
            // Another policy keeps to itself what it wants.
            None => demand.begin(self.now),
        }
    }

    /// How many times the slots that may be used the fleet wants, as far as this span says.
    fn times_too_many(&self) -> f64 {
        let demand = &self.load.demand;
        if demand.wanted == Millis::ZERO {
            return 0.0;
        }
        let live = self.truths.iter().filter(|it| it.present && matches!(it.place(), Place::Queued | Place::InFlight));
        let needed = live.count() as f64 * demand.took.get() as f64 / demand.wanted.get() as f64;
        // What long polls took is counted where they end, and may make a window look as if it had more to give.
        let longest = demand.longest.get() as f64 / self.settings.base_interval.get() as f64;
        needed / (f64::from(self.settings.max_in_flight) * (TARGET_USE + longest))
    }

    /// A fleet that has wanted too much for long is stretched by now, as far as the bounds let it.
    pub(super) fn judge_demand(&mut self) {
        let span = self.settings.base_interval.scaled(SPAN);
        if self.load.demand.since + span > self.now {
            return;
        }
        let times = self.times_too_many();
        self.load.demand.stretched(self.load.stretch);
        self.load.demand.next_span(self.now, times >= TOO_MUCH);
        if self.load.demand.spans < FOR_LONG {
            return;
        }
        self.reached("slots were too few for long");
        let most = self.settings.max_interval.as_secs_f64() / self.settings.min_interval.as_secs_f64();
        let stretched = self.load.demand.most_stretched;
        if stretched < STRETCHED.min(most) {
            let (spans, slots) = (self.load.demand.spans, self.settings.max_in_flight);
            self.accuse(Rule::Load, || {
                format!(
                    "{spans} times {span} {times:.1} times what {slots} slots can carry, and stretched by {stretched}"
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse::engine::{InstanceKey, InstanceSpec, InstanceType, Settings};

    use super::*;

    /// What is wrong after ten minutes in which each of `hosts` answers after two seconds in every base interval, times
    /// `stretch`, and the daemon says that it stretches the fleet by `told`.
    fn wrong(hosts: u32, told: f64) -> Vec<Rule> {
        let spec = |n| InstanceSpec::new(InstanceKey::new(InstanceType::Pve, &format!("host-{n}")).unwrap());
        let specs: Vec<InstanceSpec> = (0..hosts).map(spec).collect();
        let settings = Settings::default();
        let mut judge = Judge::new(&specs, settings.clone(), Timestamp::ZERO, false);
        judge.truths.iter_mut().for_each(|truth| truth.present = true);
        judge.load.stretch = told;
        for tick in 1..=600 {
            let now = Timestamp::from_millis(tick * 1_000);
            judge.now = now;
            for host in 0..hosts as usize / 10 {
                judge.took(Millis::from_secs(2));
                judge.wanted(host, IntervalReason::Base);
            }
            judge.judge_tick(now);
        }
        judge.violations.iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_fleet_that_wants_more_slots_than_there_are_for_long_must_be_stretched() {
        // A slot carries five hosts at two seconds in ten.
        let carried = Settings::default().max_in_flight * 5;
        assert_eq!(wrong(carried, 1.0), []);
        assert_eq!(wrong(carried * 2, 1.0).first(), Some(&Rule::Load));
        assert_eq!(wrong(carried * 2, 2.5), []);
    }

    #[test]
    fn what_was_wanted_before_a_change_is_not_held_against_the_daemon() {
        let mut demand = Demand { since: Timestamp::ZERO, spans: FOR_LONG - 1, ..Demand::default() };
        demand.begin(Timestamp::from_millis(5));
        assert_eq!((demand.spans, demand.since), (0, Timestamp::from_millis(5)));
    }
}
