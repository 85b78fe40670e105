//! The runs whose traces are pinned, made as the simulator's own tests make them.

use pulse::engine::Millis;

use crate::builtin::{BUILTIN, builtin};
use crate::run::{RunOptions, run};
use crate::scenario::Scenario;
use crate::swarm::swarm;
use crate::values::Span;
use crate::world::Policy;

#[path = "../../../../sim/tests/pinned/mod.rs"]
mod pinned;

pub(crate) use pinned::{pinned, traces};
