//! An emulated fleet on loopback: real servers that speak the PVE, PBS and PMG APIs, and fail on request.
//!
//! Every host listens at an address of its own within 127.0.0.0/8 (Linux answers at all of them), presents a
//! certificate of the lab's authority, checks credentials, and says what follows from seed and time alone.
//!
//! ```
//! use pulse::lab::{Fault, FaultKind, HostPlan, Lab, LabClock, LabPlan};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), pulse::lab::LabError> {
//! let plan = LabPlan::new(7, vec![HostPlan::pve(7, "rack-1", 4), HostPlan::tcp("database")]);
//! let lab = Lab::start(plan, LabClock::real()).await?;
//! assert!(lab.hosts()[0].urls[0].starts_with("https://127."));
//!
//! lab.set_fault("rack-1", Fault::from(FaultKind::status(503)).first(3)).await?;
//! assert_eq!(lab.stats("rack-1")?.requests, 0);
//! lab.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod api;
mod auth;
mod certificates;
mod clock;
mod connection;
mod control;
mod counters;
mod fault;
mod fleets;
mod host;
mod http;
mod instances;
mod listener;
mod noise;
mod pbs;
mod plan;
mod pmg;
mod pve;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use certificates::{Authority, Identity};
use counters::Counters;
use host::{Host, Member};
use listener::Door;
use noise::Noise;

pub use clock::LabClock;
pub use counters::{HostStats, Outcomes};
pub use fault::{Behaviour, Fault, FaultKind, MAX_SEQUENCE};
pub use fleets::POLL_PATH;
pub use instances::LabHost;
pub use plan::{
    Auth, HostPlan, LabPlan, MAX_ADDRESSES, MAX_GUESTS, MAX_HOSTS_PER_CERTIFICATE, MAX_NODES, MAX_STORAGES, System,
};

/// A running fleet. Dropped without [`Lab::shutdown`], it stops as well, but nobody waits for it.
pub struct Lab {
    fleet: Arc<Fleet>,
    tasks: TaskTracker,
}

/// The hosts of a lab.
struct Fleet {
    /// In the plan's order, for people.
    order: Vec<String>,
    hosts: BTreeMap<String, Arc<Host>>,
    authority_pem: String,
    stop: CancellationToken,
}

/// Why a lab cannot do what was asked.
#[derive(Debug, Error)]
pub enum LabError {
    /// A socket could not be bound.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The control port must not be reachable from elsewhere.
    #[error("{0} is not a loopback address; the lab's control port is for this machine alone")]
    NotLoopback(SocketAddr),
    /// The plan has more addresses than a lab serves.
    #[error("the plan has {0} addresses; at most {MAX_ADDRESSES} are served")]
    TooManyAddresses(usize),
    /// The plan begins too high in 127.0.0.0/8.
    #[error("there is no loopback address with the index {0}")]
    NoSuchAddress(u64),
    /// So many hosts cannot share a certificate.
    #[error("{0} hosts cannot share a certificate; 1 to {MAX_HOSTS_PER_CERTIFICATE} can")]
    HostsPerCertificate(u16),
    /// A host, or the behaviour that it is to show, makes no sense.
    #[error("host {host:?}: {reason}")]
    InvalidHost {
        /// Its name.
        host: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No host has this name.
    #[error("the lab has no host {0:?}")]
    UnknownHost(String),
    /// The cluster has fewer members.
    #[error("host {host:?} has {members} members, counted from 0")]
    UnknownMember {
        /// Its name.
        host: String,
        /// How many there are.
        members: usize,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate could not be used.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Lab {
    /// Starts a fleet. When it returns, every host accepts connections, or refuses them if that is its behaviour.
    ///
    /// # Errors
    /// The plan makes no sense, or an address cannot be bound; nothing runs then.
    pub async fn start(plan: LabPlan, clock: LabClock) -> Result<Self, LabError> {
        plan.check()?;
        let authority = Authority::new()?;
        let stop = CancellationToken::new();
        let built = build(plan, &clock, &authority)?;
        let fleet = Fleet {
            order: built.iter().map(|(host, _)| host.plan.name.clone()).collect(),
            hosts: built.iter().map(|(host, _)| (host.plan.name.clone(), Arc::clone(host))).collect(),
            authority_pem: authority.pem(),
            stop,
        };
        let lab = Self { fleet: Arc::new(fleet), tasks: TaskTracker::new() };
        for (host, doors) in built {
            for (index, door) in doors.into_iter().enumerate() {
                let (host, tasks, stop) = (Arc::clone(&host), lab.tasks.clone(), lab.fleet.stop.clone());
                lab.tasks.spawn(listener::serve(host, index, door, tasks, stop));
            }
        }
        for member in lab.fleet.hosts.values().flat_map(|host| &host.members) {
            member.settled(&lab.fleet.stop).await;
        }
        Ok(lab)
    }

    /// The hosts, in the plan's order, with what a client needs to reach them.
    pub fn hosts(&self) -> Vec<LabHost> {
        self.fleet.in_order().map(|host| LabHost::of(host)).collect()
    }

    /// The certificate of the authority that signs for every host, as PEM.
    pub fn authority_pem(&self) -> &str {
        &self.fleet.authority_pem
    }

    /// What to put into Pulse's `instances.json` to poll the whole fleet, secrets included.
    ///
    /// Certificates are trusted by `authority_file`, which must hold [`Self::authority_pem`]; without it by
    /// fingerprint.
    pub fn instances_json(&self, authority_file: Option<&Path>) -> Value {
        self.fleet.instances_json(authority_file)
    }

    /// What was asked of a host so far.
    ///
    /// # Errors
    /// There is no such host.
    pub fn stats(&self, host: &str) -> Result<HostStats, LabError> {
        Ok(self.fleet.host(host)?.counters.stats())
    }

    /// Makes every member of a host fail from now on; what is in force when this returns.
    ///
    /// # Errors
    /// There is no such host, or the fault makes no sense.
    pub async fn set_fault(&self, host: &str, fault: impl Into<Fault>) -> Result<(), LabError> {
        self.set_behaviour(host, fault.into()).await
    }

    /// Ends every fault of a host.
    ///
    /// # Errors
    /// There is no such host.
    pub async fn clear_fault(&self, host: &str) -> Result<(), LabError> {
        self.set_behaviour(host, Behaviour::Healthy).await
    }

    /// Sets how every member of a host behaves; in force when this returns.
    ///
    /// # Errors
    /// There is no such host, or the behaviour makes no sense.
    pub async fn set_behaviour(&self, host: &str, behaviour: impl Into<Behaviour>) -> Result<(), LabError> {
        self.fleet.behave(host, None, behaviour.into()).await
    }

    /// Sets how one member of a cluster behaves, counted from 0; in force when this returns.
    ///
    /// # Errors
    /// There is no such host or member, or the behaviour makes no sense.
    pub async fn set_member_behaviour(
        &self,
        host: &str,
        member: usize,
        behaviour: impl Into<Behaviour>,
    ) -> Result<(), LabError> {
        self.fleet.behave(host, Some(member), behaviour.into()).await
    }

    /// Opens the control port at a loopback address, for callers that know `token`, if there is one.
    ///
    /// Returns the address with the port that was chosen.
    ///
    /// # Errors
    /// The address is not of the loopback, or cannot be bound.
    pub async fn serve_control(&self, address: SocketAddr, token: Option<String>) -> Result<SocketAddr, LabError> {
        if !address.ip().is_loopback() {
            return Err(LabError::NotLoopback(address));
        }
        let bind_error = |source| LabError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let bound = listener.local_addr().map_err(bind_error)?;
        let router = control::router(Arc::clone(&self.fleet), token);
        self.tasks.spawn(control::serve(listener, router, self.tasks.clone(), self.fleet.stop.clone()));
        Ok(bound)
    }

    /// Closes every socket and waits until the last task has ended.
    pub async fn shutdown(self) {
        self.fleet.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.fleet.stop.cancel();
    }
}

impl Fleet {
    fn in_order(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.order.iter().filter_map(|name| self.hosts.get(name))
    }

    fn host(&self, name: &str) -> Result<&Arc<Host>, LabError> {
        self.hosts.get(name).ok_or_else(|| LabError::UnknownHost(name.chars().take(50).collect()))
    }

    fn instances_json(&self, authority_file: Option<&Path>) -> Value {
        instances::instances_json(self.in_order().map(|host| LabHost::of(host)), authority_file)
    }

    async fn behave(&self, name: &str, member: Option<usize>, behaviour: Behaviour) -> Result<(), LabError> {
        let host = self.host(name)?;
        behaviour.check().map_err(|reason| LabError::InvalidHost { host: name.to_owned(), reason })?;
        let members = match member {
            Some(index) => std::slice::from_ref(host.member(index)?),
            None => &host.members,
        };
        for member in members {
            member.behave(behaviour.clone(), &self.stop).await;
        }
        Ok(())
    }
}

type Built = Vec<(Arc<Host>, Vec<Door>)>;

fn build(plan: LabPlan, clock: &LabClock, authority: &Authority) -> Result<Built, LabError> {
    let seed = Noise::new(plan.seed);
    let mut next_address = u64::from(plan.first_address);
    let mut built = Vec::with_capacity(plan.hosts.len());
    for group in plan.hosts.chunks(usize::from(plan.hosts_per_certificate)) {
        let mut doors_of_group = Vec::with_capacity(group.len());
        for host in group {
            let mut doors = Vec::with_capacity(host.system.members());
            for _ in 0..host.system.members() {
                let ip = loopback(next_address).ok_or(LabError::NoSuchAddress(next_address))?;
                let address = SocketAddrV4::new(ip, host.port);
                doors
                    .push(Door::reserve(address).map_err(|source| LabError::Bind { address: address.into(), source })?);
                next_address += 1;
            }
            doors_of_group.push(doors);
        }
        let addresses: Vec<Ipv4Addr> = doors_of_group.iter().flatten().map(|(_, address)| *address.ip()).collect();
        let identity = authority.issue(addresses.iter().copied())?;
        let impostor = Identity::untrusted(addresses)?;
        for (host, doors) in group.iter().zip(doors_of_group) {
            let (doors, addresses): (Vec<_>, Vec<_>) = doors.into_iter().unzip();
            let host = Host {
                plan: host.clone(),
                noise: seed.of(&host.name),
                clock: clock.clone(),
                members: addresses.iter().map(|address| Member::new(*address, host.behaviour.clone())).collect(),
                identity: identity.clone(),
                impostor: impostor.clone(),
                counters: Counters::default(),
            };
            built.push((Arc::new(host), doors));
        }
    }
    Ok(built)
}

/// The loopback address with this index: 127.1.0.1 onwards, without those that end in 0 or 255.
fn loopback(index: u64) -> Option<Ipv4Addr> {
    let (network, host) = (index / 254, index % 254);
    let second = u8::try_from(1 + network / 256).ok()?;
    Some(Ipv4Addr::new(127, second, (network % 256) as u8, host as u8 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_addresses_of_their_own_beyond_those_in_common_use() {
        assert_eq!(loopback(0), Some(Ipv4Addr::new(127, 1, 0, 1)));
        assert_eq!(loopback(253), Some(Ipv4Addr::new(127, 1, 0, 254)));
        assert_eq!(loopback(254), Some(Ipv4Addr::new(127, 1, 1, 1)));
        assert_eq!(loopback(254 * 256), Some(Ipv4Addr::new(127, 2, 0, 1)));
        assert_eq!(loopback(254 * 256 * 255), None);
        let addresses: std::collections::BTreeSet<_> = (0..200_000).map(loopback).collect();
        assert_eq!(addresses.len(), 200_000);
    }
}
