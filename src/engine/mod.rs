//! The scheduler: a pure state machine that is handed time and events and answers with effects.
//!
//! It knows nothing of sockets, tasks, clocks or logs; drivers own those.

mod key;
mod outcome;
mod settings;
mod time;

pub use key::{InstanceId, InstanceKey, InstanceType, KeyError, MAX_NAME_BYTES};
pub use outcome::{ChangeHash, Failure, FailureClass, FailureKind, Outcome};
pub use settings::{
    BackoffSettings, BreakerSettings, DeadLetterSettings, FAILURES_RANGE, IN_FLIGHT_RANGE, INTERVAL_RANGE, PerType,
    Settings, SettingsDraft, SettingsError, SettingsErrors, SettingsField, TIMEOUT_RANGE, TypeSettings,
};
pub use time::{Millis, Timestamp};
