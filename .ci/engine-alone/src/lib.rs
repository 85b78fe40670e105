//! The scheduler by itself; see `src/engine` of the package `pulse`.

#[path = "../../../src/engine/mod.rs"]
pub mod engine;
