//! One decision in this process, without HTTP: `memory` against `governor`, with the same keys.

use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::{Arc, Barrier};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tokio::time::Instant;
use tollgate::server::MonotonicClock;
use tollgate::strategy::{Memory, Strategy};
use tollgate::{Charge, Cost, Identity, Key, Limit, Quota, algorithm};

use crate::plan::Plan;

/// Keys in the table.
const KEYS: u32 = 10_000;
/// Most keys that `memory` may hold: as the service by default.
const MOST_KEYS: usize = 1_000_000;
const CAPACITY: u32 = 100_000;
const PERIOD: Duration = Duration::from_secs(10_000);
/// A step through the keys that visits all of them in an order that no cache foresees.
const STRIDE: usize = 7_919;

/// Nanoseconds of a thread for one decision, of each round.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) threads: usize,
    pub(crate) memory_ns: Vec<f64>,
    pub(crate) governor_ns: Vec<f64>,
}

/// Measures both in turn, with one thread and with two.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<InProcess>> {
    let limit = Limit {
        algorithm: algorithm::named("tokenbucket").context("tokenbucket")?,
        quota: Quota::new(CAPACITY.into(), 1, PERIOD)?,
    };
    let charges: Vec<Charge> = (0..KEYS)
        .map(|i| Charge::new(key(i, limit), limit, Cost::MIN))
        .collect::<Result<_, _>>()?;
    let clock = Arc::new(MonotonicClock::start());
    let memory = Memory::new(MOST_KEYS, clock, &RandomState::new());
    let burst = NonZeroU32::new(CAPACITY).context("no capacity")?;
    let quota = governor::Quota::with_period(PERIOD).context("no period")?;
    let governor: DefaultKeyedRateLimiter<Key> = RateLimiter::keyed(quota.allow_burst(burst));

    // Both find the key in the same place, so that neither has it nearer.
    let by_memory = |i: usize| memory_admits(&memory, &charges[i..=i]);
    let by_governor = |i: usize| governor_admits(&governor, charges[i].key());
    let mut results = Vec::new();
    for threads in [1, 2] {
        // Once unmeasured, so that every key is there.
        timed(threads, KEYS, &by_memory)?;
        timed(threads, KEYS, &by_governor)?;
        let mut result = InProcess {
            threads,
            memory_ns: Vec::new(),
            governor_ns: Vec::new(),
        };
        for _ in 0..plan.rounds {
            result
                .memory_ns
                .push(timed(threads, plan.decisions, &by_memory)?);
            result
                .governor_ns
                .push(timed(threads, plan.decisions, &by_governor)?);
        }
        results.push(result);
    }
    Ok(results)
}

fn key(i: u32, limit: Limit) -> Key {
    let [_, a, b, c] = i.to_be_bytes();
    let identity = Identity::new().with_ip([10, a, b, c].into(), 64);
    let rule = tollgate::RuleName::default_rule();
    Key::new("ratelimit:", limit.algorithm, &rule, &identity)
}

/// As the layer asks `memory`, which never waits for anything. Like the other one, not made part of the loop, so that both
/// are measured alike, and told apart by `scripts/profile`.
#[inline(never)]
fn memory_admits(memory: &Memory, charges: &[Charge]) -> bool {
    let decided = memory.decide_at_once(charges);
    decided.is_some_and(|verdict| verdict.is_ok_and(|verdict| verdict.admitted))
}

#[inline(never)]
fn governor_admits(governor: &DefaultKeyedRateLimiter<Key>, key: &Key) -> bool {
    governor.check_key(key).is_ok()
}

/// Nanoseconds that a thread takes for a decision, when so many threads make `count` each.
fn timed(threads: usize, count: u32, decide: &(impl Fn(usize) -> bool + Sync)) -> Result<f64> {
    let barrier = Barrier::new(threads);
    let times = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                // By which `scripts/profile` tells one thread from two.
                let name = format!("deciding-{threads}");
                let worker = std::thread::Builder::new().name(name);
                worker.spawn_scoped(scope, move || {
                    let keys = KEYS as usize;
                    let mut i = thread * keys / threads;
                    barrier.wait();
                    let begin = Instant::now();
                    let mut admitted = 0_u32;
                    for _ in 0..count {
                        i = (i + STRIDE) % keys;
                        admitted += u32::from(decide(i));
                    }
                    (begin.elapsed(), admitted)
                })
            })
            .collect::<Result<_, _>>()?;
        let joined = workers.into_iter().map(ScopedJoinHandle::join);
        let times = joined.collect::<Result<Vec<_>, _>>();
        times.map_err(|_| anyhow!("a thread panicked"))
    })?;
    anyhow::ensure!(
        times.iter().all(|(_, admitted)| *admitted == count),
        "a decision was a denial"
    );
    let sum: Duration = times.iter().map(|(took, _)| *took).sum();
    Ok(sum.as_secs_f64() * 1e9 / f64::from(count) / times.len() as f64)
}
