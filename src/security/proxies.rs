//! Whose word is taken for where a call came from: nobody's, unless a proxy is trusted by name.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// A network of trusted proxies, as in `10.0.0.0/8`, or the address of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("is neither an address nor a network; write it as in 10.0.0.5 or 10.0.0.0/24")]
pub struct NotANetwork;

impl FromStr for TrustedProxy {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.to_canonical().into()));
        network.map(Self).map_err(|_| NotANetwork)
    }
}

const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// In which header the trusted proxies write where a call came from. Only one is believed: a proxy lets the other pass as
/// the caller wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

impl ProxyHeader {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The proxies that are believed. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<TrustedProxy>,
    /// Where they write.
    pub header: ProxyHeader,
}

impl TrustedProxies {
    /// Where a call came from that `peer` brought: the last address on its way that is not of a trusted proxy. `lines`
    /// are the values of [`Self::header`], in order.
    ///
    /// What a stranger writes is never read: it stands to the left of what the first trusted proxy wrote.
    pub fn client<'a>(&self, peer: IpAddr, lines: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        self.walk(peer, lines).0
    }

    /// Whether the caller spoke TLS with the trusted proxy that it came to, as that proxy tells: in the `proto` of its
    /// part of `Forwarded`, or else in `X-Forwarded-Proto`, where none of several values may say otherwise.
    pub fn is_encrypted<'a, I: DoubleEndedIterator<Item = &'a str>>(
        &self,
        peer: IpAddr,
        lines: impl Fn(&'static str) -> I,
    ) -> bool {
        if !self.trusts(peer) {
            return false;
        }
        match self.header {
            ProxyHeader::Forwarded => {
                let (_, hop) = self.walk(peer, lines(self.header.name()));
                hop.and_then(|hop| parameter(hop, "proto")).is_some_and(is_https)
            }
            ProxyHeader::XForwardedFor => {
                let mut values = lines(X_FORWARDED_PROTO).flat_map(|line| line.split(',')).map(str::trim).peekable();
                values.peek().is_some() && values.all(is_https)
            }
        }
    }

    /// Goes back the way that a call came: to the caller, and the part of the header that its trusted proxy wrote.
    fn walk<'a>(&self, peer: IpAddr, lines: impl DoubleEndedIterator<Item = &'a str>) -> (IpAddr, Option<&'a str>) {
        let (mut client, mut written) = (peer, None);
        for hop in lines.rev().flat_map(|line| line.rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            written = Some(hop);
            match self.address_of(hop) {
                Some(address) => client = address,
                // What a proxy does not tell ends at the proxy.
                None => break,
            }
        }
        (client, written)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|TrustedProxy(network)| network.contains(&address))
    }

    fn address_of(&self, hop: &str) -> Option<IpAddr> {
        let text = match self.header {
            ProxyHeader::XForwardedFor => hop.trim(),
            ProxyHeader::Forwarded => parameter(hop, "for")?,
        };
        let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(address, _)| address);
        let without_port = || bare.rsplit_once(':').and_then(|(address, _)| address.parse().ok());
        bare.parse().ok().or_else(without_port).map(|address: IpAddr| address.to_canonical())
    }
}

/// A parameter of one part of `Forwarded`.
fn parameter<'a>(hop: &'a str, wanted: &str) -> Option<&'a str> {
    hop.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

fn is_https(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(networks: &[&str], header: ProxyHeader, peer: &str, lines: &[&str]) -> String {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        let proxies = TrustedProxies { networks, header };
        proxies.client(peer.parse().unwrap(), lines.iter().copied()).to_string()
    }

    #[test]
    fn without_a_trusted_proxy_no_header_is_read() {
        for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
            assert_eq!(client(&[], header, "203.0.113.9", &["127.0.0.1"]), "203.0.113.9");
            assert_eq!(client(&["10.0.0.0/8"], header, "203.0.113.9", &["for=127.0.0.1"]), "203.0.113.9");
        }
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client_whatever_it_claims_itself() {
        let seen = |lines: &[&str]| client(&["10.0.0.0/8", "::1"], ProxyHeader::XForwardedFor, "10.0.0.1", lines);
        assert_eq!(seen(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen(&["127.0.0.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen(&["127.0.0.1", "203.0.113.9, 10.0.0.7"]), "203.0.113.9");
        assert_eq!(seen(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(seen(&["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(seen(&["2001:db8::1"]), "2001:db8::1");
        assert_eq!(seen(&["::ffff:203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen(&[]), "10.0.0.1");
        assert_eq!(seen(&["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(seen(&["10.1.1.1, 10.2.2.2"]), "10.1.1.1", "all are trusted: the first of them");
    }

    #[test]
    fn the_standard_header_is_read_where_it_was_chosen_and_the_other_is_not() {
        let seen = |lines: &[&str]| client(&["10.0.0.1"], ProxyHeader::Forwarded, "10.0.0.1", lines);
        assert_eq!(seen(&["for=198.51.100.7;proto=https, For=\"[2001:db8::1]:443\""]), "2001:db8::1");
        assert_eq!(seen(&["for=203.0.113.9;by=10.0.0.1"]), "203.0.113.9");
        assert_eq!(seen(&["for=_hidden"]), "10.0.0.1");
        assert_eq!(seen(&["203.0.113.9"]), "10.0.0.1");
    }

    fn encrypted(header: ProxyHeader, peer: &str, written: &[(&str, &str)]) -> bool {
        let proxies = TrustedProxies { networks: vec!["10.0.0.0/8".parse().unwrap()], header };
        let lines = |name| written.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value);
        proxies.is_encrypted(peer.parse().unwrap(), lines)
    }

    #[test]
    fn a_trusted_proxy_tells_whether_its_caller_spoke_tls_and_nobody_else_does() {
        let seen = |peer, values: &[&str]| {
            let written: Vec<_> = values.iter().map(|value| ("x-forwarded-proto", *value)).collect();
            encrypted(ProxyHeader::XForwardedFor, peer, &written)
        };
        assert!(seen("10.0.0.1", &["https"]) && seen("10.0.0.1", &["HTTPS"]) && seen("10.0.0.1", &["https, https"]));
        assert!(!seen("203.0.113.9", &["https"]), "a stranger");
        for values in [&[][..], &["http"], &[""], &["wss"], &["https, http"], &["http", "https"], &["https,"]] {
            assert!(!seen("10.0.0.1", values), "{values:?}");
        }
        assert!(!encrypted(ProxyHeader::XForwardedFor, "10.0.0.1", &[("forwarded", "for=1.2.3.4;proto=https")]));
    }

    #[test]
    fn of_the_standard_header_the_part_counts_that_the_caller_s_own_proxy_wrote() {
        let seen = |peer, value| encrypted(ProxyHeader::Forwarded, peer, &[("forwarded", value)]);
        assert!(seen("10.0.0.1", "for=203.0.113.9;proto=https"));
        assert!(
            seen("10.0.0.1", "for=203.0.113.9;Proto=\"https\", for=10.0.0.7;proto=http"),
            "plain among the proxies"
        );
        assert!(seen("10.0.0.1", "for=_hidden;proto=https"));
        assert!(
            !seen("10.0.0.1", "for=198.51.100.7;proto=https, for=203.0.113.9;proto=http"),
            "the left is the caller's"
        );
        assert!(!seen("10.0.0.1", "for=203.0.113.9"));
        assert!(!seen("203.0.113.9", "for=203.0.113.9;proto=https"));
        assert!(!encrypted(ProxyHeader::Forwarded, "10.0.0.1", &[("x-forwarded-proto", "https")]));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "everybody", "10.0.0.0/33", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<TrustedProxy>(), Err(NotANetwork), "{text}");
        }
    }
}
