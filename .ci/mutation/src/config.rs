//! The part of the configuration that scenarios are read with.

#![allow(dead_code, unused_imports, reason = "scenarios need a part of it")]

#[path = "../../../src/config/address.rs"]
mod address;
#[path = "../../../src/config/definitions.rs"]
mod definitions;
#[path = "../../../src/config/draft.rs"]
mod draft;
#[path = "../../../src/config/duration.rs"]
mod duration;
#[path = "../../../src/config/error.rs"]
mod error;
#[path = "../../../src/config/json.rs"]
mod json;

/// A scenario refers to no files.
mod reference {
    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum ReferenceError {}
}

/// Nor does it hold secrets.
mod seal {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum SealError {}
}

pub use definitions::{SETTINGS, SettingDefinition};
pub use draft::{Draft, Field};
pub use duration::parse_span;
