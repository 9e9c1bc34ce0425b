//! One run: a Redis, some instances, their history, what the checks find in it.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tollgate::Quota;
use tollgate::algorithm::Algorithm;
use tollgate::strategy::factory::Kind;

use crate::history::Op;
use crate::{law, leases, replay};

/// The limit of every key: small and fast, so that a run meets full, drained and expired buckets many times.
///
/// From one that small nothing is lent: with leases it is large enough for that, and full again within a fifth of a
/// lease.
pub(crate) fn quota(kind: Kind) -> Quota {
    let (capacity, rate) = match kind {
        Kind::Lease => (1_000, 5_000),
        _ => (20, 700),
    };
    Quota::new(capacity, rate, Duration::from_secs(1)).expect("it can be counted")
}

/// Most that is taken ahead, in percent of what is left: much, so that much would be admitted twice.
pub(crate) const LEASE_MAX: u64 = 30;
/// With leases so many times the requests: most of them are decided by the instances, and fast.
const LEASE_OPS: u64 = 20;

/// How far two readings of this machine's clock may be apart: `memory` reads the monotonic one, which is not slewed.
const CLOCK_SLACK_US: u64 = 20_000;

/// What to run.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) algorithm: &'static dyn Algorithm,
    pub(crate) kind: Kind,
    pub(crate) ops: u64,
    /// Longest time to ask, if not 0.
    pub(crate) seconds: u64,
    pub(crate) instances: u64,
    pub(crate) tasks: u64,
    pub(crate) keys: u64,
    pub(crate) seed: u64,
    pub(crate) fault: Option<String>,
}

/// What the checks found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Findings {
    pub(crate) operations: u64,
    pub(crate) granted: u64,
    /// Tokens above the law, over all keys.
    pub(crate) above_the_law: u64,
    pub(crate) replay: replay::Differences,
    /// Requests that were decided at a time before that of one that had ended before they began.
    pub(crate) out_of_order: u64,
    /// Requests whose time lies before they began or after they ended.
    pub(crate) off_the_clock: u64,
    /// Keys in Redis without an expiry.
    pub(crate) without_expiry: u64,
    /// Requests that an instance decided by itself.
    pub(crate) alone: u64,
    /// Requests that were denied while others held what they asked for, or had lost it: as leases may.
    pub(crate) denied_by_leases: u64,
}

impl Findings {
    /// Each check and how often it found something.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let replay::Differences {
            wrong_grants,
            wrong_denials,
            wrong_numbers,
        } = self.replay;
        [
            ("wrong grants", wrong_grants),
            ("wrong denials", wrong_denials),
            ("wrong numbers", wrong_numbers),
            ("tokens above the law", self.above_the_law),
            ("out of order", self.out_of_order),
            ("off the clock", self.off_the_clock),
            ("keys without expiry", self.without_expiry),
        ]
        .into_iter()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.checks().all(|(_, count)| count == 0)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} granted",
            self.operations, self.granted
        )?;
        self.checks()
            .try_for_each(|(name, count)| write!(f, ", {count} {name}"))?;
        if self.alone > 0 {
            let Self {
                alone,
                denied_by_leases,
                ..
            } = self;
            write!(
                f,
                ", {alone} of leases, {denied_by_leases} denied by leases"
            )?;
        }
        Ok(())
    }
}

impl Run {
    /// Runs it and checks what was recorded.
    pub(crate) async fn check(&self) -> Findings {
        let redis = Redis::start();
        let ops = self.record(&redis);
        let without_expiry = redis.keys_without_expiry();
        let mut by_key: HashMap<u64, Vec<Op>> = HashMap::new();
        for op in &ops {
            by_key.entry(op.key).or_default().push(*op);
        }
        let quota = quota(self.kind);
        let mut found = Findings {
            operations: ops.len() as u64,
            without_expiry,
            ..Findings::default()
        };
        for ops in by_key.values() {
            let admitted: Vec<Op> = ops.iter().filter(|op| op.admitted).copied().collect();
            found.granted += admitted.len() as u64;
            found.out_of_order += out_of_order(ops);
            found.off_the_clock += off_the_clock(ops);
            if self.kind == Kind::Lease {
                found.alone += ops.iter().filter(|op| op.alone).count() as u64;
                found.above_the_law += law::sure_excess(&quota, &admitted);
                let denials = leases::denials(&quota, LEASE_MAX, ops);
                found.denied_by_leases += denials.while_lent;
                found.replay.wrong_denials += denials.wrong;
                continue;
            }
            let replay =
                replay::differences(self.algorithm, &quota, ops, self.kind == Kind::Transaction);
            found.above_the_law += law::excess(self.algorithm.name(), &quota, &admitted);
            found.replay.wrong_grants += replay.wrong_grants;
            found.replay.wrong_denials += replay.wrong_denials;
            found.replay.wrong_numbers += replay.wrong_numbers;
        }
        found
    }

    fn record(&self, redis: &Redis) -> Vec<Op> {
        let (sender, lines) = mpsc::channel();
        let mut instances: Vec<Child> = (0..self.instances)
            .map(|number| self.instance(redis, number))
            .collect();
        for instance in &mut instances {
            let (out, sender) = (instance.stdout.take().expect("it is piped"), sender.clone());
            std::thread::spawn(move || {
                BufReader::new(out)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| sender.send(line))
            });
        }
        drop(sender);
        let progress = std::io::stderr().is_terminal();
        let mut ops = Vec::new();
        for line in lines {
            ops.push(line.parse().expect("a line of an instance"));
            if progress && ops.len() % 1_000 == 0 {
                eprint!(
                    "\r{}-{}: {} requests  ",
                    self.algorithm.name(),
                    self.kind.name(),
                    ops.len()
                );
            }
        }
        if progress {
            eprint!("\r\x1b[K");
        }
        for mut instance in instances {
            let status = instance.wait().expect("it was started");
            assert!(status.success(), "an instance ended with {status}");
        }
        ops
    }

    fn instance(&self, redis: &Redis, number: u64) -> Child {
        let ops = match self.kind {
            Kind::Lease => self.ops.saturating_mul(LEASE_OPS),
            _ => self.ops,
        };
        let share = ops / self.instances + u64::from(number < ops % self.instances);
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([
            "instance",
            "--algorithm",
            self.algorithm.name(),
            "--strategy",
            self.kind.name(),
        ]);
        command.args(["--redis", &redis.address]);
        for (name, value) in [
            ("--ops", share),
            ("--seconds", self.seconds),
            ("--tasks", self.tasks),
            ("--keys", self.keys),
            ("--seed", self.seed),
            ("--number", number),
        ] {
            command.arg(name).arg(value.to_string());
        }
        if let Some(fault) = &self.fault {
            command.args(["--fault", fault]);
        }
        command
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again")
    }
}

/// How many requests tell a time before they began or after they ended; Redis shares this machine's clock.
fn off_the_clock(ops: &[Op]) -> u64 {
    let plausible = |op: &&Op| {
        let earliest_us = op.invoked_us.saturating_sub(CLOCK_SLACK_US);
        // Who decides by itself counts on from a time that was told late: as late as an answer may take.
        (op.alone || earliest_us <= op.now_us) && op.now_us <= op.returned_us + CLOCK_SLACK_US
    };
    ops.len() as u64 - ops.iter().filter(plausible).count() as u64
}

/// How many requests were decided at a time before that of one that had ended before they began.
fn out_of_order(ops: &[Op]) -> u64 {
    // Who decides by itself only estimates the time.
    let mut by_return: Vec<Op> = ops.iter().filter(|op| !op.alone).copied().collect();
    let mut by_invocation = by_return.clone();
    by_return.sort_unstable_by_key(|op| op.returned_us);
    by_invocation.sort_unstable_by_key(|op| op.invoked_us);
    let (mut ended, mut latest_us, mut count) = (by_return.iter().peekable(), 0, 0);
    for op in &by_invocation {
        while let Some(before) = ended.next_if(|before| before.returned_us < op.invoked_us) {
            latest_us = latest_us.max(before.now_us);
        }
        count += u64::from(op.now_us < latest_us);
    }
    count
}

/// A redis-server of this run's own.
struct Redis {
    address: String,
    process: Child,
}

impl Redis {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        let port = address.rsplit(':').next().unwrap_or_default();
        let process = Command::new("redis-server")
            .args([
                "--port",
                port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is on the PATH");
        let redis = Self { address, process };
        for _ in 0..3_000 {
            if redis
                .connection()
                .is_some_and(|mut it| redis::cmd("PING").query::<String>(&mut it).is_ok())
            {
                return redis;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server did not answer on {}", redis.address);
    }

    fn connection(&self) -> Option<redis::Connection> {
        redis::Client::open(format!("redis://{}", self.address))
            .ok()?
            .get_connection()
            .ok()
    }

    fn keys_without_expiry(&self) -> u64 {
        let mut connection = self.connection().expect("it answered before");
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query(&mut connection)
            .expect("KEYS");
        let lasting = |key: &&String| {
            redis::cmd("PTTL")
                .arg(key.as_str())
                .query::<i64>(&mut connection)
                .expect("PTTL")
                == -1
        };
        keys.iter().filter(lasting).count() as u64
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
