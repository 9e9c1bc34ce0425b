//! `lease` on a real server: instances that share records.

use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::named;
use tollgate::strategy::Fault;
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};
use tollgate::{Charge, Quota, Source};

use crate::bench::strategies::plan;
use crate::bench::{Instance, RedisServer, charge, quota, stack};

mod twin;

fn one(name: &str, quota: Quota) -> [Charge; 1] {
    [charge(named("tokenbucket").unwrap(), name, quota, 1)]
}

async fn source(stack: &Stack, one: &[Charge]) -> (bool, Source) {
    let verdict = stack.strategy.decide(one).await.unwrap();
    (verdict.admitted, verdict.decisions[0].source)
}

#[tokio::test]
async fn hot_keys_are_paid_of_leases_and_admitted_no_more() {
    let redis = RedisServer::start();
    let instances = [(); 3].map(|()| stack(Kind::Lease, &redis.address()));
    let one = one("hot", quota(4_000));
    let (mut admitted, mut paid) = (0, 0);
    for i in 0..15_000 {
        let (is_admitted, source) = source(&instances[i % 3], &one).await;
        admitted += u32::from(is_admitted);
        paid += u32::from(source == Source::Lease);
    }
    assert!(admitted <= 4_000, "{admitted}");
    // What a lease still held when it ended is lost; on a machine that stalls, that can be each lease there was.
    assert!(admitted >= 2_000, "{admitted}");
    assert!(paid > admitted / 2, "{paid} of {admitted}");
    let (keys, expires) = redis.keys_and_expires();
    assert_eq!(keys, expires);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_too_much_under_concurrency() {
    let redis = RedisServer::start();
    let one = Arc::new(one("crowd", quota(3_000)));
    let instances = [(); 3].map(|()| stack(Kind::Lease, &redis.address()));
    let tasks: Vec<_> = (0..24)
        .map(|i| {
            let (stack, one) = (instances[i % 3].clone(), one.clone());
            tokio::spawn(async move {
                let (mut admitted, mut paid) = (0, 0);
                for _ in 0..400 {
                    let (is_admitted, source) = source(&stack, &*one).await;
                    admitted += u32::from(is_admitted);
                    paid += u32::from(source == Source::Lease);
                    tokio::task::yield_now().await;
                }
                (admitted, paid)
            })
        })
        .collect();
    let (mut admitted, mut paid) = (0, 0);
    for task in tasks {
        let (more, of_leases) = task.await.unwrap();
        (admitted, paid) = (admitted + more, paid + of_leases);
    }
    assert!(admitted <= 3_000 && paid > 100, "{paid} of {admitted}");
}

/// Of 79 tokens eight are more than the usual share, and less than a half.
#[tokio::test]
async fn as_much_is_lent_as_the_settings_say() {
    let redis = RedisServer::start();
    let address = redis.address();
    let limit = [
        ("LIMITER_STRATEGY", "tokenbucket-lease"),
        ("LIMITER_CAPACITY", "79"),
        ("LIMITER_REFILL_RATE", "0.001"),
        ("REDIS_ADDR", &address),
    ];
    for (share, lends) in [("10%", false), ("50%", true)] {
        let settings = [&limit[..], &[("LIMITER_LEASE_MAX", share)]].concat();
        let instance = Instance::start(&settings).await;
        let mut most = 0;
        // Where the machine stalls, a key is not asked for often enough at once.
        for _ in 0..if lends { 1_000 } else { 3 } {
            redis.run::<()>(&["FLUSHALL"]);
            for _ in 0..60 {
                instance.get("/api").await;
                let leased: Option<u64> = redis.run(&["HGET", "ratelimit:127.0.0.1", "leased"]);
                most = most.max(leased.unwrap_or(0));
            }
            if most > 0 {
                break;
            }
        }
        assert_eq!(most >= 8, lends, "{most} of {share}");
        assert!(most <= 39, "{most} of {share}");
        instance.stop().await;
    }
}

/// What was taken ahead is spent while the breaker lets requests pass, and not after.
#[tokio::test]
async fn no_lease_is_spent_while_the_store_rests() {
    let mut redis = RedisServer::start();
    let care = Care {
        instance: "a".to_owned(),
        key_prefix: "t:".to_owned(),
        instances: 1,
    };
    let plan = Plan {
        timeout: Duration::from_secs(1),
        care: Some(care),
        ..plan(Kind::Lease, &redis.address())
    };
    let stack = build(&plan).unwrap();
    let one = one("outage", quota(1_000));
    let mut admitted = 0;
    while source(&stack, &one).await.1 != Source::Lease {
        admitted += 1;
    }
    redis.stop();
    // Not by asking here: that would spend the lease.
    let breaker = stack.breaker.as_ref().unwrap();
    while let Some(pass) = breaker.pass() {
        breaker.report(pass, &Err::<(), _>(Fault::Lost("killed".to_owned())));
    }
    for _ in 0..2_000 {
        let (is_admitted, source) = source(&stack, &one).await;
        assert_eq!(source, Source::Local);
        admitted += u32::from(is_admitted);
    }
    assert!(admitted <= 2_000, "{admitted}: the law and one capacity");
}

/// What a lease paid for goes back to the store.
#[tokio::test]
async fn what_a_lease_paid_for_can_be_given_back() {
    let redis = RedisServer::start();
    let stack = stack(Kind::Lease, &redis.address());
    let one = one("back", quota(1_000));
    let verdict = loop {
        let verdict = stack.strategy.decide(&one).await.unwrap();
        if verdict.is_from(Source::Lease) {
            break verdict;
        }
    };
    let left = || async { stack.strategy.peek(&one).await.unwrap().decisions[0].remaining };
    let before = left().await;
    let receipts = verdict.into_receipts(&one);
    stack.strategy.give_back(receipts).await.unwrap();
    assert_eq!(left().await, before + 1);
}

/// Others on the same record leave room for what is lent of it.
#[tokio::test]
async fn every_strategy_respects_what_is_lent() {
    let redis = RedisServer::start();
    // Full again within a millisecond, while leases last a second.
    let quick = Quota::new(1_000, 1_000_000, Duration::from_secs(1)).unwrap();
    for kind in [Kind::Lua, Kind::Transaction, Kind::Hash] {
        let other = stack(kind, &redis.address());
        let lease = stack(Kind::Lease, &redis.address());
        let one = one(kind.name(), quick);
        while source(&lease, &one).await.1 != Source::Lease {}
        let key = one[0].key().as_str();
        let (leased, until_us): (u64, u64) = redis.run(&["HMGET", key, "leased", "lease_until"]);
        assert!((8..=100).contains(&leased), "{leased}");
        let mut filled = 0;
        loop {
            let peeked = other.strategy.peek(&one).await.unwrap();
            if peeked.now_us >= until_us {
                break;
            }
            filled = filled.max(peeked.decisions[0].remaining);
        }
        assert_eq!(filled, 1_000 - leased, "{}", kind.name());
        let peeked = other.strategy.peek(&one).await.unwrap();
        assert_eq!(peeked.decisions[0].remaining, 1_000, "{}", kind.name());
    }
}

#[tokio::test]
async fn a_loan_that_was_partly_written_is_ambiguous() {
    let redis = RedisServer::start();
    let lease = stack(Kind::Lease, &redis.address());
    let one = one("partly", quota(1_000));
    for _ in 0..7 {
        source(&lease, &one).await;
    }
    redis.run::<()>(&["ACL", "SETUSER", "default", "-pexpireat"]);
    let fault = lease.strategy.decide(&one).await.unwrap_err();
    assert_eq!((fault.kind(), fault.is_ambiguous()), ("PARTLY", true));
    redis.run::<()>(&["ACL", "SETUSER", "default", "+pexpireat"]);
    assert_eq!(source(&lease, &one).await, (true, Source::Store));
}

/// What is held when the clock steps is spent or lost, and the bucket gains nothing by it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_step_of_the_stores_clock_mints_nothing() {
    const SECOND_US: i64 = 1_000_000;
    for shift_us in [-30 * SECOND_US, 3_600 * SECOND_US] {
        let clock = crate::bench::FakeClock::new();
        let redis = RedisServer::start_in(&[], clock.variables().to_vec());
        let stack = stack(Kind::Lease, &redis.address());
        let one = one("stepped", quota(1_000));
        let mut admitted = 0;
        while source(&stack, &one).await.1 != Source::Lease {
            admitted += 1;
        }
        clock.shift_us(shift_us);
        for _ in 0..2_000 {
            admitted += u32::from(source(&stack, &one).await.0);
        }
        // One was paid for before the step.
        assert!(admitted < 1_000, "{admitted} with {shift_us}");
        assert!(admitted >= 700, "{admitted} with {shift_us}");
    }
}
