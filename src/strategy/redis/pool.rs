//! Exclusive connections for those who watch.
//!
//! They are deadpool-redis's, but for what it asks of one that is lent again, UNWATCH and PING: a third of a transaction's round
//! trips. Nothing is watched on a connection that comes back, for one with an unfinished transaction is thrown away; and
//! that one broke meanwhile is told by the first command, before anything is charged.

use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleResult};
use deadpool_redis::{Manager, Runtime, Timeouts};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};
use tokio::time::Instant;

use super::fault::{classify, classify_pool};
use super::settings::{Settings, connect_timeout};
use crate::strategy::Fault;

/// A pool of exclusive connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool(managed::Pool<Maker>);

impl Pool {
    /// Closes the connections that nobody uses.
    pub(in crate::strategy) fn close_idle(&self) {
        self.0.retain(|_, _| false);
    }
}

/// Makes connections.
#[derive(Debug)]
struct Maker(Manager);

impl managed::Manager for Maker {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.0.create().await
    }

    async fn recycle(
        &self,
        _: &mut MultiplexedConnection,
        _: &Metrics,
    ) -> RecycleResult<RedisError> {
        Ok(())
    }
}

/// A pool of `size` connections for transactions that wait for `wait` at the most. Nothing connects before the first.
///
/// # Errors
///
/// When the settings cannot make a client.
pub fn pool(settings: &Settings, size: usize, wait: Duration) -> Result<Pool, Fault> {
    let unusable = |error: &dyn std::fmt::Display| Fault::Unreachable(error.to_string());
    let manager =
        Manager::new_with_config(settings.info().clone(), Settings::connection_config(wait))
            .map_err(|error| unusable(&error))?;
    let pool = managed::Pool::builder(Maker(manager)).max_size(size);
    let timeouts = Timeouts {
        wait: Some(wait),
        create: Some(connect_timeout(wait)),
        recycle: None,
    };
    let pool = pool.timeouts(timeouts).runtime(Runtime::Tokio1).build();
    pool.map(Pool).map_err(|error| unusable(&error))
}

/// An exclusive connection, thrown away when dropped unless it was given back.
pub(super) struct Exclusive(Option<managed::Object<Maker>>);

impl Exclusive {
    /// One that is idle, else a new one; waits for a place in the pool until `give_up`.
    pub(super) async fn of(pool: &Pool, give_up: Instant) -> Result<Self, Fault> {
        let timeouts = Timeouts {
            wait: Some(give_up.saturating_duration_since(Instant::now())),
            ..pool.0.timeouts()
        };
        let connection = pool.0.timeout_get(&timeouts).await;
        let connection = connection.map_err(|error| classify_pool(&error))?;
        Ok(Self(Some(connection)))
    }

    /// Whether it lay idle before, so that it may have broken unnoticed.
    pub(super) fn is_used(&self) -> bool {
        let connection = self.0.as_ref();
        connection.is_some_and(|connection| managed::Object::metrics(connection).recycle_count > 0)
    }

    /// Sends commands and waits for all their replies.
    pub(super) async fn query(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let connection = self.0.as_mut().expect("taken only by those who end it");
        let replies = pipeline.query_async(&mut **connection).await;
        replies.map_err(|error| classify(&error))
    }

    /// Gives it back to the pool: nothing is watched on it.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(managed::Object::take(connection));
        }
    }
}
