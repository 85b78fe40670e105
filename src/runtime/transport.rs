//! How an instance is polled, as far as the driver needs to know.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{InstanceKey, Millis, Outcome};

/// Polls instances.
pub trait Transport: Send + Sync + 'static {
    /// What a poll reads from an instance.
    type Reading: Send + Sync + 'static;

    /// Polls one instance once.
    ///
    /// The driver drops the future when the engine gives the poll up, so it must be cancel-safe. A panic counts as a
    /// failure of this poll alone.
    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<Self::Reading>> + Send + 'static;
}

/// A poll that the engine ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollRequest {
    /// Whom to poll.
    pub key: InstanceKey,
    /// The engine gives the poll up after this time.
    pub timeout: Millis,
}

/// What a poll came to.
#[derive(Clone, Debug)]
pub struct PollReport<R> {
    /// Success or failure, for the engine.
    pub outcome: Outcome,
    /// What was read; kept as the instance's last reading. A failure usually has none.
    pub reading: Option<Arc<R>>,
    /// What the poll cost the host.
    pub cost: PollCost,
}

/// What a poll cost the host that answered it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PollCost {
    /// Requests made, sign-ins included.
    pub calls: u32,
    /// Bytes of answers read.
    pub bytes: u64,
    /// Connections tried.
    pub connections: u32,
    /// Sign-ins with a password.
    pub sign_ins: u32,
    /// Names asked of the resolver.
    pub name_lookups: u32,
}
