//! Long runs of the daemon on real sockets against the lab's fleet, and what they leak.
//!
//! The daemon runs in a process of its own, with nothing beside it but what samples it; the fleet, the callers and the
//! judge are in another. `docs/soak.md` tells how to use it and by what statistics it judges.

mod checks;
mod child;
mod cli;
mod conductor;
mod format;
mod judged;
mod leak;
mod load;
mod outcome;
mod page;
mod people;
mod plan;
mod protocol;
mod sample;
mod sites;
mod trend;
mod virtual_run;

pub use checks::{Check, Verdict};
pub use cli::main;
pub use plan::{Change, Plan, PlanError};
pub use sample::{Leftover, Sample};
pub use sites::{GrownSite, grown_sites};
pub use trend::{Trend, trend};
