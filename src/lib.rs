//! Pulse watches fleets of Proxmox hosts and plain endpoints by polling them.
//!
//! The scheduler is a value ([`engine`]); everything that touches the world lies around it.
//! `docs/architecture.md` is the map.

pub mod api;
pub mod backup;
pub mod cli;
pub mod config;
pub mod configure;
pub mod daemon;
pub mod engine;
pub mod fleet;
pub mod lab;
pub mod notify;
pub mod runtime;
pub mod security;
pub mod store;
pub mod targets;
pub mod telemetry;
pub mod ui;
pub mod update;
