//! The daemon: configuration, scheduler, API and metrics put together, started and stopped as one.

mod configure;
mod doors;
mod start;

pub use doors::{DoorError, Doors};
pub use start::{Daemon, Options, SOCKET, StartError, Stopped};
