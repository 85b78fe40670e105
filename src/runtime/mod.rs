//! What drives the engine: a clock, a transport, and one loop that is generic over both.
//!
//! Production runs it on real time and real sockets, the simulator on virtual time and a seeded world.

mod clock;
mod driver;
mod handle;
mod transport;

pub use clock::{Calendar, Clock, TokioClock};
pub use driver::{Drained, Driver, Subscriber};
pub use handle::{DriverGone, Handle, Observed, Page};
pub use transport::{PollCost, PollReport, PollRequest, Transport};
