//! How fresh a fleet was, and how soon outages and changes were seen.

use pulse::engine::{Event, InstanceEvent, Millis, Timestamp, What};
use serde::Serialize;

use crate::host::Host;
use crate::judge::Truth;
use crate::scenario::Scenario;

/// How old readings were over time and over the fleet, and how long what happened stayed unseen. In milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    /// Mean age of readings, those of hosts that are down included.
    pub mean_age: f64,
    /// The age that one percent of moments exceed.
    pub p99_age: f64,
    /// Mean time from the beginning of an outage to the end of the first failed poll.
    pub mean_detection: f64,
    /// The time that one outage in a hundred takes longer to be seen.
    pub p99_detection: f64,
    /// Mean time from a change of a host to the end of the first poll that brought it.
    pub mean_news: f64,
}

impl Freshness {
    /// By how many percent each figure is below the other's.
    pub fn gain_over(&self, other: &Self) -> Self {
        let percent = |ours: f64, theirs: f64| if theirs > 0.0 { (1.0 - ours / theirs) * 100.0 } else { 0.0 };
        Self {
            mean_age: percent(self.mean_age, other.mean_age),
            p99_age: percent(self.p99_age, other.p99_age),
            mean_detection: percent(self.mean_detection, other.mean_detection),
            p99_detection: percent(self.p99_detection, other.p99_detection),
            mean_news: percent(self.mean_news, other.mean_news),
        }
    }
}

/// What freshness is computed from: one run, or several added up.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    polls: u64,
    /// From one success of a host to its next, or to the end of the run.
    gaps: Vec<u32>,
    detections: Vec<u32>,
    news: u64,
    changes: u64,
}

impl Ages {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.polls += other.polls;
        self.gaps.extend(other.gaps);
        self.detections.extend(other.detections);
        self.news += other.news;
        self.changes += other.changes;
    }

    /// Polls started.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// Outages of which a failed poll told.
    pub fn outages(&self) -> usize {
        self.detections.len()
    }

    /// The figures.
    pub fn freshness(&mut self) -> Freshness {
        self.gaps.sort_unstable_by(|a, b| b.cmp(a));
        self.detections.sort_unstable();
        let total: u64 = self.gaps.iter().map(|gap| u64::from(*gap)).sum();
        let area: f64 = self.gaps.iter().map(|gap| f64::from(*gap) * f64::from(*gap) / 2.0).sum();
        let seen = self.detections.len();
        let unseen: u64 = self.detections.iter().map(|it| u64::from(*it)).sum();
        Freshness {
            mean_age: area / total.max(1) as f64,
            p99_age: self.exceeded_for(total as f64 / 100.0),
            mean_detection: unseen as f64 / seen.max(1) as f64,
            p99_detection: self.detections.get(seen * 99 / 100).map_or(0.0, |it| f64::from(*it)),
            mean_news: self.news as f64 / self.changes.max(1) as f64,
        }
    }

    /// The age that is exceeded for `above` milliseconds in all.
    ///
    /// Within a gap the age runs from zero to the gap: the time spent above an age is the sum of what gaps, the longest
    /// first, exceed it by.
    fn exceeded_for(&self, above: f64) -> f64 {
        let (mut sum, mut age) = (0.0, 0.0);
        for (index, gap) in self.gaps.iter().enumerate() {
            sum += f64::from(*gap);
            age = (sum - above) / (index + 1) as f64;
            let next = self.gaps.get(index + 1).copied().map_or(0.0, f64::from);
            if age >= next {
                break;
            }
        }
        age
    }
}

/// Listens to a run and notes how long outages and changes stay unseen.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    since: Timestamp,
    /// How many of a host's changes have been seen.
    seen: Vec<usize>,
    ages: Ages,
}

impl Watch {
    /// Watches `hosts` hosts for what happens from `since` on.
    pub(crate) fn new(hosts: usize, since: Timestamp) -> Self {
        Self { since, seen: vec![0; hosts], ages: Ages::default() }
    }

    /// Hears an event about `host`, which is the one with `index`.
    pub(crate) fn hear(&mut self, scenario: &Scenario, now: Timestamp, event: &Event, index: usize, host: &Host) {
        let What::Instance { what, .. } = &event.what else { return };
        match what {
            InstanceEvent::PollStarted { .. } => self.ages.polls += u64::from(now >= self.since),
            InstanceEvent::PollFailed { failures: 1, took, .. } => {
                let began = host.outage_began(scenario, before(now, *took));
                self.ages.detections.extend(began.filter(|at| *at >= self.since).map(|at| short(now.since(at))));
            }
            InstanceEvent::PollSucceeded { took, .. } => {
                let seen = host.changes_until(before(now, *took));
                for change in &host.changes()[self.seen[index]..seen] {
                    if *change >= self.since {
                        self.ages.news += now.since(*change).get();
                        self.ages.changes += 1;
                    }
                }
                self.seen[index] = seen;
            }
            _ => {}
        }
    }

    /// What there is at the end of the run, with the ages that the judge noted.
    pub(crate) fn ages(&self, truths: &[Truth], end: Timestamp) -> Ages {
        let mut ages = self.ages.clone();
        ages.gaps.extend(truths.iter().flat_map(|truth| truth.ages.iter().copied()));
        let open = |truth: &Truth| truth.last_success.map(|at| short(end.since(at.max(self.since))));
        ages.gaps.extend(truths.iter().filter_map(open));
        ages
    }
}

fn before(now: Timestamp, span: Millis) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_sub(span.get()))
}

fn short(span: Millis) -> u32 {
    u32::try_from(span.get()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_runs_from_zero_to_the_gap() {
        let mut ages = Ages { gaps: vec![10_000; 100], ..Ages::default() };
        let freshness = ages.freshness();
        assert_eq!((freshness.mean_age, freshness.p99_age), (5_000.0, 9_900.0));
    }

    #[test]
    fn one_long_gap_among_short_ones_is_what_the_99th_percentile_sees() {
        let mut ages = Ages { gaps: vec![10_000; 1_900], ..Ages::default() };
        ages.gaps.push(1_000_000);
        let freshness = ages.freshness();
        // 20,000 s in all, 200 s of them above the age: the last fifth of the long gap.
        assert_eq!(freshness.p99_age, 800_000.0);
    }
}
