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
        let mut client = peer;
        for hop in lines.rev().flat_map(|line| line.rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            match self.address_of(hop) {
                Some(address) => client = address,
                // What a proxy does not tell ends at the proxy.
                None => break,
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|TrustedProxy(network)| network.contains(&address))
    }

    fn address_of(&self, hop: &str) -> Option<IpAddr> {
        let text = match self.header {
            ProxyHeader::XForwardedFor => hop.trim(),
            ProxyHeader::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
            })?,
        };
        let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(address, _)| address);
        let without_port = || bare.rsplit_once(':').and_then(|(address, _)| address.parse().ok());
        bare.parse().ok().or_else(without_port).map(|address: IpAddr| address.to_canonical())
    }
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

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "everybody", "10.0.0.0/33", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<TrustedProxy>(), Err(NotANetwork), "{text}");
        }
    }
}
