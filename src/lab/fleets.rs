//! The fleets that are known by name: the demonstration, load, and the two documented scenarios.

use super::fault::{Behaviour, FaultKind};
use super::plan::{HostPlan, LabPlan, MAX_HOSTS_PER_CERTIFICATE};

/// The path whose requests count as polls in the scripted fleets: each poll of a pve host asks for it once.
pub const POLL_PATH: &str = "/cluster/resources";

/// A poll makes about so many calls one after the other; a documented latency is that of a poll.
const CALLS_PER_POLL: u64 = 4;

const UNAVAILABLE: FaultKind = FaultKind::status(503);
const FORBIDDEN: FaultKind = FaultKind::status(403);

impl LabPlan {
    /// A mixed fleet that shows every state: healthy, changing, flapping, dead, hanging, locked out, and down.
    pub fn demo(seed: u64) -> Self {
        let flapping = Behaviour::Flapping { up_ms: 90_000, down_ms: 45_000, fault: FaultKind::Refuse };
        Self::new(
            seed,
            vec![
                HostPlan::pve(seed, "atlas", 24).cluster_of(3).changing_every(120).answering_in(30),
                HostPlan::pve(seed, "branch-north", 8).answering_in(60),
                HostPlan::pve(seed, "branch-south", 6).changing_every(45).answering_in(90),
                HostPlan::pve(seed, "branch-west", 5).behaving(flapping).answering_in(60),
                HostPlan::pve(seed, "attic", 3).behaving(FaultKind::Refuse),
                HostPlan::pve(seed, "tar-pit", 4).behaving(FaultKind::Hang),
                HostPlan::pbs(seed, "vault", &["daily", "weekly"]).answering_in(40),
                HostPlan::pbs(seed, "vault-offsite", &["archive"]).by_password(seed).answering_in(120),
                HostPlan::pbs(seed, "vault-locked", &["daily"]).with_rejected_secret(),
                HostPlan::pmg(seed, "mail-in").answering_in(50),
                HostPlan::pmg(seed, "mail-out").by_password(seed).answering_in(50),
                HostPlan::http("portal", true, "portal: all systems go"),
                HostPlan::http("intranet", false, "intranet: ok"),
                HostPlan::http("shop", true, "shop: open").behaving(UNAVAILABLE),
                HostPlan::tcp("database"),
            ],
        )
    }

    /// `count` healthy hosts for load: of twenty, sixteen pve, three pbs, one pmg.
    pub fn uniform(count: usize, seed: u64) -> Self {
        let host = |index: usize| match index % 20 {
            7 => HostPlan::pmg(seed, format!("pmg-{index:05}")),
            3 | 11 | 17 => HostPlan::pbs(seed, format!("pbs-{index:05}"), &["daily"]),
            _ => HostPlan::pve(seed, format!("pve-{index:05}"), 4),
        };
        let plan = Self::new(seed, (0..count).map(host).collect());
        Self { hosts_per_certificate: MAX_HOSTS_PER_CERTIFICATE, ..plan }
    }

    /// The documented `integration` scenario: ten healthy hosts, one that recovers, one that never will.
    pub fn integration() -> Self {
        let seed = 12;
        let transient = sequence(&[Some(UNAVAILABLE); 3], 1.0, UNAVAILABLE);
        let permanent = sequence(&[Some(FORBIDDEN)], 0.0, FORBIDDEN);
        Self::new(
            seed,
            [
                group(seed, "healthy", 10, 150, &Behaviour::Healthy),
                group(seed, "transient", 1, 120, &transient),
                group(seed, "permanent", 1, 160, &permanent),
            ]
            .concat(),
        )
    }

    /// The documented `soak` scenario: sixty healthy hosts, fifteen that come and go, five that fail for good.
    pub fn soak() -> Self {
        let seed = 80;
        let healthy = sequence(&[], 0.98, UNAVAILABLE);
        let transient =
            sequence(&[Some(UNAVAILABLE), Some(UNAVAILABLE), None, Some(UNAVAILABLE), None], 0.85, UNAVAILABLE);
        let permanent = sequence(&[Some(UNAVAILABLE), Some(UNAVAILABLE), Some(FORBIDDEN)], 0.0, FORBIDDEN);
        Self::new(
            seed,
            [
                group(seed, "healthy", 60, 200, &healthy),
                group(seed, "transient", 15, 220, &transient),
                group(seed, "permanent", 5, 250, &permanent),
            ]
            .concat(),
        )
    }
}

fn sequence(outcomes: &[Option<FaultKind>], then_success: f64, otherwise: FaultKind) -> Behaviour {
    Behaviour::Sequence { path: POLL_PATH.to_owned(), outcomes: outcomes.to_vec(), then_success, otherwise }
}

fn group(seed: u64, prefix: &str, count: usize, poll_ms: u64, behaviour: &Behaviour) -> Vec<HostPlan> {
    (1..=count)
        .map(|number| {
            HostPlan::pve(seed, format!("{prefix}-{number:02}"), 4)
                .answering_in(poll_ms / CALLS_PER_POLL)
                .behaving(behaviour.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::InstanceType;

    #[test]
    fn every_known_fleet_can_be_carried_out() {
        for plan in [LabPlan::demo(1), LabPlan::uniform(1_000, 1), LabPlan::integration(), LabPlan::soak()] {
            plan.check().unwrap();
        }
    }

    #[test]
    fn the_scenarios_have_the_documented_numbers_of_hosts() {
        let count =
            |plan: &LabPlan, prefix: &str| plan.hosts.iter().filter(|host| host.name.starts_with(prefix)).count();
        let (integration, soak) = (LabPlan::integration(), LabPlan::soak());
        assert_eq!(["healthy", "transient", "permanent"].map(|prefix| count(&integration, prefix)), [10, 1, 1]);
        assert_eq!(["healthy", "transient", "permanent"].map(|prefix| count(&soak, prefix)), [60, 15, 5]);
        assert!(soak.hosts.iter().all(|host| host.system.kind() == InstanceType::Pve));
    }

    #[test]
    fn the_demonstration_holds_every_type_and_both_ways_to_sign_in() {
        let plan = LabPlan::demo(1);
        for kind in InstanceType::ALL {
            assert!(plan.hosts.iter().any(|host| host.system.kind() == kind), "{kind}");
        }
        let passwords =
            plan.hosts.iter().filter(|host| matches!(host.system.auth(), Some(crate::lab::Auth::Password { .. })));
        assert_eq!(passwords.count(), 2);
    }
}
