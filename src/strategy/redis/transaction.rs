//! `transaction`: WATCH, read, decide in this process, MULTI, write, EXEC.
//!
//! Exact, because EXEC does nothing when somebody changed a watched key; then it is tried again, with jitter, for as long
//! as the deadline around this strategy lasts. Transactions of this instance that share a key take turns, so that they
//! only conflict with other instances. A denial too ends in EXEC, so that its numbers are those of one moment.
//!
//! A watch belongs to a connection, so each transaction has one of its own from the pool, and a connection whose
//! transaction did not finish is thrown away: nobody inherits its watch.

use std::sync::Mutex;
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, Runtime, Timeouts};
use redis::{Pipeline, Value};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::{CONNECT_TIMEOUT, Settings};
use super::fault::classify;
use super::record::{self, Notices};
use crate::algorithm::{Judgement, judge};
use crate::domain::{Charge, Verdict};
use crate::strategy::{Deciding, Fault, Strategy, check};

/// Keys are spread over this many turns; two keys with the same turn only wait for each other.
const TURNS: usize = 256;
/// Longest pause before the second try; it doubles with each further one, so many times.
const FIRST_PAUSE_US: u64 = 200;
const PAUSE_DOUBLINGS: u32 = 4;

/// WATCH, MULTI, EXEC.
#[derive(Debug)]
pub struct Transaction {
    pool: Pool,
    within: Duration,
    turns: Box<[AsyncMutex<()>]>,
    jitter: Mutex<fastrand::Rng>,
    notices: Notices,
}

/// A pool of connections for transactions. Nothing connects before the first one.
///
/// # Errors
///
/// When the settings cannot make a client.
pub fn pool(settings: &Settings, size: usize, wait: Duration) -> Result<Pool, Fault> {
    let unusable = |error: &dyn std::fmt::Display| Fault::Unreachable(error.to_string());
    let manager = Manager::new_with_config(settings.info().clone(), settings.connection_config())
        .map_err(|error| unusable(&error))?;
    Pool::builder(manager)
        .max_size(size)
        .timeouts(Timeouts {
            wait: Some(wait),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(wait),
        })
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| unusable(&error))
}

impl Transaction {
    /// Runs transactions on connections of `pool` and gives up on contention after `within`, which should end just
    /// before the deadline around this strategy, so that it can say why; `seed` is where the jitter starts.
    pub fn new(pool: Pool, within: Duration, seed: u64) -> Self {
        Self {
            pool,
            within,
            turns: (0..TURNS).map(|_| AsyncMutex::new(())).collect(),
            jitter: Mutex::new(fastrand::Rng::with_seed(seed)),
            notices: Notices::default(),
        }
    }

    async fn decide(&self, charges: &[Charge]) -> Result<Verdict, Fault> {
        check(charges)?;
        let give_up = Instant::now() + self.within;
        let contended = |attempts| Fault::Contended { attempts };
        let _turns = timeout_at(give_up, self.take_turns(charges))
            .await
            .map_err(|_| contended(0))?;
        let mut session = Session::open(&self.pool).await?;
        for attempts in 1.. {
            let judged = session.read_and_judge(charges).await?;
            if session.commit(charges, &judged).await? {
                session.finish();
                judged
                    .notices
                    .iter()
                    .for_each(|notice| self.notices.tell(*notice));
                return Ok(judged.verdict);
            }
            let pause = self.pause(attempts);
            if Instant::now() + pause >= give_up {
                session.finish();
                return Err(contended(attempts));
            }
            sleep(pause).await;
        }
        Err(contended(u32::MAX))
    }

    /// Waits until no other transaction of this instance uses these keys. In ascending order, so never in a circle.
    async fn take_turns(&self, charges: &[Charge]) -> Vec<AsyncMutexGuard<'_, ()>> {
        let mut places: Vec<usize> = charges
            .iter()
            .map(|charge| place(charge.key().as_str()))
            .collect();
        places.sort_unstable();
        places.dedup();
        let mut turns = Vec::with_capacity(places.len());
        for place in places {
            turns.push(self.turns[place].lock().await);
        }
        turns
    }

    /// A random pause after so many tries: the longest doubles with each, up to the last.
    fn pause(&self, attempts: u32) -> Duration {
        let longest = FIRST_PAUSE_US << (attempts - 1).min(PAUSE_DOUBLINGS);
        let mut jitter = self
            .jitter
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Duration::from_micros(jitter.u64(0..=longest))
    }
}

/// FNV-1a: who shares a turn matters little, so any hash will do.
fn place(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % TURNS as u64).expect("below TURNS")
}

impl Strategy for Transaction {
    fn name(&self) -> &'static str {
        "transaction"
    }

    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges))
    }
}

/// An exclusive connection, thrown away when dropped unless its transaction was finished.
struct Session(Option<Connection>);

impl Session {
    async fn open(pool: &Pool) -> Result<Self, Fault> {
        let connection = pool
            .get()
            .await
            .map_err(|error| Fault::Unreachable(error.to_string()))?;
        Ok(Self(Some(connection)))
    }

    async fn read_and_judge(&mut self, charges: &[Charge]) -> Result<Judgement, Fault> {
        let mut reading = redis::pipe();
        let watch = reading.cmd("WATCH");
        for charge in charges {
            watch.arg(charge.key().as_str());
        }
        watch.ignore();
        record::read(&mut reading, charges);
        let replies = self.query(&reading).await?;
        let (remembered, now_us) = record::parse(replies, charges)?;
        Ok(judge(charges, |i| remembered[i], now_us))
    }

    /// Whether it was committed; not, if somebody changed a watched key. Either way nothing is watched any more.
    async fn commit(&mut self, charges: &[Charge], judged: &Judgement) -> Result<bool, Fault> {
        let mut writing = redis::pipe();
        writing.cmd("MULTI").ignore();
        judged
            .writes
            .iter()
            .for_each(|write| record::write(&mut writing, charges, write));
        writing.cmd("EXEC");
        let replies = self.query(&writing).await?;
        match replies.last() {
            Some(Value::Nil) => Ok(false),
            Some(Value::Array(_)) => Ok(true),
            other => Err(Fault::BadReply(format!("to EXEC: {other:?}"))),
        }
    }

    async fn query(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let connection = self.0.as_mut().expect("taken only by finish and drop");
        pipeline
            .query_async(connection)
            .await
            .map_err(|error| classify(&error))
    }

    /// Gives the connection back to the pool.
    fn finish(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Connection::take(connection));
        }
    }
}
