//! A Redis whose clock is stepped back, ahead, and forth and back under load.
//!
//! The law holds on the server's clock, where time is the latest at which a key was charged: a step ahead is time passed, a
//! step back is none. Around each step every key is in use; after it the load goes on, rests for longer than a record would
//! live if its expiry ran from the stepped clock, and goes on again. Where the clock is not stepped forth and back, every
//! decision is also that of a model which never forgets a record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tollgate::algorithm::{ALL, Algorithm, Remembered};
use tollgate::strategy::factory::Kind;
use tollgate::{Cost, Quota, Verdict};

use crate::bench::{FakeClock, RedisServer, charge, stack};

const SECOND_US: i64 = 1_000_000;
const KEYS: usize = 3;
/// Decisions of each key before and after each rest.
const DECISIONS: u64 = 20;

/// Fills in a second; a record lives for a second more.
fn quota() -> Quota {
    Quota::new(20, 20, Duration::from_secs(1)).unwrap()
}

/// Load on a few keys, a task each. The last key is asked for less than it gains, so that it always has tokens left.
struct Load {
    over: Arc<AtomicBool>,
    resting: Arc<AtomicBool>,
    decided: Arc<[AtomicU64; KEYS]>,
    callers: Vec<JoinHandle<Vec<Verdict>>>,
}

impl Load {
    fn start(algorithm: &'static dyn Algorithm, kind: Kind, redis: &RedisServer) -> Self {
        let stack = stack(kind, &redis.address());
        let (over, resting) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let decided: Arc<[AtomicU64; KEYS]> = Arc::default();
        let callers = (0..KEYS)
            .map(|key| {
                let (stack, over, resting, decided) = (
                    stack.clone(),
                    over.clone(),
                    resting.clone(),
                    decided.clone(),
                );
                let asked = [charge(algorithm, &format!("key-{key}"), quota(), 1)];
                let pause = Duration::from_millis(if key == KEYS - 1 { 70 } else { 2 });
                tokio::spawn(async move {
                    let mut verdicts = Vec::new();
                    while !over.load(Ordering::SeqCst) {
                        tokio::time::sleep(pause).await;
                        if resting.load(Ordering::SeqCst) {
                            continue;
                        }
                        let verdict = stack.strategy.decide(&asked).await.unwrap();
                        decided[key].fetch_add(1, Ordering::SeqCst);
                        verdicts.push(verdict);
                    }
                    verdicts
                })
            })
            .collect();
        Self {
            over,
            resting,
            decided,
            callers,
        }
    }

    /// Until each key was decided on so many times more.
    async fn goes_on(&self) {
        let targets: Vec<u64> = self
            .decided
            .iter()
            .map(|count| count.load(Ordering::SeqCst) + DECISIONS)
            .collect();
        for (count, target) in self.decided.iter().zip(targets) {
            while count.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    async fn rests(&self) {
        self.resting.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        self.resting.store(false, Ordering::SeqCst);
    }

    /// For each key, what was decided, in order.
    async fn end(self) -> Vec<Vec<Verdict>> {
        self.over.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for caller in self.callers {
            all.push(caller.await.unwrap());
        }
        all
    }
}

async fn decided_through(
    kind: Kind,
    algorithm: &'static dyn Algorithm,
    shifts: &[i64],
) -> Vec<Vec<Verdict>> {
    let clock = FakeClock::new();
    let redis = RedisServer::start_in(&[], clock.variables().to_vec());
    let load = Load::start(algorithm, kind, &redis);
    load.goes_on().await;
    for shift_us in shifts {
        clock.shift_us(*shift_us);
        load.goes_on().await;
        load.rests().await;
        load.goes_on().await;
    }
    let decided = load.end().await;
    let (keys, expires) = redis.keys_and_expires();
    assert_eq!(
        (keys, expires),
        (KEYS, KEYS),
        "{} {}",
        algorithm.name(),
        kind.name()
    );
    decided
}

/// The law for one key; its requests came one after the other.
fn check_law(name: &str, algorithm: &dyn Algorithm, verdicts: &[Verdict]) {
    let quota = quota();
    let units = |tokens: usize| i128::try_from(tokens).unwrap() * i128::from(quota.unit());
    // Two windows meet at any instant: a burst may stand on either side.
    let bursts = if algorithm.name() == "fixedwindow" {
        2
    } else {
        1
    };
    let (mut lowest, mut latest_us) = (i128::MAX, 0);
    for (i, verdict) in verdicts
        .iter()
        .filter(|verdict| verdict.admitted)
        .enumerate()
    {
        latest_us = latest_us.max(verdict.now_us);
        let gained = i128::from(latest_us) * i128::from(quota.gain());
        lowest = lowest.min(units(i) - gained);
        let most = i128::from(quota.full()) * bursts;
        assert!(
            units(i + 1) - gained - lowest <= most,
            "{name}: request {i} at {}",
            verdict.now_us
        );
    }
}

/// Every decision of one key is that of a model which never forgets a record.
fn check_against_a_model_that_never_expires(
    name: &str,
    algorithm: &dyn Algorithm,
    verdicts: &[Verdict],
) {
    let mut remembered = Remembered::Nothing;
    for verdict in verdicts {
        let decision = &verdict.decisions[0];
        let step = algorithm.step(&quota(), &remembered, verdict.now_us, Cost::MIN);
        let standing = step
            .outcome
            .map_or_else(|refused| refused.before, |taken| taken.after);
        let told = (verdict.admitted, decision.remaining, decision.reset_after);
        assert_eq!(
            told,
            (
                step.outcome.is_ok(),
                standing.remaining,
                Duration::from_micros(standing.reset_after_us)
            ),
            "{name} at {}",
            verdict.now_us
        );
        if let Ok(taken) = step.outcome {
            remembered = Remembered::State(taken.kept.state);
        }
    }
}

async fn law_holds_through(
    shifts: &'static [i64],
) -> Vec<(String, &'static dyn Algorithm, Vec<Verdict>)> {
    let mut histories = Vec::new();
    let pairs = [Kind::Lua, Kind::Transaction]
        .into_iter()
        .flat_map(|kind| ALL.iter().map(move |it| (kind, *it)));
    let runs: Vec<_> = pairs
        .map(|(kind, algorithm)| {
            (
                kind,
                algorithm,
                tokio::spawn(decided_through(kind, algorithm, shifts)),
            )
        })
        .collect();
    for (kind, algorithm, run) in runs {
        let name = format!("{}-{}", algorithm.name(), kind.name());
        let all = run.await.unwrap();
        let stepped = |pair: &[Verdict]| {
            pair[0].now_us.abs_diff(pair[1].now_us) > 4 * SECOND_US.unsigned_abs()
        };
        assert!(
            all.iter().any(|verdicts| verdicts.windows(2).any(stepped)),
            "{name}: the clock was stepped"
        );
        for (key, verdicts) in all.into_iter().enumerate() {
            let name = format!("{name} key {key}");
            check_law(&name, algorithm, &verdicts);
            histories.push((name, algorithm, verdicts));
        }
    }
    histories
}

#[tokio::test(flavor = "multi_thread")]
async fn the_law_holds_through_a_step_back() {
    for (name, algorithm, verdicts) in law_holds_through(&[-30 * SECOND_US]).await {
        check_against_a_model_that_never_expires(&name, algorithm, &verdicts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_law_holds_through_a_step_ahead() {
    for (name, algorithm, verdicts) in law_holds_through(&[3_600 * SECOND_US]).await {
        check_against_a_model_that_never_expires(&name, algorithm, &verdicts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_law_holds_forth_and_back() {
    law_holds_through(&[3_600 * SECOND_US, 0]).await;
}
