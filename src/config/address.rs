//! Addresses of instances: what may be left out, and what must not be in them.
//!
//! No error repeats the address, for it may hold credentials.

use thiserror::Error;
use url::{Host, Url};

/// Reads the address of a Proxmox API: `https://` and `port` are filled in where missing.
pub(super) fn proxmox(text: &str, port: u16) -> Result<Url, AddressError> {
    let mut url = parse(text)?;
    if url.scheme() != "https" {
        return Err(AddressError::NotHttps);
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::MoreThanHost);
    }
    if url.port().is_none() && !names_port(text) {
        url.set_port(Some(port)).map_err(|()| AddressError::NotAnAddress("it has no host".into()))?;
    }
    Ok(url)
}

/// Reads the address of an HTTP endpoint: `https://` is filled in where missing.
pub(super) fn http(text: &str) -> Result<Url, AddressError> {
    let url = parse(text)?;
    match url.scheme() {
        "http" | "https" if url.fragment().is_some() => Err(AddressError::Fragment),
        "http" | "https" => Ok(url),
        _ => Err(AddressError::UnknownScheme),
    }
}

/// Reads a host: a name, or an address with or without the brackets of IPv6.
pub(super) fn host(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(address.to_string());
    }
    match Host::parse(text).ok()? {
        Host::Domain(name) => Some(name),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

fn parse(text: &str) -> Result<Url, AddressError> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(AddressError::NotAnAddress("it holds white space or a control character".into()));
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full).map_err(|error| AddressError::NotAnAddress(error.to_string()))?;
    // An `@` without a name before it leaves no trace in the parsed URL.
    if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
        return Err(AddressError::Credentials);
    }
    Ok(url)
}

/// Whether a port is written out; the parsed URL no longer tells for the scheme's own one.
fn names_port(text: &str) -> bool {
    authority(text).rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'))
}

fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '\\', '?', '#']).next().unwrap_or(rest)
}

/// Why a text is not the address of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It cannot be understood.
    #[error("is not an address ({0}); write it as in https://10.0.0.1:8006, IPv6 in brackets")]
    NotAnAddress(String),
    /// It would send credentials in clear.
    #[error("must begin with https://, since anything else would send the credentials in clear")]
    NotHttps,
    /// It is neither of the two that can be checked.
    #[error("must begin with http:// or https://")]
    UnknownScheme,
    /// It holds a path, a query or a fragment.
    #[error("must be host and port alone, as in https://10.0.0.1:8006")]
    MoreThanHost,
    /// It holds a fragment, which no server ever sees.
    #[error("must not hold a fragment (#…)")]
    Fragment,
    /// It holds credentials.
    #[error("must not hold credentials, which would show in logs; take out what stands before @")]
    Credentials,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_and_port_are_filled_in_where_missing() {
        for (text, full) in [
            ("10.0.0.1", "https://10.0.0.1:8006/"),
            ("pve.example.org:9000", "https://pve.example.org:9000/"),
            ("https://PVE.example.org/", "https://pve.example.org:8006/"),
            ("https://proxy:443", "https://proxy/"),
            ("[fe80::1]", "https://[fe80::1]:8006/"),
            ("https://[fe80::1]:8443", "https://[fe80::1]:8443/"),
            ("host:", "https://host:8006/"),
        ] {
            assert_eq!(proxmox(text, 8006).unwrap().as_str(), full, "{text}");
        }
        assert_eq!(http("example.org/health?full=1").unwrap().as_str(), "https://example.org/health?full=1");
        assert_eq!(http("http://example.org").unwrap().as_str(), "http://example.org/");
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_repeated() {
        for text in ["https://root:hunter2@10.0.0.1", "root@10.0.0.1", "https://:hunter2@10.0.0.1", "https://@10.0.0.1"]
        {
            assert_eq!(proxmox(text, 8006), Err(AddressError::Credentials), "{text}");
            assert_eq!(http(text), Err(AddressError::Credentials), "{text}");
        }
        let error = proxmox("https://root:hunter2@10.0.0.1:99999", 8006).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn credentials_would_travel_in_clear_so_a_proxmox_address_is_https() {
        assert_eq!(proxmox("http://10.0.0.1:8006", 8006), Err(AddressError::NotHttps));
        assert_eq!(proxmox("ftp://10.0.0.1", 8006), Err(AddressError::NotHttps));
        assert_eq!(http("ftp://10.0.0.1"), Err(AddressError::UnknownScheme));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "https://", "fe80::1", "10.0.0.1:99999", "a b", "https://a/\nb"] {
            assert!(matches!(proxmox(text, 8006), Err(AddressError::NotAnAddress(_))), "{text}");
        }
        for text in ["https://a/api2/json", "https://a?x=1", "https://a#x"] {
            assert_eq!(proxmox(text, 8006), Err(AddressError::MoreThanHost), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!(host("DB.example.org").as_deref(), Some("db.example.org"));
        assert_eq!(host("[::1]").as_deref(), Some("::1"));
        assert_eq!(host("::1").as_deref(), Some("::1"));
        for text in ["", "http://db", "db:5432", "a b", "a/b"] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}
