//! Shared connections that come back by themselves.
//!
//! A [`Link`] keeps a few multiplexed connections, each watched by a task of its own that reconnects with jittered,
//! doubling pauses. A request takes a connection that is up, waits while one is being made, and gets a fault at once when
//! the last attempt failed: no request ever makes a connection, so none is lost when its deadline cuts it off.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind,
};
use socket2::TcpKeepalive;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::fault::classify;
use crate::domain::Key;
use crate::strategy::Fault;

/// Longest wait for one connection to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));
/// Unacknowledged data, or silence, after which the kernel gives a connection up.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Where Redis is and how to speak to it. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Settings(ConnectionInfo);

impl Settings {
    /// Settings for this server, with the socket options that a limiter needs.
    ///
    /// # Errors
    ///
    /// When the description cannot make a connection, such as a URL that does not parse.
    pub fn new(server: impl IntoConnectionInfo) -> Result<Self, Fault> {
        let info = server
            .into_connection_info()
            .map_err(|error| Fault::Unreachable(error.to_string()))?;
        let keepalive = TcpKeepalive::new()
            .with_time(DEAD_AFTER)
            .with_interval(Duration::from_secs(1));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_AFTER);
        Ok(Self(info.set_tcp_settings(tcp)))
    }

    /// The server's address as an operator would write it; no credentials.
    pub fn address(&self) -> String {
        self.0.addr().to_string()
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.0
    }

    /// No response timeout: the deadline around the strategy covers it.
    pub(super) fn connection_config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings")
            .field(&self.address())
            .finish_non_exhaustive()
    }
}

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
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One connection, as its task last saw it.
#[derive(Clone)]
enum Slot {
    Connecting,
    Up(MultiplexedConnection),
    Down(Arc<str>),
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

impl Link {
    /// Starts `connections` (at least one) connections in the background; `seed` is where the jitter starts.
    ///
    /// # Errors
    ///
    /// When the settings cannot make a client.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(settings: &Settings, connections: usize, seed: u64) -> Result<Self, Fault> {
        // RESP3, because only then the client tells at once that a connection broke.
        let redis = settings
            .info()
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(settings.info().clone().set_redis_settings(redis))
            .map_err(|error| Fault::Unreachable(error.to_string()))?;
        let sky = Arc::new(Sky {
            address: settings.address(),
            up: Mutex::new(None),
        });
        let (slots, tasks) = (0..connections.max(1))
            .map(|i| {
                let (slot, seen) = watch::channel(Slot::Connecting);
                let rng = fastrand::Rng::with_seed(seed.wrapping_add(i as u64));
                let keeper = Keeper {
                    client: client.clone(),
                    config: settings.connection_config(),
                    slot,
                    rng,
                    sky: sky.clone(),
                };
                (seen, tokio::spawn(keeper.run()))
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let inner = Inner {
            slots: slots.into(),
            next: AtomicUsize::new(0),
            tasks: tasks.into(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// A connection to share. Waits only while the first attempt, or the first after a loss, is under way.
    ///
    /// # Errors
    ///
    /// [`Fault::Unreachable`] when the last attempt failed.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, Fault> {
        let slots = &self.0.slots;
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..slots.len()).map(|i| &slots[(first.wrapping_add(i)) % slots.len()]);
        for slot in in_turn.clone() {
            if let Slot::Up(connection) = &*slot.borrow() {
                return Ok(connection.clone());
            }
        }
        let mut slot = slots[first % slots.len()].clone();
        let settled = slot
            .wait_for(|slot| !matches!(slot, Slot::Connecting))
            .await;
        match settled.as_deref() {
            Ok(Slot::Up(connection)) => Ok(connection.clone()),
            Ok(Slot::Down(reason)) => Err(Fault::Unreachable(reason.to_string())),
            Ok(Slot::Connecting) | Err(_) => {
                Err(Fault::Unreachable("the connection is closed".to_owned()))
            }
        }
    }

    /// Deletes a record.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let mut connection = self.connection().await?;
        let mut del = redis::cmd("DEL");
        del.arg(key.as_str());
        del.query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))
    }

    /// Asks the server for an answer, for at most `within`.
    pub async fn ping(&self, within: Duration) -> LinkStatus {
        let ping = async {
            let mut connection = self.connection().await?;
            let started = tokio::time::Instant::now();
            let pinged: redis::RedisResult<String> =
                redis::cmd("PING").query_async(&mut connection).await;
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

/// Keeps one connection up.
struct Keeper {
    client: Client,
    config: AsyncConnectionConfig,
    slot: watch::Sender<Slot>,
    rng: fastrand::Rng,
    sky: Arc<Sky>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let lost = Arc::new(Notify::new());
            match self.connect(lost.clone()).await {
                Ok(connection) => {
                    self.sky.cleared();
                    self.slot.send_replace(Slot::Up(connection));
                    pause = PAUSES.0;
                    lost.notified().await;
                    self.slot.send_replace(Slot::Connecting);
                }
                Err(reason) => {
                    self.sky.clouded(&reason);
                    self.slot.send_replace(Slot::Down(reason.into()));
                    tokio::time::sleep(pause / 2 + pause.mul_f64(self.rng.f64() / 2.0)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn connect(&self, lost: Arc<Notify>) -> Result<MultiplexedConnection, String> {
        let told = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                lost.notify_one();
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let config = self.config.clone().set_push_sender(told);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        connection.map_err(|error| error.to_string())
    }
}

/// Whether the server can be reached, told once per change.
#[derive(Debug)]
struct Sky {
    address: String,
    up: Mutex<Option<bool>>,
}

impl Sky {
    fn cleared(&self) {
        if self.changes_to(true) {
            info!(redis = %self.address, "connected to Redis");
        }
    }

    fn clouded(&self, reason: &str) {
        if self.changes_to(false) {
            warn!(redis = %self.address, reason, "Redis cannot be reached: trying again until it can");
        }
    }

    fn changes_to(&self, up: bool) -> bool {
        let mut known = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(up) != Some(up)
    }
}
