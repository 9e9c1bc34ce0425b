//! How many connections each peer has: one peer cannot take all places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv6Net;
use tracing::{debug, warn};

use crate::domain::Networks;

/// Network bits by which IPv6 peers are told apart: what one subscriber usually has.
const IPV6_PREFIX: u8 = 64;

/// Counts the open connections of each peer. Trusted proxies have as many as they like: their clients are many.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    trusted: Networks,
    open: Mutex<HashMap<IpAddr, usize>>,
    told: AtomicBool,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it is counted; `None` for a trusted proxy.
    counted: Option<(Arc<Peers>, IpAddr)>,
}

impl Peers {
    /// Lets each peer that is not `trusted` have at most that many connections.
    pub(super) fn new(most: usize, trusted: Networks) -> Self {
        Self {
            most,
            trusted,
            open: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// A place for one more connection of that peer; `None` when it has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        if self.trusted.contains(peer) {
            return Some(Place { counted: None });
        }
        let peer = network(peer);
        let mut open = self.lock();
        let count = open.entry(peer).or_default();
        if *count >= self.most {
            drop(open);
            self.tell();
            return None;
        }
        *count += 1;
        Some(Place {
            counted: Some((self.clone(), peer)),
        })
    }

    fn tell(&self) {
        let most = self.most;
        if self.told.swap(true, Ordering::Relaxed) {
            debug!(most, "a peer has too many connections");
        } else {
            warn!(
                most,
                "a peer has too many connections and is refused more (HTTP_MAX_CONNECTIONS_PER_PEER); told once, others at debug level"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((peers, peer)) = &self.counted else {
            return;
        };
        let mut open = peers.lock();
        if let Some(count) = open.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(peer);
            }
        }
    }
}

/// The address by which a peer is counted.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Net::new(v6, IPV6_PREFIX)
            .map_or(IpAddr::V6(v6), |network| IpAddr::V6(network.network())),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(most: usize) -> Arc<Peers> {
        Arc::new(Peers::new(most, "10.0.0.0/8".parse().unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_has_so_many_places_and_no_more_until_one_is_left() {
        let peers = peers(2);
        let mut places: Vec<_> = (0..3).map(|_| peers.enter(ip("192.0.2.1"))).collect();
        assert!(places[0].is_some() && places[1].is_some() && places[2].is_none());
        assert!(
            peers.enter(ip("::ffff:192.0.2.1")).is_none(),
            "the same peer"
        );
        assert!(peers.enter(ip("192.0.2.2")).is_some(), "another");
        places.remove(0);
        assert!(peers.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn one_network_of_ipv6_is_one_peer() {
        let peers = peers(1);
        let place = peers.enter(ip("2001:db8::1"));
        assert!(place.is_some() && peers.enter(ip("2001:db8::2")).is_none());
        assert!(peers.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn trusted_proxies_are_not_counted_and_nobody_is_remembered_who_left() {
        let peers = peers(1);
        let places: Vec<_> = (0..9).map(|_| peers.enter(ip("10.1.2.3"))).collect();
        assert!(places.iter().all(Option::is_some));
        drop(peers.enter(ip("192.0.2.1")));
        assert!(peers.lock().is_empty());
    }
}
