//! What is done to the store, to the network, to the instances and by the clients.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, sleep_until};

use crate::bench::Bench;
use crate::crowds;
use crate::proxy::Faults;
use crate::redis_server::CANARY;

/// How often something is done again.
const AGAIN_EVERY: Duration = Duration::from_millis(100);
/// The share of charges at which a connection is cut.
const CUT: f64 = 0.05;
/// The instance that is killed or cut off.
const VICTIM: usize = 1;
/// Ends the connections of all instances, but not the one that it comes over.
const KILL_CLIENTS: &[&str] = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Nothing,
    /// kill -9, and a new one that is empty.
    KillRedis,
    /// SIGSTOP and SIGCONT.
    Freeze,
    /// A firewall swallows every packet to Redis and from it.
    BlackHole,
    /// Replies come so many milliseconds later.
    Delay(u64),
    /// DEBUG SLEEP of three seconds.
    Sleep,
    /// CLIENT PAUSE.
    Pause,
    CutRequests,
    CutReplies,
    /// A command every 100 ms.
    Again(&'static [&'static str]),
    /// Commands, and later others that put it right.
    Set(
        &'static [&'static [&'static str]],
        &'static [&'static [&'static str]],
    ),
    /// Another password, and the old one again.
    Password,
    /// There is no Redis at the start.
    Absent,
    /// kill -9 of an instance, and a new one in its place.
    KillInstance,
    /// One instance cannot reach Redis.
    CutOff,
    /// One denied client at full speed.
    Flood,
    /// A thousand sockets that dribble their headers.
    Dribble,
}

/// What a fault left to judge.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// The instance that was killed, and when.
    pub(crate) killed: Option<(usize, Instant)>,
    /// What it measured itself.
    pub(crate) notes: Vec<String>,
    /// Promises that it saw broken itself.
    pub(crate) broken: Vec<String>,
}

impl Fault {
    /// Whether instances have a reason to decide without the store.
    pub(crate) fn harms_the_store(&self) -> bool {
        !matches!(
            self,
            Self::Nothing | Self::KillInstance | Self::Flood | Self::Dribble
        )
    }

    /// Lets it happen until that time, and puts it right.
    pub(crate) async fn inflict(&self, bench: &mut Bench, until: Instant) -> Result<Aftermath> {
        let mut aftermath = Aftermath::default();
        match *self {
            Self::Nothing => sleep_until(until).await,
            Self::KillRedis => {
                bench.redis.kill().await?;
                sleep_until(until).await;
                bench.redis.start().await?;
            }
            Self::Freeze => {
                bench.redis.signal("STOP").await?;
                sleep_until(until).await;
                bench.redis.signal("CONT").await?;
            }
            Self::BlackHole => {
                let namespace = bench.namespace.as_ref().context("it was made for this")?;
                namespace.swallow()?;
                sleep_until(until).await;
                namespace.heal()?;
            }
            Self::Delay(ms) => {
                let delay = Duration::from_millis(ms);
                at_the_gates(bench, until, |faults| faults.delay = delay).await;
            }
            Self::CutRequests => {
                at_the_gates(bench, until, |faults| faults.cut_requests = CUT).await;
            }
            Self::CutReplies => {
                at_the_gates(bench, until, |faults| faults.cut_replies = CUT).await;
            }
            Self::Sleep => bench.redis.run(&["DEBUG", "SLEEP", "3"]).await?,
            Self::Pause => {
                // It ends by itself: an UNPAUSE would have to wait like all others.
                let ms = (until - Instant::now()).as_millis().to_string();
                bench.redis.run::<()>(&["CLIENT", "PAUSE", &ms]).await?;
                sleep_until(until).await;
            }
            Self::Again(words) => {
                while Instant::now() < until {
                    bench.redis.run::<redis::Value>(words).await?;
                    sleep(AGAIN_EVERY).await;
                }
            }
            Self::Set(commands, back) => {
                run_all(bench, commands).await?;
                sleep_until(until).await;
                run_all(bench, back).await?;
            }
            Self::Password => {
                let set = ["CONFIG", "SET", "requirepass"];
                bench
                    .redis
                    .run::<()>(&[&set[..], &["another"]].concat())
                    .await?;
                bench.redis.run::<i64>(KILL_CLIENTS).await?;
                sleep_until(until).await;
                bench
                    .redis
                    .run::<()>(&[&set[..], &[CANARY]].concat())
                    .await?;
            }
            Self::Absent => {
                sleep_until(until).await;
                bench.redis.start().await?;
                bench.suffer(Faults::default());
            }
            Self::KillInstance => {
                aftermath.killed = Some((VICTIM, bench.fleet.kill(VICTIM).await?));
                sleep_until(until).await;
                bench.fleet.start_one(VICTIM).await?;
            }
            Self::CutOff => {
                let dropping = Faults {
                    drop: true,
                    ..Faults::default()
                };
                bench.gates[VICTIM].suffer(dropping);
                sleep_until(until).await;
                bench.gates[VICTIM].suffer(Faults::default());
            }
            Self::Flood => crowds::flood(bench, &mut aftermath).await?,
            Self::Dribble => crowds::dribble(bench, &mut aftermath).await?,
        }
        Ok(aftermath)
    }
}

async fn at_the_gates(bench: &Bench, until: Instant, change: impl FnOnce(&mut Faults)) {
    let mut faults = Faults::default();
    change(&mut faults);
    bench.suffer(faults);
    sleep_until(until).await;
    bench.suffer(Faults::default());
}

async fn run_all(bench: &Bench, commands: &[&[&str]]) -> Result<()> {
    for words in commands {
        bench.redis.run::<redis::Value>(words).await?;
    }
    Ok(())
}
