//! The scheduler: a pure state machine that is handed time and events and answers with effects.
//!
//! It knows nothing of sockets, tasks, clocks or logs; drivers own those.
//! What a steady cycle calls across files is marked `#[inline]`: the compiler splits the crate along them, and inlines
//! nothing else from one part into the other, which is a tenth of a cycle.

mod agenda;
mod breaker;
mod command;
mod core;
mod dead_letter;
mod dispatch;
mod effect;
mod finish;
mod health;
mod instance;
mod interval;
mod inventory;
mod jitter;
mod key;
mod lists;
mod load;
mod neighbours;
mod operate;
mod outcome;
mod per_type;
mod reference;
mod score;
mod settings;
mod time;
mod verify;

pub use breaker::BreakerState;
pub use command::{Command, CommandError, CommandId, Reply, Retry, RetryFilter, RetryResult};
pub use core::{Engine, Input, Totals};
pub use dead_letter::DeadLetterReason;
pub use effect::{Effect, Effects, Event, FleetEvent, InstanceEvent, PollOrder, Ticket, What};
pub use health::{
    BreakerHealth, DUE_SOON, DeadLetterHealth, InstanceHealth, InstanceView, LoadHealth, Overview, QueueHealth,
    SchedulerHealth,
};
pub use instance::{ErrorRecord, InstanceSpec, Place};
pub use interval::{Adaptive, Choice, IntervalPolicy, IntervalReason, Observation, PolicyMemory};
pub use key::{InstanceId, InstanceKey, InstanceType, KeyError, MAX_NAME_BYTES};
pub use outcome::{ChangeHash, Failure, FailureClass, FailureKind, Outcome};
pub use per_type::PerType;
pub use reference::Reference;
pub use score::Score;
pub use settings::{
    BackoffSettings, BreakerSettings, DeadLetterSettings, FAILURES_RANGE, IN_FLIGHT_RANGE, INTERVAL_RANGE, Settings,
    SettingsDraft, SettingsError, SettingsErrors, SettingsField, TIMEOUT_RANGE, TypeSettings,
};
pub use time::{Millis, Timestamp};
pub use verify::Violation;
