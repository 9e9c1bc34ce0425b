//! What clients do to the service: one that floods it, and many that dribble.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::bench::{Bench, is_by_the_store};
use crate::faults::Aftermath;
use crate::fleet::INSTANCES;
use crate::generator::{Client, Outcome, Target};
use crate::proxy::Faults;

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// Requests of it under way at each instance.
const ABREAST: usize = 8;
/// `LIMITER_DENIAL_CACHE`: how long a denial is remembered.
const REMEMBERED: Duration = Duration::from_secs(1);
/// The client that floods: one of the regular ones' network.
const FLOODER: Client = Client::Regular(250);

/// Two of these are less than `REDIS_TIMEOUT`, four are more.
const LATE_REPLY: Duration = Duration::from_millis(14);
/// Pause between tries, and how long it is tried: a lost connection never comes back, but a machine's stall passes.
const TRY_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

const DRIBBLERS: usize = 1_000;
/// `HTTP_HEADER_TIMEOUT`, and what is left to a slow machine.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(1);

/// A denied client asks at full speed; Redis may be asked at most twice for each refilled token, for each time that a
/// denial is forgotten, and for each instance.
pub(crate) async fn flood(bench: &Bench, aftermath: &mut Aftermath) -> Result<()> {
    ask_for(bench, Duration::from_secs(1)).await;
    let (before, _) = bench.redis.scripts().await?;
    let begin = Instant::now();
    let asked = ask_for(bench, FLOOD).await;
    let seconds = begin.elapsed().as_secs_f64();
    let (after, _) = bench.redis.scripts().await?;
    let commands = after - before;
    // Both rounded up: the flood begins and ends somewhere between two tokens.
    let whole = |number: f64| format!("{:.0}", number.ceil()).parse::<u64>().unwrap_or(0);
    let refills = whole(seconds) * bench.quota.rate + 1;
    let lifetimes = whole(seconds / REMEMBERED.as_secs_f64()) + 1;
    let most = 2 * (refills + lifetimes) * INSTANCES as u64;
    aftermath.notes.push(format!(
        "{asked} requests of one denied client in {seconds:.1} s: {commands} charges, at most {most}"
    ));
    if commands > most {
        aftermath.broken.push(format!(
            "a flood of {asked} made {commands} charges, more than {most}"
        ));
    }
    Ok(())
}

/// Asks at full speed; how many answers there were.
async fn ask_for(bench: &Bench, during: Duration) -> u64 {
    let (until, answers) = (Instant::now() + during, Arc::new(AtomicU64::new(0)));
    let mut asking = JoinSet::new();
    for number in 0..INSTANCES * ABREAST {
        let (load, answers) = (bench.load.clone(), answers.clone());
        asking.spawn(async move {
            while Instant::now() < until {
                let record = load
                    .ask(Instant::now(), number % INSTANCES, FLOODER, None)
                    .await;
                if matches!(record.outcome, Outcome::Answered(_)) {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    asking.join_all().await;
    answers.load(Ordering::Relaxed)
}

/// Which instances cannot run `size` transactions at once.
///
/// Each takes two round trips, so while replies are late one that had to wait for another's connection would be late
/// for the store's answer. Connections that were thrown away are made anew first.
pub(crate) async fn short_of_connections(bench: &Bench, size: usize) -> Vec<usize> {
    let mut short = Vec::new();
    for instance in 0..INSTANCES {
        bench.suffer(Faults::default());
        all_by_the_store(bench, instance, size).await;
        bench.suffer(Faults {
            delay: LATE_REPLY,
            ..Faults::default()
        });
        let begin = Instant::now();
        while !all_by_the_store(bench, instance, size).await {
            if begin.elapsed() >= PATIENCE {
                short.push(instance);
                break;
            }
            sleep(TRY_EVERY).await;
        }
    }
    bench.suffer(Faults::default());
    short
}

/// Whether so many requests at once, of different clients, are all decided by the store.
async fn all_by_the_store(bench: &Bench, instance: usize, requests: usize) -> bool {
    let mut asking = JoinSet::new();
    for _ in 0..requests {
        let (load, stranger) = (bench.load.clone(), bench.load.stranger());
        asking.spawn(async move { load.ask(Instant::now(), instance, stranger, None).await });
    }
    asking.join_all().await.iter().all(is_by_the_store)
}

/// A thousand sockets send a byte of their headers twice a second: each must be closed in time.
pub(crate) async fn dribble(bench: &Bench, aftermath: &mut Aftermath) -> Result<()> {
    let addresses: Vec<_> = bench
        .fleet
        .targets
        .iter()
        .filter_map(Target::address)
        .collect();
    ensure!(!addresses.is_empty(), "there are no instances");
    let mut dribbling = JoinSet::new();
    for number in 0..DRIBBLERS {
        let stream = TcpStream::connect(addresses[number % addresses.len()]).await?;
        dribbling.spawn(async move { closed_after(stream).await });
    }
    let ends: Vec<Option<Duration>> = dribbling.join_all().await;
    let open = ends.iter().filter(|end| end.is_none()).count();
    let early = ends
        .iter()
        .flatten()
        .filter(|end| **end < HEADER_TIMEOUT / 2)
        .count();
    let last = ends.iter().flatten().max().copied().unwrap_or_default();
    aftermath.notes.push(format!(
        "{DRIBBLERS} dribbling sockets: the last was closed after {:.2} s",
        last.as_secs_f64()
    ));
    if open > 0 {
        aftermath.broken.push(format!(
            "{open} dribbling sockets were open after {:?}",
            HEADER_TIMEOUT + LATE
        ));
    }
    if early > 0 {
        aftermath.broken.push(format!(
            "{early} dribbling sockets were closed long before their time"
        ));
    }
    Ok(())
}

/// How long it took the service to close it; `None` if that was too long.
async fn closed_after(mut stream: TcpStream) -> Option<Duration> {
    let begin = Instant::now();
    let dribble = async {
        let mut head = b"GET /api HTTP/1.1\r\nHost: tollgate\r\nX-Slow: "
            .iter()
            .chain(std::iter::repeat(&b'z'));
        let (mut tick, mut buffer) = (interval(Duration::from_millis(500)), [0; 1024]);
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => if matches!(read, Ok(0) | Err(_)) { return },
                _ = tick.tick() => {
                    let byte = head.next().copied().unwrap_or(b'z');
                    if stream.write_all(&[byte]).await.is_err() { return }
                }
            }
        }
    };
    timeout(HEADER_TIMEOUT + LATE, dribble).await.ok()?;
    Some(begin.elapsed())
}
