//! What is known of an instance before it is polled: where it is, how to sign in, whom to trust.
//!
//! Built by the configuration from `instances.json` with every secret already resolved.

use std::fmt;

use rustls_pki_types::CertificateDer;
use url::Url;
use zeroize::Zeroizing;

use crate::engine::InstanceKey;

/// One instance, ready to be polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `type::name`; the type agrees with [`Self::access`].
    pub key: InstanceKey,
    /// What operators call it.
    pub display_name: String,
    /// Where it is and how to get in.
    pub access: Access,
}

/// Where an instance is and how to get in, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Proxmox VE.
    Pve(ProxmoxAccess),
    /// Proxmox Backup Server.
    Pbs(ProxmoxAccess),
    /// Proxmox Mail Gateway.
    Pmg(ProxmoxAccess),
    /// An HTTP endpoint.
    Http(HttpCheck),
    /// A TCP endpoint.
    Tcp(TcpCheck),
}

impl Access {
    /// The secret that signs in, if one is needed.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Pve(access) | Self::Pbs(access) | Self::Pmg(access) => match &access.credentials {
                Credentials::Token { secret, .. } | Credentials::Password { password: secret, .. } => Some(secret),
            },
            Self::Http(_) | Self::Tcp(_) => None,
        }
    }
}

/// The doors of a Proxmox host or cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxmoxAccess {
    /// `https://host:port` of each member; the next is tried when one cannot be reached. Never empty.
    pub members: Vec<Url>,
    /// How to sign in.
    pub credentials: Credentials,
    /// Whose certificate is believed.
    pub trust: Trust,
}

/// How to sign in to a Proxmox API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// An API token: `user@realm!name` and its secret.
    Token {
        /// `user@realm!name`.
        id: String,
        /// The token's secret.
        secret: Secret,
    },
    /// A user and password, exchanged for a ticket that lives two hours.
    Password {
        /// `user@realm`.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// Whose certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities that the operating system trusts.
    System,
    /// Only these authorities (a CA file), with the host name checked.
    Authorities(Vec<CertificateDer<'static>>),
    /// Only the certificate with this SHA-256 digest, whatever its name or issuer.
    Fingerprint([u8; 32]),
}

/// A SHA-256 digest of 64 hexadecimal digits, with or without colons between pairs.
pub(crate) fn fingerprint_of(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut digest = [0; 32];
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = hex(pair[0]).zip(hex(pair[1])).map(|(high, low)| high << 4 | low)?;
    }
    Some(digest)
}

/// What an HTTP endpoint must answer to be up. Its `Debug` shows no query, which may hold a token of the endpoint's.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The address asked for.
    pub url: Url,
    /// `GET`, `HEAD` or another safe method.
    pub method: String,
    /// The statuses that mean *up*, both ends included.
    pub expected_status: std::ops::RangeInclusive<u16>,
    /// A text that the body must hold.
    pub body_contains: Option<String>,
    /// Whose certificate is believed.
    pub trust: Trust,
}

impl fmt::Debug for HttpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck").field("url", &without_credentials(&self.url)).finish_non_exhaustive()
    }
}

/// A port that must accept a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCheck {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is never printed and is wiped when dropped.
///
/// ```
/// use pulse::targets::Secret;
/// let secret = Secret::new("hunter2".to_owned());
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Target {
    /// Where the instance is, for people: the first member's address, free of credentials.
    pub fn connection(&self) -> String {
        match &self.access {
            Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => {
                access.members.first().map(without_credentials).unwrap_or_default()
            }
            Access::Http(check) => without_credentials(&check.url),
            Access::Tcp(check) => format!("{}:{}", check.host, check.port),
        }
    }

    /// The machine that carries the instance; polls of one machine share a cap.
    pub fn host(&self) -> String {
        let host = match &self.access {
            Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => {
                access.members.first().and_then(Url::host_str)
            }
            Access::Http(check) => check.url.host_str(),
            Access::Tcp(check) => Some(check.host.as_str()),
        };
        host.unwrap_or_default().to_ascii_lowercase()
    }
}

/// An address that may be shown: without user, password, query and fragment.
pub(super) fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // Both setters refuse only URLs without a host, which carry no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_shows_no_credentials_and_no_query() {
        let target = Target {
            key: "http::site".parse().unwrap(),
            display_name: "Site".into(),
            access: Access::Http(HttpCheck {
                url: "https://me:secret@example.org/path?token=secret#x".parse().unwrap(),
                method: "GET".into(),
                expected_status: 200..=299,
                body_contains: None,
                trust: Trust::System,
            }),
        };
        assert_eq!(target.connection(), "https://example.org/path");
        assert_eq!(target.host(), "example.org");
        assert!(!format!("{target:?}").contains("secret"), "{target:?}");
    }
}
