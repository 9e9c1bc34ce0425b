//! The Lua twins compute the same integers as the algorithms: random steps, both ways, compared.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::Script;
use tollgate::algorithm::{
    ALL, Algorithm, Kept, LATEST_US, LUA, Remembered, Standing, State, Step,
};
use tollgate::{Cost, Quota};

use crate::bench::RedisServer;

/// Asks one algorithm how a bucket stands, runs a step, then what a credit does to the same record: its name, now, cost, capacity, gain, unit,
/// the time of a charge, then the fields of the record.
const TAIL: &str = "
local record = {}
for i = 1, #ARGV - 7 do record[i] = ARGV[7 + i] ~= '' and ARGV[7 + i] end
local now, cost, capacity, gain, unit, charged_at =
  tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local algorithm = algorithms[ARGV[1]]
local numbers = { algorithm.step(record, now, cost, capacity, gain, unit) }
local _, remaining, reset, next_after = algorithm.step(record, now, EXACT, capacity, gain, unit)
for i, number in ipairs({ remaining, reset, next_after }) do table.insert(numbers, i, number) end
for _, number in ipairs({ algorithm.credit(record, now, charged_at, cost, capacity, gain, unit) }) do
  numbers[#numbers + 1] = number
end
for i, number in ipairs(numbers) do numbers[i] = string.format('%.0f', number) end
return numbers";

/// Steps of each algorithm; `TWIN_STEPS` sets another number.
const STEPS: u32 = 5_000;
const NOON: u64 = 1_762_668_474_000_000;

/// One step on the record that a history left behind, perhaps tampered with.
#[derive(Debug, Clone)]
struct Case {
    quotas: Vec<Quota>,
    /// Microseconds since the last charge, tokens, and which quota.
    history: Vec<(i64, u64, usize)>,
    tampered: Vec<(usize, String)>,
    wait_us: i64,
    charged_ago_us: u64,
    cost: u64,
    /// Tokens of it that are lent, where an algorithm lends, and for how many microseconds from the last charge.
    lent: Option<(u64, u64)>,
}

/// Numbers of every size, the ends of the range among them.
fn sized(most: u64) -> impl Strategy<Value = u64> {
    (0_u32..=53, any::<u64>())
        .prop_map(move |(bits, random)| (random & ((1 << bits) - 1)).min(most))
}

fn quotas() -> impl Strategy<Value = Quota> {
    let any = (sized(1 << 53), sized(1 << 53), sized(365 * 86_400_000_000));
    let usual = (1_u64..1_000, 1_u64..10_000, 1_000_u64..100_000_000);
    let largest = prop_oneof![
        Just((Quota::LARGEST, 1_000, 1)),
        Just((1, 1, Quota::LONGEST_FILL_US / 2))
    ];
    prop_oneof![4 => any, 4 => usual, 1 => largest].prop_filter_map(
        "can be counted",
        |(capacity, tokens, period_us)| {
            Quota::new(capacity, tokens, Duration::from_micros(period_us)).ok()
        },
    )
}

fn moves() -> impl Strategy<Value = i64> {
    prop_oneof![
        0_i64..10_000_000,
        -5_000_000_i64..5_000_000,
        0_i64..1_000_000_000_000,
        Just(0)
    ]
}

fn tampering() -> impl Strategy<Value = Vec<(usize, String)>> {
    let number = prop_oneof![
        sized(1 << 53),
        Just(LATEST_US),
        Just(1 << 50),
        Just(1 << 53),
        (0_u64..1_000_000_000).prop_map(|d| NOON - d)
    ];
    let text = prop_oneof![
        6 => number.prop_map(|number| number.to_string()),
        1 => "(|-?0{0,20}[0-9]{1,20}|[0-9]\\.5|1e3|0x10|nan| 7)",
    ];
    // One that is ours but for its first number.
    let numbers = [1 << 53, 0, LATEST_US, Quota::LARGEST, 1, 7];
    let last = (0..6).zip(numbers.map(|number| number.to_string()));
    prop_oneof![
        30 => Just(Vec::new()),
        20 => proptest::collection::vec((0_usize..6, text), 1..6),
        1 => Just(last.collect()),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let quotas = proptest::collection::vec(quotas(), 1..3);
    let history = proptest::collection::vec((moves(), sized(1 << 50), 0_usize..2), 0..4);
    (
        quotas,
        history,
        tampering(),
        moves(),
        prop_oneof![Just(0), 0_u64..20_000_000],
        sized(1 << 50),
        proptest::option::of((sized(1 << 53), sized(100_000_000))),
    )
        .prop_map(
            |(quotas, history, tampered, wait_us, charged_ago_us, cost, lent)| Case {
                quotas,
                history,
                tampered,
                wait_us,
                charged_ago_us,
                cost,
                lent,
            },
        )
}

/// What a step is asked: the fields of the record, and the rest.
struct Question {
    quota: Quota,
    fields: Vec<String>,
    now_us: u64,
    charged_at_us: u64,
    cost: Cost,
}

fn question(algorithm: &dyn Algorithm, case: &Case) -> Question {
    let fitting = |cost: u64, quota: &Quota| Cost::new(cost.clamp(1, quota.capacity())).unwrap();
    let (mut remembered, mut now_us) = (Remembered::Nothing, NOON);
    for &(gap_us, cost, which) in &case.history {
        now_us = now_us.saturating_add_signed(gap_us);
        let quota = &case.quotas[which % case.quotas.len()];
        if let Ok(taken) = algorithm
            .step(quota, &remembered, now_us, fitting(cost, quota))
            .outcome
        {
            remembered = Remembered::State(taken.kept.state);
        }
    }
    let mut fields = match remembered {
        Remembered::State(state) => state.0[..algorithm.fields().len()]
            .iter()
            .map(u64::to_string)
            .collect(),
        _ => vec![String::new(); algorithm.fields().len()],
    };
    let optional = algorithm.optional_fields().len();
    fields.extend(vec![String::new(); optional]);
    if let (Some((leased, lasts_us)), 2) = (case.lent, optional) {
        let places = fields.len() - 2;
        fields[places] = leased.to_string();
        fields[places + 1] = now_us.saturating_add(lasts_us).to_string();
    }
    for (field, text) in &case.tampered {
        if let Some(field) = fields.get_mut(*field) {
            field.clone_from(text);
        }
    }
    let quota = case.quotas[0];
    Question {
        quota,
        fields,
        now_us: now_us.saturating_add_signed(case.wait_us),
        charged_at_us: now_us - case.charged_ago_us,
        cost: fitting(case.cost, &quota),
    }
}

fn in_rust(algorithm: &dyn Algorithm, asked: &Question) -> Vec<String> {
    let fields = asked
        .fields
        .iter()
        .map(|text| Some(text.as_bytes()).filter(|text| !text.is_empty()));
    let required = algorithm.fields().len();
    let remembered = match State::parse(fields, required) {
        Some(state) => Remembered::State(state),
        None if asked.fields.iter().all(String::is_empty) => Remembered::Nothing,
        None => Remembered::Foreign,
    };
    let before = algorithm.standing(&asked.quota, &remembered, asked.now_us);
    let Step { outcome, notice } =
        algorithm.step(&asked.quota, &remembered, asked.now_us, asked.cost);
    let standing = |standing: Standing| {
        [
            standing.remaining,
            standing.reset_after_us,
            standing.next_after_us,
        ]
    };
    let kept = |kept: Kept| {
        let (own, optional) = kept.state.0.split_at(required);
        let mut numbers = [vec![kept.fresh_at_us], own.to_vec()].concat();
        if optional.iter().any(|value| *value != 0) {
            numbers.extend(optional);
        }
        numbers
    };
    let notice = notice.map_or(0, |notice| notice as u64 + 1);
    let mut numbers = standing(before).to_vec();
    match outcome {
        Ok(taken) => {
            numbers.push(0);
            numbers.extend(standing(taken.after));
            numbers.push(notice);
            numbers.extend(kept(taken.kept));
        }
        Err(refused) => {
            numbers.push(refused.retry_after_us);
            numbers.extend(standing(refused.before));
            numbers.push(notice);
        }
    }
    if let Remembered::State(state) = remembered {
        let credited = algorithm.credit(
            &asked.quota,
            state,
            asked.now_us,
            asked.charged_at_us,
            asked.cost,
        );
        numbers.extend(credited.into_iter().flat_map(kept));
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
    let steps = std::env::vars_os()
        .find(|(name, _)| name == "TWIN_STEPS")
        .map(|(_, steps)| steps.to_str().unwrap().parse().unwrap());
    let admitted = Cell::new(0);
    for algorithm in ALL {
        let config = Config {
            cases: steps.unwrap_or(STEPS),
            // Quotas that cannot be are drawn again, in every long run some 100,000 times.
            max_local_rejects: u32::MAX,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::default()))
            .run(&cases(), |case| {
                let asked = question(*algorithm, &case);
                let quota = asked.quota;
                let mut call = script.prepare_invoke();
                call.arg(algorithm.name())
                    .arg(asked.now_us)
                    .arg(asked.cost.get());
                call.arg(quota.capacity())
                    .arg(quota.gain())
                    .arg(quota.unit())
                    .arg(asked.charged_at_us)
                    .arg(&asked.fields);
                let in_lua: Vec<String> = call.invoke(&mut connection.borrow_mut()).unwrap();
                let in_rust = in_rust(*algorithm, &asked);
                admitted.set(admitted.get() + u32::from(in_rust[3] == "0"));
                prop_assert_eq!(in_lua, in_rust, "{} {:?}", algorithm.name(), asked.fields);
                Ok(())
            })
            .unwrap();
    }
    let total = steps.unwrap_or(STEPS) * u32::try_from(ALL.len()).unwrap();
    let admitted = admitted.get();
    assert!(
        admitted > total / 10 && admitted < total / 10 * 9,
        "both outcomes are met: {admitted} of {total} admitted"
    );
}
