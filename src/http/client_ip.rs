//! Who the client is: an address that a client cannot choose.
//!
//! The client is the socket's peer, unless the peer is a trusted proxy: then it is the rightmost address in all
//! `X-Forwarded-For` headers together that is not itself a trusted proxy. If every address is trusted, the leftmost is
//! the client. What does not parse is never a client: the peer is. An entry may carry a port, and IPv6 brackets; empty
//! list elements are ignored (RFC 9110, section 5.6.1.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

use crate::domain::Networks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Tells the client's address from the socket and the headers.
#[derive(Debug, Clone, Default)]
pub struct ClientIp {
    trusted: Networks,
}

impl ClientIp {
    /// Believes these proxies.
    pub fn new(trusted: Networks) -> Self {
        Self { trusted }
    }

    /// Whether that peer is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.contains(peer)
    }

    /// The client's address, IPv4-mapped IPv6 as IPv4.
    pub fn of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.behind(peer, self.trusts(peer), headers)
    }

    /// The same of a peer of which it is known already whether it is believed.
    pub(super) fn behind(&self, peer: IpAddr, is_trusted: bool, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !is_trusted {
            return peer;
        }
        let mut client = peer;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            let entries = line.as_bytes().rsplit(|byte| *byte == b',');
            let entries = entries.map(<[u8]>::trim_ascii);
            for entry in entries.filter(|entry| !entry.is_empty()) {
                let Some(address) = address(entry) else {
                    return peer;
                };
                client = address;
                if !self.trusted.contains(client) {
                    return client;
                }
            }
        }
        client
    }
}

fn address(entry: &[u8]) -> Option<IpAddr> {
    // What most entries are; `parse` takes some 150 instructions more.
    if let Some(octets) = octets(entry) {
        return Some(octets.into());
    }
    let entry = std::str::from_utf8(entry).ok()?;
    let bracketed = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip = match bracketed {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => {
            let with_port = || entry.parse::<SocketAddr>().ok().map(|socket| socket.ip());
            entry.parse().ok().or_else(with_port)
        }
    };
    ip.map(|ip| ip.to_canonical())
}

/// An IPv4 address in its one form: four numbers up to 255, none with a zero before it.
fn octets(text: &[u8]) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for octet in &mut octets {
        *octet = octet_of(parts.next()?)?;
    }
    parts.next().is_none().then_some(octets)
}

fn octet_of(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| digit.is_ascii_digit().then(|| digit - b'0');
    match *digits {
        [ones] => value(ones),
        [tens @ b'1'..=b'9', ones] => Some(value(tens)? * 10 + value(ones)?),
        [hundreds @ b'1'..=b'2', tens, ones] => {
            let rest = value(tens)? * 10 + value(ones)?;
            (value(hundreds)? * 100).checked_add(rest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        ClientIp::new(trusted.parse().unwrap())
            .of(peer.parse().unwrap(), &headers)
            .to_string()
    }

    #[test]
    fn the_table_of_who_is_believed() {
        let proxy = "10.0.0.1";
        for (trusted, peer, forwarded, expected) in [
            // Nobody is trusted by default: a header is only noise.
            ("", "192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("", proxy, &["198.51.100.7"], proxy),
            ("private", "192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            // A trusted peer's word counts, the rightmost first.
            ("private", proxy, &["198.51.100.7"], "198.51.100.7"),
            (
                "private",
                proxy,
                &["203.0.113.66, 198.51.100.7"],
                "198.51.100.7",
            ),
            (
                "private",
                proxy,
                &["203.0.113.66, 198.51.100.7, 10.0.0.9"],
                "198.51.100.7",
            ),
            // Several headers are one list.
            (
                "private",
                proxy,
                &["203.0.113.66", "198.51.100.7"],
                "198.51.100.7",
            ),
            (
                "private",
                proxy,
                &["198.51.100.7", "10.0.0.9, 10.0.0.8"],
                "198.51.100.7",
            ),
            // Everybody is trusted: the leftmost is the client.
            ("private", proxy, &["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
            ("private", proxy, &[], proxy),
            ("private", proxy, &["", " , "], proxy),
            // What does not parse is never a client.
            ("private", proxy, &["unknown"], proxy),
            ("private", proxy, &["198.51.100.7, garbage"], proxy),
            ("private", proxy, &["garbage, 198.51.100.7"], "198.51.100.7"),
            ("private", proxy, &["198.51.100.7, \u{e4}"], proxy),
            ("private", proxy, &["\u{e4}, 198.51.100.7"], "198.51.100.7"),
            ("private", proxy, &["198.51.100.07"], proxy),
            ("private", proxy, &["198.051.100.7"], proxy),
            ("private", proxy, &["198.51.100.300"], proxy),
            ("private", proxy, &["198.51.100.256"], proxy),
            ("private", proxy, &["[198.51.100.7]"], proxy),
            // Ports, brackets, mapped addresses.
            ("private", proxy, &["198.51.100.7:4711"], "198.51.100.7"),
            ("private", proxy, &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("private", proxy, &["[2001:db8::7]"], "2001:db8::7"),
            ("private", proxy, &["2001:db8::7"], "2001:db8::7"),
            ("private", proxy, &["::ffff:198.51.100.7"], "198.51.100.7"),
            (
                "private",
                "::ffff:10.0.0.1",
                &["198.51.100.7"],
                "198.51.100.7",
            ),
            (
                "::ffff:10.0.0.0/104",
                proxy,
                &["198.51.100.7"],
                "198.51.100.7",
            ),
            ("loopback", "::1", &["198.51.100.7"], "198.51.100.7"),
            (
                "192.0.2.1, 203.0.113.0/24",
                "203.0.113.5",
                &["198.51.100.7, 192.0.2.1"],
                "198.51.100.7",
            ),
        ] {
            assert_eq!(
                client(trusted, peer, forwarded),
                expected,
                "{trusted:?} {peer} {forwarded:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_read_as_everywhere(text in "[0-9]{0,3}(\\.[0-9a/:]{0,3}){2,4}", octets_of_one in any::<[u8; 4]>()) {
            let expected = |text: &str| text.parse().ok().map(|ip: Ipv4Addr| ip.octets());
            let plain = Ipv4Addr::from(octets_of_one).to_string();
            for text in [text, plain] {
                prop_assert_eq!(octets(text.as_bytes()), expected(&text), "{}", text);
            }
        }

        /// Whatever a client writes into the header in front of its proxy's entry, it cannot choose its own address.
        #[test]
        fn a_client_cannot_forge_its_address(forged in proptest::collection::vec("[ -~]{0,40}", 0..4)) {
            let mut lines: Vec<&str> = forged.iter().map(String::as_str).collect();
            prop_assert_eq!(client("private", "192.0.2.1", &lines), "192.0.2.1");
            lines.push("198.51.100.7");
            prop_assert_eq!(client("private", "10.0.0.1", &lines), "198.51.100.7");
        }
    }
}
