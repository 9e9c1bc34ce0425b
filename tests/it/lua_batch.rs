//! One call of the script tells requests what the same requests would be told one after the other at the same time: random
//! calls, compared with the algorithms as a model, request by request and record by record.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::{Connection, Script, Value};
use tollgate::algorithm::{ALL, Algorithm, Intent, Kept, LUA, Notice, Remembered, State, judge};
use tollgate::{Charge, Decision, Quota, Verdict};

use crate::bench::{RedisServer, charge};

const CASES: u32 = 300;
/// Keys of each algorithm.
const KEYS: usize = 3;
/// Under this key stands a string.
const BAD: usize = KEYS;

/// What a group of requests asks alike: of each charge the algorithm, the cost and whether it is enforced.
#[derive(Debug, Clone)]
struct Group {
    operation: &'static str,
    charges: Vec<(usize, u64, bool)>,
    quota: usize,
    /// Microseconds since the charge that is given back.
    charged_ago_us: u64,
    /// For each request, which key of its algorithm each charge has.
    requests: Vec<Vec<usize>>,
    /// Whether the call says which keys stand there more than once, or names places that are none. It changes nothing.
    tells_repeated: bool,
}

fn quotas() -> [Quota; 2] {
    [(12, 700, 1), (8, 1, 3)]
        .map(|(capacity, tokens, s)| Quota::new(capacity, tokens, Duration::from_secs(s)).unwrap())
}

fn groups() -> impl Strategy<Value = Group> {
    let operation = prop_oneof![
        6 => Just("charge"), 1 => Just("peek"), 1 => Just("debit"), 1 => Just("give_back")
    ];
    let charges = prop_oneof![
        3 => proptest::collection::vec((0..ALL.len(), 1..=4_u64, prop::bool::weighted(0.8)), 1),
        2 => proptest::collection::vec((0..ALL.len(), 1..=4_u64, prop::bool::weighted(0.8)), 2..5),
    ];
    // Rarely the bad key.
    let key = || prop_oneof![12 => 0..KEYS, 1 => Just(BAD)];
    let requests = proptest::collection::vec(proptest::collection::vec(key(), 4), 1..9);
    let parts = (
        operation,
        charges,
        0..2_usize,
        0..50_000_u64,
        requests,
        any::<bool>(),
    );
    parts.prop_map(
        |(operation, charges, quota, charged_ago_us, requests, tells_repeated)| Group {
            operation,
            charges,
            quota,
            charged_ago_us,
            requests,
            tells_repeated,
        },
    )
}

/// One charge of one request.
#[derive(Debug)]
struct Asked {
    charge: Charge,
    is_bad: bool,
}

impl Group {
    /// The charges of each request whose keys all differ; what is given back may be of one key twice.
    fn asked(&self, case: u32) -> Vec<Vec<Asked>> {
        let of = |keys: &Vec<usize>| {
            let both = self.charges.iter().zip(keys);
            both.map(|(&(algorithm, cost, enforced), key)| {
                asked(
                    case,
                    ALL[algorithm],
                    *key,
                    quotas()[self.quota],
                    cost,
                    enforced,
                )
            })
            .collect::<Vec<_>>()
        };
        let differ = |asked: &Vec<Asked>| {
            asked
                .iter()
                .map(|asked| asked.charge.key())
                .collect::<HashSet<_>>()
                .len()
                == asked.len()
        };
        let is_asked = |asked: &Vec<Asked>| self.operation == "give_back" || differ(asked);
        self.requests.iter().map(of).filter(is_asked).collect()
    }
}

fn asked(
    case: u32,
    algorithm: &'static dyn Algorithm,
    key: usize,
    quota: Quota,
    cost: u64,
    enforced: bool,
) -> Asked {
    let name = format!("{case}-{key}");
    let charge = charge(algorithm, &name, quota, cost);
    let charge = if enforced { charge } else { charge.observed() };
    let is_bad = key == BAD;
    Asked { charge, is_bad }
}

/// What one request is told: the numbers of its charges, or the code of an error.
pub(crate) type Told = Result<Vec<[u64; 4]>, String>;

/// The records as they should be.
#[derive(Default)]
struct Model {
    records: HashMap<String, Remembered>,
    /// When each that was written is fresh again, in microseconds since 1970.
    fresh_at_us: HashMap<String, u64>,
    notices: HashSet<Notice>,
}

impl Model {
    fn told(&mut self, group: &Group, asked: &[Asked], charged_at_us: u64, now_us: u64) -> Told {
        if asked.iter().any(|asked| asked.is_bad) {
            return Err("WRONGTYPE".to_owned());
        }
        let intent = match group.operation {
            "charge" => Intent::Charge,
            "peek" => Intent::Peek,
            "debit" => Intent::Debit,
            _ => return Ok(self.give_back(asked, charged_at_us, now_us)),
        };
        let charges: Vec<_> = asked.iter().map(|asked| asked.charge.clone()).collect();
        let remembered = |i: usize| self.remembered(charges[i].key().as_str());
        let judged = judge(&charges, intent, remembered, now_us);
        for write in &judged.writes {
            let key = charges[write.charge].key().as_str().to_owned();
            self.keep(key, write.kept);
        }
        self.notices.extend(judged.notices);
        Ok(numbers(&judged.verdict))
    }

    fn give_back(&mut self, asked: &[Asked], charged_at_us: u64, now_us: u64) -> Vec<[u64; 4]> {
        for Asked { charge, .. } in asked {
            let (limit, key) = (charge.limit(), charge.key().as_str());
            if let Remembered::State(state) = self.remembered(key)
                && let Some(kept) = limit.algorithm.credit(
                    &limit.quota,
                    state,
                    now_us,
                    charged_at_us,
                    charge.cost(),
                )
            {
                self.keep(key.to_owned(), kept);
            }
        }
        vec![[0; 4]; asked.len()]
    }

    fn keep(&mut self, key: String, kept: Kept) {
        self.fresh_at_us.insert(key.clone(), kept.fresh_at_us);
        self.records.insert(key, Remembered::State(kept.state));
    }

    fn remembered(&self, key: &str) -> Remembered {
        let remembered = self.records.get(key).copied();
        remembered.unwrap_or(Remembered::Nothing)
    }

    /// Whether Redis holds what it should of the key of this charge.
    fn agrees(&self, charge: &Charge, connection: &mut Connection) -> bool {
        let (limit, key) = (charge.limit(), charge.key().as_str());
        let Remembered::State(state) = self.remembered(key) else {
            return true;
        };
        let (required, optional) = (limit.algorithm.fields(), limit.algorithm.optional_fields());
        let mut all = redis::pipe();
        all.atomic().cmd("HMGET").arg(key).arg(required);
        // One more, so that there is one to ask for.
        all.cmd("HMGET").arg(key).arg(optional).arg("none");
        all.cmd("PTTL").arg(key);
        type Held = (Vec<Option<u64>>, Vec<Option<u64>>, i64);
        let before_us = time_us(connection);
        let (held, lent, left_ms): Held = all.query(connection).unwrap();
        let now_us = time_us(connection);
        if held.iter().all(Option::is_none) {
            // It may be forgotten as soon as it equals a fresh one.
            let remembered = Remembered::State(state);
            let standing = limit.algorithm.standing(&limit.quota, &remembered, now_us);
            return standing.reset_after_us == 0;
        }
        let (own, others) = state.0.split_at(required.len());
        let is_lent = |lent: &[Option<u64>]| lent[0].unwrap_or(0) > 0;
        let lent_alike = match optional {
            [] => true,
            _ if others[0] > 0 => lent.iter().zip(others).take(2).all(|(l, o)| *l == Some(*o)),
            _ => !is_lent(&lent) || !self.fresh_at_us.contains_key(key),
        };
        let expires_alike = self.fresh_at_us.get(key).is_none_or(|fresh_at_us| {
            let expected_ms = fresh_at_us.div_ceil(1_000) + 1_000;
            let [least, most] =
                [before_us, now_us].map(|us| (us / 1_000).saturating_add_signed(left_ms));
            (least - 1..=most + 1).contains(&expected_ms)
        });
        held.into_iter().eq(own.iter().map(|value| Some(*value))) && lent_alike && expires_alike
    }
}

/// The server's time.
fn time_us(connection: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    seconds * 1_000_000 + micros
}

fn numbers(verdict: &Verdict) -> Vec<[u64; 4]> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
    let of = |decision: &Decision| {
        [
            decision.retry_after().map_or(0, micros),
            decision.remaining,
            micros(decision.reset_after),
            micros(decision.next_after),
        ]
    };
    verdict.decisions.iter().map(of).collect()
}

/// Calls the script: the keys of all requests, and the head of each group, as `driver.lua` has them.
fn call(
    script: &Script,
    groups: &[(Group, Vec<Vec<Asked>>)],
    charged_at_us: u64,
    connection: &mut Connection,
) -> Vec<Value> {
    let mut call = script.prepare_invoke();
    for (group, requests) in groups {
        let asked = requests.iter().flatten();
        let keys: Vec<&str> = asked.map(|asked| asked.charge.key().as_str()).collect();
        let places = match group.tells_repeated {
            true => repeated(&keys),
            false => vec![0, 9_999],
        };
        call.arg(group.operation)
            .arg(requests.len())
            .arg(group.charges.len())
            .arg(places.len())
            .arg(places);
        for &(algorithm, cost, enforced) in &group.charges {
            let mode = match group.operation {
                "give_back" => charged_at_us,
                _ => u64::from(enforced),
            };
            let quota = quotas()[group.quota];
            call.arg(ALL[algorithm].name()).arg(mode).arg(cost);
            call.arg(quota.capacity())
                .arg(quota.gain())
                .arg(quota.unit());
        }
        for key in keys {
            call.key(key);
        }
    }
    call.invoke(connection).unwrap()
}

/// A place of each key that stands there more than once, counted from 1.
fn repeated(keys: &[&str]) -> Vec<usize> {
    let is_first_of_several =
        |&i: &usize| !keys[..i].contains(&keys[i]) && keys[i + 1..].contains(&keys[i]);
    let places = (0..keys.len()).filter(is_first_of_several);
    places.map(|i| i + 1).collect()
}

/// What the script told each request of `sizes` charges: doubles in one string, then the errors.
pub(crate) fn told(answers: &[Value], sizes: impl Iterator<Item = usize>) -> Vec<Told> {
    let [Value::BulkString(numbers), failures @ ..] = answers else {
        panic!("no answers in {answers:?}")
    };
    let numbers = numbers.as_chunks::<8>().0.as_chunks::<4>().0;
    let number = |double: &[u8; 8]| format!("{}", f64::from_le_bytes(*double)).parse().unwrap();
    let mut first = 0;
    let told = sizes
        .map(|size| {
            let own = &numbers[first..first + size];
            first += size;
            let is_its = |failure: &&[Value; 2]| {
                failure[0] == Value::Int((first - size + 1).try_into().unwrap())
            };
            match failures.as_chunks::<2>().0.iter().find(is_its) {
                Some([_, Value::BulkString(error)]) => {
                    let error = String::from_utf8(error.clone()).unwrap();
                    Err(error.split(' ').next().unwrap().to_owned())
                }
                Some(other) => panic!("no error: {other:?}"),
                None => Ok(own
                    .iter()
                    .map(|charge| charge.each_ref().map(number))
                    .collect()),
            }
        })
        .collect();
    assert_eq!(numbers.len(), first);
    told
}

/// Puts a string where no record can be, into each first record something that is not ours, and into each second one, where
/// tokens can be lent, a lease: one that lasts, one that is over, one that cannot be.
fn seed(case: u32, model: &mut Model, connection: &mut Connection) {
    let now_us = time_us(connection);
    for algorithm in ALL {
        let key = |key| asked(case, *algorithm, key, quotas()[0], 1, true).charge;
        let [foreign, lent, bad] = [0, 1, BAD].map(|i| key(i).key().as_str().to_owned());
        let mut all = redis::pipe();
        all.cmd("SET").arg(bad).arg("a string").ignore();
        let odd = ["odd", ""][case as usize % 2];
        all.cmd("HSET").arg(&foreign);
        for (i, field) in algorithm.fields().iter().enumerate() {
            all.arg(field).arg(if i == 1 { odd } else { "1" });
        }
        if let [leased, lease_until] = algorithm.optional_fields() {
            let until_us = [5_000_000, -1, 120_000_000][case as usize % 3];
            let until_us = now_us.saturating_add_signed(until_us);
            let state = [5, now_us, 0, quotas()[0].unit(), 4, until_us];
            all.cmd("HSET").arg(&lent);
            for (field, value) in algorithm.fields().iter().zip(state) {
                all.arg(field).arg(value);
            }
            all.arg(leased).arg(4).arg(lease_until).arg(until_us);
            model.records.insert(lent, Remembered::State(State(state)));
        }
        all.exec(connection).unwrap();
        model.records.insert(foreign, Remembered::Foreign);
    }
}

/// The script, with something before it.
pub(crate) fn script(before: &str) -> Script {
    let driver = include_str!("../../src/strategy/redis/driver.lua");
    let prelude = include_str!("../../src/strategy/redis/prelude.lua");
    Script::new(&[before, prelude, LUA, driver].concat())
}

#[test]
fn a_call_decides_as_one_request_after_the_other() {
    let redis = RedisServer::start();
    let connection = RefCell::new(redis.connection());
    let script = script("");
    let (admitted, denied, failed, case) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let calls = proptest::collection::vec(proptest::collection::vec(groups(), 1..5), 1..5);
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::default()))
        .run(&calls, |calls| {
            let (connection, mut model) = (&mut *connection.borrow_mut(), Model::default());
            case.set(case.get() + 1);
            seed(case.get(), &mut model, connection);
            let mut last_us = 1_762_668_474_000_000;
            for groups in calls {
                let groups: Vec<_> = groups
                    .into_iter()
                    .map(|group| (group.clone(), group.asked(case.get())))
                    .filter(|(_, requests)| !requests.is_empty())
                    .collect();
                if groups.is_empty() {
                    continue;
                }
                let charged_at_us = last_us - groups[0].0.charged_ago_us;
                let reply = call(&script, &groups, charged_at_us, connection);
                let [now_us, notices] =
                    [0, 1].map(|i| redis::from_redis_value_ref(&reply[i]).unwrap());
                last_us = now_us;
                let requests: Vec<(&Group, &Vec<Asked>)> = groups
                    .iter()
                    .flat_map(|(group, requests)| requests.iter().map(move |asked| (group, asked)))
                    .collect();
                let sizes = requests.iter().map(|(_, asked)| asked.len());
                let in_lua = told(&reply[2..], sizes);
                model.notices.clear();
                let mut any_failed = false;
                for ((group, asked), in_lua) in requests.iter().zip(in_lua) {
                    let expected = model.told(group, asked, charged_at_us, now_us);
                    let count = match &expected {
                        Err(_) => &failed,
                        Ok(numbers) if numbers.iter().all(|charge| charge[0] == 0) => &admitted,
                        Ok(_) => &denied,
                    };
                    count.set(count.get() + 1);
                    any_failed |= expected.is_err();
                    prop_assert_eq!(in_lua, expected, "{:?} of {:?}", asked, group);
                }
                for (_, asked) in &requests {
                    for Asked { charge, is_bad } in *asked {
                        prop_assert!(
                            *is_bad || model.agrees(charge, connection),
                            "{:?}",
                            charge.key()
                        );
                    }
                }
                let bits = |notice: &Notice| 1 << (*notice as u64);
                let expected: u64 = model.notices.iter().map(bits).sum();
                // A request that failed may have met something foreign before.
                prop_assert!(notices == expected || (any_failed && notices & expected == expected));
            }
            Ok(())
        })
        .unwrap();
    let counts = [admitted.get(), denied.get(), failed.get()];
    assert!(
        counts.iter().all(|count| *count > 500),
        "all outcomes are met: {counts:?}"
    );
}
