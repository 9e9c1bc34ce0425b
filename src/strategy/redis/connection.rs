//! Shared connections that come back by themselves.
//!
//! A [`Link`] keeps a few multiplexed connections, each watched by a task of its own. A request takes a connection that is
//! up, waits while one is being made, and gets a fault at once when the last attempt failed: no request ever makes a
//! connection, so none is lost when its deadline cuts it off. A connection is replaced when it breaks, when several
//! requests in a row waited for it in vain, and when the server says that another one would be better.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Client, Cmd, FromRedisValue, Pipeline, ProtocolVersion, RedisResult};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::fault::classify;
use super::keeper::{Health, Keeper, Shared, Sky, Slot};
use super::settings::Settings;
use crate::domain::Key;
use crate::strategy::supervisor::supervise;
use crate::strategy::{Fault, Remedy};

/// Whether the store can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// It answered a PING after this long.
    Connected {
        /// From sending the PING to its answer.
        latency: Duration,
    },
    /// It did not.
    Disconnected {
        /// Why, for an operator.
        reason: String,
    },
}

/// A few shared connections to one server. Clones share them; the last clone closes them.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Box<[watch::Receiver<Slot>]>,
    next: AtomicUsize,
    tasks: Box<[JoinHandle<()>]>,
    deadline: Duration,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Starts `connections` (at least one) connections in the background, for requests that wait for `deadline` at the
    /// most; `seed` is where the jitter starts.
    ///
    /// # Errors
    ///
    /// When the settings cannot make a client.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(
        settings: &Settings,
        connections: usize,
        deadline: Duration,
        seed: u64,
    ) -> Result<Self, Fault> {
        // RESP3, because only then the client tells at once that a connection broke.
        let redis = settings
            .info()
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(settings.info().clone().set_redis_settings(redis))
            .map_err(|error| Fault::Unreachable(error.to_string()))?;
        let sky = Arc::new(Sky::over(settings.address()));
        let (slots, tasks) = (0..connections.max(1))
            .map(|i| {
                let (slot, seen) = watch::channel(Slot::Connecting);
                let rng = fastrand::Rng::with_seed(seed.wrapping_add(i as u64));
                let keeper = Keeper {
                    client: client.clone(),
                    config: Settings::connection_config(deadline),
                    slot,
                    rng,
                    sky: sky.clone(),
                };
                (seen, supervise("connection", move || keeper.clone().run()))
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let inner = Inner {
            slots: slots.into(),
            next: AtomicUsize::new(0),
            tasks: tasks.into(),
            deadline,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// A connection to share. Waits only while the first attempt, or the first after a loss, is under way.
    ///
    /// # Errors
    ///
    /// Why the last attempt failed.
    pub(super) async fn connection(&self) -> Result<Borrowed, Fault> {
        let slots = &self.0.slots;
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..slots.len()).map(|i| &slots[(first.wrapping_add(i)) % slots.len()]);
        for slot in in_turn.clone() {
            if let Slot::Up(shared) = &*slot.borrow() {
                return Ok(self.lend(shared));
            }
        }
        let mut slot = slots[first % slots.len()].clone();
        let settled = slot
            .wait_for(|slot| !matches!(slot, Slot::Connecting))
            .await;
        match settled.as_deref() {
            Ok(Slot::Up(shared)) => Ok(self.lend(shared)),
            Ok(Slot::Down(fault)) => Err(fault.clone()),
            Ok(Slot::Connecting) | Err(_) => {
                Err(Fault::Unreachable("the connection is closed".to_owned()))
            }
        }
    }

    /// Longest that a request waits for the store.
    pub(super) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    fn lend(&self, shared: &Shared) -> Borrowed {
        Borrowed {
            shared: shared.clone(),
            // Somewhat less, for the timer that ends a request may be a little early.
            patience: self.0.deadline * 9 / 10,
        }
    }

    /// Deletes a record.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let mut del = redis::cmd("DEL");
        del.arg(key.as_str());
        self.connection()
            .await?
            .command(&del)
            .await
            .map_err(|error| classify(&error))
    }

    /// Asks the server for an answer, for at most `within`.
    pub async fn ping(&self, within: Duration) -> LinkStatus {
        let ping = async {
            let mut connection = self.connection().await?;
            let started = Instant::now();
            let pinged: RedisResult<String> = connection.command(&redis::cmd("PING")).await;
            pinged
                .map(|_| started.elapsed())
                .map_err(|error| classify(&error))
        };
        match tokio::time::timeout(within, ping).await {
            Ok(Ok(latency)) => LinkStatus::Connected { latency },
            Ok(Err(fault)) => LinkStatus::Disconnected {
                reason: fault.to_string(),
            },
            Err(_) => LinkStatus::Disconnected {
                reason: Fault::Timeout(within).to_string(),
            },
        }
    }
}

/// A shared connection for one request, which tells how the connection does.
#[derive(Clone)]
pub(super) struct Borrowed {
    shared: Shared,
    patience: Duration,
}

impl Borrowed {
    /// Sends a command and waits for its reply.
    pub(super) async fn command<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let watched = Unanswered::on(self);
        let reply = command.query_async(&mut self.shared.connection).await;
        watched.ended(reply)
    }

    /// Sends several and waits for all their replies.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &mut self,
        pipeline: &Pipeline,
    ) -> RedisResult<T> {
        let watched = Unanswered::on(self);
        let reply = pipeline.query_async(&mut self.shared.connection).await;
        watched.ended(reply)
    }
}

impl Borrowed {
    /// Takes notice of a fault that came as part of a reply.
    pub(super) fn heard(&self, fault: &Fault) {
        if fault.remedy() == Remedy::Replace {
            self.shared.health.replace();
        }
    }
}

/// A request that has no reply yet; when dropped past its patience, its connection is one that does not answer.
struct Unanswered {
    health: Arc<Health>,
    since: Instant,
    patience: Duration,
    waits: bool,
}

impl Unanswered {
    fn on(borrowed: &Borrowed) -> Self {
        Self {
            health: borrowed.shared.health.clone(),
            since: Instant::now(),
            patience: borrowed.patience,
            waits: true,
        }
    }

    fn ended<T>(mut self, reply: RedisResult<T>) -> RedisResult<T> {
        self.waits = false;
        match &reply {
            Err(error) if classify(error).remedy() == Remedy::Replace => self.health.replace(),
            _ => self.health.answered(),
        }
        reply
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.waits && self.since.elapsed() >= self.patience {
            self.health.unanswered();
        }
    }
}
