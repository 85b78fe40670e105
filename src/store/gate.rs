//! Where a simulation stands between the daemon and its disk.

use futures::future::BoxFuture;

use super::StoreError;

/// Decides about each write before it begins: it may wait, on the simulation's clock, and it may fail it.
pub trait WriteGate: Send + Sync {
    /// Lets the write `what` pass, sooner or later, or fails it.
    fn before_write(&self, what: &'static str) -> BoxFuture<'static, Result<(), StoreError>>;
}
