//! Who calls: their name, their role, and where from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::accounts::SessionId;
use super::tokens::TokenId;

/// What somebody may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, and tests connections.
    Operator,
    /// Does everything.
    Admin,
}

/// The text names no role.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no role of this name; a role is viewer, operator or admin")]
pub struct UnknownRole;

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether somebody of this role may do what needs `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// Who does something, as the audit log names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// The daemon itself: retention, an edited file.
    System,
    /// Nobody that we know.
    Anonymous,
    /// An account of this machine, over the unix socket or the command line.
    Local(String),
    /// The holder of the API token of this name.
    Token(String),
    /// The user of this name.
    User(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Local(name) => write!(f, "local:{name}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub actor: Actor,
    /// The address that the call came from; none over the unix socket.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// The daemon itself.
    pub const SYSTEM: Self = Self { actor: Actor::System, address: None };

    /// Nobody that we know, at this address.
    pub const fn anonymous(address: Option<IpAddr>) -> Self {
        Self { actor: Actor::Anonymous, address }
    }

    /// The account that runs this process, for commands that work without a daemon.
    pub fn of_process() -> Self {
        Self { actor: Actor::Local(account_name(nix::unistd::Uid::current().as_raw())), address: None }
    }
}

/// The name of an account of this machine; `uid:1000` if it has none. May ask a directory service, so it may block.
pub(crate) fn account_name(uid: u32) -> String {
    let found = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| format!("uid:{uid}"), |user| user.name)
}

/// By what somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The unix socket, which its mode keeps for the daemon's owner.
    Socket,
    /// An API token.
    Token(TokenId),
    /// The session of a user.
    Session(SessionId),
}

/// Somebody whom the daemon knows, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who, and from where.
    pub caller: Caller,
    /// What they may do.
    pub role: Role,
    /// By what they were recognised.
    pub credential: Credential,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_ones_before_it_may() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            for (other, needed) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.covers(needed), place >= other, "{role} {needed}");
            }
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(UnknownRole));
        assert_eq!("Admin".parse::<Role>(), Err(UnknownRole));
    }

    #[test]
    fn an_actor_says_what_it_is_before_its_name_so_that_no_name_can_pretend() {
        let named = |actor: Actor| actor.to_string();
        assert_eq!(named(Actor::Token("user:alice".into())), "token:user:alice");
        assert_eq!(named(Actor::User("alice".into())), "user:alice");
        assert_eq!(named(Caller::SYSTEM.actor), "system");
    }

    #[test]
    fn an_account_without_a_name_is_told_by_its_number() {
        assert_eq!(account_name(0), "root");
        assert_eq!(account_name(3_999_999_999), "uid:3999999999");
    }
}
