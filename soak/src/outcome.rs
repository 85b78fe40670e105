//! What the scenario expects, held against what the daemon says at the end and what the hosts truly answered.

use std::collections::BTreeMap;

use jiff::Timestamp as WallTime;
use pulse::engine::{Millis, Timestamp};
use pulse::lab::{HostStats, Outcomes};
use serde_json::Value;
use sim::{ExpectGroup, Others};

use crate::checks::{Check, Verdict};
use crate::plan::Plan;
use crate::sample::Sample;

/// A row of failures that is this young at its end makes a dead letter earned.
const EARNED_WITHIN: Millis = Millis::from_mins(30);

/// What is known at the end of a run, from both sides.
pub(crate) struct Ending<'a> {
    pub(crate) plan: &'a Plan,
    /// Samples after the warm-up.
    pub(crate) samples: &'a [Sample],
    /// The lab's time.
    pub(crate) now: Timestamp,
    /// The daemon's health answer.
    pub(crate) health: &'a Value,
    /// The daemon's metrics.
    pub(crate) metrics: &'a str,
    /// What was asked of each host until the warm-up was over.
    pub(crate) marked: &'a Stats,
    /// What was asked of each host just before the daemon was asked.
    pub(crate) before: &'a Stats,
    /// What was asked of each host just after.
    pub(crate) after: &'a Stats,
    /// The run was ended before its time.
    pub(crate) is_early: bool,
}

/// What was asked of each host, by its name.
pub(crate) type Stats = BTreeMap<String, HostStats>;

/// One host from both sides.
struct Host<'a> {
    name: &'a str,
    row: &'a Value,
    truth: Outcomes,
    later: Outcomes,
    at_mark: Outcomes,
}

impl Ending<'_> {
    /// Every expectation of the scenario, and that both sides counted the same polls.
    pub(crate) fn judge(&self) -> Vec<Check> {
        let mut checks = self.queue();
        for (name, wanted) in &self.plan.scenario.expect.groups {
            checks.extend(self.group(name, wanted));
        }
        checks.extend(self.dead_letters());
        checks.extend(self.same_polls());
        checks
    }

    fn queue(&self) -> Vec<Check> {
        let expect = &self.plan.scenario.expect;
        let deepest = self.samples.iter().map(|sample| sample.queue_depth).max();
        let last = self.health["queue"]["depth"].as_u64();
        let check = |rule: &str, seen: Option<u64>, most: Option<u32>| {
            let most = most?;
            Some(match seen {
                Some(seen) => Check::new(rule, seen.to_string(), format!("≤ {most}"), seen <= most.into()),
                None => Check::not_judged(rule, "nothing was seen"),
            })
        };
        let deepest = check("deepest queue after the warm-up", deepest, expect.max_queue_depth);
        let last = check("queue at the end", last, expect.final_queue_depth);
        deepest.into_iter().chain(last).collect()
    }

    /// The hosts of a group, or all of them.
    fn hosts(&self, group: Option<&str>) -> impl Iterator<Item = Host<'_>> {
        let rows: BTreeMap<&str, &Value> = self.health["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| Some((row["instance"].as_str()?, row)))
            .collect();
        let outcomes = |stats: &Stats, name: &str| stats.get(name).map(|stats| stats.outcomes).unwrap_or_default();
        let is_of_group = move |index: usize| group.is_none_or(|group| self.plan.scenario.hosts[index].group == group);
        self.plan.groups.iter().filter(move |(_, index)| is_of_group(**index)).map(move |(name, _)| Host {
            name,
            row: rows.get(name.as_str()).copied().unwrap_or(&Value::Null),
            truth: outcomes(self.before, name),
            later: outcomes(self.after, name),
            at_mark: outcomes(self.marked, name),
        })
    }

    fn group(&self, name: &str, wanted: &ExpectGroup) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(most) = wanted.max_age {
            checks.push(self.freshness(name, most.0));
        }
        let mut least = |what: &str, wanted: u64, of: fn(&Host<'_>) -> u64| {
            let fewest = self.hosts(Some(name)).map(|host| (of(&host), host.name)).min();
            let Some((fewest, who)) = fewest else { return };
            let measured = format!("{fewest} ({who}) and more");
            let check =
                Check::new(format!("{name}: {what} of each"), measured, format!("≥ {wanted}"), fewest >= wanted);
            checks.push(self.unless_early(check));
        };
        if let Some(wanted) = wanted.min_successes {
            least("answers after the warm-up", wanted, |host| host.truth.answered - host.at_mark.answered);
        }
        if let Some(wanted) = wanted.min_failures {
            least("failures", wanted, |host| host.truth.struck);
        }
        if wanted.recovers {
            least("recoveries", 1, |host| host.truth.recoveries);
        }
        checks
    }

    /// What only time can bring is not held against a run that was ended early.
    fn unless_early(&self, mut check: Check) -> Check {
        if self.is_early && check.failed() {
            check.verdict = Verdict::NotJudged;
        }
        check
    }

    fn freshness(&self, group: &str, most: Millis) -> Check {
        let now = time(&self.health["updatedAt"]);
        let living = self.hosts(Some(group)).filter(|host| !is_dead(host.row));
        let age = |host: Host<'_>| {
            let last = time(&host.row["pollStatus"]["lastSuccess"]);
            let age = now.zip(last).map_or(i64::MAX, |(now, last)| now.as_millisecond() - last.as_millisecond());
            (age, host.name.to_owned())
        };
        let rule = format!("{group}: oldest last success");
        match living.map(age).max() {
            None => Check::not_judged(rule, "all of them are dead-lettered"),
            Some((i64::MAX, name)) => {
                self.unless_early(Check::new(rule, format!("never ({name})"), format!("≤ {most}"), false))
            }
            Some((age, name)) => {
                let held = u64::try_from(age).unwrap_or_default() <= most.get();
                Check::new(rule, format!("{:.1} s ({name})", age as f64 / 1_000.0), format!("≤ {most}"), held)
            }
        }
    }

    /// Everybody who must be dead-lettered is, and nobody else who did not earn it by what its host truly answered.
    fn dead_letters(&self) -> Vec<Check> {
        let Some(expected) = &self.plan.scenario.expect.dead_letters else { return Vec::new() };
        let is_expected = |host: &Host<'_>| {
            self.plan
                .groups
                .get(host.name)
                .is_some_and(|index| expected.groups.contains(&self.plan.scenario.hosts[*index].group))
        };
        let missing: Vec<_> =
            self.hosts(None).filter(|host| is_expected(host) && !is_dead(host.row)).map(|host| host.name).collect();
        let others: Vec<_> = self.hosts(None).filter(|host| !is_expected(host) && is_dead(host.row)).collect();
        let may = |host: &Host<'_>| expected.others == Others::Earned && self.earned(host);
        let unearned: Vec<_> = others.iter().filter(|host| !may(host)).map(|host| host.name).collect();
        let must = expected.groups.join(", ");
        let allowed = match expected.others {
            Others::None => "none".to_owned(),
            Others::Earned => "only by 5 true failures in a row, the last within 30 min".to_owned(),
        };
        let present = (!expected.groups.is_empty()).then(|| {
            let seen = list("each is one", "not: ", &missing);
            self.unless_early(Check::new(format!("dead letters: {must}"), seen, "each", missing.is_empty()))
        });
        let earned = format!("{} others, {}", others.len(), list("all earned", "unearned: ", &unearned));
        let others = Check::new("dead letters: others", earned, allowed, unearned.is_empty());
        present.into_iter().chain([others]).collect()
    }

    /// Whether what a host answered, before or after the daemon was asked, makes its dead letter a true one.
    fn earned(&self, host: &Host<'_>) -> bool {
        let threshold = u64::from(self.plan.scenario.valid_settings().dead_letter.after_transient_failures);
        let is_permanent = host.row["deadLetter"]["reason"] == "permanent_failure";
        let since = Timestamp::from_millis(self.now.as_millis().saturating_sub(EARNED_WITHIN.get()));
        let by_answers = [host.truth, host.later].iter().any(|truth| {
            truth.last_strike.is_some_and(|at| at >= since)
                && truth.struck_in_a_row >= if is_permanent { 1 } else { threshold }
        });
        // Nobody counts connections that were refused, so a schedule of refusals speaks for the host.
        let by_refusals = self.plan.refusals.iter().any(|(name, from, until)| {
            name == host.name && from.get() <= self.now.as_millis() && until.get() >= since.as_millis()
        });
        by_answers || by_refusals
    }

    /// The daemon counted as many polls of each kind as the hosts answered and failed.
    ///
    /// Only where every poll is scripted and every fault strikes a request that the lab counts.
    fn same_polls(&self) -> Option<Check> {
        if !self.plan.changes.is_empty() {
            return None;
        }
        let told = polls_told(self.metrics);
        let counted = |host: &Host<'_>, result: &str| told.get(&(host.name.to_owned(), result.to_owned())).copied();
        let mut polls = 0;
        let mut wrong = Vec::new();
        for host in self.hosts(None) {
            let (Some(succeeded), Some(failed)) = (counted(&host, "success"), counted(&host, "failure")) else {
                continue;
            };
            polls += succeeded + failed;
            // One poll may be under way, which its host has counted already.
            let agrees = |told: u64, before: u64, after: u64| told + 1 >= before && told <= after;
            if !agrees(succeeded, host.truth.answered, host.later.answered)
                || !agrees(failed, host.truth.struck, host.later.struck)
            {
                wrong.push(format!(
                    "{} {succeeded}+{failed} against {}+{}",
                    host.name, host.later.answered, host.later.struck
                ));
            }
        }
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        let measured = format!("{polls} polls, {}", list("the same", "differs: ", &wrong));
        Some(Check::new("polls: counted by the daemon and by the hosts", measured, "the same", wrong.is_empty()))
    }
}

fn is_dead(row: &Value) -> bool {
    row["deadLetter"]["present"] == true
}

fn time(value: &Value) -> Option<WallTime> {
    value.as_str()?.parse().ok()
}

/// `none` of nothing, else the first few behind `some`.
fn list(none: &str, some: &str, names: &[&str]) -> String {
    match names {
        [] => none.to_owned(),
        names => format!("{some}{}", names[..names.len().min(3)].join(", ")),
    }
}

/// Polls by instance and result, out of the metrics.
fn polls_told(metrics: &str) -> BTreeMap<(String, String), u64> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let series = metrics.lines().filter(|line| line.starts_with("pulse_monitor_poll_total{"));
    let row = |line: &str| {
        let count = line.rsplit(' ').next()?.parse().ok()?;
        Some(((label(line, "instance")?, label(line, "result")?), count))
    };
    series.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Plan {
        let text = "name = \"x\"\nduration = \"1m\"\n[[hosts]]\ngroup = \"good\"\ncount = 1\n[[hosts]]\ngroup = \"bad\"\n\
                    count = 1\n[expect]\nfinalQueueDepth = 1\n[expect.deadLetters]\ngroups = [\"bad\"]\nothers = \"earned\"\n\
                    [expect.groups.good]\nmaxAge = \"45s\"\nminFailures = 1\nrecovers = true\n";
        Plan::of(sim::Scenario::parse(text, "x.toml".as_ref()).unwrap(), 1)
    }

    fn health(good_dead: bool, last_success: &str) -> Value {
        let row = |name: &str, dead: bool| {
            let reason = if name == "bad-1" { "permanent_failure" } else { "max_retry_attempts" };
            json!({"instance": name, "deadLetter": {"present": dead, "reason": reason},
                   "pollStatus": {"lastSuccess": last_success}})
        };
        json!({"updatedAt": "2026-01-01T00:10:00Z", "queue": {"depth": 1},
               "instances": [row("good-1", good_dead), row("bad-1", true)]})
    }

    fn stats(struck_in_a_row: u64, recoveries: u64) -> Stats {
        let truth = Outcomes {
            answered: 20,
            struck: 7,
            struck_in_a_row,
            recoveries,
            last_answer: None,
            last_strike: Some(Timestamp::from_millis(590_000)),
        };
        let host = |name: &str| (name.to_owned(), HostStats { outcomes: truth, ..HostStats::default() });
        [host("good-1"), host("bad-1")].into()
    }

    fn broken(health: &Value, metrics: &str, stats: &Stats, is_early: bool) -> Vec<String> {
        let plan = plan();
        let ending = Ending {
            plan: &plan,
            samples: &[],
            now: Timestamp::from_millis(600_000),
            health,
            metrics,
            marked: &Stats::new(),
            before: stats,
            after: stats,
            is_early,
        };
        ending.judge().into_iter().filter(Check::failed).map(|check| check.rule).collect()
    }

    const FRESH: &str = "2026-01-01T00:09:50Z";

    #[test]
    fn a_run_as_expected_breaks_nothing() {
        assert_eq!(broken(&health(false, FRESH), "", &stats(0, 3), false), [""; 0]);
    }

    #[test]
    fn a_dead_letter_counts_as_earned_only_by_what_the_host_truly_answered() {
        assert_eq!(broken(&health(true, FRESH), "", &stats(5, 3), false), [""; 0]);
        assert_eq!(broken(&health(true, FRESH), "", &stats(4, 3), false), ["dead letters: others"]);
    }

    #[test]
    fn old_readings_and_missing_recoveries_are_found_unless_the_run_was_ended_early() {
        let old = "2026-01-01T00:09:00Z";
        let both = ["good: oldest last success", "good: recoveries of each"];
        assert_eq!(broken(&health(false, old), "", &stats(0, 0), false), both);
        assert_eq!(broken(&health(false, old), "", &stats(0, 0), true), both[..1]);
    }

    #[test]
    fn polls_that_the_daemon_did_not_count_are_found() {
        let metrics = |good: u64| {
            format!(
                "pulse_monitor_poll_total{{instance_type=\"pve\",instance=\"good-1\",result=\"success\"}} {good}\n\
                 pulse_monitor_poll_total{{instance_type=\"pve\",instance=\"good-1\",result=\"failure\"}} 7\n"
            )
        };
        assert_eq!(broken(&health(false, FRESH), &metrics(19), &stats(0, 3), false), [""; 0]);
        let rule = "polls: counted by the daemon and by the hosts";
        assert_eq!(broken(&health(false, FRESH), &metrics(18), &stats(0, 3), false), [rule]);
        assert_eq!(broken(&health(false, FRESH), &metrics(21), &stats(0, 3), false), [rule]);
    }
}
