//! Connections: names, TCP, TLS, and one kept-alive HTTP/1.1 connection an instance.
//!
//! HTTP runs on hyper's connection type and is driven by the poll itself, so an idle instance owns no task.

mod connector;
mod http1;
#[cfg(feature = "otel")]
mod overhear;
mod resolver;
mod tls;
mod wire;

pub use connector::{CallSaid, Connector};
pub(super) use http1::{Answer, BodyLimit};
#[cfg(feature = "otel")]
pub use overhear::overhear;
pub use tls::TrustError;
pub(super) use tls::hex;
pub(crate) use tls::tls_problem;
pub(super) use wire::{Ask, Wire};
