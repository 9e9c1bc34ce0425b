//! Keeps one shared connection up: reconnects, with jittered, doubling pauses, for as long as it takes.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::fault::classify_connecting;
use crate::strategy::Fault;

/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(100));
/// Requests in a row that waited to their deadline in vain before their connection is replaced.
const MOST_UNANSWERED: u32 = 3;

/// One connection, as its keeper last saw it.
#[derive(Clone)]
pub(super) enum Slot {
    Connecting,
    Up(Shared),
    Down(Fault),
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "Connecting",
            Self::Up(_) => "Up",
            Self::Down(_) => "Down",
        })
    }
}

/// A connection that is up, and how it does.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) connection: MultiplexedConnection,
    pub(super) health: Arc<Health>,
}

/// How one connection does, as those who use it tell.
#[derive(Debug, Default)]
pub(super) struct Health {
    unanswered: AtomicU32,
    ended: Notify,
}

impl Health {
    pub(super) fn answered(&self) {
        if self.unanswered.load(Ordering::Relaxed) > 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn unanswered(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_UNANSWERED {
            self.replace();
        }
    }

    /// Asks for another connection in its place. Those who use this one may go on.
    pub(super) fn replace(&self) {
        self.ended.notify_one();
    }
}

/// Keeps one connection up.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) config: AsyncConnectionConfig,
    pub(super) slot: watch::Sender<Slot>,
    pub(super) rng: fastrand::Rng,
    pub(super) sky: Arc<Sky>,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            match self.connect().await {
                Ok(shared) => {
                    self.sky.cleared();
                    let health = shared.health.clone();
                    self.slot.send_replace(Slot::Up(shared));
                    pause = PAUSES.0;
                    health.ended.notified().await;
                    self.slot.send_replace(Slot::Connecting);
                }
                Err(fault) => {
                    self.sky.clouded(&fault);
                    self.slot.send_replace(Slot::Down(fault));
                    tokio::time::sleep(pause / 2 + pause.mul_f64(self.rng.f64() / 2.0)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Shared, Fault> {
        let health = Arc::new(Health::default());
        let told = health.clone();
        let tell = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                told.ended.notify_one();
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let config = self.config.clone().set_push_sender(tell);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| classify_connecting(&error))?;
        Ok(Shared { connection, health })
    }
}

/// Whether the server can be reached, told once per change.
#[derive(Debug)]
pub(super) struct Sky {
    address: String,
    up: Mutex<Option<bool>>,
}

impl Sky {
    pub(super) fn over(address: String) -> Self {
        Self {
            address,
            up: Mutex::new(None),
        }
    }

    fn cleared(&self) {
        if self.changes_to(true) {
            info!(redis = %self.address, "connected to Redis");
        }
    }

    fn clouded(&self, fault: &Fault) {
        if self.changes_to(false) {
            let advice = fault.advice();
            warn!(redis = %self.address, %fault, advice, "Redis cannot be reached: trying again until it can");
        }
    }

    fn changes_to(&self, up: bool) -> bool {
        let mut known = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(up) != Some(up)
    }
}
