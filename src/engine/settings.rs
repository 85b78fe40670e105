//! The settings of the scheduler: what they are, their defaults, and the rules that they keep.
//!
//! A [`SettingsDraft`] may hold anything; only [`SettingsDraft::validate`] makes [`Settings`] of it, so the engine never
//! meets settings that contradict each other. Files and environment variables are the configuration's business.

use std::fmt;
use std::ops::{Deref, RangeInclusive};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key::InstanceType;
use super::per_type::PerType;
use super::time::Millis;

/// What an interval, a delay or a recheck may be: 100 ms to 24 h.
pub const INTERVAL_RANGE: RangeInclusive<Millis> = Millis::new(100)..=Millis::from_mins(24 * 60);
/// What the timeout of a poll may be: 100 ms to 10 min.
pub const TIMEOUT_RANGE: RangeInclusive<Millis> = Millis::new(100)..=Millis::from_mins(10);
/// What a cap on polls in flight may be.
pub const IN_FLIGHT_RANGE: RangeInclusive<u32> = 1..=100_000;
/// What a number of failures in a row may be.
pub const FAILURES_RANGE: RangeInclusive<u32> = 1..=1_000;

/// Settings that keep every rule. Read the fields through [`SettingsDraft`], to which it dereferences.
///
/// ```
/// use pulse::engine::{Millis, Settings, SettingsDraft};
/// let settings = SettingsDraft { base_interval: Millis::from_secs(20), ..SettingsDraft::default() }.validate()?;
/// assert_eq!(settings.base_interval, Millis::from_secs(20));
/// assert_eq!(settings.breaker, Settings::default().breaker);
/// # Ok::<(), pulse::engine::SettingsErrors>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SettingsDraft", into = "SettingsDraft")]
pub struct Settings(SettingsDraft);

impl Deref for Settings {
    type Target = SettingsDraft;

    fn deref(&self) -> &SettingsDraft {
        &self.0
    }
}

impl From<Settings> for SettingsDraft {
    fn from(settings: Settings) -> Self {
        settings.0
    }
}

impl TryFrom<SettingsDraft> for Settings {
    type Error = SettingsErrors;

    fn try_from(draft: SettingsDraft) -> Result<Self, SettingsErrors> {
        draft.validate()
    }
}

/// Settings that nobody has checked yet. The default is the documented one, and valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsDraft {
    /// Whether intervals adapt; if not, all is polled at the base interval.
    pub adaptive: bool,
    /// How often a healthy instance is polled.
    pub base_interval: Millis,
    /// The shortest interval that adapting may choose.
    pub min_interval: Millis,
    /// The longest interval that adapting may choose.
    pub max_interval: Millis,
    /// How many polls may be in flight at once.
    pub max_in_flight: u32,
    /// How many polls of one host may be in flight at once.
    pub max_in_flight_per_host: u32,
    /// What differs from type to type.
    pub types: PerType<TypeSettings>,
    /// How long a failing instance is left alone before the next try.
    pub backoff: BackoffSettings,
    /// When a breaker opens, and for how long.
    pub breaker: BreakerSettings,
    /// When an instance is dead-lettered, and when it is looked at again.
    pub dead_letter: DeadLetterSettings,
}

/// The settings of one type of instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeSettings {
    /// When a poll is given up.
    pub timeout: Millis,
    /// A fixed interval; `None` lets it adapt.
    pub interval: Option<Millis>,
}

/// The delay after a transient failure: doubled each time from `initial` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// The delay after the first failure.
    pub initial: Millis,
    /// The longest delay; `Retry-After` is honoured up to here too.
    pub max: Millis,
}

/// When a breaker opens, and for how long: doubled with each trip in a row from `open_initial` to `open_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSettings {
    /// The failures in a row that open it.
    pub failure_threshold: u32,
    /// How long it stays open after the first trip.
    pub open_initial: Millis,
    /// The longest that it stays open.
    pub open_max: Millis,
}

/// When an instance is dead-lettered, and when it is polled again to see whether it has recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSettings {
    /// The transient failures in a row after which an instance is dead-lettered.
    pub after_transient_failures: u32,
    /// The interval of rechecks after a permanent failure.
    pub permanent_recheck: Millis,
    /// The delay of the first recheck after transient failures; it doubles with each that fails.
    pub transient_recheck_initial: Millis,
    /// The longest delay between rechecks after transient failures.
    pub transient_recheck_max: Millis,
}

impl Default for SettingsDraft {
    fn default() -> Self {
        Self {
            adaptive: true,
            base_interval: Millis::from_secs(10),
            min_interval: Millis::from_secs(5),
            max_interval: Millis::from_mins(5),
            max_in_flight: 256,
            max_in_flight_per_host: 4,
            types: PerType::from_fn(|kind| TypeSettings {
                timeout: Millis::from_secs(10),
                interval: kind.is_availability_check().then_some(Millis::from_secs(60)),
            }),
            backoff: BackoffSettings { initial: Millis::from_secs(5), max: Millis::from_mins(5) },
            breaker: BreakerSettings {
                failure_threshold: 3,
                open_initial: Millis::from_secs(5),
                open_max: Millis::from_mins(5),
            },
            dead_letter: DeadLetterSettings {
                after_transient_failures: 5,
                permanent_recheck: Millis::from_mins(30),
                transient_recheck_initial: Millis::from_mins(5),
                transient_recheck_max: Millis::from_mins(30),
            },
        }
    }
}

impl SettingsDraft {
    /// The profile of the documented scenarios `integration` and `soak`: short intervals and delays, all else as by default.
    pub fn documented_scenarios() -> Self {
        let defaults = Self::default();
        Self {
            base_interval: Millis::from_secs(3),
            min_interval: Millis::new(750),
            max_interval: Millis::from_secs(8),
            backoff: BackoffSettings { initial: Millis::new(750), max: Millis::from_secs(4) },
            breaker: BreakerSettings {
                open_initial: Millis::from_secs(2),
                open_max: Millis::from_secs(10),
                ..defaults.breaker
            },
            ..defaults
        }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// All the rules that are broken, not only the first.
    pub fn validate(self) -> Result<Settings, SettingsErrors> {
        let mut broken = Vec::new();
        for (field, value, range) in self.spans() {
            if !range.contains(&value) {
                broken.push(SettingsError::SpanOutOfRange { field, value, min: *range.start(), max: *range.end() });
            }
        }
        for (field, value, range) in self.counts() {
            if !range.contains(&value) {
                broken.push(SettingsError::CountOutOfRange { field, value, min: *range.start(), max: *range.end() });
            }
        }
        for ((lower, lower_value), (upper, upper_value)) in self.ordered_pairs() {
            if lower_value > upper_value {
                broken.push(SettingsError::Reversed { lower, lower_value, upper, upper_value });
            }
        }
        if broken.is_empty() { Ok(Settings(self)) } else { Err(SettingsErrors(broken)) }
    }

    fn spans(&self) -> Vec<(SettingsField, Millis, RangeInclusive<Millis>)> {
        use SettingsField as Field;
        let mut spans: Vec<_> = [
            (Field::BaseInterval, self.base_interval),
            (Field::MinInterval, self.min_interval),
            (Field::MaxInterval, self.max_interval),
            (Field::BackoffInitial, self.backoff.initial),
            (Field::BackoffMax, self.backoff.max),
            (Field::BreakerOpenInitial, self.breaker.open_initial),
            (Field::BreakerOpenMax, self.breaker.open_max),
            (Field::DeadLetterPermanentRecheck, self.dead_letter.permanent_recheck),
            (Field::DeadLetterTransientRecheckInitial, self.dead_letter.transient_recheck_initial),
            (Field::DeadLetterTransientRecheckMax, self.dead_letter.transient_recheck_max),
        ]
        .map(|(field, value)| (field, value, INTERVAL_RANGE))
        .into();
        for (kind, settings) in self.types.iter() {
            spans.push((Field::Timeout(kind), settings.timeout, TIMEOUT_RANGE));
            spans.extend(settings.interval.map(|interval| (Field::Interval(kind), interval, INTERVAL_RANGE)));
        }
        spans
    }

    fn counts(&self) -> [(SettingsField, u32, RangeInclusive<u32>); 4] {
        use SettingsField as Field;
        [
            (Field::MaxInFlight, self.max_in_flight, IN_FLIGHT_RANGE),
            (Field::MaxInFlightPerHost, self.max_in_flight_per_host, IN_FLIGHT_RANGE),
            (Field::BreakerFailureThreshold, self.breaker.failure_threshold, FAILURES_RANGE),
            (Field::DeadLetterAfterTransientFailures, self.dead_letter.after_transient_failures, FAILURES_RANGE),
        ]
    }

    fn ordered_pairs(&self) -> [((SettingsField, Millis), (SettingsField, Millis)); 5] {
        use SettingsField as Field;
        let base = (Field::BaseInterval, self.base_interval);
        let dead_letter = &self.dead_letter;
        [
            ((Field::MinInterval, self.min_interval), base),
            (base, (Field::MaxInterval, self.max_interval)),
            ((Field::BackoffInitial, self.backoff.initial), (Field::BackoffMax, self.backoff.max)),
            ((Field::BreakerOpenInitial, self.breaker.open_initial), (Field::BreakerOpenMax, self.breaker.open_max)),
            (
                (Field::DeadLetterTransientRecheckInitial, dead_letter.transient_recheck_initial),
                (Field::DeadLetterTransientRecheckMax, dead_letter.transient_recheck_max),
            ),
        ]
    }
}

/// One field of the settings, so that a broken rule can name it in the words of whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each names the field of SettingsDraft that documents it")]
pub enum SettingsField {
    Adaptive,
    BaseInterval,
    MinInterval,
    MaxInterval,
    MaxInFlight,
    MaxInFlightPerHost,
    Interval(InstanceType),
    Timeout(InstanceType),
    BackoffInitial,
    BackoffMax,
    BreakerFailureThreshold,
    BreakerOpenInitial,
    BreakerOpenMax,
    DeadLetterAfterTransientFailures,
    DeadLetterPermanentRecheck,
    DeadLetterTransientRecheckInitial,
    DeadLetterTransientRecheckMax,
}

impl fmt::Display for SettingsField {
    /// The path of the field: `base_interval`, `types.pve.timeout`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adaptive => "adaptive",
            Self::BaseInterval => "base_interval",
            Self::MinInterval => "min_interval",
            Self::MaxInterval => "max_interval",
            Self::MaxInFlight => "max_in_flight",
            Self::MaxInFlightPerHost => "max_in_flight_per_host",
            Self::Interval(kind) => return write!(f, "types.{kind}.interval"),
            Self::Timeout(kind) => return write!(f, "types.{kind}.timeout"),
            Self::BackoffInitial => "backoff.initial",
            Self::BackoffMax => "backoff.max",
            Self::BreakerFailureThreshold => "breaker.failure_threshold",
            Self::BreakerOpenInitial => "breaker.open_initial",
            Self::BreakerOpenMax => "breaker.open_max",
            Self::DeadLetterAfterTransientFailures => "dead_letter.after_transient_failures",
            Self::DeadLetterPermanentRecheck => "dead_letter.permanent_recheck",
            Self::DeadLetterTransientRecheckInitial => "dead_letter.transient_recheck_initial",
            Self::DeadLetterTransientRecheckMax => "dead_letter.transient_recheck_max",
        })
    }
}

/// One rule that a draft breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.explain(SettingsField::to_string))]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum SettingsError {
    /// A span is shorter or longer than allowed.
    SpanOutOfRange { field: SettingsField, value: Millis, min: Millis, max: Millis },
    /// A number is smaller or larger than allowed.
    CountOutOfRange { field: SettingsField, value: u32, min: u32, max: u32 },
    /// What must not exceed another value does.
    Reversed { lower: SettingsField, lower_value: Millis, upper: SettingsField, upper_value: Millis },
}

impl SettingsError {
    /// The fields that the rule is about: one, or the two that contradict each other.
    pub fn fields(&self) -> impl Iterator<Item = SettingsField> + use<> {
        let (first, second) = match *self {
            Self::SpanOutOfRange { field, .. } | Self::CountOutOfRange { field, .. } => (field, None),
            Self::Reversed { lower, upper, .. } => (lower, Some(upper)),
        };
        std::iter::once(first).chain(second)
    }

    /// The rule in words, with each field called what `name` calls it.
    pub fn explain(&self, name: impl Fn(&SettingsField) -> String) -> String {
        match self {
            Self::SpanOutOfRange { field, value, min, max } => {
                format!("{} is {value}, but must be from {min} to {max}", name(field))
            }
            Self::CountOutOfRange { field, value, min, max } => {
                format!("{} is {value}, but must be from {min} to {max}", name(field))
            }
            Self::Reversed { lower, lower_value, upper, upper_value } => {
                format!("{} ({lower_value}) must not exceed {} ({upper_value})", name(lower), name(upper))
            }
        }
    }
}

/// Every rule that a draft breaks; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SettingsErrors(Vec<SettingsError>);

impl SettingsErrors {
    /// The broken rules, in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &SettingsError> {
        self.0.iter()
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(&mut SettingsDraft)) -> Vec<String> {
        let mut draft = SettingsDraft::default();
        change(&mut draft);
        draft.validate().expect_err("a rule is broken").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_and_the_documented_scenarios_keep_every_rule() {
        assert_eq!(SettingsDraft::default().validate(), Ok(Settings::default()));
        SettingsDraft::documented_scenarios().validate().unwrap();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let defaults = Settings::default();
        assert!(defaults.adaptive);
        assert_eq!([defaults.base_interval, defaults.min_interval].map(Millis::get), [10_000, 5_000]);
        assert_eq!(defaults.max_interval, Millis::from_mins(5));
        assert_eq!(defaults.breaker.failure_threshold, 3);
        assert_eq!(defaults.dead_letter.after_transient_failures, 5);
        assert_eq!(defaults.types[InstanceType::Pve].interval, None);
        assert_eq!(defaults.types[InstanceType::Tcp].interval, Some(Millis::from_secs(60)));
    }

    #[test]
    fn all_broken_rules_are_told_at_once() {
        let reasons = broken(|draft| {
            draft.base_interval = Millis::from_secs(1);
            draft.max_in_flight = 0;
            draft.types.pbs.timeout = Millis::from_mins(11);
        });
        assert_eq!(
            reasons,
            [
                "types.pbs.timeout is 11m, but must be from 100ms to 10m",
                "max_in_flight is 0, but must be from 1 to 100000",
                "min_interval (5s) must not exceed base_interval (1s)",
            ]
        );
    }

    #[test]
    fn the_intervals_are_ordered_min_base_max() {
        let reasons = broken(|draft| draft.max_interval = Millis::from_secs(6));
        assert_eq!(reasons, ["base_interval (10s) must not exceed max_interval (6s)"]);
        let mut equal = SettingsDraft::default();
        (equal.min_interval, equal.max_interval) = (equal.base_interval, equal.base_interval);
        equal.validate().unwrap();
    }

    #[test]
    fn every_initial_delay_is_at_most_its_maximum() {
        let reasons = broken(|draft| {
            draft.backoff.initial = Millis::from_mins(6);
            draft.breaker.open_initial = Millis::from_mins(6);
            draft.dead_letter.transient_recheck_initial = Millis::from_mins(31);
        });
        assert_eq!(
            reasons,
            [
                "backoff.initial (6m) must not exceed backoff.max (5m)",
                "breaker.open_initial (6m) must not exceed breaker.open_max (5m)",
                "dead_letter.transient_recheck_initial (31m) must not exceed dead_letter.transient_recheck_max (30m)",
            ]
        );
    }

    #[test]
    fn both_ends_of_a_range_are_allowed_and_what_lies_beyond_is_not() {
        for (interval, valid) in [(99, false), (100, true), (86_400_000, true), (86_400_001, false)] {
            let mut draft = SettingsDraft::default();
            draft.types.http.interval = Some(Millis::new(interval));
            assert_eq!(draft.validate().is_ok(), valid, "{interval}");
        }
        for (threshold, valid) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            let mut draft = SettingsDraft::default();
            draft.breaker.failure_threshold = threshold;
            assert_eq!(draft.validate().is_ok(), valid, "{threshold}");
        }
    }

    #[test]
    fn settings_that_break_a_rule_cannot_be_deserialised() {
        let mut json = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(json.clone()).unwrap(), Settings::default());
        json["max_in_flight"] = 0.into();
        let error = serde_json::from_value::<Settings>(json).unwrap_err();
        assert!(error.to_string().contains("max_in_flight is 0"), "{error}");
    }
}
