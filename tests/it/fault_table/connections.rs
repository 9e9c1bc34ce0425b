//! After which faults a connection is thrown away, and another one made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tollgate::strategy::factory::Kind;
use tollgate::strategy::redis::{Hash, Link, Lua};
use tollgate::strategy::{Deadline, Fault, Strategy};

use super::{CAPACITY, KINDS, PAUSE, POOL, Replace, Store};
use super::{assert_row, left, one, refused, settings, until_decided};
use crate::bench::{Proxy, Puppet, RedisServer, bare};

const LONG: Duration = Duration::from_secs(120);

/// The ids of those who are connected, but for who asks.
fn clients(redis: &RedisServer) -> Vec<String> {
    let mut connection = redis.connection();
    let (me, list): (u64, String) = redis::pipe()
        .cmd("CLIENT")
        .arg("ID")
        .cmd("CLIENT")
        .arg("LIST")
        .query(&mut connection)
        .unwrap();
    let me = format!("id={me}");
    list.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|id| *id != me)
        .map(ToOwned::to_owned)
        .collect()
}

/// Waits until these are connected no more, for far longer than that can take.
async fn until_gone(redis: &RedisServer, ids: &[String]) {
    let started = Instant::now();
    while clients(redis).iter().any(|id| ids.contains(id)) {
        assert!(started.elapsed() < LONG, "{ids:?} are still connected");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_connection_is_replaced_after_readonly() {
    for kind in KINDS {
        let redis = RedisServer::start();
        let strategy = bare(kind, &settings(&redis.address()), POOL);
        until_decided(&*strategy, &[one("a")]).await;
        let before = clients(&redis);
        redis.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        let used = match kind {
            // The link beside the pool was not used.
            Kind::Transaction => pooled(&redis),
            _ => before,
        };
        assert!(!used.is_empty());
        let fault = strategy.decide(&[one("a")]).await.unwrap_err();
        assert_eq!(fault.kind(), "READONLY");
        until_gone(&redis, &used).await;
        redis.run::<()>(&["REPLICAOF", "NO", "ONE"]);
        let after = left(&until_decided(&*strategy, &[one("a")]).await);
        assert_eq!(after, [CAPACITY - 2]);
    }
}

/// Connections whose last command was of a transaction.
fn pooled(redis: &RedisServer) -> Vec<String> {
    let list: String = redis.run(&["CLIENT", "LIST"]);
    list.lines()
        .filter(|line| line.contains(" cmd=exec "))
        .filter_map(|line| line.split(' ').next())
        .map(ToOwned::to_owned)
        .collect()
}

/// No real server: one that let somebody in does not ask again on the same connection.
#[tokio::test]
async fn a_connection_is_replaced_after_an_authentication_error() {
    for kind in KINDS {
        for code in ["NOAUTH", "WRONGPASS"] {
            let refuses = Arc::new(AtomicBool::new(true));
            let says = refuses.clone();
            let puppet = Puppet::start(move |_| {
                let told = format!("-{code} go away\r\n");
                says.load(Ordering::SeqCst).then_some(told)
            })
            .await;
            let strategy = bare(kind, &settings(puppet.address()), POOL);
            let fault = strategy.decide(&[one("a")]).await.unwrap_err();
            assert_row(&fault, refused(code, Replace, Store), kind);
            refuses.store(false, Ordering::SeqCst);
            let before = puppet.connections();
            // Answers that make no sense now, but on another connection.
            let started = Instant::now();
            while puppet.connections() == before {
                assert!(started.elapsed() < LONG, "{code}: the same connection");
                let _ = strategy.decide(&[one("a")]).await;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// After three requests in a row that nobody answered. Not `transaction`: it throws away every connection that it did
/// not finish with.
#[tokio::test]
async fn a_connection_is_replaced_after_several_timeouts() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let within = Duration::from_millis(200);
    for kind in KINDS {
        proxy.release_replies();
        let link = Link::open(&settings(proxy.address()), 1, within, 42).unwrap();
        let strategy: Arc<dyn Strategy> = match kind {
            Kind::Lua => Arc::new(Lua::new(link)),
            Kind::Hash => Arc::new(Hash::new(link)),
            _ => continue,
        };
        until_decided(&*strategy, &[one(kind.name())]).await;
        let before = clients(&redis);
        let impatient = Deadline::new(strategy, within, 42);
        proxy.hold_replies();
        for _ in 0..3 {
            let fault = impatient.decide(&[one(kind.name())]).await.unwrap_err();
            assert_eq!(fault, Fault::Timeout(within));
        }
        until_gone(&redis, &before).await;
        proxy.release_replies();
        assert!(
            until_decided(&impatient, &[one(kind.name())])
                .await
                .admitted
        );
    }
}
