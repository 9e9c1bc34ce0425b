//! The same claims of every strategy with every algorithm, walked from the code's own lists.
//!
//! `lease` lends from no limit as small as those here, nor from other algorithms than a token bucket: what it asks exactly keeps
//! every claim, and what it takes ahead is in `lease.rs`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::{ALL, Algorithm};
use tollgate::strategy::factory::{Kind, Stack};
use tollgate::strategy::{Fault, MAX_CHARGES, Scope};
use tollgate::{Charge, CostAboveCapacity, Quota, Verdict};

use crate::bench::{RedisServer, charge, kinds, quota, stack};

/// Every algorithm on every strategy, all on one Redis.
fn matrix() -> (RedisServer, Vec<(&'static dyn Algorithm, Kind, Stack)>) {
    let redis = RedisServer::start();
    let pairs = kinds().flat_map(|kind| ALL.iter().map(move |algorithm| (*algorithm, kind)));
    let stacks = pairs
        .map(|(algorithm, kind)| (algorithm, kind, stack(kind, &redis.address())))
        .collect();
    (redis, stacks)
}

async fn decide(stack: &Stack, charges: &[Charge]) -> Verdict {
    stack.strategy.decide(charges).await.unwrap()
}

#[tokio::test]
async fn admits_the_capacity_and_then_denies() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = kind.name();
        let one = [charge(algorithm, name, quota(5), 1)];
        for left in (0..5).rev() {
            let verdict = decide(&stack, &one).await;
            assert!(verdict.admitted, "{name}");
            assert_eq!(
                (verdict.decisions[0].remaining, verdict.decisions[0].limit),
                (left, 5),
                "{name}"
            );
            assert_eq!(verdict.decisions[0].retry_after(), None);
        }
        for _ in 0..3 {
            let verdict = decide(&stack, &one).await;
            assert!(!verdict.admitted, "{name}");
            let wait = verdict.decisions[0].retry_after().unwrap();
            if ["tokenbucket", "gcra"].contains(&algorithm.name()) {
                let token = Duration::from_secs(360_000);
                assert!(
                    wait <= token && wait > token - Duration::from_secs(600),
                    "{name}: {wait:?}"
                );
            }
            assert_eq!(
                (
                    verdict.decisions[0].remaining,
                    verdict.decisions[0].next_after
                ),
                (0, wait),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn refills_by_the_stores_clock() {
    let (_redis, matrix) = matrix();
    let quota = Quota::new(1, 1, Duration::from_millis(20)).unwrap();
    for (algorithm, kind, stack) in matrix {
        let one = [charge(algorithm, kind.name(), quota, 1)];
        let mut admitted: Vec<u64> = Vec::new();
        while admitted.len() < 3 {
            let verdict = decide(&stack, &one).await;
            match verdict.decisions[0].retry_after() {
                None => admitted.push(verdict.now_us),
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
        // Of a fixed window only one in each is due; of the others one in any 20 ms.
        let apart = |a: u64, b: u64| match algorithm.name() {
            "fixedwindow" => (b / 20_000 - a / 20_000) * 20_000,
            _ => b - a,
        };
        let name = (algorithm.name(), kind.name());
        assert!(
            admitted
                .windows(2)
                .all(|pair| apart(pair[0], pair[1]) >= 20_000),
            "{name:?}: {admitted:?}"
        );
    }
}

#[tokio::test]
async fn a_denied_request_charges_nothing_anywhere() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = kind.name();
        let charges =
            ["a", "b", "c"].map(|key| charge(algorithm, &format!("{name}-{key}"), quota(10), 3));
        let [a, b, c] = &charges;
        for _ in 0..3 {
            decide(&stack, std::slice::from_ref(b)).await;
        }
        // 10,000 times on each strategy, over the algorithms.
        for _ in 0..10_000 / ALL.len() {
            let verdict = decide(&stack, &charges).await;
            assert!(!verdict.admitted, "{name}");
            let told: Vec<_> = verdict
                .decisions
                .iter()
                .map(|d| (d.is_allowed(), d.remaining))
                .collect();
            assert_eq!(told, [(true, 10), (false, 1), (true, 10)], "{name}");
        }
        for untouched in [a, c] {
            let verdict = decide(&stack, std::slice::from_ref(untouched)).await;
            assert_eq!(verdict.decisions[0].remaining, 7, "{name}");
        }
    }
}

#[tokio::test]
async fn several_limits_are_one_call_of_the_script() {
    let redis = RedisServer::start();
    let stack = stack(Kind::Lua, &redis.address());
    let charges: Vec<_> = ALL
        .iter()
        .map(|algorithm| charge(*algorithm, "one-call", quota(9), 1))
        .collect();
    decide(&stack, &charges).await;
    let mut monitor = TcpStream::connect(redis.address()).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    decide(&stack, &charges).await;
    redis.run::<String>(&["ECHO", "that was it"]);
    let seen: Vec<String> = lines
        .take_while(|line| !line.contains("that was it"))
        .collect();
    // The script's own commands are shown as `[0 lua]`, and the ECHO's connection makes itself known first.
    let ours: Vec<_> = seen
        .iter()
        .filter(|line| !line.contains(" lua] ") && !line.contains("CLIENT"))
        .collect();
    assert!(
        ours.len() == 1 && ours[0].contains("\"EVALSHA\""),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn an_observed_charge_never_denies_and_commits_only_if_it_fits() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = kind.name();
        let enforced = charge(algorithm, &format!("{name}-enforced"), quota(3), 1);
        let observed = charge(algorithm, &format!("{name}-observed"), quota(5), 2).observed();
        let mut told = Vec::new();
        for _ in 0..4 {
            let verdict = decide(&stack, &[enforced.clone(), observed.clone()]).await;
            let seen = verdict.decisions[1];
            told.push((verdict.admitted, seen.is_allowed(), seen.remaining));
        }
        let expected = [
            (true, true, 3),
            (true, true, 1),
            (true, false, 1),
            (false, false, 1),
        ];
        assert_eq!(told, expected, "{name}");
    }
}

#[tokio::test]
async fn refuses_what_cannot_be_decided() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = kind.name();
        let many: Vec<_> = (0..=MAX_CHARGES)
            .map(|i| charge(algorithm, &format!("{name}-{i}"), quota(1), 1))
            .collect();
        let other_limit = charge(algorithm, &format!("{name}-0"), quota(2), 1);
        let two_limits = [many[0].clone(), other_limit];
        let two_modes = [many[0].clone(), many[0].clone().observed()];
        for malformed in [&many[..], &[], &two_limits, &two_modes] {
            let fault = stack.strategy.decide(malformed).await.unwrap_err();
            assert!(
                matches!(fault, Fault::Malformed(_)) && !fault.is_ambiguous(),
                "{name}: {fault}"
            );
        }
        assert!(
            decide(&stack, &many[..MAX_CHARGES]).await.admitted,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exact_under_concurrency() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix
        .into_iter()
        .filter(|(_, kind, _)| *kind != Kind::Hash)
    {
        let name = kind.name();
        let other = self::stack(kind, &_redis.address());
        let one = Arc::new([charge(algorithm, &format!("{name}-crowd"), quota(50), 1)]);
        let stacks = if kind == Kind::Memory {
            [stack.clone(), stack]
        } else {
            [stack, other]
        };
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                let (strategy, one) = (stacks[i % 2].strategy.clone(), one.clone());
                tokio::spawn(async move { strategy.decide(&*one).await.unwrap().admitted })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            admitted += u32::from(task.await.unwrap());
        }
        assert_eq!(admitted, 50, "{name}");
    }
}

#[tokio::test]
async fn the_same_key_twice_is_charged_as_the_sum() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = (algorithm.name(), kind.name());
        let charges = [("a", 2), ("b", 1), ("a", 3)].map(|(key, cost)| {
            charge(algorithm, &format!("{}-{key}", kind.name()), quota(8), cost)
        });
        let told = |verdict: &Verdict| {
            verdict
                .decisions
                .iter()
                .map(|d| (d.is_allowed(), d.remaining))
                .collect::<Vec<_>>()
        };
        let first = decide(&stack, &charges).await;
        assert_eq!(
            (first.admitted, told(&first)),
            (true, vec![(true, 3), (true, 7), (true, 3)]),
            "{name:?}"
        );
        let second = decide(&stack, &charges).await;
        assert_eq!(
            (second.admitted, told(&second)),
            (false, vec![(false, 3), (true, 7), (false, 3)]),
            "{name:?}"
        );
        let too_much =
            [5, 5].map(|cost| charge(algorithm, &format!("{}-a", kind.name()), quota(8), cost));
        let never = CostAboveCapacity {
            cost: 10,
            capacity: 8,
        };
        assert_eq!(
            stack.strategy.decide(&too_much).await,
            Err(Fault::Inadmissible(never)),
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn a_peek_tells_what_would_happen_and_charges_nothing() {
    let (redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = (algorithm.name(), kind.name());
        let two = [charge(
            algorithm,
            &format!("{}-peek", kind.name()),
            quota(5),
            2,
        )];
        for (left, admitted) in [(5, true), (3, true), (1, false)] {
            for _ in 0..3 {
                let peeked = stack.strategy.peek(&two).await.unwrap();
                assert_eq!(
                    (peeked.admitted, peeked.decisions[0].remaining),
                    (admitted, left),
                    "{name:?}"
                );
            }
            assert_eq!(decide(&stack, &two).await.admitted, admitted, "{name:?}");
        }
        let unseen = [charge(
            algorithm,
            &format!("{}-unseen", kind.name()),
            quota(5),
            1,
        )];
        assert!(stack.strategy.peek(&unseen).await.unwrap().admitted);
        assert!(
            !redis.run::<bool>(&["EXISTS", unseen[0].key().as_str()]),
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_again() {
    let (redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = (algorithm.name(), kind.name());
        let key = |part: &str| format!("{}-back-{part}", kind.name());
        let charges = [
            charge(algorithm, &key("a"), quota(5), 4),
            charge(algorithm, &key("b"), quota(9), 2),
        ];
        let receipts = decide(&stack, &charges).await.into_receipts(&charges);
        assert_eq!(
            receipts
                .iter()
                .map(|receipt| receipt.tokens.get())
                .collect::<Vec<_>>(),
            [4, 2],
            "{name:?}"
        );
        let denied = decide(&stack, &charges).await;
        assert!(
            !denied.admitted && denied.into_receipts(&charges).is_empty(),
            "{name:?}"
        );
        stack.strategy.give_back(receipts).await.unwrap();
        let peeked = stack.strategy.peek(&charges).await.unwrap();
        let left: Vec<_> = peeked
            .decisions
            .iter()
            .map(|decision| decision.remaining)
            .collect();
        assert_eq!(left, [5, 9], "{name:?}");

        // Receipts of one key, of several requests and together.
        let mut receipts = Vec::new();
        for _ in 0..3 {
            let verdict = decide(&stack, &charges[1..]).await;
            receipts.extend(verdict.into_receipts(&charges[1..]));
        }
        stack.strategy.give_back(receipts).await.unwrap();
        let peeked = stack.strategy.peek(&charges).await.unwrap();
        // What a bucket gained between the first of them and the last is not given back: the least part of a token.
        let left = peeked.decisions[1].remaining;
        assert!((8..=9).contains(&left), "{name:?}: {left}");

        // Never above the capacity, and never a record where there is none.
        let receipts = decide(&stack, &charges[..1])
            .await
            .into_receipts(&charges[..1]);
        stack.strategy.reset(charges[0].key()).await.unwrap();
        stack.strategy.give_back(receipts).await.unwrap();
        assert_eq!(
            stack.strategy.peek(&charges).await.unwrap().decisions[0].remaining,
            5,
            "{name:?}"
        );
        if kind.needs_redis() {
            assert!(
                !redis.run::<bool>(&["EXISTS", charges[0].key().as_str()]),
                "{name:?}"
            );
        }
    }
    let (keys, expires) = redis.keys_and_expires();
    assert_eq!(keys, expires);
}

#[tokio::test]
async fn a_changed_quota_keeps_what_was_used() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = (algorithm.name(), kind.name());
        let of = |capacity| {
            [charge(
                algorithm,
                &format!("{}-change", kind.name()),
                quota(capacity),
                1,
            )]
        };
        for left in (6..10).rev() {
            assert_eq!(
                decide(&stack, &of(10)).await.decisions[0].remaining,
                left,
                "{name:?}"
            );
        }
        let left = async |capacity| {
            stack.strategy.peek(&of(capacity)).await.unwrap().decisions[0].remaining
        };
        assert_eq!(
            left(100).await,
            6,
            "{name:?}: a higher capacity adds nothing at once"
        );
        assert!(left(3).await <= 3, "{name:?}: a lower one clamps");
        assert_eq!(
            decide(&stack, &of(100)).await.decisions[0].remaining,
            5,
            "{name:?}"
        );
        assert_eq!(left(10).await, 5, "{name:?}: and back again");
    }
}

#[tokio::test]
async fn a_reset_key_is_fresh() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix {
        let name = (algorithm.name(), kind.name());
        let all = [charge(
            algorithm,
            &format!("{}-reset", kind.name()),
            quota(3),
            3,
        )];
        for _ in 0..3 {
            assert!(decide(&stack, &all).await.admitted, "{name:?}");
            assert!(!decide(&stack, &all).await.admitted, "{name:?}");
            stack.strategy.reset(all[0].key()).await.unwrap();
        }
        stack.strategy.reset(all[0].key()).await.unwrap();
    }
}

/// Requests that take the same keys in opposite orders neither wait for each other for ever nor take half.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_or_nothing_under_concurrency() {
    let (_redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix
        .into_iter()
        .filter(|(_, kind, _)| *kind != Kind::Hash)
    {
        let name = kind.name();
        let scarce = charge(algorithm, &format!("{name}-scarce"), quota(30), 1);
        let ample = charge(algorithm, &format!("{name}-ample"), quota(50), 1);
        let orders = Arc::new([[scarce.clone(), ample.clone()], [ample.clone(), scarce]]);
        let tasks: Vec<_> = (0..100)
            .map(|i| {
                let (strategy, orders) = (stack.strategy.clone(), orders.clone());
                tokio::spawn(async move { strategy.decide(&orders[i % 2]).await.unwrap().admitted })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            admitted += u32::from(task.await.unwrap());
        }
        assert_eq!(admitted, 30, "{name}");
        let verdict = decide(&stack, &[ample]).await;
        assert_eq!(
            verdict.decisions[0].remaining, 19,
            "{name}: what was denied took nothing of the other"
        );
    }
}

#[tokio::test]
async fn every_record_expires_when_it_is_as_good_as_fresh() {
    let (redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix.into_iter().filter(|(_, kind, _)| kind.needs_redis()) {
        let name = kind.name();
        let charges =
            ["a", "b"].map(|key| charge(algorithm, &format!("{name}-{key}"), quota(10), 4));
        let first = decide(&stack, &charges).await;
        let second = decide(&stack, &charges[..1]).await;
        for (charge, verdict, i) in [(&charges[0], &second, 0), (&charges[1], &first, 1)] {
            let expires_ms = redis.expires_at_ms(charge.key().as_str());
            let reset_us = u64::try_from(verdict.decisions[i].reset_after.as_micros()).unwrap();
            let fresh_ms = (verdict.now_us + reset_us).div_ceil(1_000);
            assert!(
                (fresh_ms..=fresh_ms + 1_002).contains(&expires_ms),
                "{name}: {expires_ms} {fresh_ms}"
            );
        }
    }
    let (keys, expires) = redis.keys_and_expires();
    assert!(keys > 0);
    assert_eq!(keys, expires);
}

#[tokio::test]
async fn a_bucket_can_be_read_by_a_person() {
    let (redis, matrix) = matrix();
    for (bucket, kind, stack) in matrix
        .into_iter()
        .filter(|(algorithm, kind, _)| algorithm.name() == "tokenbucket" && kind.needs_redis())
    {
        let verdict = decide(&stack, &[charge(bucket, kind.name(), quota(10), 3)]).await;
        let record: std::collections::HashMap<String, u64> =
            redis.run(&["HGETALL", &format!("t:{}", kind.name())]);
        assert_eq!(
            (record["tokens"], record["last_refill"]),
            (7, verdict.now_us),
            "{}",
            kind.name()
        );
    }
}

#[tokio::test]
async fn takes_over_the_records_of_the_replaced_services() {
    let (redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix.into_iter().filter(|(_, kind, _)| kind.needs_redis()) {
        let (name, one) = (kind.name(), [charge(algorithm, kind.name(), quota(10), 1)]);
        let key = one[0].key().as_str();
        for fields in [
            &["tokens", "3", "last_refill", "1699123456"][..],
            &["tokens", "2.5", "last_refill", "1699123456.75"],
            &[
                "tokens",
                "-1",
                "last_refill",
                "1699123456000000",
                "fraction",
                "0",
                "fraction_of",
                "1",
            ],
        ] {
            redis.run::<()>(&["DEL", key]);
            redis.run::<i64>(&[&["HSET", key, "mine", "kept"], fields].concat());
            let verdict = decide(&stack, &one).await;
            assert_eq!(
                verdict.decisions[0].remaining, 9,
                "{name} counts {fields:?} as a fresh bucket"
            );
            let verdict = decide(&stack, &one).await;
            assert_eq!(verdict.decisions[0].remaining, 8, "{name} replaced it");
            assert!(
                redis.run::<i64>(&["PTTL", key]) > 0,
                "{name} gave it an expiry"
            );
            assert_eq!(
                redis.run::<String>(&["HGET", key, "mine"]),
                "kept",
                "{name} keeps what is not ours"
            );
        }
    }
}

#[tokio::test]
async fn a_bad_record_is_a_fault_of_that_request_alone() {
    let (redis, matrix) = matrix();
    for (algorithm, kind, stack) in matrix.into_iter().filter(|(_, kind, _)| kind.needs_redis()) {
        let name = kind.name();
        let good = charge(algorithm, &format!("{name}-good"), quota(10), 1);
        let bad = charge(algorithm, &format!("{name}-bad"), quota(10), 1);
        redis.run::<()>(&["SET", bad.key().as_str(), "a string"]);
        let both = [good.clone(), bad];
        for _ in 0..3 {
            let fault = stack.strategy.decide(&both).await.unwrap_err();
            assert_eq!(
                (fault.kind(), fault.scope()),
                ("WRONGTYPE", Scope::Request),
                "{name}"
            );
            assert!(!fault.is_ambiguous(), "{name}");
        }
        let verdict = decide(&stack, &[good]).await;
        assert_eq!(
            verdict.decisions[0].remaining, 9,
            "{name} charged nothing before"
        );
    }
}
