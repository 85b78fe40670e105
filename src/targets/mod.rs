//! How each type of instance is polled.
//!
//! A poll returns its outcome and its reading; it records nothing and decides nothing.

mod target;

pub use target::{Access, Credentials, HttpCheck, ProxmoxAccess, Secret, Target, TcpCheck, Trust};
