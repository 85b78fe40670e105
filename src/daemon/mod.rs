//! The daemon: configuration, scheduler, API and metrics put together, started and stopped as one.

mod callers;
mod doors;
mod housekeeping;
mod service_manager;
mod spans;
mod start;
mod tls;

pub use doors::{DoorError, Doors, converse};
pub use service_manager::ServiceManager;
pub use start::{Daemon, Options, StartError, Stopped};
pub use tls::{TlsError, TlsFiles};
