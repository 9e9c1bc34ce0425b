//! An open-loop generator: each request has its time, whether or not earlier ones were answered.
//!
//! Latency counts from that time, so that a stall is felt by all who came during it, not by one alone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::http::{Answer, Connection, Failure, Idle};

/// Most clients that come again and again; every other request is from a client that comes once.
pub(crate) const REGULARS: u32 = 4;
/// Requests a second for each of them, so that each asks for several times what it may have.
const PER_REGULAR: u32 = 100;
/// Who gets no answer for so long got none.
const PATIENCE: Duration = Duration::from_secs(30);
/// An aborting client waits at most so long for its answer.
const ABORT_WITHIN_US: u64 = 3_000;

/// How many clients come again and again, of so many requests a second.
fn regulars(rate: u32) -> u32 {
    (rate / PER_REGULAR).clamp(1, REGULARS)
}

/// How often each of those asks in all.
pub(crate) fn asked_by_one(rate: u32, during: Duration) -> u64 {
    u64::from(rate / 2 / regulars(rate)) * during.as_secs()
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Regular(u32),
    Once(u32),
}

impl Client {
    /// The address that it is told by; of networks that appear nowhere else.
    pub(crate) fn address(self) -> String {
        match self {
            Self::Regular(number) => format!("192.168.77.{number}"),
            Self::Once(number) => {
                let [_, a, b, c] = number.to_be_bytes();
                format!("172.{}.{b}.{c}", 16 + a % 16)
            }
        }
    }
}

/// Whether a key is of a client that comes once.
pub(crate) fn is_a_strangers(key: &str) -> bool {
    key.contains(":172.")
}

/// What came of a request.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Answered(Answer),
    Failed(Failure),
    Unanswered,
    /// The client went away.
    Aborted,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) scheduled: Instant,
    pub(crate) sent: Instant,
    pub(crate) ended: Instant,
    pub(crate) instance: usize,
    pub(crate) client: Client,
    pub(crate) outcome: Outcome,
}

impl Record {
    /// Whether nobody who asks twice asked: so no memory of earlier answers plays a part.
    pub(crate) fn is_a_strangers(&self) -> bool {
        matches!(self.client, Client::Once(_))
    }
}

/// An instance as a load balancer sees it.
#[derive(Default)]
pub(crate) struct Target {
    address: Mutex<Option<SocketAddr>>,
    idle: Mutex<Vec<Connection>>,
}

impl Target {
    /// From now on requests go there; or nowhere.
    pub(crate) fn set(&self, address: Option<SocketAddr>) {
        *lock(&self.address) = address;
        lock(&self.idle).clear();
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *lock(&self.address)
    }

    /// How many idle connections hold bytes that nobody asked for.
    pub(crate) fn surplus(&self) -> usize {
        let talks = |connection: &&Connection| matches!(connection.look(), Idle::Talks);
        lock(&self.idle).iter().filter(talks).count()
    }
}

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) targets: Arc<Vec<Target>>,
    /// What answers must say the limit is.
    pub(crate) limit: u64,
    /// Numbers for clients that come once.
    pub(crate) strangers: Arc<AtomicU32>,
}

impl Load {
    /// Makes `rate` requests a second for `during`, of which `aborts` is the share whose clients go away.
    pub(crate) async fn run(
        &self,
        rate: u32,
        during: Duration,
        aborts: f64,
        seed: u64,
    ) -> Vec<Record> {
        let (begin, mut rng) = (Instant::now(), fastrand::Rng::with_seed(seed));
        let regulars = regulars(rate);
        let mut asking = JoinSet::new();
        for number in 0.. {
            let offset = Duration::from_secs(1) * number / rate;
            if offset >= during {
                break;
            }
            let scheduled = begin + offset;
            sleep_until(scheduled).await;
            let client = if number % 2 == 0 {
                Client::Regular(number / 2 % regulars)
            } else {
                self.stranger()
            };
            let abort_after =
                (rng.f64() < aborts).then(|| Duration::from_micros(rng.u64(0..ABORT_WITHIN_US)));
            let Some(instance) = self.instance(number as usize) else {
                continue;
            };
            let load = self.clone();
            asking.spawn(async move { load.ask(scheduled, instance, client, abort_after).await });
        }
        asking.join_all().await
    }

    pub(crate) fn stranger(&self) -> Client {
        Client::Once(self.strangers.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes one request of that instance.
    pub(crate) async fn ask(
        &self,
        scheduled: Instant,
        instance: usize,
        client: Client,
        abort_after: Option<Duration>,
    ) -> Record {
        let sent = Instant::now();
        let asked = self.outcome(instance, client, abort_after);
        let outcome = timeout(PATIENCE, asked).await;
        Record {
            scheduled,
            sent,
            ended: Instant::now(),
            instance,
            client,
            outcome: outcome.unwrap_or(Outcome::Unanswered),
        }
    }

    async fn outcome(
        &self,
        instance: usize,
        client: Client,
        abort_after: Option<Duration>,
    ) -> Outcome {
        let target = &self.targets[instance];
        let asked = async {
            let mut connection = self.connection(target).await?;
            connection.send(&client.address()).await?;
            if let Some(after) = abort_after {
                sleep(after).await;
                connection.abort();
                return Ok(Outcome::Aborted);
            }
            let answer = connection.receive(self.limit).await?;
            lock(&target.idle).push(connection);
            Ok(Outcome::Answered(answer))
        };
        asked.await.unwrap_or_else(Outcome::Failed)
    }

    /// One that is open and idle, else a new one.
    async fn connection(&self, target: &Target) -> Result<Connection, Failure> {
        loop {
            let idle = lock(&target.idle).pop();
            match idle.map(|connection| (connection.look(), connection)) {
                Some((Idle::Ready, connection)) => return Ok(connection),
                Some((Idle::Closed, _)) => {}
                Some((Idle::Talks, _)) => {
                    let what = "an answer that nobody asked for".to_owned();
                    return Err(Failure::Malformed(what));
                }
                None => {
                    let gone = || Failure::Lost("there is no such instance now".to_owned());
                    return Connection::open(target.address().ok_or_else(gone)?).await;
                }
            }
        }
    }

    /// The instance in turn, or the next one that is there.
    fn instance(&self, number: usize) -> Option<usize> {
        let instances = self.targets.len();
        // Neither in step with the regular clients nor with those that come once.
        let first = number / 2 + number / (2 * instances);
        (0..instances)
            .map(|i| (first + i) % instances)
            .find(|i| self.targets[*i].address().is_some())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
