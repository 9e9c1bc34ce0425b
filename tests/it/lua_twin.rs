//! The Lua twins compute the same integers as the algorithms: random steps, both ways, compared.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::Script;
use tollgate::algorithm::{ALL, Algorithm, LATEST_US, LUA, Remembered, State, Step};
use tollgate::{Cost, Quota};

use crate::bench::RedisServer;

/// Runs one step of one algorithm: its name, now, cost, capacity, gain, unit, then the fields of the record.
const TAIL: &str = "
local record = {}
for i = 1, #ARGV - 6 do record[i] = ARGV[6 + i] ~= '' and ARGV[6 + i] end
local step = { algorithms[ARGV[1]].step(record, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])) }
for i, value in ipairs(step) do step[i] = string.format('%.0f', value) end
return step";

/// Steps of each algorithm.
const STEPS: u32 = 5_000;
const NOON: u64 = 1_762_668_474_000_000;

#[derive(Debug, Clone)]
struct Case {
    quota: Quota,
    fields: Vec<String>,
    now_us: u64,
    cost: Cost,
}

/// Numbers of every size, the ends of the range among them.
fn sized(most: u64) -> impl Strategy<Value = u64> {
    (0_u32..=53, any::<u64>())
        .prop_map(move |(bits, random)| (random & ((1 << bits) - 1)).min(most))
}

fn quotas() -> impl Strategy<Value = Quota> {
    let any = (sized(1 << 53), sized(1 << 53), sized(365 * 86_400_000_000))
        .prop_map(|(a, b, c)| (a, b, c, false));
    let usual =
        (1_u64..1_000, 1_u64..10_000, 1_000_u64..100_000_000).prop_map(|(a, b, c)| (a, b, c, true));
    prop_oneof![any, usual].prop_filter_map(
        "a quota that can be counted",
        |(capacity, tokens, period_us, _)| {
            Quota::new(capacity, tokens, Duration::from_micros(period_us)).ok()
        },
    )
}

/// A record that the algorithm could have left behind, one of another quota, or one that is not ours.
fn fields(quota: Quota) -> impl Strategy<Value = Vec<String>> {
    let at = prop_oneof![
        (0_u64..200_000_000).prop_map(|back| NOON - back),
        (0_u64..5_000_000).prop_map(|ahead| NOON + ahead),
        sized(1 << 53),
        Just(LATEST_US),
    ];
    let own = (0..=quota.capacity(), at, 0..quota.unit())
        .prop_map(move |(tokens, at, fraction)| vec![tokens, at, fraction, quota.unit()]);
    let other = (
        sized(1 << 53),
        sized(1 << 53),
        sized(1 << 53),
        sized(1 << 53),
        0_u64..5_000_000,
    )
        .prop_map(|(tokens, fraction, fraction_of, at, back)| {
            vec![
                tokens,
                if at % 2 == 0 { NOON - back } else { at },
                fraction.min(fraction_of),
                fraction_of,
            ]
        });
    let numbers = prop_oneof![3 => own, 2 => other];
    let texts = numbers.prop_map(|values| values.iter().map(u64::to_string).collect::<Vec<_>>());
    let foreign = proptest::collection::vec("(|-?[0-9]{1,17}|[0-9]\\.5|1e3|0x10|nan| 7)", 4);
    prop_oneof![8 => texts, 1 => foreign, 1 => Just(vec![String::new(); 4])]
}

fn cases() -> impl Strategy<Value = Case> {
    quotas().prop_flat_map(|quota| {
        let now_us = prop_oneof![
            Just(NOON),
            (0_u64..1_000_000_000_000).prop_map(|later| NOON + later)
        ];
        (Just(quota), fields(quota), now_us, 1..=quota.capacity()).prop_map(
            |(quota, fields, now_us, cost)| Case {
                quota,
                fields,
                now_us,
                cost: Cost::new(cost).unwrap(),
            },
        )
    })
}

fn in_rust(algorithm: &dyn Algorithm, case: &Case) -> Vec<String> {
    let fields = case
        .fields
        .iter()
        .map(|text| Some(text.as_bytes()).filter(|text| !text.is_empty()));
    let remembered = match State::parse(fields) {
        Some(state) => Remembered::State(state),
        None if case.fields.iter().all(String::is_empty) => Remembered::Nothing,
        None => Remembered::Foreign,
    };
    let Step {
        before,
        outcome,
        notice,
    } = algorithm.step(&case.quota, remembered, case.now_us, case.cost);
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
    let standing = |standing: tollgate::algorithm::Standing| {
        [
            standing.remaining,
            micros(standing.reset_after),
            micros(standing.next_after),
        ]
    };
    let notice = notice.map_or(0, |notice| notice as u64 + 1);
    let mut numbers = vec![outcome.map_or_else(|refused| micros(refused.retry_after), |_| 0)];
    numbers.extend(standing(before));
    match outcome {
        Ok(taken) => {
            numbers.extend(standing(taken.after));
            numbers.extend([notice, taken.fresh_at_us]);
            numbers.extend(&taken.state.0[..algorithm.fields().len()]);
        }
        Err(_) => numbers.extend([0, 0, 0, notice]),
    }
    numbers.iter().map(u64::to_string).collect()
}

#[test]
fn computes_the_same_integers() {
    let redis = RedisServer::start();
    let connection = std::cell::RefCell::new(redis.connection());
    let script = Script::new(
        &[
            include_str!("../../src/strategy/redis/prelude.lua"),
            LUA,
            TAIL,
        ]
        .concat(),
    );
    for algorithm in ALL {
        let config = Config {
            cases: STEPS,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(Default::default()),
        )
        .run(&cases(), |case| {
            let quota = case.quota;
            let mut call = script.prepare_invoke();
            call.arg(algorithm.name())
                .arg(case.now_us)
                .arg(case.cost.get());
            call.arg(quota.capacity())
                .arg(quota.gain())
                .arg(quota.unit())
                .arg(&case.fields);
            let in_lua: Vec<String> = call.invoke(&mut connection.borrow_mut()).unwrap();
            prop_assert_eq!(in_lua, in_rust(*algorithm, &case));
            Ok(())
        })
        .unwrap();
    }
}
