//! An instance and its Redis, killed and started again: what is limited meanwhile, and what Redis hears of it.

use std::time::Duration;

use tollgate::Source;
use tollgate::algorithm::{ALL, named};
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};

use crate::bench::strategies::plan;
use crate::bench::{RedisServer, charge, quota};

fn stack(kind: Kind, redis: &RedisServer, instance: &str, seed: u64) -> Stack {
    let care = Care {
        instance: instance.to_owned(),
        key_prefix: "t:".to_owned(),
        local: true,
        instances: 1,
    };
    build(&Plan {
        care: Some(care),
        seed,
        ..plan(kind, &redis.address())
    })
    .unwrap()
}

/// Waits until it is so; the test hangs if it never is.
async fn until(mut is: impl AsyncFnMut() -> bool) {
    while !is().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_three_tokens_left_has_no_more_when_redis_is_killed() {
    for algorithm in ALL {
        for kind in [Kind::Lua, Kind::Transaction] {
            let mut redis = RedisServer::start();
            let stack = stack(kind, &redis, "a", 1);
            let seven = [charge(*algorithm, "a", quota(10), 7)];
            assert!(stack.strategy.decide(&seven).await.unwrap().admitted);
            redis.stop();
            let one = [charge(*algorithm, "a", quota(10), 1)];
            let mut admitted = 0;
            for _ in 0..20 {
                let verdict = stack.strategy.decide(&one).await.unwrap();
                assert_eq!(verdict.decisions[0].source, Source::Local);
                admitted += u32::from(verdict.admitted);
            }
            assert_eq!(admitted, 3, "{}-{}", algorithm.name(), kind.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_without_redis_is_charged_to_it() {
    for algorithm in ALL {
        let mut redis = RedisServer::absent();
        let stack = stack(Kind::Lua, &redis, "a", 1);
        let four = [charge(*algorithm, "a", quota(10), 4)];
        assert!(stack.strategy.decide(&four).await.unwrap().admitted);
        redis.restart();
        let is_charged = async || {
            let decision = stack.strategy.peek(&four).await.unwrap().decisions[0];
            (decision.source, decision.remaining) == (Source::Store, 6)
        };
        until(is_charged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_count_each_other_and_the_share_follows() {
    let mut redis = RedisServer::start();
    let token_bucket = named("tokenbucket").unwrap();
    let stacks: Vec<_> = (1..=3)
        .map(|seed| stack(Kind::Lua, &redis, "same-name", seed))
        .collect();
    for stack in &stacks {
        let members = stack.members.as_ref().unwrap();
        until(async || members.count() == 3).await;
    }
    let live = || redis.run::<u64>(&["ZCARD", "t:!instances"]);
    assert_eq!(live(), 3);
    assert!(
        redis.run::<i64>(&["PTTL", "t:!instances"]) > 0,
        "it expires"
    );
    stacks[2].leave(Duration::from_secs(30)).await;
    assert_eq!(live(), 2, "who leaves is not waited for");

    redis.stop();
    // The last number heard holds through the outage; the smaller one was not heard for long enough to count.
    let one = [charge(token_bucket, "new", quota(9), 1)];
    let mut admitted = 0;
    for _ in 0..9 {
        admitted += u32::from(stacks[0].strategy.decide(&one).await.unwrap().admitted);
    }
    assert_eq!(admitted, 3, "a third of 9");
}
