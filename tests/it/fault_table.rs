//! The table of faults, row by row: what a server says, what it is taken for, and that what was surely not executed
//! charged nothing.
//!
//! The strategies stand alone here, without a deadline that would try again. Real servers say everything but two
//! answers that no server gives: a code that nobody knows, and nonsense.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tollgate::algorithm::named;
use tollgate::strategy::factory::Kind;
use tollgate::strategy::redis::{Link, Settings, Transaction, pool};
use tollgate::strategy::{Deadline, Fault, Remedy, Scope, Strategy};
use tollgate::{Charge, Verdict};

use crate::bench::{
    Folder, Proxy, Puppet, RedisServer, bare, charge, has_options_of_redis_7, quota,
};

mod cluster;
mod connections;

use Remedy::{GiveUp, Replace, TryAgain};
use Scope::{Request, Store};

const KINDS: [Kind; 3] = [Kind::Lua, Kind::Transaction, Kind::Hash];
const CAPACITY: u64 = 40;
const POOL: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// What a row of the table says.
type Row = (&'static str, bool, Remedy, Scope);

fn refused(code: &'static str, remedy: Remedy, scope: Scope) -> Row {
    (code, false, remedy, scope)
}

#[track_caller]
fn assert_row(fault: &Fault, (kind, is_ambiguous, remedy, scope): Row, strategy: Kind) {
    assert_eq!(
        (
            fault.kind(),
            fault.is_ambiguous(),
            fault.remedy(),
            fault.scope()
        ),
        (kind, is_ambiguous, remedy, scope),
        "{}: {fault}",
        strategy.name()
    );
    assert!(!fault.advice().is_empty());
}

fn one(name: &str) -> Charge {
    charge(named("tokenbucket").unwrap(), name, quota(CAPACITY), 1)
}

fn settings(address: &str) -> Settings {
    Settings::new(format!("redis://{address}")).unwrap()
}

/// Asks until there is a decision.
async fn until_decided(strategy: &dyn Strategy, charges: &[Charge]) -> Verdict {
    loop {
        match strategy.decide(charges).await {
            Ok(verdict) => return verdict,
            Err(fault) => assert!(!fault.is_of_the_request(), "{fault}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn left(verdict: &Verdict) -> Vec<u64> {
    assert!(verdict.admitted);
    let decisions = verdict.decisions.iter();
    decisions.map(|decision| decision.remaining).collect()
}

/// Every strategy meets `trouble`, takes it for what `row` says, was not charged, and decides again after the `cure`.
async fn meets<T>(
    row: Row,
    options: &[&str],
    trouble: impl Fn(&RedisServer) -> T,
    cure: impl Fn(&RedisServer, T),
) {
    for kind in KINDS {
        let folder = Folder::new();
        let options = [&["--dir", folder.path()], options].concat();
        let redis = RedisServer::start_with(&options);
        let (strategy, charges) = (bare(kind, &settings(&redis.address()), POOL), [one("a")]);
        assert_eq!(
            left(&until_decided(&*strategy, &charges).await),
            [CAPACITY - 1]
        );
        let troubled = trouble(&redis);
        for _ in 0..2 {
            let fault = strategy.decide(&charges).await.unwrap_err();
            assert_row(&fault, row, kind);
        }
        cure(&redis, troubled);
        let after = left(&until_decided(&*strategy, &charges).await);
        assert_eq!(
            after,
            [CAPACITY - 2],
            "{}: nothing was charged",
            kind.name()
        );
    }
}

/// Runs a command that blocks the server, and waits until others are refused with `code`.
fn blocked(redis: &RedisServer, words: &'static [&str], code: &str) -> JoinHandle<()> {
    let mut connection = redis.connection();
    let blocking = thread::spawn(move || {
        let _ = redis::cmd(words[0])
            .arg(&words[1..])
            .query::<redis::Value>(&mut connection);
    });
    let is_blocked = || {
        redis
            .ask::<String>(&["GET", "nothing"])
            .is_err_and(|error| error.code() == Some(code))
    };
    while !is_blocked() {
        assert!(
            !blocking.is_finished(),
            "it was over before {code} was seen"
        );
        thread::sleep(PAUSE);
    }
    blocking
}

#[tokio::test]
async fn noscript_is_recovered_from_and_charges_once() {
    let redis = RedisServer::start();
    let lua = bare(Kind::Lua, &settings(&redis.address()), POOL);
    for round in 1..=3 {
        let verdict = lua.decide(&[one("a")]).await.unwrap();
        assert_eq!(left(&verdict), [CAPACITY - round]);
        redis.run::<()>(&["SCRIPT", "FLUSH"]);
    }
}

#[tokio::test]
async fn oom() {
    meets(
        refused("OOM", GiveUp, Store),
        &[],
        |redis| redis.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]),
        |redis, ()| redis.run(&["CONFIG", "SET", "maxmemory", "0"]),
    )
    .await;
}

#[tokio::test]
async fn readonly() {
    meets(
        refused("READONLY", Replace, Store),
        &[],
        |redis| redis.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]),
        |redis, ()| redis.run(&["REPLICAOF", "NO", "ONE"]),
    )
    .await;
}

#[tokio::test]
async fn masterdown() {
    meets(
        refused("MASTERDOWN", TryAgain, Store),
        &["--replica-serve-stale-data", "no"],
        |redis| redis.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]),
        |redis, ()| redis.run(&["REPLICAOF", "NO", "ONE"]),
    )
    .await;
}

#[tokio::test]
async fn noreplicas() {
    meets(
        refused("NOREPLICAS", GiveUp, Store),
        &[],
        |redis| redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]),
        |redis, ()| redis.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]),
    )
    .await;
}

/// The folder of the snapshots is gone, so that not even root can write there.
#[tokio::test]
async fn misconf() {
    meets(
        refused("MISCONF", GiveUp, Store),
        &[],
        |redis| {
            let (_, folder): (String, String) = redis.run(&["CONFIG", "GET", "dir"]);
            redis.run::<()>(&["CONFIG", "SET", "save", "3600 1"]);
            std::fs::remove_dir(folder).unwrap();
            let _: redis::RedisResult<String> = redis.ask(&["BGSAVE"]);
            let failed = "rdb_last_bgsave_status:err";
            while !redis
                .run::<String>(&["INFO", "persistence"])
                .contains(failed)
            {
                thread::sleep(PAUSE);
            }
        },
        |redis, ()| redis.run(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]),
    )
    .await;
}

/// A server that reads its data set slowly, until it is told to hurry. Redis 6.2 cannot be told, and it answers only every
/// 2 MiB.
#[tokio::test]
async fn loading() {
    let (options, keys, bytes, delay_us) = if has_options_of_redis_7() {
        let often = ["--loading-process-events-interval-bytes", "1024"];
        let debug = ["--enable-debug-command", "yes"];
        ([debug, often].concat(), "20000", "100", "10000")
    } else {
        (vec!["--rdbcompression", "no"], "4000", "20000", "2000")
    };
    meets(
        refused("LOADING", TryAgain, Store),
        &options,
        |redis| {
            redis.run::<()>(&["DEBUG", "POPULATE", keys, "filler", bytes]);
            redis.run::<()>(&["CONFIG", "SET", "key-load-delay", delay_us]);
            blocked(redis, &["DEBUG", "RELOAD"], "LOADING")
        },
        |redis, reload| {
            let hurry = ["CONFIG", "SET", "key-load-delay", "0"];
            assert!(redis.ask::<()>(&hurry).is_ok() || !has_options_of_redis_7());
            reload.join().unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn busy() {
    meets(
        refused("BUSY", GiveUp, Store),
        &["--lua-time-limit", "1"],
        |redis| blocked(redis, &["EVAL", "while true do end", "0"], "BUSY"),
        |redis, script| {
            redis.run::<()>(&["SCRIPT", "KILL"]);
            script.join().unwrap();
        },
    )
    .await;
}

/// A new password does not touch open connections, so these are closed.
fn asks_for_password(redis: &RedisServer) {
    let mut connection = redis.connection();
    let mut both = redis::pipe();
    both.cmd("CONFIG").arg(&["SET", "requirepass", "secret"]);
    both.cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    both.query::<()>(&mut connection).unwrap();
}

fn asks_for_none(redis: &RedisServer) {
    let client = redis::Client::open(format!("redis://:secret@{}", redis.address())).unwrap();
    redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", ""])
        .query::<()>(&mut client.get_connection().unwrap())
        .unwrap();
}

/// The first fault may still be the loss of the connection.
async fn once_noticed(strategy: &dyn Strategy, charges: &[Charge]) -> Fault {
    loop {
        match strategy.decide(charges).await.unwrap_err() {
            Fault::Lost(_) => tokio::time::sleep(PAUSE).await,
            fault => return fault,
        }
    }
}

/// Also: what comes after an authentication error is decided on another connection.
#[tokio::test]
async fn noauth() {
    for kind in KINDS {
        let redis = RedisServer::start();
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        until_decided(&*strategy, &[one("a")]).await;
        asks_for_password(&redis);
        let fault = once_noticed(&*strategy, &[one("b")]).await;
        assert_row(&fault, refused("NOAUTH", Replace, Store), kind);
        asks_for_none(&redis);
        let after = left(&until_decided(&*strategy, &[one("b")]).await);
        assert_eq!(
            after,
            [CAPACITY - 1],
            "{}: nothing was charged",
            kind.name()
        );
    }
}

#[tokio::test]
async fn wrongpass() {
    for kind in KINDS {
        for login in ["guest:wrong", ":wrong"] {
            let redis = RedisServer::start_with(&["--requirepass", "secret"]);
            let there = format!("{login}@{}", redis.address());
            let strategy = bare(kind, &settings(&there), POOL);
            let fault = strategy.decide(&[one("a")]).await.unwrap_err();
            assert_row(&fault, refused("WRONGPASS", Replace, Store), kind);
            assert!(!fault.to_string().contains("wrong@"), "{fault}");
        }
    }
}

/// The user may do everything but write.
#[tokio::test]
async fn noperm() {
    meets(
        refused("NOPERM", GiveUp, Store),
        &[],
        |redis| redis.run::<()>(&["ACL", "SETUSER", "default", "-hset"]),
        |redis, ()| redis.run(&["ACL", "SETUSER", "default", "+hset"]),
    )
    .await;
}

/// The user may not use these keys.
#[tokio::test]
async fn noperm_for_keys() {
    meets(
        refused("NOPERM", GiveUp, Store),
        &[],
        |redis| redis.run::<()>(&["ACL", "SETUSER", "default", "resetkeys", "~other:*"]),
        |redis, ()| redis.run(&["ACL", "SETUSER", "default", "resetkeys", "~*"]),
    )
    .await;
}

/// Here the script has written a record when it may not let it expire: that is not "not executed".
#[tokio::test]
async fn noperm_half_way() {
    for kind in KINDS {
        let redis = RedisServer::start();
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        redis.run::<()>(&["ACL", "SETUSER", "default", "-pexpireat"]);
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        let row = match kind {
            Kind::Lua => ("PARTLY", true, GiveUp, Store),
            _ => refused("NOPERM", GiveUp, Store),
        };
        assert_row(&fault, row, kind);
        redis.run::<()>(&["ACL", "SETUSER", "default", "+pexpireat"]);
        let charged = u64::from(kind == Kind::Lua);
        let after = left(&strategy.decide(&[one("a")]).await.unwrap());
        assert_eq!(after, [CAPACITY - 1 - charged], "{}", kind.name());
    }
}

/// Nor is another key of the same request charged.
#[tokio::test]
async fn wrongtype() {
    for kind in KINDS {
        let redis = RedisServer::start();
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        let charges = [one("a"), one("b")];
        redis.run::<()>(&["SET", charges[1].key().as_str(), "a string"]);
        let fault = strategy.decide(&charges).await.unwrap_err();
        assert_row(&fault, refused("WRONGTYPE", GiveUp, Request), kind);
        assert_eq!(
            left(&strategy.decide(&charges[..1]).await.unwrap()),
            [CAPACITY - 1],
            "{}: nothing was charged",
            kind.name()
        );
    }
}

/// A code that is not in the table: a server whose operator took a command away.
#[tokio::test]
async fn an_unknown_code_of_a_real_server() {
    for (kind, command) in [
        (Kind::Lua, "EVALSHA"),
        (Kind::Transaction, "WATCH"),
        (Kind::Hash, "HMGET"),
    ] {
        let redis = RedisServer::start_with(&["--rename-command", command, ""]);
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        assert_row(&fault, ("ERR", true, GiveUp, Store), kind);
    }
}

/// No real server: none says this.
#[tokio::test]
async fn an_unknown_code_of_a_server_to_come() {
    for kind in KINDS {
        let puppet = Puppet::start(|_| Some("-NEWCODE of the future\r\n".to_owned())).await;
        let strategy = bare(kind, &settings(puppet.address()), POOL);
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        assert_row(&fault, ("NEWCODE", true, GiveUp, Store), kind);
    }
}

/// No real server: none answers so.
#[tokio::test]
async fn nonsense() {
    for answer in ["+OK\r\n", ":7\r\n", "$-1\r\n", "*0\r\n", "*1\r\n:5\r\n"] {
        for kind in KINDS {
            let puppet = Puppet::start(|_| Some(answer.to_owned())).await;
            let strategy = bare(kind, &settings(puppet.address()), POOL);
            let fault = strategy.decide(&[one("a")]).await.unwrap_err();
            assert_row(&fault, ("bad_reply", true, GiveUp, Store), kind);
        }
    }
}

#[tokio::test]
async fn unreachable() {
    for kind in KINDS {
        let mut redis = RedisServer::absent();
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        assert_row(&fault, ("unreachable", false, GiveUp, Store), kind);
        redis.restart();
        let after = left(&until_decided(&*strategy, &[one("a")]).await);
        assert_eq!(after, [CAPACITY - 1], "{}", kind.name());
    }
}

/// The reply is lost with its connection, closed in good order or reset. It was executed: so it is ambiguous.
#[tokio::test]
async fn lost() {
    for in_good_order in [true, false] {
        for kind in KINDS {
            let redis = RedisServer::start();
            let proxy = Proxy::before(&redis.address()).await;
            let (strategy, charges) = (bare(kind, &settings(proxy.address()), POOL), [one("a")]);
            until_decided(&*strategy, &charges).await;
            // Writes wait, so that it is the reply to the last step that is held.
            redis.run::<()>(&["CLIENT", "PAUSE", "100000", "WRITE"]);
            let cut = async {
                until_somebody_waits(&redis).await;
                proxy.hold_replies();
                redis.run::<()>(&["CLIENT", "UNPAUSE"]);
                proxy.until_held(1).await;
                proxy.cut(in_good_order);
            };
            let (answer, ()) = tokio::join!(strategy.decide(&charges), cut);
            assert_row(&answer.unwrap_err(), ("lost", true, GiveUp, Store), kind);
            proxy.release_replies();
            let after = left(&until_decided(&*strategy, &charges).await);
            assert_eq!(after, [CAPACITY - 3], "{}", kind.name());
        }
    }
}

/// Waits until the server keeps a write of somebody's waiting.
async fn until_somebody_waits(redis: &RedisServer) {
    let waits = |line: &str| {
        let flags = line.split(' ').find_map(|word| word.strip_prefix("flags="));
        flags.is_some_and(|flags| flags.contains('b'))
    };
    while !redis.run::<String>(&["CLIENT", "LIST"]).lines().any(waits) {
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn timeout() {
    for kind in KINDS {
        let redis = RedisServer::start();
        let proxy = Proxy::before(&redis.address()).await;
        let strategy = bare(kind, &settings(proxy.address()), POOL);
        until_decided(&*strategy, &[one("a")]).await;
        let impatient = Deadline::new(strategy, Duration::from_millis(50), 42);
        proxy.hold_replies();
        let fault = impatient.decide(&[one("a")]).await.unwrap_err();
        assert_row(&fault, ("timeout", true, GiveUp, Store), kind);
    }
}

#[tokio::test]
async fn resting() {
    let fault = Fault::Resting;
    assert_row(&fault, ("resting", false, GiveUp, Store), Kind::Lua);
}

/// Only `transaction` has a pool. The one connection is in use for as long as its reply is held.
#[tokio::test]
async fn pool_exhausted() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let settings = settings(proxy.address());
    let pool = pool(&settings, 1, Duration::from_secs(2)).unwrap();
    let patience = Duration::from_secs(30);
    let link = Link::open(&settings, 1, patience, 42).unwrap();
    let transaction = Transaction::new(pool, link, patience, 42);
    let (first, second) = ([one("a")], [one("b")]);
    until_decided(&transaction, &first).await;
    // Writes wait, so the transaction stands at its EXEC with its connection.
    redis.run::<()>(&["CLIENT", "PAUSE", "100000", "WRITE"]);
    let other = async {
        until_somebody_waits(&redis).await;
        let fault = transaction.decide(&second).await.unwrap_err();
        redis.run::<()>(&["CLIENT", "UNPAUSE"]);
        fault
    };
    let (held, fault) = tokio::join!(transaction.decide(&first), other);
    assert!(held.unwrap().admitted);
    assert_row(
        &fault,
        ("pool_exhausted", false, GiveUp, Request),
        Kind::Transaction,
    );
    let after = left(&until_decided(&transaction, &second).await);
    assert_eq!(after, [CAPACITY - 1]);
}
