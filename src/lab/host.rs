//! One emulated host: its plan, its members with how they behave now, and what was asked of it.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::LabError;
use super::certificates::Identity;
use super::clock::LabClock;
use super::counters::Counters;
use super::fault::{Behaviour, FaultKind};
use super::noise::Noise;
use super::plan::HostPlan;
use crate::engine::{Millis, Timestamp};

/// A host, or a cluster that answers at several members.
pub(super) struct Host {
    pub(super) plan: HostPlan,
    pub(super) noise: Noise,
    pub(super) clock: LabClock,
    pub(super) members: Vec<Member>,
    pub(super) identity: Identity,
    pub(super) impostor: Identity,
    pub(super) counters: Counters,
}

/// One address of a host, which fails by itself.
pub(super) struct Member {
    pub(super) address: SocketAddrV4,
    wanted: watch::Sender<Arc<ActiveBehaviour>>,
    /// The generation that the member's listener carries out.
    applied: watch::Sender<u64>,
}

/// A behaviour in force, with the counts that it goes by.
pub(super) struct ActiveBehaviour {
    behaviour: Behaviour,
    generation: u64,
    connections: AtomicU32,
    requests: AtomicU32,
}

impl Member {
    pub(super) fn new(address: SocketAddrV4, behaviour: Behaviour) -> Self {
        Self {
            address,
            wanted: watch::Sender::new(Arc::new(ActiveBehaviour::new(behaviour, 1))),
            applied: watch::Sender::new(0),
        }
    }

    pub(super) fn active(&self) -> Arc<ActiveBehaviour> {
        Arc::clone(&self.wanted.borrow())
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        self.wanted.borrow().behaviour.clone()
    }

    /// Tells of each change of behaviour.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<ActiveBehaviour>> {
        self.wanted.subscribe()
    }

    /// Says that the listener carries out `active` now.
    pub(super) fn applied(&self, active: &ActiveBehaviour) {
        self.applied.send_replace(active.generation);
    }

    /// Changes how the member behaves, and returns once the listener carries it out or `stop` is cancelled.
    pub(super) async fn behave(&self, behaviour: Behaviour, stop: &CancellationToken) {
        let mut generation = 0;
        self.wanted.send_modify(|active| {
            generation = active.generation + 1;
            *active = Arc::new(ActiveBehaviour::new(behaviour, generation));
        });
        self.wait_for(generation, stop).await;
    }

    /// Returns once the listener carries out the latest behaviour, or `stop` is cancelled.
    pub(super) async fn settled(&self, stop: &CancellationToken) {
        let generation = self.wanted.borrow().generation;
        self.wait_for(generation, stop).await;
    }

    async fn wait_for(&self, generation: u64, stop: &CancellationToken) {
        let mut applied = self.applied.subscribe();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = applied.wait_for(|applied| *applied >= generation) => {}
        }
    }

    /// Whether the other members of its cluster still hear of it.
    pub(super) fn is_online(&self, now: Timestamp) -> bool {
        !matches!(
            self.active().coming_fault(now),
            Some(FaultKind::Refuse | FaultKind::HangBeforeTls | FaultKind::CutHandshake)
        )
    }
}

impl ActiveBehaviour {
    fn new(behaviour: Behaviour, generation: u64) -> Self {
        Self { behaviour, generation, connections: AtomicU32::new(0), requests: AtomicU32::new(0) }
    }

    /// The fault that the first connection meets: it changes with the schedule, not with what was counted.
    pub(super) fn standing_fault(&self, now: Timestamp) -> Option<FaultKind> {
        self.behaviour.connection_fault(now, 0)
    }

    /// The fault that the next connection would meet.
    fn coming_fault(&self, now: Timestamp) -> Option<FaultKind> {
        self.behaviour.connection_fault(now, self.connections.load(Ordering::Relaxed))
    }

    /// Counts a connection, and tells the fault that it meets.
    pub(super) fn meet_connection(&self, now: Timestamp) -> Option<FaultKind> {
        self.behaviour.connection_fault(now, self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a request to `path` (without `/api2/json`), and tells the fault that it meets.
    pub(super) fn meet_request(&self, now: Timestamp, path: &str, chance: Noise) -> Option<FaultKind> {
        match &self.behaviour {
            Behaviour::Healthy => None,
            Behaviour::Flapping { .. } => self.behaviour.request_fault(now, 0, chance),
            behaviour if behaviour.counts(path) => {
                behaviour.request_fault(now, self.requests.fetch_add(1, Ordering::Relaxed), chance)
            }
            Behaviour::Faulty(_) | Behaviour::Sequence { .. } => None,
        }
    }

    /// Whether what comes of a request to `path` depends on the behaviour.
    pub(super) fn has_a_say(&self, path: &str) -> bool {
        match &self.behaviour {
            Behaviour::Healthy | Behaviour::Flapping { .. } => true,
            Behaviour::Faulty(_) | Behaviour::Sequence { .. } => self.behaviour.counts(path),
        }
    }

    pub(super) fn turns_in(&self, now: Timestamp) -> Option<Millis> {
        self.behaviour.turns_in(now)
    }
}

impl Host {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The name of the node behind member `index`.
    pub(super) fn node(&self, index: usize) -> String {
        match self.members.len() {
            1 => self.plan.name.clone(),
            _ => format!("{}-{}", self.plan.name, index + 1),
        }
    }

    pub(super) fn member(&self, index: usize) -> Result<&Member, LabError> {
        self.members
            .get(index)
            .ok_or_else(|| LabError::UnknownMember { host: self.plan.name.clone(), members: self.members.len() })
    }
}
