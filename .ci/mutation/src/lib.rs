//! What the judges of a mutation run need of the package `pulse`: the scheduler, and how its settings are written.

pub mod config;
#[path = "../../../src/engine/mod.rs"]
pub mod engine;
