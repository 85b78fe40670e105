//! The simulator: the scheduler of Pulse in a seeded world on virtual time, with a judge that knows the truth.
//!
//! One seed, one run: whatever is found can be replayed and shrunk. `docs/simulation.md` tells how to use it.

mod audit_faults;
mod builtin;
mod callers;
mod check;
mod clock;
mod compare;
mod desk;
mod file;
mod freshness;
mod host;
mod judge;
mod life;
mod nodes;
mod operators;
pub mod report;
mod run;
mod scenario;
mod sessions;
mod shrink;
mod stack;
mod streams;
mod swarm;
mod told;
mod trace;
mod values;
mod violation;
mod with_router;
mod world;

pub use builtin::{BUILTIN, builtin};
pub use compare::{CompareWorld, Comparison, Measured, compare, usual_worlds};
pub use file::ScenarioError;
pub use freshness::{Ages, Freshness};
pub use judge::SOMETIMES;
pub use life::Outages;
pub use run::{Report, RunOptions, run, run_watched};
pub use scenario::{
    Action, Answer, Expect, ExpectDeadLetters, ExpectGroup, Fault, FaultKind, HostGroup, Operator, Others, Scenario,
};
pub use shrink::{Shrunk, shrink};
pub use stack::run_stack;
pub use swarm::swarm;
pub use trace::Trace;
pub use values::{Quantiles, Rate, Span};
pub use violation::{Rule, Violation};
pub use with_router::run_router;
pub use world::Policy;
