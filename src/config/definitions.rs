//! The settings of `system.json`, one row each: names, what may be in them, what they change, what they are for.
//!
//! Parsing, environment overrides, the settings API and `docs/settings.md` are all made from this table.

use std::fmt::Write;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::draft::{Draft, Field};
use super::duration::{parse_span, span_from_json};
use super::error::Problem;
use super::json::Json;
use crate::engine::{
    FAILURES_RANGE, IN_FLIGHT_RANGE, INTERVAL_RANGE, InstanceType, Millis, SettingsField as In, TIMEOUT_RANGE,
};

/// The text that stands for an interval that adapts.
const ADAPTIVE: &str = "adaptive";
/// Whoever takes over an admin's account cannot have the traces of the last month removed.
const AUDIT_DAYS: RangeInclusive<u32> = 30..=3_650;
const AUDIT_ENTRIES: RangeInclusive<u32> = 10_000..=10_000_000;

/// One setting.
#[derive(Debug)]
pub struct SettingDefinition {
    /// The field of [`Draft`] that it changes.
    pub field: Field,
    /// The name in `system.json` and in the API.
    pub name: &'static str,
    /// The environment variable that pins it.
    pub environment: &'static str,
    /// What it is for, in one sentence.
    pub help: &'static str,
    slot: Slot,
}

/// Which kind of value a setting takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// True or false.
    Switch,
    /// A whole number within these bounds.
    Count(RangeInclusive<u32>),
    /// A text such as `10s`, or a number of seconds.
    Span,
}

/// Where a setting lives in the draft, and so what may be in it.
#[derive(Debug)]
enum Slot {
    Switch(fn(&mut Draft) -> &mut bool),
    Count(RangeInclusive<u32>, fn(&mut Draft) -> &mut u32),
    Span(RangeInclusive<Millis>, fn(&mut Draft) -> &mut Millis),
    /// A fixed interval, or [`ADAPTIVE`].
    Interval(RangeInclusive<Millis>, fn(&mut Draft) -> &mut Option<Millis>),
}

/// Every setting, in the order of the documentation.
pub static SETTINGS: [SettingDefinition; 27] = [
    SettingDefinition {
        field: Field::Scheduler(In::Adaptive),
        name: "adaptivePollingEnabled",
        environment: "ADAPTIVE_POLLING_ENABLED",
        slot: Slot::Switch(|draft| &mut draft.scheduler.adaptive),
        help: "Whether intervals adapt; if not, all is polled at the base interval.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BaseInterval),
        name: "adaptivePollingBaseInterval",
        environment: "ADAPTIVE_POLLING_BASE_INTERVAL",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.base_interval),
        help: "How often a healthy instance is polled.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::MinInterval),
        name: "adaptivePollingMinInterval",
        environment: "ADAPTIVE_POLLING_MIN_INTERVAL",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.min_interval),
        help: "The shortest interval that adapting may choose.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::MaxInterval),
        name: "adaptivePollingMaxInterval",
        environment: "ADAPTIVE_POLLING_MAX_INTERVAL",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.max_interval),
        help: "The longest interval that adapting may choose.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::MaxInFlight),
        name: "pollingMaxInFlight",
        environment: "POLLING_MAX_IN_FLIGHT",
        slot: Slot::Count(IN_FLIGHT_RANGE, |draft| &mut draft.scheduler.max_in_flight),
        help: "How many polls may be in flight at once.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::MaxInFlightPerHost),
        name: "pollingMaxInFlightPerHost",
        environment: "POLLING_MAX_IN_FLIGHT_PER_HOST",
        slot: Slot::Count(IN_FLIGHT_RANGE, |draft| &mut draft.scheduler.max_in_flight_per_host),
        help: "How many polls of one host may be in flight at once.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Interval(InstanceType::Pve)),
        name: "pvePollingInterval",
        environment: "PVE_POLLING_INTERVAL",
        slot: Slot::Interval(INTERVAL_RANGE, |draft| &mut draft.scheduler.types.pve.interval),
        help: "The fixed interval of pve instances; `adaptive` lets it adapt.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Timeout(InstanceType::Pve)),
        name: "pvePollingTimeout",
        environment: "PVE_POLLING_TIMEOUT",
        slot: Slot::Span(TIMEOUT_RANGE, |draft| &mut draft.scheduler.types.pve.timeout),
        help: "The timeout of a poll of type pve.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Interval(InstanceType::Pbs)),
        name: "pbsPollingInterval",
        environment: "PBS_POLLING_INTERVAL",
        slot: Slot::Interval(INTERVAL_RANGE, |draft| &mut draft.scheduler.types.pbs.interval),
        help: "The fixed interval of pbs instances; `adaptive` lets it adapt.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Timeout(InstanceType::Pbs)),
        name: "pbsPollingTimeout",
        environment: "PBS_POLLING_TIMEOUT",
        slot: Slot::Span(TIMEOUT_RANGE, |draft| &mut draft.scheduler.types.pbs.timeout),
        help: "The timeout of a poll of type pbs.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Interval(InstanceType::Pmg)),
        name: "pmgPollingInterval",
        environment: "PMG_POLLING_INTERVAL",
        slot: Slot::Interval(INTERVAL_RANGE, |draft| &mut draft.scheduler.types.pmg.interval),
        help: "The fixed interval of pmg instances; `adaptive` lets it adapt.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Timeout(InstanceType::Pmg)),
        name: "pmgPollingTimeout",
        environment: "PMG_POLLING_TIMEOUT",
        slot: Slot::Span(TIMEOUT_RANGE, |draft| &mut draft.scheduler.types.pmg.timeout),
        help: "The timeout of a poll of type pmg.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Interval(InstanceType::Http)),
        name: "httpPollingInterval",
        environment: "HTTP_POLLING_INTERVAL",
        slot: Slot::Interval(INTERVAL_RANGE, |draft| &mut draft.scheduler.types.http.interval),
        help: "The fixed interval of http instances; `adaptive` lets it adapt.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Timeout(InstanceType::Http)),
        name: "httpPollingTimeout",
        environment: "HTTP_POLLING_TIMEOUT",
        slot: Slot::Span(TIMEOUT_RANGE, |draft| &mut draft.scheduler.types.http.timeout),
        help: "The timeout of a poll of type http.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Interval(InstanceType::Tcp)),
        name: "tcpPollingInterval",
        environment: "TCP_POLLING_INTERVAL",
        slot: Slot::Interval(INTERVAL_RANGE, |draft| &mut draft.scheduler.types.tcp.interval),
        help: "The fixed interval of tcp instances; `adaptive` lets it adapt.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::Timeout(InstanceType::Tcp)),
        name: "tcpPollingTimeout",
        environment: "TCP_POLLING_TIMEOUT",
        slot: Slot::Span(TIMEOUT_RANGE, |draft| &mut draft.scheduler.types.tcp.timeout),
        help: "The timeout of a poll of type tcp.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BackoffInitial),
        name: "pollingBackoffInitial",
        environment: "POLLING_BACKOFF_INITIAL",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.backoff.initial),
        help: "The delay after a first transient failure; it doubles with each further one.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BackoffMax),
        name: "pollingBackoffMax",
        environment: "POLLING_BACKOFF_MAX",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.backoff.max),
        help: "The longest delay after a transient failure; `Retry-After` is honoured up to here.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BreakerFailureThreshold),
        name: "breakerFailureThreshold",
        environment: "BREAKER_FAILURE_THRESHOLD",
        slot: Slot::Count(FAILURES_RANGE, |draft| &mut draft.scheduler.breaker.failure_threshold),
        help: "The failures in a row that open a circuit breaker.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BreakerOpenInitial),
        name: "breakerOpenInitial",
        environment: "BREAKER_OPEN_INITIAL",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.breaker.open_initial),
        help: "How long a breaker stays open after its first trip; it doubles with each trip in a row.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::BreakerOpenMax),
        name: "breakerOpenMax",
        environment: "BREAKER_OPEN_MAX",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.breaker.open_max),
        help: "The longest that a breaker stays open.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::DeadLetterAfterTransientFailures),
        name: "deadLetterAfterFailures",
        environment: "DEAD_LETTER_AFTER_FAILURES",
        slot: Slot::Count(FAILURES_RANGE, |draft| &mut draft.scheduler.dead_letter.after_transient_failures),
        help: "The transient failures in a row after which an instance is dead-lettered.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::DeadLetterPermanentRecheck),
        name: "deadLetterPermanentRecheck",
        environment: "DEAD_LETTER_PERMANENT_RECHECK",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.dead_letter.permanent_recheck),
        help: "How often an instance that failed permanently is tried again.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::DeadLetterTransientRecheckInitial),
        name: "deadLetterTransientRecheck",
        environment: "DEAD_LETTER_TRANSIENT_RECHECK",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.dead_letter.transient_recheck_initial),
        help: "When an instance dead-lettered for transient failures is first tried again; doubles each time.",
    },
    SettingDefinition {
        field: Field::Scheduler(In::DeadLetterTransientRecheckMax),
        name: "deadLetterTransientRecheckMax",
        environment: "DEAD_LETTER_TRANSIENT_RECHECK_MAX",
        slot: Slot::Span(INTERVAL_RANGE, |draft| &mut draft.scheduler.dead_letter.transient_recheck_max),
        help: "The longest delay between tries of an instance dead-lettered for transient failures.",
    },
    SettingDefinition {
        field: Field::AuditRetention,
        name: "auditRetentionDays",
        environment: "AUDIT_RETENTION_DAYS",
        slot: Slot::Count(AUDIT_DAYS, |draft| &mut draft.audit.retention_days),
        help: "For how many days entries of the audit log are kept.",
    },
    SettingDefinition {
        field: Field::AuditMaxEntries,
        name: "auditMaxEntries",
        environment: "AUDIT_MAX_ENTRIES",
        slot: Slot::Count(AUDIT_ENTRIES, |draft| &mut draft.audit.max_entries),
        help: "How many entries of the audit log are kept at the most, however young they are.",
    },
];

impl SettingDefinition {
    /// The setting that `system.json` calls `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The setting that changes `field`.
    pub(super) fn of(field: impl Into<Field>) -> &'static Self {
        let field = field.into();
        SETTINGS.iter().find(|setting| setting.field == field).expect("a test holds the table to every field")
    }

    /// The value in a draft, as it is written in `system.json`.
    pub fn value(&self, draft: &Draft) -> Value {
        // The way to a field is by unique reference; a copy lends one.
        let draft = &mut draft.clone();
        match &self.slot {
            Slot::Switch(field) => Value::from(*field(draft)),
            Slot::Count(_, field) => Value::from(*field(draft)),
            Slot::Span(_, field) => Value::from(field(draft).to_string()),
            Slot::Interval(_, field) => Value::from(field(draft).map_or(ADAPTIVE.to_owned(), |span| span.to_string())),
        }
    }

    /// The value when nothing sets it.
    pub fn default_value(&self) -> Value {
        self.value(&Draft::default())
    }

    /// Which kind of value is allowed.
    pub fn kind(&self) -> SettingKind {
        match &self.slot {
            Slot::Switch(_) => SettingKind::Switch,
            Slot::Count(range, _) => SettingKind::Count(range.clone()),
            Slot::Span(..) | Slot::Interval(..) => SettingKind::Span,
        }
    }

    /// What values are allowed, in words.
    pub fn allowed(&self) -> String {
        match &self.slot {
            Slot::Switch(_) => "`true` or `false`".to_owned(),
            Slot::Count(range, _) => format!("{} to {}", range.start(), range.end()),
            Slot::Span(range, _) => format!("{} to {}", range.start(), range.end()),
            Slot::Interval(range, _) => format!("{} to {}, or `{ADAPTIVE}`", range.start(), range.end()),
        }
    }

    /// What is wrong with the value in a draft, where it is a number whose range is all that binds it.
    pub(super) fn out_of_range(&self, draft: &Draft) -> Option<Problem> {
        let Slot::Count(range, field) = &self.slot else { return None };
        // As in `value`.
        let value = *field(&mut draft.clone());
        let [value_text, min, max] = [value, *range.start(), *range.end()].map(|number| number.to_string());
        (!range.contains(&value)).then_some(Problem::OutOfRange { value: value_text, min, max })
    }

    /// Sets the field to a value from a file or a request.
    pub(super) fn set_from_json(&self, draft: &mut Draft, json: Json) -> Result<(), Problem> {
        match &self.slot {
            Slot::Switch(field) => *field(draft) = json.into_bool()?,
            Slot::Count(_, field) => *field(draft) = count_from_json(&json)?,
            Slot::Span(_, field) => *field(draft) = span_from_json(json)?,
            Slot::Interval(_, field) => {
                *field(draft) = match json {
                    Json::Text(text) => interval_from_text(&text)?,
                    number => Some(span_from_json(number)?),
                }
            }
        }
        Ok(())
    }

    /// Sets the field to the text of an environment variable.
    pub fn set_from_text(&self, draft: &mut Draft, text: &str) -> Result<(), Problem> {
        let text = text.trim();
        match &self.slot {
            Slot::Switch(field) => *field(draft) = switch_from_text(text)?,
            Slot::Count(_, field) => *field(draft) = text.parse().map_err(|_| Problem::NotACount)?,
            Slot::Span(_, field) => *field(draft) = parse_span(text)?,
            Slot::Interval(_, field) => *field(draft) = interval_from_text(text)?,
        }
        Ok(())
    }
}

fn count_from_json(json: &Json) -> Result<u32, Problem> {
    let number = json.as_number().ok_or_else(|| json.wrong_type("a whole number"))?;
    number.as_u64().and_then(|count| u32::try_from(count).ok()).ok_or(Problem::NotACount)
}

fn interval_from_text(text: &str) -> Result<Option<Millis>, Problem> {
    if text.eq_ignore_ascii_case(ADAPTIVE) { Ok(None) } else { Ok(Some(parse_span(text)?)) }
}

fn switch_from_text(text: &str) -> Result<bool, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Problem::NotASwitch),
    }
}

/// The table as the Markdown page `docs/settings.md`.
pub fn settings_markdown() -> String {
    let mut page = String::from(MARKDOWN_HEAD);
    for setting in &SETTINGS {
        let default = setting.default_value();
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let SettingDefinition { name, environment, help, .. } = setting;
        let allowed = setting.allowed();
        writeln!(page, "| `{name}` | `{environment}` | `{default}` | {allowed} | {help} |")
            .expect("writing to a String cannot fail");
    }
    page.push_str(MARKDOWN_TAIL);
    page
}

const MARKDOWN_TAIL: &str = "
Besides these, `notifications` tells whom to tell what happens, and how: see [notifications](notifications.md); and
`discovery` names [files of targets](instances.md#files-of-targets). Both are written into the file by hand; calls leave
them alone.
";

const MARKDOWN_HEAD: &str = "\
# Settings

Made from the table in `src/config/definitions.rs`; a test keeps this page equal to it.

A value comes from the environment, else from `system.json` in the data folder, else it is the default; the settings
API shows which. What the environment sets cannot be changed through the API. Changes of `system.json` take effect
within two seconds, without a restart; a file that breaks a rule is refused as a whole, and the settings stay.

- A duration is written `750ms`, `10s`, `5m`, `1h` or `1m30s`. A bare number in the file is seconds (`0.75` too); in
  the environment the unit must be there.
- A switch in the environment is `true`, `1`, `yes` or `on`, or `false`, `0`, `no` or `off`. An empty variable is unset.
- `null` in the file, or in a request, means the default.
- The intervals must keep min ≤ base ≤ max, and each initial delay must not exceed its maximum.
- Adapting takes small steps between min and max: three quarters of the base interval for 12 polls from a change on, a
  sixteenth more than it after 360 readings without news, and a poll at once (by the min interval) where another
  instance of the same machine falls silent.

| `system.json` | environment | default | allowed | |
| --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::draft::AuditSettings;
    use crate::engine::{PerType, SettingsDraft};

    fn set(setting: &SettingDefinition, draft: &mut Draft, json: &Value) {
        let json = Json::parse(json.to_string().as_bytes()).ok().unwrap();
        setting.set_from_json(draft, json).unwrap();
    }

    /// A draft in which every field differs from its default.
    fn all_different() -> Draft {
        let mut draft = Draft::default();
        for (index, setting) in SETTINGS.iter().enumerate() {
            match &setting.slot {
                Slot::Switch(field) => *field(&mut draft) = false,
                Slot::Count(_, field) => *field(&mut draft) += 1,
                Slot::Span(_, field) => *field(&mut draft) = Millis::new(1_001 + index as u64),
                Slot::Interval(_, field) => *field(&mut draft) = Some(Millis::new(1_001 + index as u64)),
            }
        }
        draft
    }

    #[test]
    fn each_setting_changes_the_field_that_it_names_and_no_other() {
        let (defaults, changed) = (Draft::default(), all_different());
        for setting in &SETTINGS {
            let mut draft = defaults.clone();
            set(setting, &mut draft, &setting.value(&changed));
            for other in &SETTINGS {
                let expected = if other.field == setting.field { &changed } else { &defaults };
                assert_eq!(other.value(&draft), other.value(expected), "{} through {}", other.name, setting.name);
            }
            let mut from_text = defaults.clone();
            let text = setting.value(&changed);
            setting.set_from_text(&mut from_text, text.as_str().unwrap_or(&text.to_string())).unwrap();
            assert_eq!(from_text, draft, "{}", setting.environment);
        }
    }

    #[test]
    fn the_table_reaches_every_field_of_the_draft() {
        let mut rebuilt = Draft::default();
        // Built by hand and in full, so that a new field fails to compile here until the table has a row for it.
        let scheduler = SettingsDraft {
            adaptive: false,
            base_interval: Millis::new(1),
            min_interval: Millis::new(2),
            max_interval: Millis::new(3),
            max_in_flight: 4,
            max_in_flight_per_host: 5,
            types: PerType::from_fn(|kind| crate::engine::TypeSettings {
                timeout: Millis::new(10 + kind as u64),
                interval: Some(Millis::new(20 + kind as u64)),
            }),
            backoff: crate::engine::BackoffSettings { initial: Millis::new(6), max: Millis::new(7) },
            breaker: crate::engine::BreakerSettings {
                failure_threshold: 8,
                open_initial: Millis::new(9),
                open_max: Millis::new(30),
            },
            dead_letter: crate::engine::DeadLetterSettings {
                after_transient_failures: 31,
                permanent_recheck: Millis::new(32),
                transient_recheck_initial: Millis::new(33),
                transient_recheck_max: Millis::new(34),
            },
        };
        let audit = AuditSettings { retention_days: 35, max_entries: 36 };
        let expected = Draft { scheduler, audit };
        for setting in &SETTINGS {
            set(setting, &mut rebuilt, &setting.value(&expected));
        }
        assert_eq!(rebuilt, expected);
    }

    #[test]
    fn the_field_of_a_row_is_the_one_that_broken_rules_name() {
        for setting in &SETTINGS {
            assert!(std::ptr::eq(SettingDefinition::of(setting.field), setting), "{}", setting.name);
            let Field::Scheduler(own) = setting.field else { continue };
            let broken = |draft: Draft| {
                draft
                    .scheduler
                    .validate()
                    .err()
                    .into_iter()
                    .flat_map(|errors| {
                        errors.iter().flat_map(|error| error.fields().collect::<Vec<_>>()).collect::<Vec<_>>()
                    })
                    .collect::<Vec<_>>()
            };
            let mut draft = Draft::default();
            match &setting.slot {
                Slot::Switch(_) => continue,
                Slot::Count(_, field) => *field(&mut draft) = 0,
                Slot::Span(_, field) => *field(&mut draft) = Millis::ZERO,
                Slot::Interval(_, field) => *field(&mut draft) = Some(Millis::ZERO),
            }
            assert_eq!(broken(draft)[0], own, "{}", setting.name);
        }
    }

    #[test]
    fn the_range_of_a_row_is_the_one_that_validation_keeps() {
        use crate::engine::SettingsError;
        let in_range = |draft: Draft| match draft.scheduler.validate() {
            Ok(_) => true,
            Err(errors) => errors.iter().all(|error| matches!(error, SettingsError::Reversed { .. })),
        };
        for setting in &SETTINGS {
            let accepts = |value: Value| {
                let mut draft = Draft::default();
                set(setting, &mut draft, &value);
                match setting.field {
                    Field::Scheduler(_) => in_range(draft),
                    Field::AuditRetention | Field::AuditMaxEntries => setting.out_of_range(&draft).is_none(),
                }
            };
            let seconds = |millis: u64| Value::from(format!("{millis}ms"));
            let (inside, outside) = match &setting.slot {
                Slot::Switch(_) => continue,
                Slot::Count(range, _) => (
                    [(*range.start()).into(), (*range.end()).into()],
                    [(range.start() - 1).into(), (range.end() + 1).into()],
                ),
                Slot::Span(range, _) | Slot::Interval(range, _) => {
                    let (min, max) = (range.start().get(), range.end().get());
                    ([seconds(min), seconds(max)], [seconds(min - 1), seconds(max + 1)])
                }
            };
            assert!(inside.into_iter().all(accepts), "{}", setting.name);
            assert!(!outside.into_iter().any(accepts), "{}", setting.name);
        }
    }

    #[test]
    fn the_variable_is_the_name_in_capitals() {
        for setting in &SETTINGS {
            let capitals = setting.name.chars().fold(String::new(), |mut capitals, c| {
                if c.is_ascii_uppercase() {
                    capitals.push('_');
                }
                capitals.push(c.to_ascii_uppercase());
                capitals
            });
            assert_eq!(setting.environment, capitals);
        }
    }

    #[test]
    fn the_documented_page_is_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        assert_eq!(std::fs::read_to_string(page).unwrap(), settings_markdown(), "write what settings_markdown() gives");
    }

    #[test]
    fn switches_in_the_environment_are_read_in_every_documented_form() {
        for (text, value) in [("true", true), ("ON", true), ("1", true), ("Yes", true), ("no", false), ("off", false)] {
            assert_eq!(switch_from_text(text), Ok(value));
        }
        assert_eq!(switch_from_text("maybe"), Err(Problem::NotASwitch));
    }
}
