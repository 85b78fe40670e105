//! The daemon as its users have it: the binary, its files, its ports and its socket, against real servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod access;
mod audit;
mod backup;
mod bad_input;
mod behind_nginx;
mod cluster_nodes;
mod config_history;
mod demo;
mod discovery;
mod events;
mod first_start;
mod foreign;
mod health_answer;
mod installed;
mod inventory_edit;
mod journal;
mod management;
mod nginx;
mod nodes;
mod notifications;
mod observability;
mod openapi_properties;
mod overview;
mod provided;
mod rekey_killed;
mod runbook;
mod secrets_at_rest;
mod service_manager;
mod settings_edit;
mod settings_update;
mod shutdown;
mod stalled_reader;
mod starting;
mod state_answer;
mod support;
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod updates;
mod users;

#[path = "../python/mod.rs"]
mod python;
