//! What is held against the samples of a run: nothing grows beyond noise, and nothing outlives the daemon.

use serde::Serialize;

use crate::sample::{Leftover, Sample};
use crate::trend::{Trend, trend};

const MIB: f64 = 1_048_576.0;
/// How long a stop may take.
const STOP_WITHIN_MILLIS: u64 = 30_000;

/// One rule, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which rule.
    pub rule: String,
    /// What was seen.
    pub measured: String,
    /// What is allowed.
    pub allowed: String,
    /// Whether it held.
    pub verdict: Verdict,
}

/// Whether a rule held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It did.
    Pass,
    /// It did not.
    Fail,
    /// The run was too short, or was ended too early, to tell.
    NotJudged,
}

impl Check {
    /// A rule that held or not.
    pub(crate) fn new(
        rule: impl Into<String>,
        measured: impl Into<String>,
        allowed: impl Into<String>,
        held: bool,
    ) -> Self {
        let verdict = if held { Verdict::Pass } else { Verdict::Fail };
        Self { rule: rule.into(), measured: measured.into(), allowed: allowed.into(), verdict }
    }

    /// A rule that nothing can be said about.
    pub(crate) fn not_judged(rule: impl Into<String>, why: impl Into<String>) -> Self {
        Self { rule: rule.into(), measured: why.into(), allowed: "–".to_owned(), verdict: Verdict::NotJudged }
    }

    /// Whether it was broken.
    pub fn failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

/// Something that must not grow.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: fn(&Sample) -> f64,
    /// A rise that is too small to matter: so much, or this share of the level, whichever is more.
    floor: f64,
    share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Count,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => format!("{:.2} MiB", value / MIB),
            Self::Count => format!("{value:.1}"),
        }
    }
}

/// Everything that can leak.
pub(crate) const SERIES: [Series; 7] = [
    // What the daemon keeps of events, versions and calls is bounded, and fills in its first minutes.
    Series { name: "live heap", unit: Unit::Bytes, value: |it| it.heap_bytes as f64, floor: MIB / 16.0, share: 0.05 },
    // The profile of the heap is part of it, and takes more whenever it meets a new way to an allocation.
    Series {
        name: "resident memory",
        unit: Unit::Bytes,
        value: |it| it.resident_bytes as f64,
        floor: 8.0 * MIB,
        share: 0.05,
    },
    Series { name: "standing tasks", unit: Unit::Count, value: Sample::standing_tasks, floor: 0.5, share: 0.0 },
    Series {
        name: "standing descriptors",
        unit: Unit::Count,
        value: Sample::standing_descriptors,
        floor: 0.5,
        share: 0.0,
    },
    Series { name: "threads", unit: Unit::Count, value: |it| it.threads as f64, floor: 2.0, share: 0.0 },
    Series { name: "connections of callers", unit: Unit::Count, value: |it| it.inbound as f64, floor: 2.0, share: 0.0 },
    Series { name: "connections to hosts", unit: Unit::Count, value: |it| it.outbound as f64, floor: 2.0, share: 0.05 },
];

/// The trend of one series.
pub(crate) fn trend_of(series: &Series, samples: &[Sample]) -> Option<Trend> {
    let points: Vec<(f64, f64)> =
        samples.iter().map(|sample| (sample.at as f64 / 1_000.0, (series.value)(sample))).collect();
    trend(&points)
}

/// Holds the samples after the warm-up to the rule that nothing grows.
pub(crate) fn growth(samples: &[Sample]) -> Vec<Check> {
    let mut checks: Vec<Check> = SERIES.iter().map(|series| no_growth(series, trend_of(series, samples))).collect();
    let (heap, tasks, descriptors) = (&SERIES[0], &SERIES[2], &SERIES[3]);
    checks.push(heap_bound(trend_of(heap, samples)));
    checks.extend([tasks, descriptors].map(|series| no_more_than_before(series, trend_of(series, samples))));
    checks
}

/// Whether the heap rose by more than chance, if only within what is allowed.
pub(crate) fn heap_rose(samples: &[Sample]) -> bool {
    trend_of(&SERIES[0], samples).is_some_and(|trend| trend.is_significant())
}

pub(crate) fn no_growth(series: &Series, trend: Option<Trend>) -> Check {
    let rule = format!("growth: {}", series.name);
    let Some(trend) = trend else { return too_short(rule) };
    let floor = series.floor.max(series.share * trend.first);
    let measured = format!(
        "{} → {}, {:+.4} %/min, score {:.1}",
        series.unit.show(trend.first),
        series.unit.show(trend.last),
        trend.slope * 60.0 / trend.first.abs().max(1.0) * 100.0,
        trend.score
    );
    let allowed = format!("score ≤ 3.09, or a rise of at most {}", series.unit.show(floor));
    Check::new(rule, measured, allowed, !(trend.is_significant() && trend.rise > floor))
}

/// The documented bound: 1.10 × and 10 MiB more.
fn heap_bound(trend: Option<Trend>) -> Check {
    let rule = "live heap after the warm-up";
    let Some(trend) = trend else { return too_short(rule) };
    let most = 1.10 * trend.first + 10.0 * MIB;
    let measured = format!("{:.2} MiB, {:.2} ×", trend.last / MIB, trend.last / trend.first.max(1.0));
    Check::new(rule, measured, format!("≤ {:.2} MiB (1.10 × + 10 MiB)", most / MIB), trend.last <= most)
}

fn no_more_than_before(series: &Series, trend: Option<Trend>) -> Check {
    let rule = format!("{} after the warm-up", series.name);
    let Some(trend) = trend else { return too_short(rule) };
    let measured = format!("{:.1} → {:.1}, {:+.0}", trend.first, trend.last, trend.last - trend.first);
    Check::new(rule, measured, "+0", trend.last < trend.first + 1.0)
}

fn too_short(rule: impl Into<String>) -> Check {
    Check::not_judged(rule, "too few samples after the warm-up")
}

/// Holds what is left of the daemon to the rule that nothing is.
pub(crate) fn shutdown(left: &Leftover, open_at_hosts: u64) -> Vec<Check> {
    let named = match left.descriptors.as_slice() {
        [] => "0".to_owned(),
        some => format!("{}: {}", some.len(), some[..some.len().min(3)].join(", ")),
    };
    let calls = if left.calls_ended { "answered" } else { "cut off" };
    let connections = format!("{} here, {open_at_hosts} at hosts", left.connections);
    vec![
        Check::new("tasks that outlive the daemon", left.tasks.to_string(), "0", left.tasks == 0),
        Check::new("descriptors that outlive the daemon", named, "0", left.descriptors.is_empty()),
        Check::new("connections that outlive the daemon", connections, "0", left.connections + open_at_hosts == 0),
        Check::new("calls under way at the stop", calls, "answered", left.calls_ended),
        Check::new("polls cut off by the stop", left.polls_cut_off.to_string(), "0", left.polls_cut_off == 0),
        Check::new(
            "time to stop",
            format!("{} ms", left.took_millis),
            "≤ 30 s",
            left.took_millis <= STOP_WITHIN_MILLIS,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred seconds of a daemon that `grow`s.
    fn samples(grow: fn(u64, &mut Sample)) -> Vec<Sample> {
        let sample = |second: u64| {
            let mut sample = Sample {
                at: second * 1_000,
                heap_bytes: 3_000_000 + second * 7_919 % 50_000,
                resident_bytes: 50_000_000,
                tasks: 10 + second % 5,
                in_flight: second % 5,
                descriptors: 100,
                outbound: 80,
                threads: 6,
                ..Sample::default()
            };
            grow(second, &mut sample);
            sample
        };
        (0..100).map(sample).collect()
    }

    fn broken(grow: fn(u64, &mut Sample)) -> Vec<String> {
        growth(&samples(grow)).into_iter().filter(Check::failed).map(|check| check.rule).collect()
    }

    #[test]
    fn a_steady_daemon_breaks_no_rule() {
        assert_eq!(broken(|_, _| {}), [""; 0]);
    }

    #[test]
    fn each_kind_of_growth_breaks_its_own_rule() {
        assert_eq!(broken(|second, it| it.heap_bytes += second * 5_000), ["growth: live heap"]);
        assert_eq!(
            broken(|second, it| it.tasks += second / 10),
            ["growth: standing tasks", "standing tasks after the warm-up"]
        );
        assert_eq!(
            broken(|second, it| it.descriptors += second / 10),
            ["growth: standing descriptors", "standing descriptors after the warm-up"]
        );
        assert_eq!(broken(|second, it| it.inbound += second / 10)[..1], ["growth: connections of callers"]);
    }

    #[test]
    fn polls_and_callers_are_no_standing_tasks() {
        let wave: fn(u64, &mut Sample) = |second, it| {
            it.in_flight += second;
            it.tasks += second;
        };
        assert_eq!(broken(wave), [""; 0]);
    }

    #[test]
    fn whatever_outlives_the_daemon_is_named() {
        let left =
            Leftover { tasks: 1, descriptors: vec!["/dev/null".to_owned()], calls_ended: true, ..Leftover::default() };
        let failed: Vec<Check> = shutdown(&left, 2).into_iter().filter(Check::failed).collect();
        assert_eq!(failed.len(), 3);
        assert_eq!(failed[1].measured, "1: /dev/null");
    }
}
