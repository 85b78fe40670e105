//! Log lines about what happens to instances, in words that an operator can search for.
//!
//! Lines about breakers hold the words `circuit breaker`, lines about dead letters `dead-letter`, and all of them the
//! instance's key.

use crate::engine::{BreakerState, Event, FleetEvent, InstanceEvent, InstanceKey, What};
use crate::runtime::Subscriber;

/// Writes events to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSubscriber;

impl<R> Subscriber<R> for LogSubscriber {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        match (&event.what, key) {
            (What::Instance { what, .. }, Some(key)) => instance_event(key, what),
            (What::Instance { .. }, None) => {}
            (What::Fleet(what), _) => fleet_event(what),
        }
    }
}

fn instance_event(key: &InstanceKey, what: &InstanceEvent) {
    match what {
        InstanceEvent::BreakerMoved { from, to, failures, .. } => breaker_moved(key, *from, *to, *failures),
        InstanceEvent::DeadLettered { .. } | InstanceEvent::RecheckFailed { .. } | InstanceEvent::Revived => {
            dead_letter(key, what);
        }
        InstanceEvent::PollFailed { .. }
        | InstanceEvent::PollSucceeded { .. }
        | InstanceEvent::PollStarted { .. }
        | InstanceEvent::PollCancelled { .. }
        | InstanceEvent::StaleTicket { .. }
        | InstanceEvent::Scheduled { .. } => poll(key, what),
        InstanceEvent::Added { .. } => tracing::debug!(instance = %key, "joined the fleet"),
        InstanceEvent::Removed { .. } => tracing::info!(instance = %key, "left the fleet"),
        InstanceEvent::Reconfigured => tracing::info!(instance = %key, "was edited; its failures are forgotten"),
        InstanceEvent::Paused => tracing::info!(instance = %key, "is paused and no longer polled"),
        InstanceEvent::Resumed => tracing::info!(instance = %key, "is polled again"),
        InstanceEvent::Recovered { failures, down_for } => {
            tracing::info!(instance = %key, failures, %down_for, "recovered");
        }
    }
}

fn breaker_moved(key: &InstanceKey, from: BreakerState, to: BreakerState, failures: u32) {
    let from = from.as_str();
    match to {
        BreakerState::Open => tracing::warn!(instance = %key, from, failures, "circuit breaker opened"),
        BreakerState::HalfOpen => {
            tracing::info!(instance = %key, from, failures, "circuit breaker lets one probe pass")
        }
        BreakerState::Closed => tracing::info!(instance = %key, from, failures, "circuit breaker closed"),
    }
}

fn dead_letter(key: &InstanceKey, what: &InstanceEvent) {
    match what {
        InstanceEvent::DeadLettered { reason, failures, .. } => {
            let reason = reason.as_str();
            tracing::warn!(instance = %key, reason, failures, "moved to the dead-letter queue");
        }
        InstanceEvent::RecheckFailed { reason, retry_count, .. } => {
            let reason = reason.as_str();
            tracing::info!(instance = %key, reason, retry_count, "recheck failed, stays in the dead-letter queue");
        }
        _ => tracing::info!(instance = %key, "left the dead-letter queue"),
    }
}

fn poll(key: &InstanceKey, what: &InstanceEvent) {
    match what {
        // The first failure of a row is news; those that follow are told by breaker and dead-letter lines.
        InstanceEvent::PollFailed { failure, failures: 1, .. } => {
            let category = failure.kind.as_str();
            tracing::warn!(instance = %key, category, reason = &*failure.message, "poll failed");
        }
        InstanceEvent::PollFailed { failure, failures, .. } => {
            let category = failure.kind.as_str();
            tracing::debug!(instance = %key, category, failures, reason = &*failure.message, "poll failed again");
        }
        InstanceEvent::PollSucceeded { took, changed, .. } => {
            tracing::debug!(instance = %key, %took, changed, "poll succeeded");
        }
        InstanceEvent::StaleTicket { .. } => {
            tracing::debug!(instance = %key, "an answer came too late and was dropped")
        }
        InstanceEvent::PollCancelled { .. } => tracing::debug!(instance = %key, "poll called off"),
        InstanceEvent::PollStarted { lag, .. } => tracing::trace!(instance = %key, %lag, "poll started"),
        InstanceEvent::Scheduled { interval, reason, .. } => {
            tracing::trace!(instance = %key, %interval, ?reason, "next poll planned");
        }
        _ => {}
    }
}

fn fleet_event(what: &FleetEvent) {
    match what {
        FleetEvent::SettingsApplied { replanned } => tracing::info!(replanned, "settings applied"),
        FleetEvent::InventoryApplied { added, removed, changed } => {
            tracing::info!(added, removed, changed, "inventory applied");
        }
        FleetEvent::LoadChanged { stretch_permille } => {
            let stretch = f64::from(*stretch_permille) / 1_000.0;
            tracing::info!(stretch, "intervals are stretched by the load, all alike");
        }
        FleetEvent::CommandDone { id, result } => match result {
            Ok(_) => tracing::info!(command = id.0, "an operator's command was carried out"),
            Err(error) => tracing::info!(command = id.0, %error, "an operator's command was refused"),
        },
        FleetEvent::UnknownTicket { .. } => tracing::debug!("an answer for no known instance was dropped"),
    }
}
