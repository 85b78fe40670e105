//! Who is at the other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

/// Who is at the other end of a connection. Whoever serves the router puts it into the extensions of each request; one
/// without it is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody at this address, over TCP: credentials are needed.
    Tcp(IpAddr),
    /// The daemon's owner or root, over the unix socket: who it is, the system vouches for.
    Local {
        /// The name of the account.
        account: Arc<str>,
    },
}

impl Peer {
    /// The address, which an account of this machine has none of.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Local { .. } => None,
        }
    }
}
