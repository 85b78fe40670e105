//! The scheduler: a pure state machine that is handed time and events and answers with effects.
//!
//! It knows nothing of sockets, tasks, clocks or logs; drivers own those.

mod key;
mod outcome;
mod time;

pub use key::{InstanceId, InstanceKey, InstanceType, KeyError, MAX_NAME_BYTES};
pub use outcome::{ChangeHash, Failure, FailureClass, FailureKind, Outcome};
pub use time::{Millis, Timestamp};
