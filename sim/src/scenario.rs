//! A scenario as data: a fleet, what goes wrong with it, who interferes, and what must come of it.
//!
//! `docs/simulation.md` tells how to write one; the built-in ones are in `sim/scenarios`.

use std::collections::BTreeMap;

use pulse::config::{Draft, Field, SETTINGS, SettingDefinition};
use pulse::engine::{FailureKind, InstanceType, Settings, SettingsDraft};
use serde::{Deserialize, Deserializer, Serialize};

use crate::life::Outages;
use crate::values::{Quantiles, Rate, Span};

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

impl Scenario {
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
    let mut draft = Draft::default();
    for (name, value) in BTreeMap::<String, SettingValue>::deserialize(deserializer)? {
        // The others' have no part in a simulation.
        let setting = SettingDefinition::named(&name).filter(|setting| matches!(setting.field, Field::Scheduler(_)));
        let setting = setting.ok_or_else(|| {
            D::Error::custom(format!("no setting of the scheduler is called {name:?}; see docs/settings.md"))
        })?;
        let text = match value {
            SettingValue::Text(text) => text,
            SettingValue::Switch(on) => on.to_string(),
            SettingValue::Count(count) => count.to_string(),
        };
        setting.set_from_text(&mut draft, &text).map_err(|error| D::Error::custom(format!("{name}: {error}")))?;
    }
    draft.scheduler.clone().validate().map_err(D::Error::custom)?;
    Ok(draft.scheduler)
}

fn settings_by_name<S: serde::Serializer>(draft: &SettingsDraft, serializer: S) -> Result<S::Ok, S::Error> {
    let draft = Draft::from(draft.clone());
    let changed = SETTINGS.iter().map(|it| (it.name, it.value(&draft))).zip(SETTINGS.iter());
    serializer.collect_map(changed.filter(|((_, value), it)| *value != it.default_value()).map(|(entry, _)| entry))
}
