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

use redis::Value;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Link;
use super::pool::{Exclusive, Pool};
use super::record::{self, Notices, Place};
use crate::algorithm::{Intent, Kept, Remembered, judge};
use crate::domain::{Charge, Key, Receipt, Verdict};
use crate::strategy::{Deciding, Fault, Strategy};

/// Keys are spread over this many turns; two keys with the same turn only wait for each other.
const TURNS: usize = 256;
/// Longest pause before the second try; it doubles with each further one, so many times.
const FIRST_PAUSE_US: u64 = 200;
const PAUSE_DOUBLINGS: u32 = 4;

/// WATCH, MULTI, EXEC.
#[derive(Debug)]
pub struct Transaction {
    pool: Pool,
    link: Link,
    within: Duration,
    turns: Box<[AsyncMutex<()>]>,
    jitter: Mutex<fastrand::Rng>,
    notices: Notices,
}

impl Transaction {
    /// Runs transactions on connections of `pool`, and what needs none on `link`. It gives up on contention after `within`, which should end just
    /// before the deadline around this strategy, so that it can say why; `seed` is where the jitter starts.
    pub fn new(pool: Pool, link: Link, within: Duration, seed: u64) -> Self {
        Self {
            pool,
            link,
            within,
            turns: (0..TURNS).map(|_| AsyncMutex::new(())).collect(),
            jitter: Mutex::new(fastrand::Rng::with_seed(seed)),
            notices: Notices::default(),
        }
    }

    async fn decide(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let places = record::places_of_charges(charges);
        let judged = self
            .transact(&places, |remembered, now_us| {
                let judged = judge(charges, intent, |i| remembered[i], now_us);
                (
                    judged
                        .writes
                        .iter()
                        .map(|write| (write.charge, write.kept))
                        .collect(),
                    judged,
                )
            })
            .await?;
        judged
            .notices
            .iter()
            .for_each(|notice| self.notices.tell(*notice));
        Ok(judged.verdict)
    }

    async fn credit(&self, receipts: &[Receipt]) -> Result<(), Fault> {
        let places = record::places_of_receipts(receipts);
        self.transact(&places, |remembered, now_us| {
            (record::credits(receipts, remembered, now_us), ())
        })
        .await
    }

    /// Lets `step` say, of what the records hold and the server's time, what to write; tries until nobody interferes.
    async fn transact<T>(
        &self,
        places: &[Place<'_>],
        step: impl Fn(&[Remembered], u64) -> (Vec<(usize, Kept)>, T),
    ) -> Result<T, Fault> {
        let give_up = Instant::now() + self.within;
        let contended = |attempts| Fault::Contended { attempts };
        let turns = timeout_at(give_up, self.take_turns(places)).await;
        let _turns = turns.map_err(|_| contended(0))?;
        let (mut session, mut read) = Session::begin(&self.pool, places, give_up).await?;
        for attempts in 1.. {
            let (remembered, now_us) = read;
            let (writes, answer) = step(&remembered, now_us);
            if session.commit(places, &writes).await? {
                session.finish();
                return Ok(answer);
            }
            let pause = self.pause(attempts);
            if Instant::now() + pause >= give_up {
                session.finish();
                return Err(contended(attempts));
            }
            sleep(pause).await;
            read = session.read(places).await?;
        }
        Err(contended(u32::MAX))
    }

    /// Waits until no other transaction of this instance uses these keys. In ascending order, so never in a circle.
    async fn take_turns(&self, places: &[Place<'_>]) -> Vec<AsyncMutexGuard<'_, ()>> {
        let mut numbers: Vec<usize> = places.iter().map(|(key, _)| turn(key.as_str())).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut turns = Vec::with_capacity(numbers.len());
        for number in numbers {
            turns.push(self.turns[number].lock().await);
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
fn turn(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % TURNS as u64).expect("below TURNS")
}

impl Strategy for Transaction {
    fn name(&self) -> &'static str {
        "transaction"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges, intent))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        Deciding::waiting(async move { self.credit(&receipts).await })
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(self.link.delete(key))
    }
}

/// What the records held, and the server's time.
type Read = (Vec<Remembered>, u64);

/// One transaction at a time, on a connection of its own that is thrown away unless the transaction was finished.
struct Session(Exclusive);

impl Session {
    /// Begins a transaction: watches the records, reads them, and then the server's time.
    ///
    /// A connection that broke while nobody used it is found out here. Nothing was charged on it, so another takes its place.
    async fn begin(
        pool: &Pool,
        places: &[Place<'_>],
        give_up: Instant,
    ) -> Result<(Self, Read), Fault> {
        loop {
            let mut session = Self(Exclusive::of(pool, give_up).await?);
            match session.read(places).await {
                Err(Fault::Lost(_)) if session.0.is_used() => {}
                read => return read.map(|read| (session, read)),
            }
        }
    }

    async fn read(&mut self, places: &[Place<'_>]) -> Result<Read, Fault> {
        let mut reading = redis::pipe();
        let watch = reading.cmd("WATCH");
        for (key, _) in places {
            watch.arg(key.as_str());
        }
        watch.ignore();
        record::read(&mut reading, places);
        record::parse(self.0.query(&reading).await?, places)
    }

    /// Whether it was committed; not, if somebody changed a watched key. Either way nothing is watched any more.
    async fn commit(
        &mut self,
        places: &[Place<'_>],
        writes: &[(usize, Kept)],
    ) -> Result<bool, Fault> {
        let mut writing = redis::pipe();
        writing.cmd("MULTI").ignore();
        writes
            .iter()
            .for_each(|(i, kept)| record::write(&mut writing, places[*i], kept));
        writing.cmd("EXEC");
        let replies = self.0.query(&writing).await?;
        match replies.last() {
            Some(Value::Nil) => Ok(false),
            Some(Value::Array(_)) => Ok(true),
            other => Err(Fault::BadReply(format!("to EXEC: {other:?}"))),
        }
    }

    /// Gives the connection back to the pool.
    fn finish(self) {
        self.0.give_back();
    }
}
