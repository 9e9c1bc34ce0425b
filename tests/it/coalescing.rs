//! Requests that are under way at the same time share calls of the script, and nobody notices.
//!
//! The runtime of these tests has one thread: requests that are started together are all asked before the first call
//! leaves, so it is known who travels with whom.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::algorithm::named;
use tollgate::strategy::factory::Kind;
use tollgate::strategy::redis::{Link, Lua, Settings};
use tollgate::strategy::{Fault, MAX_CHARGES, Strategy};
use tollgate::{Charge, Verdict};

use crate::bench::{Proxy, RedisServer, bare, charge, quota};

mod troubles;

const LONG: Duration = Duration::from_secs(60);
/// As many as one call carries.
const MOST: usize = 128;
const MOST_WAITING: usize = 4096;
/// As many as a second call leaves for.
const WORTH_A_CALL: usize = 32;
/// A call that has been away for so long is slow.
const SLOW: Duration = Duration::from_millis(1);

fn one(name: &str, capacity: u64) -> Charge {
    let token_bucket = named("tokenbucket").unwrap();
    charge(token_bucket, name, quota(capacity), 1)
}

fn lua(address: &str) -> Arc<dyn Strategy> {
    let settings = Settings::new(format!("redis://{address}")).unwrap();
    bare(Kind::Lua, &settings, 1)
}

fn lua_within(address: &str, within: Duration) -> Arc<dyn Strategy> {
    let settings = Settings::new(format!("redis://{address}")).unwrap();
    Arc::new(Lua::new(Link::open(&settings, 1, within, 42).unwrap()))
}

type Deciding = JoinHandle<Result<Verdict, Fault>>;

fn ask(strategy: &Arc<dyn Strategy>, charges: Vec<Charge>) -> Deciding {
    let strategy = strategy.clone();
    tokio::spawn(async move { strategy.decide(&charges).await })
}

async fn all(asked: Vec<Deciding>) -> Vec<Result<Verdict, Fault>> {
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap());
    }
    answers
}

/// How often a command was called until now.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let stats: String = redis.run(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| {
        line.strip_prefix("cmdstat_")?
            .strip_prefix(command)?
            .strip_prefix(":calls=")
    });
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// A strategy that has its connection and its script.
async fn warm(redis: &RedisServer, address: &str) -> Arc<dyn Strategy> {
    let lua = lua(address);
    assert!(lua.decide(&[one("warm-up", 1)]).await.unwrap().admitted);
    assert_eq!(calls(redis, "evalsha"), 1);
    lua
}

/// Requests in two calls whose answers are held, so that who comes now must wait.
async fn occupied(lua: &Arc<dyn Strategy>, proxy: &Proxy) -> Vec<Deciding> {
    proxy.hold_replies();
    let first = ask(lua, vec![one("held-1", 9)]);
    proxy.until_asked("held-1").await;
    let seconds = (0..WORTH_A_CALL).map(|_| ask(lua, vec![one("held-2", 99)]));
    let held = std::iter::once(first).chain(seconds).collect();
    proxy.until_asked("held-2").await;
    held
}

/// Lets everybody who was just started come as far as they can without an answer.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_under_way_share_a_call_in_the_order_in_which_they_came() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let asked = (0..60)
        .map(|i| ask(&lua, vec![one(["a", "b", "c"][i % 3], 15)]))
        .collect();
    for (i, answer) in all(asked).await.into_iter().enumerate() {
        let verdict = answer.unwrap();
        let before = i as u64 / 3;
        assert_eq!(verdict.admitted, before < 15, "{i}");
        assert_eq!(
            verdict.decisions[0].remaining,
            14_u64.saturating_sub(before)
        );
    }
    assert_eq!(calls(&redis, "evalsha"), 2);
    // Each record was read and written once.
    assert_eq!((calls(&redis, "hmget"), calls(&redis, "hset")), (4, 4));
}

#[tokio::test]
async fn what_requests_of_several_limits_have_in_common_is_read_and_written_once() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let before = ["hmget", "hset"].map(|command| calls(&redis, command));
    // Two groups, of 20 requests each.
    let asked = (0..40).map(|i| {
        let (all, capacity) = [("even", 15), ("odd", 16)][i % 2];
        ask(&lua, vec![one(all, capacity), one(&format!("own-{i}"), 9)])
    });
    for (i, answer) in all(asked.collect()).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().admitted, i / 2 < 15 + i % 2, "{i}");
    }
    let after = ["hmget", "hset"].map(|command| calls(&redis, command));
    // Of those that are denied the own one is read, and not written.
    assert_eq!(
        (after[0] - before[0], after[1] - before[1]),
        (2 + 40, 2 + 31)
    );

    let peeks = (0..20).map(|_| {
        let lua = lua.clone();
        tokio::spawn(async move { lua.peek(&[one("even", 15)]).await })
    });
    for answer in all(peeks.collect()).await {
        assert!(!answer.unwrap().admitted);
    }
    assert_eq!(calls(&redis, "hmget"), after[0] + 1);
}

#[tokio::test]
async fn a_request_alone_leaves_alone() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    for i in 1..=20 {
        assert!(lua.decide(&[one("a", 99)]).await.unwrap().admitted);
        assert_eq!(calls(&redis, "evalsha"), 1 + i);
    }
}

#[tokio::test]
async fn who_comes_beside_a_slow_call_leaves_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let lua = warm(&redis, proxy.address()).await;
    proxy.hold_replies();
    let slow = ask(&lua, vec![one("slow", 9)]);
    proxy.until_asked("slow").await;
    let since = Instant::now();
    while since.elapsed() < SLOW {
        tokio::task::yield_now().await;
    }
    let late = ask(&lua, vec![one("late", 9)]);
    tokio::time::timeout(LONG, proxy.until_asked("late"))
        .await
        .expect("it waits for the slow call");
    proxy.release_replies();
    for answer in all(vec![slow, late]).await {
        assert!(answer.unwrap().admitted);
    }
}

#[tokio::test]
async fn a_call_carries_so_many_requests_and_keys_at_most() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let asked = (0..2 * MOST + 1).map(|i| ask(&lua, vec![one(&format!("key-{i}"), 9)]));
    for answer in all(asked.collect()).await {
        assert_eq!(answer.unwrap().decisions[0].remaining, 8);
    }
    assert_eq!(calls(&redis, "evalsha"), 1 + 3);

    let charges = |i| {
        let names = (0..MAX_CHARGES).map(move |j| one(&format!("many-{i}-{j}"), 9));
        names.collect::<Vec<_>>()
    };
    let asked = (0..512 / MAX_CHARGES + 1).map(|i| ask(&lua, charges(i)));
    for answer in all(asked.collect()).await {
        assert!(answer.unwrap().decisions.iter().all(|d| d.remaining == 8));
    }
    assert_eq!(calls(&redis, "evalsha"), 1 + 3 + 2);
}

#[tokio::test]
async fn more_receipts_than_a_call_has_keys_are_given_back_in_two_calls() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let charges: Vec<_> = (0..600).map(|i| one(&format!("key-{i}"), 9)).collect();
    let mut receipts = Vec::new();
    for some in charges.chunks(MAX_CHARGES) {
        receipts.extend(lua.decide(some).await.unwrap().into_receipts(some));
    }
    let before = calls(&redis, "evalsha");
    lua.give_back(receipts).await.unwrap();
    assert_eq!(calls(&redis, "evalsha"), before + 2);
    for some in charges.chunks(MAX_CHARGES) {
        let peeked = lua.peek(some).await.unwrap();
        assert!(peeked.decisions.iter().all(|told| told.remaining == 9));
    }
}

/// That some could not be given back keeps no others from it.
#[tokio::test]
async fn a_call_of_receipts_that_fails_is_told_and_the_next_one_leaves() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let charges: Vec<_> = (0..600).map(|i| one(&format!("key-{i}"), 9)).collect();
    let mut receipts = Vec::new();
    for some in charges.chunks(MAX_CHARGES) {
        receipts.extend(lua.decide(some).await.unwrap().into_receipts(some));
    }
    redis.run::<()>(&["SET", charges[0].key().as_str(), "a string"]);
    lua.give_back(receipts).await.unwrap_err();
    let left = async |i: usize| lua.peek(&charges[i..=i]).await.unwrap().decisions[0].remaining;
    assert_eq!((left(1).await, left(511).await), (8, 8));
    assert_eq!((left(512).await, left(599).await), (9, 9));
}

#[tokio::test]
async fn who_travels_together_is_admitted_or_denied_alone() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let (scarce, ample) = (one("scarce", 3), one("ample", 99));
    let both = |i: usize| match i % 2 {
        0 => vec![scarce.clone(), ample.clone()],
        _ => vec![ample.clone(), scarce.clone()],
    };
    let asked = (0..20).map(|i| ask(&lua, both(i))).collect();
    let admitted = all(asked)
        .await
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().admitted);
    assert_eq!(admitted.count(), 3);
    assert_eq!(calls(&redis, "evalsha"), 2);
    let left = lua.peek(&[ample]).await.unwrap().decisions[0].remaining;
    assert_eq!(left, 96, "what was denied took nothing");
}

/// Many who ask and go away at any moment, on several threads: whoever stays is answered, and only who was sent is charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_who_stays_is_forgotten() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let (tasks, each, capacity) = (32, 100, 4_000);
    let crowd = (0..tasks).map(|task| {
        let lua = lua.clone();
        let mut rng = fastrand::Rng::with_seed(task);
        tokio::spawn(async move {
            let (mut admitted, mut left) = (0, 0);
            for _ in 0..each {
                let patience = rng.u32(..8);
                let charges = [one("a", capacity)];
                let goes = async {
                    for _ in 0..patience {
                        tokio::task::yield_now().await;
                    }
                    if patience > 5 {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    biased;
                    answer = lua.decide(&charges) => admitted += u64::from(answer.unwrap().admitted),
                    () = goes => left += 1,
                }
            }
            (admitted, left)
        })
    });
    let (mut admitted, mut left) = (0, 0);
    for task in crowd.collect::<Vec<_>>() {
        let done = tokio::time::timeout(LONG, task).await;
        let (stayed, went) = done.expect("somebody waits in vain").unwrap();
        (admitted, left) = (admitted + stayed, left + went);
    }
    let rest = lua.peek(&[one("a", capacity)]).await.unwrap().decisions[0].remaining;
    let charged = capacity - rest;
    assert_eq!(admitted + left, tasks * each);
    assert!(
        (admitted..=admitted + left).contains(&charged),
        "{charged} charged, {admitted} admitted, {left} left"
    );
    assert!(
        left > 100 && admitted > 100,
        "both were met: {left}, {admitted}"
    );
}

/// With a few who ask again and again, the queue is empty at every other moment: nobody comes to wake who was overlooked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_overlooked_when_a_call_ends() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let few = (0..3).map(|task| {
        let lua = lua.clone();
        tokio::spawn(async move {
            for _ in 0..2_000 {
                lua.decide(&[one(&format!("key-{task}"), 4_000)])
                    .await
                    .unwrap();
            }
        })
    });
    for task in few.collect::<Vec<_>>() {
        let done = tokio::time::timeout(LONG, task).await;
        done.expect("somebody waits in vain").unwrap();
    }
}
