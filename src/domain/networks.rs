//! Sets of IP networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// Networks by which an address is known: trusted proxies, an office, who is banned. Empty by default.
///
/// Kept as disjoint ranges in ascending order, so that asking takes a binary search however many there are.
///
/// ```
/// use tollgate::Networks;
///
/// let known: Networks = "loopback, 10.0.0.0/8, 2001:db8::/32".parse()?;
/// assert!(known.contains("10.1.2.3".parse()?));
/// assert!(!known.contains("192.0.2.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Arc<[(Ipv4Addr, Ipv4Addr)]>,
    v6: Arc<[(Ipv6Addr, Ipv6Addr)]>,
}

/// Something in a list of networks that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network")]
pub struct NetworksError(pub String);

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

impl Networks {
    /// The set of these entries: networks, addresses and the words `loopback` and `private`.
    ///
    /// # Errors
    ///
    /// The first entry that is none of them.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworksError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in entries {
            for network in networks(entry).ok_or_else(|| NetworksError(entry.to_owned()))? {
                match network {
                    IpNet::V4(net) => v4.push(net),
                    IpNet::V6(net) => v6.push(net),
                }
            }
        }
        let range4 = |net: Ipv4Net| (net.network(), net.broadcast());
        let range6 = |net: Ipv6Net| (net.network(), net.broadcast());
        Ok(Self::from_ranges(
            v4.into_iter().map(range4).collect(),
            v6.into_iter().map(range6).collect(),
        ))
    }

    /// The networks of all these sets.
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for set in sets {
            v4.extend_from_slice(&set.v4);
            v6.extend_from_slice(&set.v6);
        }
        Self::from_ranges(v4, v6)
    }

    fn from_ranges(v4: Vec<(Ipv4Addr, Ipv4Addr)>, v6: Vec<(Ipv6Addr, Ipv6Addr)>) -> Self {
        let after4 = |ip: Ipv4Addr| ip.to_bits().checked_add(1).map(Ipv4Addr::from_bits);
        let after6 = |ip: Ipv6Addr| ip.to_bits().checked_add(1).map(Ipv6Addr::from_bits);
        Self {
            v4: merged(v4, after4).into(),
            v6: merged(v6, after6).into(),
        }
    }

    /// Whether every address of `other` is in this set too.
    pub fn covers(&self, other: &Self) -> bool {
        has_all(&self.v4, &other.v4) && has_all(&self.v6, &other.v6)
    }

    /// How many ranges there are: what it takes to compare two sets.
    pub(crate) fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The fewest networks and addresses that make up the set, in ascending order, IPv4 first.
    pub fn networks(&self) -> impl Iterator<Item = String> {
        let v4 = self
            .v4
            .iter()
            .flat_map(|(first, last)| Ipv4Subnets::new(*first, *last, 0));
        let v6 = self
            .v6
            .iter()
            .flat_map(|(first, last)| Ipv6Subnets::new(*first, *last, 0));
        let said = |net: IpNet| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        };
        v4.map(IpNet::V4).chain(v6.map(IpNet::V6)).map(said)
    }

    /// Whether that address is in one of the networks. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => is_in(&self.v4, ip),
            IpAddr::V6(ip) => is_in(&self.v6, ip),
        }
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Ranges as few and ascending ones that neither overlap nor touch.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if after(*end).is_none_or(|after| first <= after) => {
                *end = last.max(*end);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Whether each range of `inner` lies in one of `outer`, which do not touch each other.
fn has_all<T: Ord + Copy>(outer: &[(T, T)], inner: &[(T, T)]) -> bool {
    inner.iter().all(|(first, last)| {
        let after = outer.partition_point(|(start, _)| start <= first);
        after > 0 && *last <= outer[after - 1].1
    })
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

impl FromStr for Networks {
    type Err = NetworksError;

    /// Reads a comma-separated list.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let entries = list.split(',').map(str::trim);
        Self::of(entries.filter(|entry| !entry.is_empty()))
    }
}

fn networks(entry: &str) -> Option<Vec<IpNet>> {
    let words: &[&str] = match entry {
        "loopback" => &LOOPBACK,
        "private" => &PRIVATE,
        _ => return network(entry).map(|network| vec![network]),
    };
    Some(words.iter().filter_map(|word| network(word)).collect())
}

fn network(entry: &str) -> Option<IpNet> {
    let network = entry
        .parse()
        .or_else(|_| entry.parse::<IpAddr>().map(IpNet::from))
        .ok()?;
    // A mapped network would never match: addresses are compared in their canonical form.
    match network {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            let v4 = v6.addr().to_ipv4_mapped()?;
            let prefix = v6.prefix_len().checked_sub(96)?;
            Ipv4Net::new(v4, prefix).ok().map(IpNet::V4)
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_in_the_set_when_it_is_in_one_of_the_networks(
            nets in proptest::collection::vec((any::<[u8; 4]>(), 0_u8..=32), 0..40),
            ips in proptest::collection::vec(any::<[u8; 4]>(), 1..40),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|([_, b, c, d], bits)| IpNet::V4(Ipv4Net::new(Ipv4Addr::new(10, b % 4, c, d), bits).unwrap()))
                .collect();
            let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let set = Networks::of(texts.iter().map(String::as_str)).unwrap();
            for [_, b, c, d] in ips {
                let ip = IpAddr::V4(Ipv4Addr::new(10, b % 4, c, d));
                prop_assert_eq!(set.contains(ip), nets.iter().any(|net| net.contains(&ip)));
            }
        }
    }

    #[test]
    fn names_what_is_no_network() {
        for bad in [
            "10.0.0.0/33",
            "localhost",
            "10.0.0",
            "privat",
            "::ffff:0:0/95",
        ] {
            let list = format!("loopback, {bad}");
            assert_eq!(list.parse::<Networks>(), Err(NetworksError(bad.to_owned())));
        }
    }

    #[test]
    fn a_set_is_as_few_networks_as_can_be() {
        let said = |list: &str| {
            let set: Networks = list.parse().unwrap();
            set.networks().collect::<Vec<_>>()
        };
        assert_eq!(said("10.0.0.0/9, 10.128.0.0/9, 10.1.2.3"), ["10.0.0.0/8"]);
        assert_eq!(
            said("192.0.2.1, ::/0, 255.255.255.255"),
            ["192.0.2.1", "255.255.255.255", "::/0"]
        );
        assert_eq!(said("10.0.0.1, 10.0.0.2"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(said("0.0.0.0/0, 10.0.0.0/8"), ["0.0.0.0/0"]);
    }

    proptest! {
        #[test]
        fn a_union_has_what_either_has_and_covers_both(
            one in proptest::collection::vec((0_u8..16, 28_u8..=32), 0..6),
            other in proptest::collection::vec((0_u8..16, 28_u8..=32), 0..6),
        ) {
            let set = |nets: &[(u8, u8)]| {
                let texts: Vec<String> = nets.iter().map(|(host, bits)| format!("10.0.0.{host}/{bits}")).collect();
                Networks::of(texts.iter().map(String::as_str)).unwrap()
            };
            let (one, other) = (set(&one), set(&other));
            let both = Networks::union([&one, &other]);
            let has = |set: &Networks, host: u8| set.contains(IpAddr::from([10, 0, 0, host]));
            let all = || 0..=255_u8;
            prop_assert!(all().all(|host| has(&both, host) == (has(&one, host) || has(&other, host))));
            prop_assert!(both.covers(&one) && both.covers(&other));
            prop_assert_eq!(one.covers(&other), all().all(|host| has(&one, host) || !has(&other, host)));
            let said: Vec<String> = both.networks().collect();
            prop_assert_eq!(&Networks::of(said.iter().map(String::as_str)).unwrap(), &both);
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        let all: Networks = "::/0".parse().unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
        assert!(!all.contains("192.0.2.1".parse().unwrap()));
        let all: Networks = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()));
    }
}
