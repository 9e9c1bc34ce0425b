//! A real Redis goes away and comes back, and what stands around the strategies does its work: local decisions,
//! write-back, heartbeats.

use std::future::Future;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::algorithm::named;
use tollgate::server::MonotonicClock;
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};
use tollgate::strategy::redis::{LinkStatus, Settings};
use tollgate::{Charge, Source};

use crate::bench::{Folder, RedisServer, charge, quota};

/// Store timeout of the tests: these machines stall.
const PATIENCE: Duration = Duration::from_secs(30);
const EXACT: [Kind; 3] = [Kind::Lua, Kind::Transaction, Kind::Lease];
const BEATS: &str = "t:!instances";

/// An instance of that name, with everything that is done about a store that fails.
fn instance(kind: Kind, redis: &RedisServer, name: &str) -> Stack {
    let plan = Plan {
        kind,
        redis: Some(Settings::new(format!("redis://{}", redis.address())).unwrap()),
        pool_size: 4,
        timeout: PATIENCE,
        max_keys: 10_000,
        clock: Arc::new(MonotonicClock::start()),
        hasher: RandomState::new(),
        seed: 42,
        denial_cache: Some(Duration::from_secs(1)),
        lease_max: 10,
        care: Some(Care {
            instance: name.to_owned(),
            key_prefix: "t:".to_owned(),
            instances: 1,
        }),
    };
    build(&plan).unwrap()
}

fn one(capacity: u64) -> [Charge; 1] {
    let algorithm = named("tokenbucket").unwrap();
    [charge(algorithm, "a", quota(capacity), 1)]
}

/// Looks until it is so, and gives up after far longer than that can take.
async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE * 4, "it never came to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_counts(stack: &Stack, instances: u64) {
    let members = stack.members.as_ref().unwrap();
    until(|| async { members.is_known() && members.count() == instances }).await;
}

/// Waits until the instance knows of each connection that it is gone: what is sent on one that only seems to be up is
/// ambiguous, and so never written back.
async fn until_away(stack: &Stack) {
    let link = stack.link.as_ref().unwrap();
    let is_away = |status: LinkStatus| match status {
        LinkStatus::Disconnected { reason } => reason.contains("cannot be reached"),
        LinkStatus::Connected { .. } => false,
    };
    until(|| async { is_away(link.ping(PATIENCE).await) }).await;
}

/// Asks until it is denied: how many were admitted, all by this instance alone?
async fn admitted_alone(stack: &Stack, charges: &[Charge]) -> u64 {
    for admitted in 0.. {
        let verdict = stack.strategy.decide(charges).await.unwrap();
        assert_eq!(verdict.decisions[0].source, Source::Local);
        if !verdict.admitted {
            return admitted;
        }
    }
    unreachable!()
}

/// A Redis that remembers every write when it is killed.
fn durable(folder: &Folder) -> RedisServer {
    RedisServer::start_with(&[
        "--dir",
        folder.path(),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ])
}

fn tokens(redis: &RedisServer, charges: &[Charge]) -> Option<u64> {
    redis.run(&["HGET", charges[0].key().as_str(), "tokens"])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tokens_stay_three_when_redis_is_killed_and_are_owed_when_it_is_back() {
    for kind in EXACT {
        let (folder, charges) = (Folder::new(), one(10));
        let mut redis = durable(&folder);
        let stack = instance(kind, &redis, "a");
        until_counts(&stack, 1).await;
        for left in (3..10).rev() {
            let verdict = stack.strategy.decide(&charges).await.unwrap();
            let decision = verdict.decisions[0];
            assert_eq!((decision.source, decision.remaining), (Source::Store, left));
        }
        redis.stop();
        until_away(&stack).await;
        assert_eq!(admitted_alone(&stack, &charges).await, 3, "{}", kind.name());
        redis.restart();
        until(|| async { tokens(&redis, &charges) == Some(0) }).await;
        let is_of_the_store = || async {
            let verdict = stack.strategy.decide(&charges).await.unwrap();
            assert!(!verdict.admitted, "{}", kind.name());
            !verdict.is_from(Source::Local)
        };
        until(is_of_the_store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_owed_to_a_redis_that_comes_back_empty() {
    for kind in EXACT {
        let (mut redis, charges) = (RedisServer::start(), one(10));
        let stack = instance(kind, &redis, "a");
        until_counts(&stack, 1).await;
        assert!(stack.strategy.decide(&charges).await.unwrap().admitted);
        redis.stop();
        until_away(&stack).await;
        assert_eq!(admitted_alone(&stack, &charges).await, 9);
        redis.restart();
        until(|| async { tokens(&redis, &charges) == Some(1) }).await;
    }
}

/// Each knows of the others, and the last of them what is left.
#[tokio::test(flavor = "multi_thread")]
async fn instances_share_what_is_left() {
    let (mut redis, charges) = (RedisServer::start(), one(20));
    let stacks = ["a", "b", "c"].map(|name| instance(Kind::Lua, &redis, name));
    for stack in &stacks {
        until_counts(stack, 3).await;
    }
    for _ in 0..4 {
        for stack in &stacks {
            assert!(stack.strategy.decide(&charges).await.unwrap().admitted);
        }
    }
    redis.stop();
    for (stack, left) in stacks.iter().zip([10, 9, 8]) {
        until_away(stack).await;
        assert_eq!(admitted_alone(stack, &charges).await, left / 3);
    }
    redis.restart();
    // Of a full bucket: 3 + 3 + 2 were spent.
    until(|| async { tokens(&redis, &charges) == Some(12) }).await;
}

/// Who leaves is gone from the set at once, and counted no more once fewer were heard for long enough.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_count_who_comes_and_who_goes() {
    let redis = RedisServer::start();
    let [a, b, c] = ["a", "b", "c"].map(|name| instance(Kind::Lua, &redis, name));
    for stack in [&a, &b, &c] {
        until_counts(stack, 3).await;
    }
    assert_eq!(redis.run::<u64>(&["ZCARD", BEATS]), 3);
    c.leave(PATIENCE).await;
    drop(c);
    assert_eq!(redis.run::<u64>(&["ZCARD", BEATS]), 2);
    for stack in [&a, &b] {
        until_counts(stack, 2).await;
    }
    // Who only stops is forgotten too.
    drop(b);
    until_counts(&a, 1).await;
    let expires_in_ms: i64 = redis.run(&["PTTL", BEATS]);
    assert!((1..=10_000).contains(&expires_in_ms), "{expires_in_ms}");
    drop(a);
    until(|| async { !redis.run::<bool>(&["EXISTS", BEATS]) }).await;
}
