//! One instance: a process of its own that asks and reports, a line for each request.

use std::hash::RandomState;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::sync::mpsc;
use tollgate::algorithm::named;
use tollgate::server::MonotonicClock;
use tollgate::strategy::Strategy;
use tollgate::strategy::factory::{Kind, Plan, build};
use tollgate::strategy::redis::Settings;
use tollgate::{Charge, Cost, Identity, Key, Limit, RuleName, Source};

use crate::history::Op;
use crate::run::{LEASE_MAX, quota};

/// Longest that a decision may take: the machine may stall.
const PATIENCE: Duration = Duration::from_secs(60);

const NUMBERS: [&str; 6] = ["ops", "seconds", "tasks", "keys", "seed", "number"];

pub(crate) fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).long(name).required(true);
    let numbers = NUMBERS.map(|name| text(name).value_parser(value_parser!(u64)));
    Command::new("instance")
        .hide(true)
        .args(["algorithm", "strategy", "redis"].map(text))
        .args(numbers)
        .arg(Arg::new("fault").long("fault"))
}

/// Makes its share of the requests and writes a line for each to standard output.
pub(crate) async fn run(arguments: &ArgMatches) {
    let number = |name: &str| *arguments.get_one::<u64>(name).expect("required");
    let text = |name: &str| {
        arguments
            .get_one::<String>(name)
            .expect("required")
            .as_str()
    };
    let algorithm = named(text("algorithm")).expect("the parent names one that exists");
    let fault = arguments.get_one::<String>("fault").map(String::as_str);
    let plan = Plan {
        kind: Kind::named(text("strategy")).expect("the parent names one that exists"),
        redis: Some(Settings::new(format!("redis://{}", text("redis"))).expect("an address")),
        pool_size: 10,
        timeout: PATIENCE,
        max_keys: 1_000_000,
        clock: Arc::new(MonotonicClock::start()),
        hasher: RandomState::new(),
        seed: number("seed") + number("number"),
        denial_cache: None,
        lease_max: LEASE_MAX,
        care: None,
    };
    let strategy = strategy(&plan, fault, number("number"));
    let limit = Limit {
        algorithm,
        quota: quota(plan.kind),
    };
    let rests = plan.kind == Kind::Lease;
    let until_us = match number("seconds") {
        0 => u64::MAX,
        seconds => wall_us() + seconds * 1_000_000,
    };
    let (sender, mut ops) = mpsc::channel::<Op>(10_000);
    for task in 0..number("tasks") {
        let (strategy, sender) = (strategy.clone(), sender.clone());
        let rng = fastrand::Rng::with_seed(number("seed") ^ (number("number") << 32) ^ task);
        let ops =
            number("ops") / number("tasks") + u64::from(task < number("ops") % number("tasks"));
        let share = Share {
            ops,
            until_us,
            rests,
        };
        tokio::spawn(ask(strategy, limit, number("keys"), share, rng, sender));
    }
    drop(sender);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some(op) = ops.recv().await {
        if writeln!(out, "{}", op.line()).is_err() {
            return;
        }
    }
}

/// How much one task asks for. What it began it also records: a charge that is missing would make others look wrong.
struct Share {
    ops: u64,
    until_us: u64,
    /// Whether all tasks of all instances rest at the same time, again and again.
    rests: bool,
}

/// How often all rest, and for how long: long enough for every bucket to fill up while leases are held.
const REST_EVERY_US: u64 = 600_000;
const REST_US: u64 = 250_000;

/// How much longer the rest takes that is on now.
fn rest(now_us: u64) -> Option<Duration> {
    let into_us = now_us % REST_EVERY_US;
    (into_us < REST_US).then(|| Duration::from_micros(REST_US - into_us))
}

#[cfg(not(feature = "planted-faults"))]
fn strategy(plan: &Plan, fault: Option<&str>, _: u64) -> Arc<dyn Strategy> {
    assert!(
        fault.is_none(),
        "this build has no planted faults: build with --features planted-faults"
    );
    build(plan).expect("a stack").strategy
}

#[cfg(feature = "planted-faults")]
fn strategy(plan: &Plan, fault: Option<&str>, number: u64) -> Arc<dyn Strategy> {
    match fault {
        Some(name) => {
            tollgate::strategy::planted::build(plan, name, number).expect("a fault that is known")
        }
        None => build(plan).expect("a stack").strategy,
    }
}

async fn ask(
    strategy: Arc<dyn Strategy>,
    limit: Limit,
    keys: u64,
    share: Share,
    mut rng: fastrand::Rng,
    to: mpsc::Sender<Op>,
) {
    for _ in 0..share.ops {
        let key = if rng.bool() { 0 } else { rng.u64(..keys) };
        let cost = if rng.u8(..4) == 0 { rng.u64(1..=5) } else { 1 };
        let identity = Identity::new().with_part(format!("key-{key}").as_bytes());
        let name = Key::new(
            "check:",
            limit.algorithm,
            &RuleName::default_rule(),
            &identity,
        );
        let cost_of = Cost::new(cost).expect("1 or more");
        let charge = Charge::new(name, limit, cost_of).expect("costs are within the capacity");
        if share.rests
            && let Some(rest) = rest(wall_us())
        {
            tokio::time::sleep(rest).await;
        }
        let invoked_us = wall_us();
        if invoked_us > share.until_us {
            return;
        }
        let verdict = strategy.decide(&[charge]).await.expect("the store is well");
        let returned_us = wall_us();
        let decision = verdict.decisions[0];
        let op = Op {
            key,
            cost,
            invoked_us,
            returned_us,
            now_us: verdict.now_us,
            admitted: verdict.admitted,
            remaining: decision.remaining,
            retry_after_us: decision.retry_after().map_or(0, micros),
            reset_after_us: micros(decision.reset_after),
            alone: decision.source == Source::Lease,
        };
        if to.send(op).await.is_err() {
            return;
        }
        // Now and then a rest, so that buckets fill and records expire.
        if rng.u16(..500) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(1..60))).await;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests are put in order of the machine's clock"
)]
fn wall_us() -> u64 {
    micros(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
