//! What goes wrong with a call, or on the way to one, and whose fault that is.

use std::time::Duration;

use tokio::task::JoinHandle;
use tollgate::strategy::{Fault, Scope};

use super::MOST_WAITING;
use super::{all, ask, calls, lua, lua_within, occupied, one, settle, warm};
use crate::bench::{Proxy, RedisServer};

#[tokio::test]
async fn a_bad_record_is_the_fault_of_those_who_ask_for_it() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let bad = one("bad", 9);
    redis.run::<()>(&["SET", bad.key().as_str(), "a string"]);
    let charges = |i: usize| match i % 4 {
        0 => vec![one("good", 9)],
        1 => vec![bad.clone()],
        2 => vec![one("good", 9), bad.clone()],
        _ => vec![one("good", 9), one("other", 9)],
    };
    let asked = (0..8).map(|i| ask(&lua, charges(i))).collect();
    for (i, answer) in all(asked).await.into_iter().enumerate() {
        match i % 4 {
            0 | 3 => assert!(answer.unwrap().admitted),
            _ => {
                let fault = answer.unwrap_err();
                assert_eq!(
                    (fault.kind(), fault.scope(), fault.is_ambiguous()),
                    ("WRONGTYPE", Scope::Request, false)
                );
            }
        }
    }
    assert_eq!(calls(&redis, "evalsha"), 2);
    let left = lua.peek(&[one("good", 9), one("other", 9)]).await.unwrap();
    assert_eq!(left.decisions[0].remaining, 9 - 4);
    assert_eq!(left.decisions[1].remaining, 9 - 2);
}

/// Two keys of each request cannot be written at all, one is written before its expiry is refused.
#[tokio::test]
async fn what_was_partly_done_is_ambiguous_for_those_it_was_done_for() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    let requests = || {
        let same = vec![one("a", 3), one("b", 3)];
        let asked = (0..5).map(|i| {
            ask(
                &lua,
                if i < 4 {
                    same.clone()
                } else {
                    vec![one("c", 3)]
                },
            )
        });
        all(asked.collect())
    };
    redis.run::<()>(&["ACL", "SETUSER", "default", "-hset"]);
    for answer in requests().await {
        let fault = answer.unwrap_err();
        assert_eq!((fault.kind(), fault.is_ambiguous()), ("NOPERM", false));
    }
    redis.run::<()>(&["ACL", "SETUSER", "default", "+hset", "-pexpireat"]);
    for (i, answer) in requests().await.into_iter().enumerate() {
        if i == 3 {
            assert!(!answer.unwrap().admitted, "by what was written");
            continue;
        }
        let fault = answer.unwrap_err();
        assert_eq!(
            (fault.kind(), fault.is_ambiguous()),
            ("PARTLY", true),
            "{i}"
        );
    }
}

#[tokio::test]
async fn a_lost_answer_is_ambiguous_for_all_who_travelled_and_charges_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let lua = warm(&redis, proxy.address()).await;
    let caller = "cmd=evalsha";
    proxy.hold_replies();
    let asked: Vec<_> = (0..20).map(|_| ask(&lua, vec![one("a", 99)])).collect();
    proxy.until_held(1).await;
    proxy.cut(true);
    // From then on the server can be reached again, by who would send something again.
    while redis.run::<String>(&["CLIENT", "LIST"]).contains(caller) {
        tokio::task::yield_now().await;
    }
    proxy.release_replies();
    for answer in all(asked).await {
        let fault = answer.unwrap_err();
        assert_eq!((fault.kind(), fault.is_ambiguous()), ("lost", true));
    }
    let left = loop {
        if let Ok(left) = lua.peek(&[one("a", 99)]).await {
            break left;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(left.decisions[0].remaining, 79);
}

#[tokio::test]
async fn a_script_that_is_unknown_is_sent_once_for_all_who_travel() {
    let redis = RedisServer::start();
    let lua = warm(&redis, &redis.address()).await;
    redis.run::<()>(&["SCRIPT", "FLUSH"]);
    let evals = calls(&redis, "eval");
    let asked = (0..20).map(|_| ask(&lua, vec![one("a", 99)])).collect();
    let answers = all(asked).await;
    let lefts = answers
        .iter()
        .map(|answer| answer.as_ref().unwrap().decisions[0].remaining);
    assert!(lefts.eq((79..99).rev()), "{answers:?}");
    assert_eq!(calls(&redis, "eval"), evals + 1);
}

#[tokio::test]
async fn who_goes_away_before_a_call_leaves_is_not_charged() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let lua = warm(&redis, proxy.address()).await;
    let held = occupied(&lua, &proxy).await;
    let waiting: Vec<_> = (0..10).map(|_| ask(&lua, vec![one("a", 99)])).collect();
    settle().await;
    waiting.iter().step_by(2).for_each(JoinHandle::abort);
    settle().await;
    proxy.release_replies();
    all(held).await.into_iter().for_each(|answer| {
        answer.unwrap();
    });
    for asked in waiting.into_iter().skip(1).step_by(2) {
        assert!(asked.await.unwrap().unwrap().admitted);
    }
    let left = lua.peek(&[one("a", 99)]).await.unwrap().decisions[0].remaining;
    assert_eq!(left, 94);
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_it_was_not_sent() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let within = Duration::from_millis(400);
    let lua = lua_within(proxy.address(), within);
    while lua.decide(&[one("warm-up", 99)]).await.is_err() {}
    let held = occupied(&lua, &proxy).await;
    let waiting: Vec<_> = (0..10).map(|_| ask(&lua, vec![one("a", 99)])).collect();
    for answer in all(waiting).await {
        let fault = answer.unwrap_err();
        assert_eq!(fault, Fault::NotSent(within * 9 / 10));
        assert_eq!((fault.scope(), fault.is_ambiguous()), (Scope::Store, false));
    }
    for answer in all(held).await {
        assert_eq!(answer.unwrap_err(), Fault::Timeout(within));
    }
    let direct = self::lua(&redis.address());
    let left = direct
        .peek(&[one("a", 99), one("held-1", 9)])
        .await
        .unwrap();
    assert_eq!(left.decisions[0].remaining, 99, "it was not sent");
    assert_eq!(left.decisions[1].remaining, 8, "it was");
}

#[tokio::test]
async fn a_full_queue_turns_away_and_says_so() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let lua = warm(&redis, proxy.address()).await;
    let held = occupied(&lua, &proxy).await;
    let waiting: Vec<_> = (0..MOST_WAITING)
        .map(|_| ask(&lua, vec![one("a", 4_200)]))
        .collect();
    settle().await;
    let fault = lua.decide(&[one("a", 4_200)]).await.unwrap_err();
    assert_eq!(fault, Fault::QueueFull);
    assert_eq!(
        (fault.scope(), fault.is_ambiguous()),
        (Scope::Request, false)
    );
    // Those who went away make room.
    waiting[..10].iter().for_each(JoinHandle::abort);
    settle().await;
    let late = ask(&lua, vec![one("a", 4_200)]);
    settle().await;
    proxy.release_replies();
    all(held).await.into_iter().for_each(|answer| {
        answer.unwrap();
    });
    for asked in waiting.into_iter().skip(10).chain([late]) {
        assert!(asked.await.unwrap().unwrap().admitted);
    }
    let left = lua.peek(&[one("a", 4_200)]).await.unwrap().decisions[0].remaining;
    assert_eq!(left, 4_200 - 4_096 + 9);
}
