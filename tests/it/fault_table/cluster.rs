//! What nodes of a cluster say.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::thread;

use tollgate::Charge;
use tollgate::strategy::factory::Kind;

use super::{CAPACITY, GiveUp, KINDS, PAUSE, POOL, Request, Store, TryAgain};
use super::{assert_row, left, one, refused, settings, until_decided};
use crate::bench::{Folder, RedisServer, bare, free_port, has_options_of_redis_7};

/// A node of a cluster, and the folder for what it remembers of the others.
struct Node {
    redis: RedisServer,
    /// The port of its bus; `None` where a server has it at a fixed distance from its own.
    bus: Option<String>,
    _folder: Folder,
}

impl Node {
    fn start() -> Self {
        let folder = Folder::new();
        let bus = has_options_of_redis_7().then(|| free_port().to_string());
        let mut options = vec!["--dir", folder.path(), "--cluster-enabled", "yes"];
        if let Some(bus) = &bus {
            options.extend(["--cluster-port", bus]);
        }
        let redis = RedisServer::start_with(&options);
        Self {
            redis,
            bus,
            _folder: folder,
        }
    }

    fn with_all_slots() -> Self {
        let node = Self::start();
        node.owns(0..=16_383);
        node.until_whole();
        node
    }

    /// Two nodes that know each other; the first has the lower half of the slots.
    fn two() -> [Self; 2] {
        let [low, high] = [Self::start(), Self::start()];
        low.owns(0..=8_191);
        high.owns(8_192..=16_383);
        let address = high.redis.address();
        let (host, port) = address.split_once(':').unwrap();
        let words = ["CLUSTER", "MEET", host, port].into_iter();
        let words = words.chain(high.bus.as_deref());
        low.redis.run::<()>(&words.collect::<Vec<_>>());
        [low, high].map(|node| {
            node.until_whole();
            node
        })
    }

    fn owns(&self, slots: RangeInclusive<u16>) {
        let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
        let words = ["CLUSTER", "ADDSLOTS"].into_iter();
        let words = words.chain(slots.iter().map(String::as_str));
        self.redis.run::<()>(&words.collect::<Vec<_>>());
    }

    fn until_whole(&self) {
        while !self
            .redis
            .run::<String>(&["CLUSTER", "INFO"])
            .contains("cluster_state:ok")
        {
            thread::sleep(PAUSE);
        }
    }

    fn id(&self) -> String {
        self.redis.run(&["CLUSTER", "MYID"])
    }

    fn slot(&self, charge: &Charge) -> u16 {
        self.redis
            .run(&["CLUSTER", "KEYSLOT", charge.key().as_str()])
    }

    /// The first two clients whose keys have one slot, below 8192.
    fn two_in_one_slot(&self) -> [Charge; 2] {
        let mut seen = HashMap::new();
        for i in 0.. {
            let charge = one(&format!("client-{i}"));
            let slot = self.slot(&charge);
            if slot >= 8_192 {
                continue;
            }
            if let Some(first) = seen.insert(slot, charge.clone()) {
                return [first, charge];
            }
        }
        unreachable!()
    }

    fn sets_slot(&self, charge: &Charge, words: &[&str]) {
        let slot = self.slot(charge).to_string();
        self.redis
            .run::<()>(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
    }
}

#[tokio::test]
async fn clusterdown() {
    for kind in KINDS {
        let node = Node::start();
        let strategy = bare(kind, &settings(&node.redis.address()), POOL);
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        assert_row(&fault, refused("CLUSTERDOWN", TryAgain, Store), kind);
        node.owns(0..=16_383);
        let after = left(&until_decided(&*strategy, &[one("a")]).await);
        assert_eq!(after, [CAPACITY - 1], "{}", kind.name());
    }
}

#[tokio::test]
async fn crossslot() {
    let node = Node::with_all_slots();
    for kind in KINDS {
        let strategy = bare(kind, &settings(&node.redis.address()), POOL);
        let charges = ["a", "b"].map(|name| one(&format!("{name}-{}", kind.name())));
        assert_ne!(node.slot(&charges[0]), node.slot(&charges[1]));
        let fault = strategy.decide(&charges).await.unwrap_err();
        assert_row(&fault, refused("CROSSSLOT", GiveUp, Request), kind);
        for charge in charges {
            let after = left(&strategy.decide(&[charge]).await.unwrap());
            assert_eq!(after, [CAPACITY - 1], "{}", kind.name());
        }
    }
}

/// What would share a call cannot where it has keys of several slots: then each goes alone.
#[tokio::test]
async fn who_cannot_travel_together_is_decided_alone() {
    let node = Node::with_all_slots();
    let strategy = bare(Kind::Lua, &settings(&node.redis.address()), POOL);
    let asked: Vec<_> = (0..20)
        .map(|i| {
            let (strategy, charge) = (strategy.clone(), one(&format!("client-{i}")));
            tokio::spawn(async move { strategy.decide(&[charge]).await })
        })
        .collect();
    for asked in asked {
        assert_eq!(left(&asked.await.unwrap().unwrap()), [CAPACITY - 1]);
    }
}

#[tokio::test]
async fn moved() {
    let [low, high] = Node::two();
    let charge = (0..)
        .map(|i| one(&format!("client-{i}")))
        .find(|charge| low.slot(charge) >= 8_192)
        .unwrap();
    for kind in KINDS {
        let strategy = bare(kind, &settings(&low.redis.address()), POOL);
        let fault = strategy
            .decide(std::slice::from_ref(&charge))
            .await
            .unwrap_err();
        assert_row(&fault, refused("MOVED", GiveUp, Request), kind);
        let there: u64 = high.redis.run(&["EXISTS", charge.key().as_str()]);
        assert_eq!(there, 0, "{}: nothing was charged", kind.name());
    }
}

#[tokio::test]
async fn ask() {
    let [low, high] = Node::two();
    for (kind, i) in KINDS.into_iter().zip(0..) {
        let charge = [(0..)
            .map(|j| one(&format!("client-{i}-{j}")))
            .find(|charge| low.slot(charge) < 8_192)
            .unwrap()];
        let strategy = bare(kind, &settings(&low.redis.address()), POOL);
        low.sets_slot(&charge[0], &["MIGRATING", &high.id()]);
        let fault = strategy.decide(&charge).await.unwrap_err();
        assert_row(&fault, refused("ASK", GiveUp, Request), kind);
        low.sets_slot(&charge[0], &["STABLE"]);
        let after = left(&strategy.decide(&charge).await.unwrap());
        assert_eq!(after, [CAPACITY - 1], "{}", kind.name());
    }
}

/// Not `hash`: it never asks for two keys with one command before it writes. Redis 6.2 says it only to those who were sent
/// on by an ASK.
#[tokio::test]
async fn tryagain() {
    let [low, high] = Node::two();
    let charges = low.two_in_one_slot();
    for kind in [Kind::Lua, Kind::Transaction] {
        low.redis.run::<()>(&["FLUSHALL"]);
        let strategy = bare(kind, &settings(&low.redis.address()), POOL);
        assert!(strategy.decide(&charges[..1]).await.unwrap().admitted);
        low.sets_slot(&charges[0], &["MIGRATING", &high.id()]);
        let fault = strategy.decide(&charges).await.unwrap_err();
        let row = if has_options_of_redis_7() {
            refused("TRYAGAIN", TryAgain, Request)
        } else {
            refused("ASK", GiveUp, Request)
        };
        assert_row(&fault, row, kind);
        low.sets_slot(&charges[0], &["STABLE"]);
        let after = left(&strategy.decide(&charges).await.unwrap());
        assert_eq!(after, [CAPACITY - 2, CAPACITY - 1], "{}", kind.name());
    }
}
