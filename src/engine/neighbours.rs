//! Instances that share a machine: when one stops answering, the others are asked before their time.
//!
//! A machine that dies takes all of its instances along, and each would be found out only at its own next poll.

use super::core::Engine;
use super::effect::Effects;
use super::instance::Place;
use super::interval::IntervalReason;
use super::outcome::FailureKind;
use super::time::Millis;

/// How many neighbours one failure brings forward. Those of them that fail too bring forward the next ones, so that
/// a dead machine is seen whole, while one broken instance among thousands on its machine moves a handful.
const DOUBTED: usize = 8;

impl Engine {
    /// The poll of `id` failed for the first time in a row, by `kind`: its neighbours may be gone as well.
    pub(super) fn doubt_neighbours(&mut self, id: u32, kind: FailureKind, effects: &mut Effects) {
        if !self.settings.adaptive || !self.policy.doubts_neighbours() || !may_be_the_machines(kind) {
            return;
        }
        let Some(host) = self.instance(id).and_then(|instance| instance.host) else { return };
        let tenants = std::mem::take(&mut self.tenants[host as usize]);
        let (before, from) = tenants.split_at(tenants.partition_point(|tenant| *tenant < id));
        for neighbour in from.iter().skip(1).chain(before).take(DOUBTED) {
            self.doubt(*neighbour, effects);
        }
        self.tenants[host as usize] = tenants;
    }

    /// Polls `id` as soon as the minimum interval allows, if it is healthy and would be polled later.
    fn doubt(&mut self, id: u32, effects: &mut Effects) {
        let Some(instance) = self.instance(id) else { return };
        let healthy = instance.place == Place::Queued && instance.polled && instance.breaker.failures() == 0;
        // A tick that gives up a poll is past what is due now.
        let soon = self.now + Millis::new(1);
        let due = soon.max(instance.started + self.settings.min_interval);
        if healthy
            && instance.fixed_interval(&self.settings).is_none()
            && self.agenda.is_on_wheel(id)
            && due < self.agenda.due(id)
        {
            let interval = due.since(instance.started).min(self.settings.max_interval);
            self.plan(id, due, interval, IntervalReason::NeighbourFailed, effects);
        }
    }
}

/// Whether a machine that is gone or unreachable looks like this. An answer, whatever it says, comes from a live one.
const fn may_be_the_machines(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Timeout | FailureKind::Refused | FailureKind::Reset | FailureKind::Dns | FailureKind::TlsHandshake
    )
}
