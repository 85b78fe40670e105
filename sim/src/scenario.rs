//! A scenario as data: a fleet, what goes wrong with it, who interferes, and what must come of it.
//!
//! `docs/simulation.md` tells how to write one; the built-in ones are in `sim/scenarios`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use pulse::config::{SETTINGS, SettingDefinition};
use pulse::engine::{FailureKind, InstanceType, Settings, SettingsDraft};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::life::Outages;
use crate::values::{Quantiles, Rate, Span};

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;
/// The largest fleet of one group.
const MAX_GROUP: u32 = 1_000_000;

/// A scenario.
///
/// ```
/// let text = r#"
///     name = "two hosts"
///     duration = "1m"
///     [[hosts]]
///     group = "healthy"
///     count = 2
/// "#;
/// let scenario = sim::Scenario::parse(text, "two.toml".as_ref())?;
/// assert_eq!(scenario.hosts[0].count, 2);
/// # Ok::<(), sim::ScenarioError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub description: String,
    /// Time before the figures of [`Expect`] count.
    #[serde(default)]
    pub warm_up: Span,
    /// Time after the warm-up.
    pub duration: Span,
    /// Settings by their names in `system.json`; those left out have their defaults.
    #[serde(default, serialize_with = "settings_by_name", deserialize_with = "settings")]
    pub settings: SettingsDraft,
    /// The fleet.
    #[serde(deserialize_with = "at_least_one_group")]
    pub hosts: Vec<HostGroup>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Who interferes.
    #[serde(default)]
    pub operators: Vec<Operator>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// Hosts that behave alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostGroup {
    /// What the group is called; hosts are `group-1`, `group-2`, …
    pub group: String,
    /// What kind of hosts.
    #[serde(rename = "type", default = "pve")]
    pub kind: InstanceType,
    /// How many.
    #[serde(deserialize_with = "group_size")]
    pub count: u32,
    /// How the first polls end, one after the other.
    #[serde(default)]
    pub first: Vec<Answer>,
    /// How many of the polls after those succeed.
    #[serde(default)]
    pub then_success: Rate,
    /// How the others of them fail.
    #[serde(default)]
    pub otherwise: Answer,
    /// How long an answer takes.
    #[serde(default = "latency")]
    pub latency: Span,
    /// By how much that varies, up and down, as a share of it.
    #[serde(default = "tenth")]
    pub latency_jitter: Rate,
    /// How many answers take twenty times as long.
    #[serde(default = "never")]
    pub heavy_tail: Rate,
    /// How long answers take, by quantiles instead of the three above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_quantiles: Option<Quantiles>,
    /// How often the reading changes; never if not given.
    #[serde(default)]
    pub changes_every: Option<Span>,
    /// How many hosts of the group share a machine.
    #[serde(default = "one")]
    pub per_machine: u32,
    /// A fixed interval.
    #[serde(default)]
    pub interval: Option<Span>,
    /// Outages that befall each of them, or its machine, again and again.
    #[serde(default)]
    pub outages: Option<Outages>,
}

/// How a poll ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// As it should.
    Success,
    /// With a failure that may pass.
    #[default]
    Transient,
    /// With a failure that somebody has to mend.
    Permanent,
    /// Not at all.
    Hang,
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// With which group; with all of them if not given.
    #[serde(default)]
    pub group: Option<String>,
    /// With how many of its hosts, drawn by the seed.
    #[serde(default)]
    pub share: Rate,
    /// When it begins.
    pub from: Span,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub lasts: Span,
    /// With how many of their polls meanwhile.
    #[serde(default)]
    pub rate: Rate,
    /// If given, it comes and goes with this period, half of the time each.
    #[serde(default)]
    pub flapping: Option<Span>,
    /// By how much a clock is wrong; an hour if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Span>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Polls never end.
    Hang,
    /// Connections are refused.
    Refuse,
    /// Connections are cut.
    Reset,
    /// The TLS handshake is cut off.
    TlsHandshake,
    /// The certificate is not the one expected.
    Certificate,
    /// The name is not found.
    Dns,
    /// HTTP 401.
    Unauthorized,
    /// HTTP 403.
    Forbidden,
    /// HTTP 404.
    NotFound,
    /// HTTP 429 with `Retry-After`.
    RateLimited,
    /// HTTP 5xx.
    ServerError,
    /// The answer is not the API's.
    BrokenAnswer,
    /// The answer ends in its middle.
    TruncatedAnswer,
    /// Answers take twenty times as long.
    Slow,
    /// Answers come after the poll was given up.
    LateAnswers,
    /// Answers come twice.
    DoubledAnswers,
    /// The daemon does nothing at all.
    Stall,
    /// The daemon is killed and started again, once.
    Crash,
    /// The daemon's wall clock is ahead, and right again afterwards.
    ClockAhead,
    /// The daemon's wall clock is behind, and right again afterwards.
    ClockBehind,
}

impl FaultKind {
    /// Whether it befalls the daemon, and not hosts.
    pub fn is_of_the_daemon(self) -> bool {
        matches!(self, Self::Stall | Self::Crash | Self::ClockAhead | Self::ClockBehind)
    }

    /// How a poll that it hits fails; `None` if it does something else to it.
    pub fn failure(self) -> Option<FailureKind> {
        match self {
            Self::Refuse => Some(FailureKind::Refused),
            Self::Reset => Some(FailureKind::Reset),
            Self::TlsHandshake => Some(FailureKind::TlsHandshake),
            Self::Certificate => Some(FailureKind::FingerprintMismatch),
            Self::Dns => Some(FailureKind::Dns),
            Self::Unauthorized => Some(FailureKind::Unauthorized),
            Self::Forbidden => Some(FailureKind::Forbidden),
            Self::NotFound => Some(FailureKind::NotFound),
            Self::RateLimited => Some(FailureKind::RateLimited),
            Self::ServerError => Some(FailureKind::ServerError),
            Self::BrokenAnswer => Some(FailureKind::NotTheApi),
            // What the real clients make of an answer that ends in its middle: the next one may be whole.
            Self::TruncatedAnswer => Some(FailureKind::Reset),
            Self::Hang | Self::Slow | Self::LateAnswers | Self::DoubledAnswers => None,
            Self::Stall | Self::Crash | Self::ClockAhead | Self::ClockBehind => None,
        }
    }
}

/// Somebody who interferes, again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// What they do.
    pub action: Action,
    /// When they begin.
    #[serde(default)]
    pub from: Span,
    /// When they stop.
    pub until: Span,
    /// How long they wait in between, on average.
    pub every: Span,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Resets the breaker of a host drawn at random.
    ResetBreaker,
    /// Retries a host drawn at random.
    RetryDeadLetter,
    /// Retries all dead letters.
    RetryAll,
    /// Removes a dead letter and enables the host again a little later.
    RemoveDeadLetter,
    /// Polls a host at once.
    PollNow,
    /// Pauses a host and enables it again a little later.
    Pause,
    /// Switches adaptive polling off or on.
    ToggleAdaptive,
    /// Edits the settings: other caps and intervals, then those of the scenario again.
    EditSettings,
    /// Takes hosts out of the inventory, or puts them back.
    EditInventory,
    /// Edits the credentials of a host.
    EditHost,
}

/// What must come of a scenario. Every figure is looked at after the warm-up; what is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The live queue is never deeper.
    #[serde(default)]
    pub max_queue_depth: Option<u32>,
    /// Nor at the end.
    #[serde(default)]
    pub final_queue_depth: Option<u32>,
    /// Who is in the dead-letter queue at the end.
    #[serde(default)]
    pub dead_letters: Option<ExpectDeadLetters>,
    /// What must hold for the hosts of a group.
    #[serde(default)]
    pub groups: BTreeMap<String, ExpectGroup>,
    /// After the duration everything answers, and every host must be well again within the longest penalty.
    #[serde(default)]
    pub liveness: bool,
}

/// Who is in the dead-letter queue at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectDeadLetters {
    /// Every host of these groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether others may be.
    #[serde(default)]
    pub others: Others,
}

/// Whether hosts may be dead-lettered that are not expected to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// None may.
    #[default]
    None,
    /// Those that truly failed often enough in a row, the last time within the last 30 minutes.
    Earned,
}

/// What must hold for each host of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectGroup {
    /// At least so many polls succeeded after the warm-up.
    #[serde(default)]
    pub min_successes: Option<u64>,
    /// At least so many polls failed in the whole run.
    #[serde(default)]
    pub min_failures: Option<u64>,
    /// The last success is no older at the end, unless the host is dead-lettered.
    #[serde(default)]
    pub max_age: Option<Span>,
    /// A success came after a failure.
    #[serde(default)]
    pub recovers: bool,
}

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}; `sim list` names the built-in scenarios")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("{file}:{line}:{column}: {message}")]
    Wrong {
        /// The file.
        file: String,
        /// Where in it, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
}

impl Scenario {
    /// Reads a scenario as TOML; `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ScenarioError> {
        let wrong = |offset: usize, message: String| {
            let before = text.get(..offset).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            ScenarioError::Wrong { file: file.display().to_string(), line, column, message }
        };
        let scenario: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            wrong(error.span().map_or(0, |span| span.start), error.message().lines().collect::<Vec<_>>().join("; "))
        })?;
        match scenario.check() {
            Ok(()) => Ok(scenario),
            Err(problem) => Err(wrong(problem.offset(text), problem.to_string())),
        }
    }

    /// Reads a scenario as JSON, as a saved finding holds it; `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column where the JSON itself is.
    pub fn parse_json(text: &str, file: &Path) -> Result<Self, ScenarioError> {
        let wrong =
            |line, column, message| ScenarioError::Wrong { file: file.display().to_string(), line, column, message };
        let scenario: Self = serde_json::from_str(text)
            .map_err(|error| wrong(error.line(), error.column().max(1), error.to_string()))?;
        scenario.check().map_err(|problem| wrong(1, 1, problem.to_string()))?;
        Ok(scenario)
    }

    /// Reads a scenario from a file: JSON if it is called so, else TOML.
    ///
    /// # Errors
    /// The file cannot be read, is no text, is larger than 4 MiB, or is wrong.
    pub fn read(file: &Path) -> Result<Self, ScenarioError> {
        let unreadable = |source| ScenarioError::Unreadable { file: file.display().to_string(), source };
        let mut text = String::new();
        let most = MAX_FILE + 1;
        std::fs::File::open(file)
            .and_then(|open| open.take(most).read_to_string(&mut text))
            .map_err(unreadable)
            .and_then(|read| match read as u64 == most {
                true => Err(unreadable(std::io::Error::other("it is larger than 4 MiB"))),
                false => Ok(()),
            })?;
        match file.extension().is_some_and(|extension| extension == "json") {
            true => Self::parse_json(&text, file),
            false => Self::parse(&text, file),
        }
    }

    /// The whole time that it takes, without the time for liveness.
    pub fn length(&self) -> pulse::engine::Millis {
        self.warm_up.0 + self.duration.0
    }

    /// The settings, which are known to be valid.
    pub fn valid_settings(&self) -> Settings {
        self.settings.clone().validate().unwrap_or_default()
    }
}

impl HostGroup {
    /// How long an answer usually takes.
    pub(crate) fn usual_latency(&self) -> Span {
        self.latency_quantiles.map_or(self.latency, |quantiles| quantiles.p50)
    }
}

fn pve() -> InstanceType {
    InstanceType::Pve
}

fn latency() -> Span {
    Span(pulse::engine::Millis::new(150))
}

fn tenth() -> Rate {
    Rate::clamped(0.1)
}

fn never() -> Rate {
    Rate::clamped(0.0)
}

fn one() -> u32 {
    1
}

fn group_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    match count {
        1..=MAX_GROUP => Ok(count),
        _ => Err(serde::de::Error::custom(format!("a group has 1 to {MAX_GROUP} hosts, and this one {count}"))),
    }
}

fn at_least_one_group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HostGroup>, D::Error> {
    let groups = Vec::<HostGroup>::deserialize(deserializer)?;
    match groups.is_empty() {
        true => Err(serde::de::Error::custom("a scenario needs at least one group of hosts")),
        false => Ok(groups),
    }
}

/// A setting as it may be written in TOML and in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum SettingValue {
    Text(String),
    Switch(bool),
    Count(u64),
}

/// A table of settings by their names in `system.json`.
fn settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SettingsDraft, D::Error> {
    use serde::de::Error;
    let mut draft = SettingsDraft::default();
    for (name, value) in BTreeMap::<String, SettingValue>::deserialize(deserializer)? {
        let setting = SettingDefinition::named(&name)
            .ok_or_else(|| D::Error::custom(format!("no setting is called {name:?}; see docs/settings.md")))?;
        let text = match value {
            SettingValue::Text(text) => text,
            SettingValue::Switch(on) => on.to_string(),
            SettingValue::Count(count) => count.to_string(),
        };
        setting.set_from_text(&mut draft, &text).map_err(|error| D::Error::custom(format!("{name}: {error}")))?;
    }
    draft.clone().validate().map_err(D::Error::custom)?;
    Ok(draft)
}

fn settings_by_name<S: serde::Serializer>(draft: &SettingsDraft, serializer: S) -> Result<S::Ok, S::Error> {
    let changed = SETTINGS.iter().map(|it| (it.name, it.value(draft))).zip(SETTINGS.iter());
    serializer.collect_map(changed.filter(|((_, value), it)| *value != it.default_value()).map(|(entry, _)| entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Scenario::parse(text, "file.toml".as_ref()).unwrap_err().to_string()
    }

    const HOSTS: &str = "[[hosts]]\ngroup = \"a\"\ncount = 1\n";

    #[test]
    fn an_error_names_line_and_column() {
        let head = format!("name = \"x\"\nduration = \"1m\"\n{HOSTS}");
        let fault = |line: &str| format!("{head}[[faults]]\n{line}\nfrom = \"1s\"\nfor = \"1s\"\n");
        let unknown = error(&fault("kind = \"meteor\""));
        assert!(unknown.starts_with("file.toml:7:8: unknown variant `meteor`"), "{unknown}");
        let rate = error(&fault("kind = \"hang\"\nrate = 1.5"));
        assert_eq!(rate, "file.toml:8:8: a rate is between 0 and 1, and this is 1.5");
        let group = error(&fault("kind = \"hang\"\ngroup = \"b\""));
        assert_eq!(group, "file.toml:8:9: no group of hosts is called \"b\"");
    }

    #[test]
    fn every_slip_of_the_pen_gets_one_line_that_says_where() {
        let head = format!("name = \"b\"\nduration = \"1m\"\n{HOSTS}");
        let fault = |line: &str| format!("{head}[[faults]]\nkind = \"hang\"\nfrom = \"1s\"\n{line}\n");
        let host = |line: &str| format!("name = \"b\"\nduration = \"1m\"\n[[hosts]]\n{line}\n");
        let wrong = [
            (String::new(), "file.toml:1:1: missing field `name`"),
            ("name = \"b\"\nduration = \"0s\"\n".to_owned() + HOSTS, "file.toml:2:12: the duration is no time at all"),
            ("name = \"b\"\nduration = \"9000h\"\n".to_owned() + HOSTS, "file.toml:2:12: 9000h is longer than a year"),
            (
                "name = \"b\"\nduration = 60\n".to_owned() + HOSTS,
                "file.toml:2:12: invalid type: integer `60`, expected a span",
            ),
            (host("group = \"a\"\ncount = -1"), "file.toml:5:9: invalid value: integer `-1`, expected u32"),
            (host("group = \"a\"\ncount = 0"), "file.toml:5:9: a group has 1 to 1000000 hosts, and this one 0"),
            (host("group = \"a\"\ncount = 4000000000"), "file.toml:5:9: a group has 1 to 1000000 hosts"),
            (host("group = \"\"\ncount = 1"), "file.toml:4:9: a group needs a name"),
            (format!("{head}{HOSTS}"), "file.toml:7:9: two groups of hosts are called \"a\""),
            (fault("for = \"1s\"\nrate = nan"), "file.toml:10:8: a rate is between 0 and 1, and this is NaN"),
            (fault("for = \"1s\"\nrate = -0.5"), "file.toml:10:8: a rate is between 0 and 1, and this is -0.5"),
            (fault("for = \"-1s\""), "file.toml:9:7: "),
            (fault("for = \"0s\""), "file.toml:9:7: a fault lasts some time"),
            (fault("for = \"1s\"\ngroup = \"b\""), "file.toml:10:9: no group of hosts is called \"b\""),
            (fault("for = \"1s\"\nby = \"1h\""), "file.toml:10:6: only clock_ahead and clock_behind have a `by`"),
            (fault("for = \"1s\"\nflapping = \"0s\""), "file.toml:10:12: a period is at least 1ms"),
            (
                format!("{head}[expect.groups.b]\nrecovers = true\n"),
                "file.toml:6:16: no group of hosts is called \"b\"",
            ),
            (
                format!("{head}[[operators]]\naction = \"pause\"\nuntil = \"1m\"\nevery = \"0s\"\n"),
                "file.toml:9:9: an operator waits at least 100ms in between",
            ),
            (
                host(
                    "group = \"a\"\ncount = 1\nlatencyQuantiles = { p50 = \"2s\", p90 = \"1s\", p99 = \"3s\", max = \"4s\" }",
                ),
                "file.toml:6:20: the quantiles of a latency rise",
            ),
        ];
        for (text, start) in wrong {
            let said = error(&text);
            assert!(said.starts_with(start), "{said}\nand not {start}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn a_scenario_without_hosts_is_refused() {
        let none = error("name = \"x\"\nduration = \"1m\"\nhosts = []\n");
        assert_eq!(none, "file.toml:3:9: a scenario needs at least one group of hosts");
        assert!(error("name = \"x\"\nduration = \"1m\"\n").contains("missing field `hosts`"));
    }

    #[test]
    fn settings_have_the_names_and_rules_of_the_configuration() {
        let with = |line: &str| format!("name = \"x\"\nduration = \"1m\"\n{HOSTS}[settings]\n{line}\n");
        let scenario = Scenario::parse(&with("adaptivePollingBaseInterval = \"7s\""), "f".as_ref()).unwrap();
        assert_eq!(scenario.settings.base_interval, pulse::engine::Millis::from_secs(7));
        assert!(error(&with("basement = \"7s\"")).contains("no setting is called \"basement\""));
        assert!(error(&with("adaptivePollingBaseInterval = \"1s\"")).contains("min"), "a rule is broken");
    }
}
