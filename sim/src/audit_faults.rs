//! Troubles of the database that the audit log is written to: it fails or stalls, before an effect or after it.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use pulse::engine::Millis;
use pulse::runtime::Clock;
use pulse::store::{StoreError, WriteGate};

use crate::desk::settle;
use crate::streams::Stream;

/// How long the disk stalls at the most: also longer than the log waits for it.
const LONGEST_STALL: u64 = 12_000;

/// What befalls the next writes to the audit log.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    intent: Trouble,
    outcome: Trouble,
}

#[derive(Clone, Copy, Debug, Default)]
enum Trouble {
    #[default]
    None,
    Fails,
    Stalls(Millis),
}

/// Fails and stalls writes to the audit log.
pub(crate) struct AuditFaults {
    clock: Arc<dyn Clock>,
    plan: Mutex<Plan>,
}

impl AuditFaults {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, plan: Mutex::default() }
    }

    /// Plans the troubles of one call, and tells them.
    pub(crate) fn draw(&self, draws: &mut Stream) -> String {
        let mut trouble = |one_in| match draws.below(one_in) {
            0 => Trouble::Fails,
            1 => Trouble::Stalls(Millis::new(1 + draws.below(LONGEST_STALL))),
            _ => Trouble::None,
        };
        let plan = Plan { intent: trouble(10), outcome: trouble(10) };
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        format!("{plan:?}")
    }

    pub(crate) fn heal(&self) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Plan::default();
    }
}

impl WriteGate for AuditFaults {
    fn before_write(&self, what: &'static str) -> BoxFuture<'static, Result<(), StoreError>> {
        let plan = *self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = match what {
            "audit.intent" => plan.intent,
            "audit.outcome" => plan.outcome,
            _ => Trouble::None,
        };
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            match trouble {
                Trouble::None => Ok(()),
                Trouble::Fails => Err(StoreError::Full),
                Trouble::Stalls(span) => {
                    clock.sleep_until(clock.now() + span).await;
                    settle().await;
                    Ok(())
                }
            }
        })
    }
}
