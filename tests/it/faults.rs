//! Redis loses scripts, connections, records and itself; the law holds and decisions come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate::algorithm::named;
use tollgate::strategy::factory::{Kind, Stack};
use tollgate::strategy::redis::{Link, Settings, Transaction, pool};
use tollgate::strategy::{Deadline, Fault, Scope, Strategy};
use tollgate::{Charge, Verdict};

use crate::bench::{Proxy, RedisServer, charge, quota, stack};

const EXACT: [Kind; 2] = [Kind::Lua, Kind::Transaction];
const CAPACITY: u64 = 40;

fn one(name: &str) -> [Charge; 1] {
    [charge(
        named("tokenbucket").unwrap(),
        name,
        quota(CAPACITY),
        1,
    )]
}

/// Asks until there is a decision; only faults of the store may come between.
async fn until_decided(stack: &Stack, charges: &[Charge]) -> Verdict {
    loop {
        match stack.strategy.decide(charges).await {
            Ok(verdict) => return verdict,
            Err(fault) => {
                assert_eq!(fault.scope(), Scope::Store, "{fault}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Eight callers ask for tokens of one key while `trouble` strikes three times. Returns how many were admitted.
async fn admitted_under(
    kind: Kind,
    redis: &mut RedisServer,
    trouble: impl Fn(&mut RedisServer),
) -> u64 {
    let (stack, over) = (
        stack(kind, &redis.address()),
        Arc::new(AtomicBool::new(false)),
    );
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (stack, over) = (stack.clone(), over.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                while !over.load(Ordering::SeqCst) {
                    admitted += u64::from(until_decided(&stack, &one("hot")).await.admitted);
                }
                admitted
            })
        })
        .collect();
    for _ in 0..3 {
        until_decided(&stack, &one("hot")).await;
        tokio::task::block_in_place(|| trouble(redis));
        until_decided(&stack, &one("hot")).await;
    }
    let asked_here = 6;
    over.store(true, Ordering::SeqCst);
    let mut admitted = 0;
    for caller in callers {
        admitted += caller.await.unwrap();
    }
    assert!(until_decided(&stack, &one("after")).await.admitted);
    admitted + asked_here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn survives_script_flush_and_killed_connections() {
    for kind in EXACT {
        let mut redis = RedisServer::start();
        let admitted = admitted_under(kind, &mut redis, |redis| {
            redis.run::<()>(&["SCRIPT", "FLUSH"]);
            redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        })
        .await;
        assert!(admitted <= CAPACITY + 6, "{}: {admitted}", kind.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loss_of_records_adds_at_most_one_capacity() {
    for kind in EXACT {
        let mut redis = RedisServer::start();
        let admitted =
            admitted_under(kind, &mut redis, |redis| redis.run::<()>(&["FLUSHALL"])).await;
        assert!(admitted <= 4 * CAPACITY + 6, "{}: {admitted}", kind.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_adds_at_most_one_capacity_and_decisions_come_back() {
    for kind in EXACT {
        let mut redis = RedisServer::start();
        let admitted = admitted_under(kind, &mut redis, RedisServer::restart).await;
        assert!(admitted <= 4 * CAPACITY + 6, "{}: {admitted}", kind.name());
    }
}

#[tokio::test]
async fn waiting_is_bounded_and_ambiguous() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    for kind in EXACT.into_iter().chain([Kind::Hash]) {
        let stack = stack(kind, proxy.address());
        assert!(until_decided(&stack, &one(kind.name())).await.admitted);
        let within = Duration::from_millis(50);
        let impatient = Deadline::new(stack.strategy.clone(), within, 42);
        proxy.hold_replies();
        let fault = impatient.decide(&one(kind.name())).await.unwrap_err();
        assert_eq!(fault, Fault::Timeout(within));
        assert!(fault.is_ambiguous());
        proxy.release_replies();
        assert!(until_decided(&stack, &one(kind.name())).await.admitted);
    }
}

/// A caller that goes away between WATCH and EXEC leaves no watch behind and no connection lost.
#[tokio::test]
async fn a_dropped_transaction_poisons_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let stack = stack(Kind::Transaction, proxy.address());
    assert!(until_decided(&stack, &one("a")).await.admitted);
    let last = one("a");
    for round in 0..25 {
        proxy.hold_replies();
        tokio::select! {
            _ = stack.strategy.decide(&last) => panic!("its reply is held"),
            () = proxy.until_held(round + 1) => {}
        }
        proxy.release_replies();
    }
    assert_eq!(
        until_decided(&stack, &one("a")).await.decisions[0].remaining,
        CAPACITY - 2
    );
}

/// Whoever gets a connection from the pool inherits no watch, because one that was left in the middle is closed.
#[tokio::test]
async fn a_connection_left_in_the_middle_of_a_transaction_is_closed() {
    let redis = RedisServer::start();
    let stack = stack(Kind::Transaction, &redis.address());
    assert!(until_decided(&stack, &one("a")).await.admitted);
    // Writes wait, so the transaction stands at its EXEC.
    redis.run::<()>(&["CLIENT", "PAUSE", "100000", "WRITE"]);
    let stuck = one("a");
    let id = tokio::select! {
        _ = stack.strategy.decide(&stuck) => panic!("writes wait"),
        id = client_that(&redis, is_in_multi) => id,
    };
    redis.run::<()>(&["CLIENT", "UNPAUSE"]);
    assert!(until_decided(&stack, &one("b")).await.admitted);
    let is_open = || {
        redis
            .run::<String>(&["CLIENT", "LIST"])
            .lines()
            .any(|line| line.split(' ').next() == Some(&id))
    };
    for _ in 0..500 {
        if !is_open() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} is still open");
}

/// The id of the first client whose line in CLIENT LIST is like that, once there is one.
async fn client_that(redis: &RedisServer, is: impl Fn(&str) -> bool) -> String {
    loop {
        let list: String = redis.run(&["CLIENT", "LIST"]);
        if let Some(line) = list.lines().find(|line| is(line)) {
            return line.split(' ').next().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Not by its count of queued commands, which some servers keep at 0 after a transaction.
fn is_in_multi(line: &str) -> bool {
    let flags = line.split(' ').find_map(|word| word.strip_prefix("flags="));
    flags.is_some_and(|flags| flags.contains('x'))
}

/// The pool does not ask its connections whether they are still there: the first command of a transaction finds out.
#[tokio::test]
async fn connections_that_broke_while_they_lay_idle_cost_no_decision() {
    let redis = RedisServer::start();
    let stack = stack(Kind::Transaction, &redis.address());
    let clients = ["a", "b", "c", "d"].map(one);
    for left in [CAPACITY - 1, CAPACITY - 2] {
        // All at once, so that each has a connection of its own.
        let [a, b, c, d] = clients.each_ref().map(|one| stack.strategy.decide(one));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        for verdict in [a, b, c, d].map(Result::unwrap) {
            assert_eq!(verdict.decisions[0].remaining, left);
        }
        let killed: u64 = redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(killed >= 4, "{killed}");
    }
    for one in &clients {
        let verdict = stack.strategy.decide(one).await.unwrap();
        assert_eq!(verdict.decisions[0].remaining, CAPACITY - 3);
    }
}

/// Turns end in a fault that says so and speaks of the key alone, never in a denial.
#[tokio::test]
async fn waiting_for_a_turn_ends_as_contended() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let settings = Settings::new(format!("redis://{}", proxy.address())).unwrap();
    let pool = pool(&settings, 4, Duration::from_secs(30)).unwrap();
    let link = Link::open(&settings, 1, Duration::from_secs(30), 42).unwrap();
    let transaction = Transaction::new(pool, link, Duration::from_millis(100), 42);
    let hot = one("hot");
    proxy.hold_replies();
    let holder = transaction.decide(&hot);
    let waiter = async {
        proxy.until_held(1).await;
        let fault = transaction.decide(&hot).await.unwrap_err();
        assert_eq!(
            (&fault, fault.scope()),
            (&Fault::Contended { attempts: 0 }, Scope::Request)
        );
        proxy.release_replies();
    };
    let (held, ()) = tokio::join!(holder, waiter);
    assert!(held.unwrap().admitted);
}
