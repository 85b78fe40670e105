//! What an emulated fleet consists of: plain data, to be written by hand, generated, or read from JSON.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::LabError;
use super::fault::Behaviour;
use super::noise::Noise;
use crate::engine::InstanceType;

/// The most hosts that share a certificate: one that names many more addresses would not fit a handshake.
pub const MAX_HOSTS_PER_CERTIFICATE: u16 = 250;
/// The most addresses that one lab serves.
pub const MAX_ADDRESSES: usize = 100_000;
/// The most nodes of one cluster.
pub const MAX_NODES: u8 = 32;
/// The most guests of one host or cluster.
pub const MAX_GUESTS: u16 = 2_000;
/// The most storages, or datastores, of one host.
pub const MAX_STORAGES: usize = 64;

/// A fleet.
///
/// ```
/// use pulse::lab::LabPlan;
/// let plan = LabPlan::uniform(100, 7);
/// let text = serde_json::to_string(&plan).unwrap();
/// assert_eq!(serde_json::from_str::<LabPlan>(&text).unwrap(), plan);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabPlan {
    /// Every figure that the fleet shows follows from it.
    pub seed: u64,
    /// The hosts; names are unique.
    pub hosts: Vec<HostPlan>,
    /// The index of the first host's address, so that several labs on one machine keep apart.
    #[serde(default)]
    pub first_address: u32,
    /// How many hosts share one certificate, 1 to [`MAX_HOSTS_PER_CERTIFICATE`]. More are lighter; with 1, each
    /// has its own fingerprint.
    #[serde(default = "one")]
    pub hosts_per_certificate: u16,
}

/// One host, or one cluster of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPlan {
    /// 1 to 50 lower-case letters, digits and dashes.
    pub name: String,
    /// What it is.
    pub system: System,
    /// How it behaves; each member of a cluster counts by itself.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// How long each answer takes, in milliseconds, give or take a tenth.
    #[serde(default)]
    pub latency_ms: u64,
    /// The port on each of its addresses; 0 takes any free one.
    #[serde(default)]
    pub port: u16,
}

/// What a host is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum System {
    /// Proxmox VE: a single node, or a cluster that answers at each of its nodes.
    Pve {
        /// How to sign in.
        auth: Auth,
        /// 1 to [`MAX_NODES`]; each has its own address.
        nodes: u8,
        /// Virtual machines and containers in total.
        guests: u16,
        /// Storages of each node besides `local`.
        storages: Vec<String>,
        /// How often a guest starts or stops, in seconds; never by default.
        #[serde(default)]
        changes_every_secs: Option<u32>,
    },
    /// Proxmox Backup Server.
    Pbs {
        /// How to sign in.
        auth: Auth,
        /// Its datastores.
        datastores: Vec<String>,
    },
    /// Proxmox Mail Gateway.
    Pmg {
        /// How to sign in.
        auth: Auth,
    },
    /// An HTTP endpoint.
    Http {
        /// Whether it speaks HTTPS.
        tls: bool,
        /// The path that answers 200; every other one is not found.
        path: String,
        /// What it answers.
        body: String,
    },
    /// A TCP port that accepts connections.
    Tcp,
}

impl System {
    /// The type of instance that polls it.
    pub const fn kind(&self) -> InstanceType {
        match self {
            Self::Pve { .. } => InstanceType::Pve,
            Self::Pbs { .. } => InstanceType::Pbs,
            Self::Pmg { .. } => InstanceType::Pmg,
            Self::Http { .. } => InstanceType::Http,
            Self::Tcp => InstanceType::Tcp,
        }
    }

    /// How to sign in, if there is anything to sign in to.
    pub const fn auth(&self) -> Option<&Auth> {
        match self {
            Self::Pve { auth, .. } | Self::Pbs { auth, .. } | Self::Pmg { auth } => Some(auth),
            Self::Http { .. } | Self::Tcp => None,
        }
    }

    /// Whether its connections are encrypted.
    pub(super) const fn is_encrypted(&self) -> bool {
        match self {
            Self::Pve { .. } | Self::Pbs { .. } | Self::Pmg { .. } => true,
            Self::Http { tls, .. } => *tls,
            Self::Tcp => false,
        }
    }

    /// How many addresses it answers at.
    pub(super) fn members(&self) -> usize {
        match self {
            Self::Pve { nodes, .. } => usize::from(*nodes),
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Pve { nodes, .. } if !(1..=MAX_NODES).contains(nodes) => Err("a cluster has 1 to 32 nodes"),
            Self::Pve { guests, .. } if *guests > MAX_GUESTS => Err("a cluster has at most 2000 guests"),
            Self::Pve { changes_every_secs: Some(0), .. } => Err("guests change at most once a second"),
            Self::Pve { storages: names, .. } | Self::Pbs { datastores: names, .. } => {
                if names.len() > MAX_STORAGES {
                    return Err("a host has at most 64 storages");
                }
                if names.iter().all(|name| is_name(name)) { Ok(()) } else { Err("the name of a storage is malformed") }
            }
            Self::Http { path, .. } if !path.starts_with('/') => Err("a path begins with a slash"),
            Self::Pmg { .. } | Self::Http { .. } | Self::Tcp => Ok(()),
        }
    }
}

/// How to sign in to a Proxmox host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Auth {
    /// An API token.
    Token {
        /// `user@realm!name`.
        id: String,
        /// What the operator was given.
        secret: String,
        /// Whether the host believes the secret.
        #[serde(default = "yes")]
        accepted: bool,
    },
    /// A user and a password, exchanged for a ticket.
    Password {
        /// `user@realm`.
        user: String,
        /// What the operator was given.
        password: String,
        /// Whether the host believes the password.
        #[serde(default = "yes")]
        accepted: bool,
    },
}

impl Auth {
    /// A token for `pulse` in `realm` whose secret follows from `seed` and `host`.
    fn token(seed: u64, host: &str, realm: &str) -> Self {
        let secret = Noise::new(seed).of("secret").of(host);
        let (high, low) = (secret.number(0), secret.number(1));
        Self::Token {
            id: format!("pulse@{realm}!monitor"),
            secret: format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                high >> 32,
                high >> 16 & 0xffff,
                high & 0xffff,
                low >> 48,
                low & 0xffff_ffff_ffff
            ),
            accepted: true,
        }
    }

    /// A password for `pulse` in `realm` that follows from `seed` and `host`.
    fn password(seed: u64, host: &str, realm: &str) -> Self {
        let password = format!("pw-{:016x}", Noise::new(seed).of("password").of(host).number(0));
        Self::Password { user: format!("pulse@{realm}"), password, accepted: true }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, accepted, .. } => write!(f, "Token({id}, accepted: {accepted})"),
            Self::Password { user, accepted, .. } => write!(f, "Password({user}, accepted: {accepted})"),
        }
    }
}

impl LabPlan {
    /// A fleet of these hosts, each with its own certificate.
    pub fn new(seed: u64, hosts: Vec<HostPlan>) -> Self {
        Self { seed, hosts, first_address: 0, hosts_per_certificate: 1 }
    }

    /// Moves the fleet's addresses, so that it keeps apart from another one on the same machine.
    #[must_use]
    pub fn starting_at(mut self, first_address: u32) -> Self {
        self.first_address = first_address;
        self
    }

    /// Gives all nodes of a cluster this port, as real ones have the same; 0 leaves each a free one.
    #[must_use]
    pub fn with_cluster_port(mut self, port: u16) -> Self {
        for host in self.hosts.iter_mut().filter(|host| host.system.members() > 1) {
            host.port = port;
        }
        self
    }

    /// How many addresses the fleet answers at.
    pub fn addresses(&self) -> usize {
        self.hosts.iter().map(|host| host.system.members()).sum()
    }

    /// Whether the plan can be carried out.
    pub(super) fn check(&self) -> Result<(), LabError> {
        if self.addresses() > MAX_ADDRESSES {
            return Err(LabError::TooManyAddresses(self.addresses()));
        }
        if !(1..=MAX_HOSTS_PER_CERTIFICATE).contains(&self.hosts_per_certificate) {
            return Err(LabError::HostsPerCertificate(self.hosts_per_certificate));
        }
        let mut names = BTreeSet::new();
        for host in &self.hosts {
            let invalid = |reason| LabError::InvalidHost { host: host.name.clone(), reason };
            if !is_name(&host.name) {
                return Err(invalid("a name is 1 to 50 lower-case letters, digits and dashes"));
            }
            if !names.insert(&host.name) {
                return Err(invalid("another host has this name"));
            }
            host.system.check().map_err(invalid)?;
            host.behaviour.check().map_err(invalid)?;
        }
        Ok(())
    }
}

impl HostPlan {
    /// A healthy host that answers at once, at any free port.
    pub fn new(name: impl Into<String>, system: System) -> Self {
        Self { name: name.into(), system, behaviour: Behaviour::Healthy, latency_ms: 0, port: 0 }
    }

    /// A single Proxmox VE node with `guests` guests, signed in to by token.
    pub fn pve(seed: u64, name: impl Into<String>, guests: u16) -> Self {
        let name = name.into();
        let auth = Auth::token(seed, &name, "pve");
        let storages = vec!["local-zfs".to_owned()];
        Self::new(name, System::Pve { auth, nodes: 1, guests, storages, changes_every_secs: None })
    }

    /// A backup server with `datastores`, signed in to by token.
    pub fn pbs(seed: u64, name: impl Into<String>, datastores: &[&str]) -> Self {
        let name = name.into();
        let auth = Auth::token(seed, &name, "pbs");
        Self::new(name, System::Pbs { auth, datastores: datastores.iter().map(|&store| store.to_owned()).collect() })
    }

    /// A mail gateway, signed in to by token.
    pub fn pmg(seed: u64, name: impl Into<String>) -> Self {
        let name = name.into();
        let auth = Auth::token(seed, &name, "pmg");
        Self::new(name, System::Pmg { auth })
    }

    /// An HTTP endpoint that answers `/health` with `body`.
    pub fn http(name: impl Into<String>, tls: bool, body: &str) -> Self {
        Self::new(name, System::Http { tls, path: "/health".to_owned(), body: body.to_owned() })
    }

    /// A TCP port.
    pub fn tcp(name: impl Into<String>) -> Self {
        Self::new(name, System::Tcp)
    }

    /// Makes a Proxmox VE host a cluster of `nodes` nodes.
    #[must_use]
    pub fn cluster_of(mut self, count: u8) -> Self {
        if let System::Pve { nodes, .. } = &mut self.system {
            *nodes = count;
        }
        self
    }

    /// Lets a guest of a Proxmox VE host start or stop every `secs` seconds.
    #[must_use]
    pub fn changing_every(mut self, secs: u32) -> Self {
        if let System::Pve { changes_every_secs, .. } = &mut self.system {
            *changes_every_secs = Some(secs);
        }
        self
    }

    /// Has operators sign in by password instead of a token.
    #[must_use]
    pub fn by_password(mut self, seed: u64) -> Self {
        let kind = self.system.kind();
        if let System::Pve { auth, .. } | System::Pbs { auth, .. } | System::Pmg { auth } = &mut self.system {
            *auth = Auth::password(seed, &self.name, kind.as_str());
        }
        self
    }

    /// Gives operators a secret that the host does not believe.
    #[must_use]
    pub fn with_rejected_secret(mut self) -> Self {
        if let System::Pve { auth, .. } | System::Pbs { auth, .. } | System::Pmg { auth } = &mut self.system {
            match auth {
                Auth::Token { accepted, .. } | Auth::Password { accepted, .. } => *accepted = false,
            }
        }
        self
    }

    /// Sets how the host behaves.
    #[must_use]
    pub fn behaving(mut self, behaviour: impl Into<Behaviour>) -> Self {
        self.behaviour = behaviour.into();
        self
    }

    /// Sets how long each answer takes.
    #[must_use]
    pub fn answering_in(mut self, latency_ms: u64) -> Self {
        self.latency_ms = latency_ms;
        self
    }
}

fn is_name(text: &str) -> bool {
    (1..=50).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

const fn one() -> u16 {
    1
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::FaultKind;

    #[test]
    fn a_plan_that_cannot_be_carried_out_is_refused_with_the_host_and_the_reason() {
        let sound = || HostPlan::pve(1, "a", 2);
        for (hosts, reason) in [
            (vec![sound(), sound()], "another host has this name"),
            (vec![HostPlan::tcp("No Name")], "a name is 1 to 50 lower-case letters, digits and dashes"),
            (vec![sound().cluster_of(33)], "a cluster has 1 to 32 nodes"),
            (vec![sound().behaving(FaultKind::status(200))], "a failing status lies in 400 to 599"),
        ] {
            let error = LabPlan::new(1, hosts).check().unwrap_err();
            assert!(matches!(&error, LabError::InvalidHost { reason: found, .. } if *found == reason), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let plan = HostPlan::pve(1, "a", 2);
        let Some(Auth::Token { secret, .. }) = plan.system.auth() else { panic!("a token") };
        assert_eq!(secret.len(), 36);
        assert!(!format!("{plan:?}").contains(secret));
    }

    #[test]
    fn each_host_has_its_own_secret() {
        assert_ne!(HostPlan::pve(1, "a", 2).system.auth(), HostPlan::pve(1, "b", 2).system.auth());
        assert_ne!(HostPlan::pve(1, "a", 2).system.auth(), HostPlan::pve(2, "a", 2).system.auth());
    }
}
