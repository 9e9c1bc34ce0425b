//! `lease` on a real server: the script against its Rust twin, and instances that share records.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::Script;
use tollgate::algorithm::{LUA, LeaseAsk, Remembered, State, lend, named};
use tollgate::strategy::Fault;
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};
use tollgate::{Charge, Cost, Quota, Source};

use crate::bench::strategies::plan;
use crate::bench::{Instance, RedisServer, charge, quota, stack};

const FIELDS: [&str; 6] = [
    "tokens",
    "last_refill",
    "fraction",
    "fraction_of",
    "leased",
    "lease_until",
];
/// Far ahead, so that no record of a case expires.
const NOON: u64 = 4_000_000_000_000_000;

/// A record and what one instance asks of it.
#[derive(Debug, Clone)]
struct Case {
    quota: Quota,
    record: Option<[u64; 6]>,
    wait_us: u64,
    cost: u64,
    ask: LeaseAsk,
}

fn cases() -> impl Strategy<Value = Case> {
    let usual = (1_u64..2_000, 1_u64..10_000, 1_000_u64..10_000_000);
    let large = (1_u64..1 << 50, 1_u64..1 << 50, 1_u64..1 << 40);
    let quota = prop_oneof![usual, large].prop_filter_map("can be counted", |(c, t, p)| {
        Quota::new(c, t, Duration::from_micros(p)).ok()
    });
    let tokens = || prop_oneof![3 => 0_u64..2_000, 1 => 0_u64..1 << 50];
    let lasts = || prop_oneof![Just(1_000_000), 1_u64..3_000_000];
    let record = (tokens(), 0_u64..100, tokens(), lasts());
    let report = (
        prop_oneof![Just(true), Just(true), any::<bool>()],
        0_u64..500,
        0_u64..500,
    );
    let wish = (tokens(), prop_oneof![Just(8), 0_u64..20], 1_u64..=100);
    let moment = (0_u64..2_000_000, tokens());
    (
        quota,
        proptest::option::weighted(0.9, record),
        report,
        wish,
        moment,
    )
        .prop_map(
            |(
                quota,
                record,
                (is_of_epoch, spent, returned),
                (wanted, least, share),
                (wait, cost),
            )| {
                let record = record.map(|(tokens, part, leased, lasts_us)| {
                    let leased = leased.min(quota.capacity());
                    let tokens = tokens.min(quota.capacity() - leased);
                    let part = part * quota.unit() / 100;
                    [tokens, NOON, part, quota.unit(), leased, NOON + lasts_us]
                });
                let epoch_us = record.map_or(0, |record| record[5]) * u64::from(is_of_epoch);
                Case {
                    quota,
                    record,
                    wait_us: wait,
                    cost: cost.clamp(1, quota.capacity()),
                    ask: LeaseAsk {
                        epoch_us,
                        spent,
                        returned,
                        wanted,
                        least,
                        share,
                        period_us: 1_000_000,
                    },
                }
            },
        )
}

/// The reply and the record afterwards, with its expiry in milliseconds, as the Rust twin has them.
fn in_rust(case: &Case) -> (Vec<u64>, Option<([u64; 6], u64)>) {
    let remembered = (case.record).map_or(Remembered::Nothing, |r| Remembered::State(State(r)));
    let (now_us, cost) = (NOON + case.wait_us, Cost::new(case.cost).unwrap());
    let lending = lend(&case.quota, remembered, now_us, cost, &case.ask);
    let (standing, retry_after_us) = match lending.step.outcome {
        Ok(taken) => (taken.after, 0),
        Err(refused) => (refused.before, refused.retry_after_us),
    };
    let reply = vec![
        now_us,
        lending.notice().map_or(0, |notice| notice as u64 + 1),
        retry_after_us,
        standing.remaining,
        standing.reset_after_us,
        standing.next_after_us,
        lending.granted,
        lending.until_us,
        lending.lasts_us,
    ];
    let kept = lending
        .kept
        .map(|kept| (kept.state.0, kept.fresh_at_us.div_ceil(1_000) + 1_000));
    (reply, kept)
}

#[test]
fn the_script_lends_as_its_twin_does() {
    let redis = RedisServer::start();
    let connection = std::cell::RefCell::new(redis.connection());
    let text = [
        include_str!("../../src/strategy/redis/prelude.lua"),
        LUA,
        include_str!("../../src/strategy/redis/lease.lua"),
    ]
    .concat();
    let (time, given) = ("redis.call('TIME')", "{ ARGV[12], ARGV[13] }");
    assert_eq!(text.matches(time).count(), 1);
    let script = Script::new(&text.replace(time, given));
    let (lent, settled, denied) = (
        std::cell::Cell::new(0),
        std::cell::Cell::new(0),
        std::cell::Cell::new(0),
    );
    let config = Config {
        cases: 5_000,
        max_local_rejects: u32::MAX,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::default()))
        .run(&cases(), |case| {
            let connection = &mut *connection.borrow_mut();
            let mut before = redis::pipe();
            before.cmd("DEL").arg("k").ignore();
            if let Some(record) = case.record {
                let fields: Vec<_> = FIELDS.into_iter().zip(record).collect();
                before.hset_multiple("k", &fields).ignore();
            }
            before.query::<()>(connection).unwrap();
            let (quota, ask, now_us) = (case.quota, case.ask, NOON + case.wait_us);
            let mut call = script.key("k");
            for number in [
                case.cost,
                quota.capacity(),
                quota.gain(),
                quota.unit(),
                ask.epoch_us,
                ask.spent,
                ask.returned,
                ask.wanted,
                ask.least,
                ask.share,
                ask.period_us,
                now_us / 1_000_000,
                now_us % 1_000_000,
            ] {
                call.arg(number);
            }
            let told: Vec<u64> = call.invoke(connection).unwrap();
            let (reply, kept) = in_rust(&case);
            prop_assert_eq!(&told, &reply);
            let mut after = redis::pipe();
            after.cmd("HMGET").arg("k").arg(&FIELDS);
            after.cmd("PTTL").arg("k").cmd("TIME");
            let (held, ttl, (seconds, micros)): (Vec<Option<u64>>, i64, (u64, u64)) =
                after.query(connection).unwrap();
            let held: Option<Vec<u64>> = held.into_iter().collect();
            match kept {
                None => prop_assert_eq!(held, case.record.map(|record| record.to_vec())),
                Some((state, expires_ms)) => {
                    prop_assert_eq!(held, Some(state.to_vec()));
                    let at_ms = i64::try_from(seconds * 1_000 + micros / 1_000).unwrap() + ttl;
                    let off = at_ms - i64::try_from(expires_ms).unwrap();
                    prop_assert!(off.abs() < 1_000, "it expires {off} ms late");
                }
            }
            let count = |counter: &std::cell::Cell<u32>, is_so| {
                counter.set(counter.get() + u32::from(is_so));
            };
            count(&lent, reply[6] > 0);
            count(&denied, reply[2] > 0);
            count(&settled, reply[2] > 0 && kept.is_some());
            Ok(())
        })
        .unwrap();
    let met = (lent.get(), denied.get(), settled.get());
    assert!(met.0 > 500 && met.1 > 500 && met.2 > 100, "{met:?}");
}

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
