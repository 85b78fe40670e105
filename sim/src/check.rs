//! What holds between the parts of a scenario, and where in its file a broken rule is.

use std::collections::BTreeSet;

use pulse::engine::{INTERVAL_RANGE, InstanceKey, Millis};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use toml::Spanned;

use crate::scenario::{FaultKind, HostGroup, Scenario};

/// Hosts of all groups together.
const MAX_HOSTS: u64 = 1_000_000;
/// Faults and operators.
const MAX_ENTRIES: usize = 1_000;
/// An operator who is quicker asks for more than a simulation is worth.
const SHORTEST_WAIT: Millis = Millis::new(100);

/// What is wrong, and in which part.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Problem {
    #[error("the duration is no time at all")]
    NoTime,
    #[error("a fleet has at most {MAX_HOSTS} hosts, and this one has {0}")]
    TooManyHosts(u64),
    #[error("at most {MAX_ENTRIES} {0} are possible")]
    TooMany(&'static str),
    #[error("two groups of hosts are called {0:?}")]
    SameName(String, usize),
    #[error("a group needs a name")]
    NoName(usize),
    #[error("hosts cannot be called after {name:?}: {why}")]
    BadName { name: String, why: String, group: usize },
    #[error("a fixed interval is {} to {}", INTERVAL_RANGE.start(), INTERVAL_RANGE.end())]
    NoInterval(usize),
    #[error("a fault lasts some time")]
    NoFault(usize),
    #[error("a period is at least 1ms")]
    NoPeriod(usize),
    #[error("only clock_ahead and clock_behind have a `by`")]
    NoClock(usize),
    #[error("no group of hosts is called {0:?}")]
    FaultOfNobody(String, usize),
    #[error("no group of hosts is called {0:?}")]
    ExpectedOfNobody(String),
    #[error("no group of hosts is called {0:?}")]
    DeadLettersOfNobody(String),
    #[error("an operator waits at least {SHORTEST_WAIT} in between")]
    Hasty(usize),
}

impl Scenario {
    /// Whether the parts fit together.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.duration.0 == Millis::ZERO {
            return Err(Problem::NoTime);
        }
        for (what, count) in [("faults", self.faults.len()), ("operators", self.operators.len())] {
            if count > MAX_ENTRIES {
                return Err(Problem::TooMany(what));
            }
        }
        self.check_groups()?;
        self.check_faults()?;
        if let Some(hasty) = self.operators.iter().position(|it| it.every.0 < SHORTEST_WAIT) {
            return Err(Problem::Hasty(hasty));
        }
        let known = |name: &&String| self.knows_group(name);
        if let Some(name) = self.expect.groups.keys().find(|name| !known(name)) {
            return Err(Problem::ExpectedOfNobody(name.clone()));
        }
        let dead = self.expect.dead_letters.iter().flat_map(|expected| &expected.groups);
        dead.into_iter()
            .find(|name| !known(name))
            .map_or(Ok(()), |name| Err(Problem::DeadLettersOfNobody(name.clone())))
    }

    fn check_groups(&self) -> Result<(), Problem> {
        let mut names = BTreeSet::new();
        for (number, HostGroup { group, kind, count, interval, .. }) in self.hosts.iter().enumerate() {
            if group.is_empty() {
                return Err(Problem::NoName(number));
            }
            if let Err(error) = InstanceKey::new(*kind, &format!("{group}-{count}")) {
                let (name, why) = (group.clone(), error.to_string());
                return Err(Problem::BadName { name, why, group: number });
            }
            if interval.is_some_and(|interval| !INTERVAL_RANGE.contains(&interval.0)) {
                return Err(Problem::NoInterval(number));
            }
            if !names.insert(group) {
                return Err(Problem::SameName(group.clone(), number));
            }
        }
        match self.hosts.iter().map(|group| u64::from(group.count)).sum() {
            hosts if hosts > MAX_HOSTS => Err(Problem::TooManyHosts(hosts)),
            _ => Ok(()),
        }
    }

    fn check_faults(&self) -> Result<(), Problem> {
        for (number, fault) in self.faults.iter().enumerate() {
            let is_clock = matches!(fault.kind, FaultKind::ClockAhead | FaultKind::ClockBehind);
            if fault.lasts.0 == Millis::ZERO && fault.kind != FaultKind::Crash {
                return Err(Problem::NoFault(number));
            }
            if fault.flapping.is_some_and(|period| period.0 == Millis::ZERO) {
                return Err(Problem::NoPeriod(number));
            }
            if fault.by.is_some() && !is_clock {
                return Err(Problem::NoClock(number));
            }
            if let Some(name) = fault.group.as_ref().filter(|name| !self.knows_group(name)) {
                return Err(Problem::FaultOfNobody(name.clone(), number));
            }
        }
        Ok(())
    }

    fn knows_group(&self, name: &str) -> bool {
        self.hosts.iter().any(|group| group.group == name)
    }
}

/// Where the values of a scenario are in its text.
#[derive(Deserialize)]
struct Places {
    duration: Spanned<IgnoredAny>,
    hosts: Vec<GroupPlaces>,
    #[serde(default)]
    faults: Vec<FaultPlaces>,
    #[serde(default)]
    operators: Vec<OperatorPlaces>,
}

#[derive(Deserialize)]
struct GroupPlaces {
    group: Spanned<IgnoredAny>,
    count: Spanned<IgnoredAny>,
    interval: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
struct FaultPlaces {
    kind: Spanned<IgnoredAny>,
    #[serde(rename = "for")]
    lasts: Spanned<IgnoredAny>,
    group: Option<Spanned<IgnoredAny>>,
    flapping: Option<Spanned<IgnoredAny>>,
    by: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
struct OperatorPlaces {
    every: Spanned<IgnoredAny>,
}

impl Problem {
    /// Where it is in the text of the scenario, which is TOML; the beginning if that cannot be told.
    pub(crate) fn offset(&self, text: &str) -> usize {
        let Ok(places) = toml::from_str::<Places>(text) else { return 0 };
        let start = |place: &Spanned<IgnoredAny>| place.span().start;
        let of_group = |number: &usize| places.hosts.get(*number).map(|it| start(&it.group));
        let of_fault = |number: &usize, part: fn(&FaultPlaces) -> Option<&Spanned<IgnoredAny>>| {
            places.faults.get(*number).map(|it| start(part(it).unwrap_or(&it.kind)))
        };
        let found = match self {
            Self::NoTime => Some(start(&places.duration)),
            Self::TooManyHosts(_) => places.hosts.last().map(|it| start(&it.count)),
            Self::TooMany("faults") => places.faults.get(MAX_ENTRIES).map(|it| start(&it.kind)),
            Self::TooMany(_) => places.operators.get(MAX_ENTRIES).map(|it| start(&it.every)),
            Self::SameName(_, group) | Self::NoName(group) | Self::BadName { group, .. } => of_group(group),
            Self::NoInterval(group) => places.hosts.get(*group).and_then(|it| it.interval.as_ref()).map(start),
            Self::NoFault(fault) => of_fault(fault, |it| Some(&it.lasts)),
            Self::NoPeriod(fault) => of_fault(fault, |it| it.flapping.as_ref()),
            Self::NoClock(fault) => of_fault(fault, |it| it.by.as_ref()),
            Self::FaultOfNobody(_, fault) => of_fault(fault, |it| it.group.as_ref()),
            Self::Hasty(operator) => places.operators.get(*operator).map(|it| start(&it.every)),
            Self::ExpectedOfNobody(name) => place_of_table(text, name),
            Self::DeadLettersOfNobody(name) => last_word(text, "[expect", name),
        };
        found.unwrap_or(0)
    }
}

/// Where `[expect.groups.NAME]` has its name.
fn place_of_table(text: &str, name: &str) -> Option<usize> {
    let head = "[expect.groups.";
    let heads = text.match_indices(head).map(|(at, _)| at + head.len());
    let mut named = heads.filter(|at| text[*at..].trim_start_matches(['"', '\'']).starts_with(name));
    named.next().or_else(|| last_word(text, "[expect", name))
}

/// Where a name is last written after a table's head.
fn last_word(text: &str, head: &str, name: &str) -> Option<usize> {
    let after = text.find(head)?;
    text[after..].rfind(name).map(|at| after + at)
}
