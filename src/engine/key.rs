//! What names an instance: its type and name, written `type::name`.
//!
//! Keys are what operators see and type; inside the engine an instance is a dense [`InstanceId`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The longest name of an instance, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// What kind of system an instance is, and so how it is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceType {
    /// A plain HTTP endpoint.
    Http,
    /// A Proxmox Backup Server.
    Pbs,
    /// A Proxmox Mail Gateway.
    Pmg,
    /// A Proxmox VE host or cluster.
    Pve,
    /// A plain TCP endpoint.
    Tcp,
}

impl InstanceType {
    /// Every type, in the order of their names.
    pub const ALL: [Self; 5] = [Self::Http, Self::Pbs, Self::Pmg, Self::Pve, Self::Tcp];

    /// The name that stands before `::` in a key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Pbs => "pbs",
            Self::Pmg => "pmg",
            Self::Pve => "pve",
            Self::Tcp => "tcp",
        }
    }

    /// Whether a target that is down is a *result* rather than a failure of the poll.
    ///
    /// Breakers, backoff and dead letters are for the others.
    pub const fn is_availability_check(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }
}

impl fmt::Display for InstanceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstanceType {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| KeyError::UnknownType(text.chars().take(40).collect()))
    }
}

/// The name of an instance across restarts: `type::name`.
///
/// Cheap to clone. Ordered by type, then name.
///
/// ```
/// use pulse::engine::{InstanceKey, InstanceType};
/// let key: InstanceKey = "pve::rack-1".parse()?;
/// assert_eq!(key.kind(), InstanceType::Pve);
/// assert_eq!(key.name(), "rack-1");
/// assert_eq!(key.to_string(), "pve::rack-1");
/// # Ok::<(), pulse::engine::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    kind: InstanceType,
    name: Arc<str>,
}

impl InstanceKey {
    /// Joins a type and a name.
    ///
    /// # Errors
    /// The name is empty, longer than [`MAX_NAME_BYTES`], or holds a control character.
    pub fn new(kind: InstanceType, name: &str) -> Result<Self, KeyError> {
        if name.is_empty() {
            return Err(KeyError::EmptyName);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(KeyError::NameTooLong(name.len()));
        }
        if name.chars().any(char::is_control) {
            return Err(KeyError::ControlCharacter);
        }
        Ok(Self { kind, name: name.into() })
    }

    /// The part before `::`.
    pub const fn kind(&self) -> InstanceType {
        self.kind
    }

    /// The part after the first `::`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, for keeping.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.kind, self.name)
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, name) = text.split_once("::").ok_or(KeyError::NoSeparator)?;
        Self::new(kind.parse()?, name)
    }
}

impl Serialize for InstanceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InstanceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not the key of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// There is no `::`.
    #[error("a key is written type::name, as in pve::rack-1")]
    NoSeparator,
    /// The part before `::` is not a type.
    #[error("unknown type {0:?}; the types are http, pbs, pmg, pve and tcp")]
    UnknownType(String),
    /// Nothing follows `::`.
    #[error("the name is empty")]
    EmptyName,
    /// The name has too many bytes.
    #[error("the name has {0} bytes; at most 200 are allowed")]
    NameTooLong(usize),
    /// The name would break a log line or a table.
    #[error("the name holds a control character")]
    ControlCharacter,
}

/// The dense number of an instance inside one engine.
///
/// It is reused after the instance is gone, never while an effect of the same step still names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub(crate) u32);

impl InstanceId {
    /// The id with this number, for reading traces.
    pub const fn from_index(index: u32) -> Self {
        Self(index)
    }

    /// The number as an index into a table of instances.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_itself_hold_the_separator() {
        let key: InstanceKey = "tcp::db::5432".parse().unwrap();
        assert_eq!(key.name(), "db::5432");
        assert_eq!(key.to_string(), "tcp::db::5432");
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        assert_eq!("rack-1".parse::<InstanceKey>(), Err(KeyError::NoSeparator));
        assert_eq!("esx::a".parse::<InstanceKey>(), Err(KeyError::UnknownType("esx".into())));
        assert_eq!("pve::".parse::<InstanceKey>(), Err(KeyError::EmptyName));
        assert_eq!("pve::a\nb".parse::<InstanceKey>(), Err(KeyError::ControlCharacter));
        assert_eq!(format!("pve::{}", "x".repeat(201)).parse::<InstanceKey>(), Err(KeyError::NameTooLong(201)));
    }

    #[test]
    fn keys_are_ordered_by_their_text() {
        let mut kinds = InstanceType::ALL;
        kinds.sort_by_key(|kind| kind.as_str());
        assert_eq!(kinds, InstanceType::ALL);
        assert!(InstanceType::ALL.is_sorted());
    }
}
