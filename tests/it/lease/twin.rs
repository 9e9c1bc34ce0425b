//! The script that lends against its Rust twin.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::Script;
use tollgate::algorithm::{LUA, LeaseAsk, Remembered, State, lend};
use tollgate::{Cost, Quota};

use crate::bench::RedisServer;

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
        include_str!("../../../src/strategy/redis/prelude.lua"),
        LUA,
        include_str!("../../../src/strategy/redis/lease.lua"),
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
