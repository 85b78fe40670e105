//! Users, sessions and what every answer carries: the real router, in process, on virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod headers;
mod pages;
mod rig;
mod sessions;
mod setup;
mod signing_in;
mod users;
