//! The life of an unsteady host: when it is down, and when what it has to tell changes.

use pulse::engine::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

use crate::scenario::HostGroup;
use crate::streams::Stream;
use crate::values::{Rate, Span};

/// How long before an announced outage readings begin to change, and how often they do so.
const NOTICE: Millis = Millis::from_mins(4);
const CHANGES_BEFORE: u32 = 5;
/// How long after it readings go on changing, and how often.
const AFTERMATH: Millis = Millis::from_secs(90);
const CHANGES_AFTER: u32 = 3;
/// An outage that follows another one sooner is left out: the host would still be known as dead.
const REST: Millis = Millis::from_mins(7);

/// Outages that befall the hosts of a group again and again, each host or machine at times of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outages {
    /// The mean time from the beginning of one to the beginning of the next.
    pub every: Span,
    /// The shortest that one lasts.
    pub shortest: Span,
    /// The longest that one lasts.
    pub longest: Span,
    /// How many of them are of the machine, and so of all its hosts at once.
    #[serde(default)]
    pub of_machine: Rate,
    /// How many of them are maintenance: readings change for some minutes before, and again when the host is back.
    #[serde(default)]
    pub announced: Rate,
}

/// What happens to one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    outages: Vec<Outage>,
    changes: Vec<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outage {
    from: Timestamp,
    until: Timestamp,
    announced: bool,
}

impl Life {
    /// The life of the host called `name` on `machine`, for as long as `length`.
    pub(crate) fn draw(
        seed: u64,
        group: &HostGroup,
        outages: Outages,
        name: &str,
        machine: &str,
        length: Millis,
    ) -> Self {
        let machine = if machine.is_empty() { name } else { machine };
        let of_machine = outages.of_machine.share();
        let mut all = Vec::new();
        outages.draw(&mut Stream::new(seed, "outages of machine", machine), of_machine, length, &mut all);
        outages.draw(&mut Stream::new(seed, "outages", name), 1.0 - of_machine, length, &mut all);
        all.sort_unstable();
        let mut life = Self::default();
        for outage in all {
            if life.outages.last().is_none_or(|last| outage.from >= last.until + REST) {
                life.outages.push(outage);
            }
        }
        life.draw_changes(group, &mut Stream::new(seed, "changes", name), length);
        life
    }

    fn draw_changes(&mut self, group: &HostGroup, stream: &mut Stream, length: Millis) {
        let mut within = |from: Timestamp, span: Millis| from + Millis::new(stream.below(span.get()));
        for outage in self.outages.iter().filter(|outage| outage.announced) {
            let notice = Timestamp::from_millis(outage.from.as_millis().saturating_sub(NOTICE.get()));
            self.changes.extend((0..CHANGES_BEFORE).map(|_| within(notice, NOTICE)));
            self.changes.extend((0..CHANGES_AFTER).map(|_| within(outage.until, AFTERMATH)));
        }
        if let Some(every) = group.changes_every {
            let mut at = Timestamp::ZERO;
            while at < Timestamp::ZERO + length {
                at = within(at, every.0 + every.0) + Millis::new(1);
                self.changes.push(at);
            }
        }
        self.changes.sort_unstable();
    }

    /// When the outage began that the host is in at `now`.
    pub(crate) fn down_since(&self, now: Timestamp) -> Option<Timestamp> {
        let begun = self.outages.partition_point(|outage| outage.from <= now);
        let last = self.outages[..begun].last()?;
        (now < last.until).then_some(last.from)
    }

    /// How many changes there were up to `now`.
    pub(crate) fn changes_until(&self, now: Timestamp) -> usize {
        self.changes.partition_point(|change| *change <= now)
    }

    /// Every change, the first one first.
    pub(crate) fn changes(&self) -> &[Timestamp] {
        &self.changes
    }
}

impl Outages {
    /// Outages for `share` of all, at gaps between nothing and twice their mean.
    fn draw(&self, stream: &mut Stream, share: f64, length: Millis, all: &mut Vec<Outage>) {
        if share <= 0.0 {
            return;
        }
        let longest_gap = self.every.0.scaled(2.0 / share).get();
        let spread = self.longest.0.saturating_sub(self.shortest.0).get();
        let mut from = Timestamp::ZERO;
        loop {
            from = from + Millis::new(stream.below(longest_gap) + 1);
            if from >= Timestamp::ZERO + length {
                return;
            }
            let lasts = self.shortest.0 + Millis::new(stream.below(spread + 1));
            let announced = self.announced.hits(stream.draw());
            all.push(Outage { from, until: from + lasts, announced });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = Millis::from_mins(24 * 60);

    fn life(name: &str, of_machine: f64, announced: f64) -> Life {
        let text = "name = \"x\"\nduration = \"1m\"\n[[hosts]]\ngroup = \"a\"\ncount = 1\n";
        let scenario = crate::scenario::Scenario::parse(text, "x.toml".as_ref()).unwrap();
        let span = |minutes| Span(Millis::from_mins(minutes));
        let (of_machine, announced) = (Rate::clamped(of_machine), Rate::clamped(announced));
        let outages = Outages { every: span(60), shortest: span(1), longest: span(4), of_machine, announced };
        Life::draw(1, &scenario.hosts[0], outages, name, "machine", DAY)
    }

    #[test]
    fn outages_come_about_as_often_as_they_should_and_last_as_long() {
        let lives: Vec<Life> = (0..50).map(|n| life(&n.to_string(), 0.0, 0.0)).collect();
        let outages: Vec<Outage> = lives.iter().flat_map(|life| life.outages.clone()).collect();
        let of_each = outages.len() as f64 / 50.0;
        assert!((19.0..25.0).contains(&of_each), "{of_each} a day, some too close to another one");
        let lasts = |outage: &Outage| (1..=4 * 60).contains(&((outage.until - outage.from).get() / 1_000));
        assert!(outages.iter().all(lasts));
    }

    #[test]
    fn hosts_of_one_machine_share_its_outages_and_no_others() {
        assert_eq!(life("a", 1.0, 0.0).outages, life("b", 1.0, 0.0).outages);
        assert_ne!(life("a", 0.0, 0.0).outages, life("b", 0.0, 0.0).outages);
    }

    #[test]
    fn an_announced_outage_is_preceded_by_changes() {
        let life = life("a", 0.0, 1.0);
        let first = life.outages.iter().find(|outage| outage.from > Timestamp::ZERO + NOTICE).unwrap();
        let notice = Timestamp::from_millis(first.from.as_millis() - NOTICE.get());
        assert_eq!(life.changes_until(first.from) - life.changes_until(notice), CHANGES_BEFORE as usize);
        assert_eq!(life.down_since(first.from), Some(first.from));
        assert_eq!(life.down_since(first.until), None);
    }
}
