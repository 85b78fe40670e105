//! The daemon: configuration, scheduler, API and metrics put together, started and stopped as one.

mod callers;
mod doors;
mod start;
mod tls;

pub use doors::{DoorError, Doors, converse};
pub use start::{Daemon, Options, SOCKET, StartError, Stopped};
pub use tls::{TlsError, TlsFiles};
