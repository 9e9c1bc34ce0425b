//! Measures the subjects of a scenario in turn, round by round, each right after what it is compared with, so that whatever
//! disturbs the machine disturbs both.

use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use crate::footprint::SETTLED;
use crate::generator::{Clients, Running, Tally};
use crate::plan::Plan;
use crate::redis_server::RedisServer;
use crate::scenario::Scenario;
use crate::service::{Programs, Service};
use crate::subject::{Contender, Subject};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};
use tollgate::strategy::factory::Kind;

/// Longest wait for a store to be filled.
const FILLING: Duration = Duration::from_secs(300);
/// Share of answers, in a thousand, that may be other than the scenario is about: `hash` admits too much at times.
const STRAY: u64 = 50;
/// Where chance starts.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// One subject, measured once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// How many were measured before it in the scenario.
    pub(crate) turn: usize,
    /// How long the yardstick took right before, in microseconds.
    pub(crate) yardstick_us: f64,
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// CPU time for each request, in microseconds.
    pub(crate) service_us: f64,
    pub(crate) redis_us: f64,
    pub(crate) balancer_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) admitted: u64,
    pub(crate) denied: u64,
    pub(crate) local: u64,
    pub(crate) other: u64,
    /// Scripts that Redis was asked for; of `transaction`, transactions.
    pub(crate) calls: u64,
    /// Bytes of an answer.
    pub(crate) bytes: usize,
    /// Most resident bytes of the service until the end of the round.
    pub(crate) peak: u64,
}

/// One subject in all rounds.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) subject: Subject,
    pub(crate) samples: Vec<Sample>,
    pub(crate) latency: Histogram<u64>,
    /// Resident bytes of the service before the first round.
    pub(crate) idle: Option<u64>,
    /// Why there are no samples: one round that failed undoes the others.
    pub(crate) failed: Option<String>,
    pub(crate) filling: Option<Filling>,
}

/// What a store took up when each of its clients had asked once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) keys: u32,
    /// Bytes that the service gained, and Redis.
    pub(crate) service: u64,
    pub(crate) redis: u64,
}

/// What came of a scenario.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) cells: Vec<Cell>,
}

impl Sample {
    /// CPU time of service and Redis for a request, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.service_us + self.redis_us
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Starts everything that a scenario needs and measures it.
pub(crate) async fn measure(
    scenario: Scenario,
    plan: &Plan,
    programs: &Programs,
) -> Result<Measured> {
    let mut stores: HashMap<u32, Rc<RedisServer>> = HashMap::new();
    let (mut cells, mut services) = (Vec::new(), Vec::new());
    for subject in &scenario.subjects {
        let mut cell = Cell::of(subject)?;
        let service = prepare(subject, &mut stores, programs, &mut cell).await;
        services.push(service.map_err(|error| cell.fail(&error)).ok());
        cells.push(cell);
    }
    sleep(SETTLED).await;
    for (cell, service) in cells.iter_mut().zip(&services) {
        cell.idle = service.as_ref().and_then(|it| it.resident().ok());
    }
    let rounds = if scenario.is_sweep {
        plan.sweep_rounds
    } else {
        plan.rounds
    };
    let mut turn = 0;
    for round in 0..rounds {
        eprintln!(
            "{} ({}): round {} of {rounds}",
            scenario.name,
            scenario.about,
            round + 1
        );
        for i in scenario.compared() {
            let base = scenario.base(i);
            let (Some(of_base), Some(own)) = (&services[base], &services[i]) else {
                continue;
            };
            for (i, service) in [(base, of_base), (i, own)] {
                let cell = &mut cells[i];
                let sampled = sample(service, &cell.subject, plan, turn).await;
                let added =
                    sampled.and_then(|(sample, tally)| cell.add(sample, &tally, scenario.denies));
                added.unwrap_or_else(|error| cell.fail(&error));
                turn += 1;
            }
        }
    }
    Ok(Measured { scenario, cells })
}

async fn prepare(
    subject: &Subject,
    stores: &mut HashMap<u32, Rc<RedisServer>>,
    programs: &Programs,
    cell: &mut Cell,
) -> Result<Service> {
    let redis = if subject.contender.needs_redis() {
        let shared = subject.store.and_then(|number| stores.get(&number));
        let redis = match shared {
            Some(shared) => shared.clone(),
            None => Rc::new(RedisServer::start().await?),
        };
        if let Some(number) = subject.store {
            stores.insert(number, redis.clone());
        }
        Some(redis)
    } else {
        None
    };
    let service = Service::start(subject, redis, programs).await?;
    if subject.filled {
        cell.filling = Some(fill(&service, subject).await?);
    }
    Ok(service)
}

/// Lets each client ask once.
async fn fill(service: &Service, subject: &Subject) -> Result<Filling> {
    eprintln!(
        "filling {} with {} keys",
        subject.contender.name(),
        subject.clients
    );
    let memory = async || -> Result<(u64, u64)> {
        let redis = match &service.redis {
            Some(redis) => redis.counts().await?.memory,
            None => 0,
        };
        Ok((service.resident()?, redis))
    };
    let before = memory().await?;
    let running = Running::start(service.load(Clients::EachOf(subject.clients)), 0)?;
    let begin = Instant::now();
    while !running.has_ended() {
        ensure!(
            begin.elapsed() < FILLING,
            "the store cannot be filled in time"
        );
        sleep(Duration::from_millis(20)).await;
    }
    running.end().await?;
    let after = memory().await?;
    if let Some(redis) = &service.redis {
        let keys = redis.counts().await?.keys;
        ensure!(
            keys >= u64::from(subject.clients),
            "only {keys} keys are in Redis"
        );
    }
    Ok(Filling {
        keys: subject.clients,
        service: after.0.saturating_sub(before.0),
        redis: after.1.saturating_sub(before.1),
    })
}

/// Loads a service for a while.
async fn sample(
    service: &Service,
    subject: &Subject,
    plan: &Plan,
    turn: usize,
) -> Result<(Sample, Tally)> {
    let is_transaction = subject.contender == Contender::Own(Kind::Transaction);
    let calls = async || -> Result<u64> {
        Ok(match &service.redis {
            Some(redis) if is_transaction => redis.counts().await?.transactions,
            Some(redis) => redis.counts().await?.scripts,
            None => 0,
        })
    };
    let yardstick_us = yardstick_us();
    let running = Running::start(service.load(subject.chosen()), SEED ^ turn as u64)?;
    sleep(if subject.settles_late() {
        plan.long_warm_up
    } else {
        plan.warm_up
    })
    .await;
    let calls_before = calls().await?;
    running.count(true);
    let (begin, cpu, answered) = (Instant::now(), service.cpu()?, running.answered());
    sleep(plan.window).await;
    let (end, cpu_after, answered_after) = (Instant::now(), service.cpu()?, running.answered());
    running.count(false);
    let calls = calls().await? - calls_before;
    let by_itself = running.has_ended();
    let tally = running.end().await?;
    ensure!(!by_itself, "the load ended by itself");
    let requests = answered_after - answered;
    ensure!(
        requests > 0 && !tally.latency.is_empty(),
        "nothing was answered"
    );
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / requests as f64;
    let sample = Sample {
        turn,
        yardstick_us,
        requests,
        seconds: (end - begin).as_secs_f64(),
        service_us: each(cpu.service, cpu_after.service),
        redis_us: each(cpu.redis, cpu_after.redis),
        balancer_us: each(cpu.balancer, cpu_after.balancer),
        p50_us: tally.latency.value_at_quantile(0.50) as f64 / 1_000.0,
        p99_us: tally.latency.value_at_quantile(0.99) as f64 / 1_000.0,
        admitted: tally.admitted,
        denied: tally.denied,
        local: tally.local,
        other: tally.other,
        calls,
        bytes: tally.bytes,
        peak: service.peak()?,
    };
    Ok((sample, tally))
}

/// How long some work takes that is always the same, in microseconds: longer where the host's other guests slow a core down.
fn yardstick_us() -> f64 {
    const TEXT: &str =
        r#"{"client":"10.0.0.1","tokens":[1,22,333,4444],"admitted":true,"wait":0.25}"#;
    let begin = Instant::now();
    for _ in 0..500 {
        black_box(serde_json::from_str::<serde_json::Value>(black_box(TEXT)).is_ok());
    }
    begin.elapsed().as_secs_f64() * 1e6
}

impl Sample {
    /// An error where the answers are not those that the scenario is about.
    fn check(&self, denies: bool) -> Result<()> {
        let (admitted, denied, other) = (self.admitted, self.denied, self.other);
        let strays = if denies { admitted } else { denied } + other + self.local;
        ensure!(
            strays * 1_000 <= (admitted + denied + other) * STRAY,
            "{admitted} answers of 200, {denied} of 429, {other} others, {} decided without Redis",
            self.local
        );
        Ok(())
    }
}

impl Cell {
    pub(crate) fn of(subject: &Subject) -> Result<Self> {
        Ok(Self {
            subject: subject.clone(),
            samples: Vec::new(),
            latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
            idle: None,
            failed: None,
            filling: None,
        })
    }

    /// Adds a round; not to those of which one failed, so that nobody is judged by the rounds that went well.
    fn add(&mut self, sample: Sample, tally: &Tally, denies: bool) -> Result<()> {
        sample.check(denies)?;
        if self.failed.is_some() {
            return Ok(());
        }
        self.latency.add(&tally.latency).context("latencies")?;
        self.samples.push(sample);
        Ok(())
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        eprintln!("{}: failed: {reason}", self.subject.name());
        self.samples.clear();
        self.latency.reset();
        self.failed = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Quota;

    #[test]
    fn a_contender_of_which_a_round_failed_is_not_judged_by_the_others() {
        let subject = Subject::new(Contender::Own(Kind::Transaction), Quota::Ample, 1);
        let mut cell = Cell::of(&subject).unwrap();
        let tally = Tally {
            admitted: 100,
            denied: 0,
            local: 0,
            other: 0,
            bytes: 0,
            latency: Histogram::new(3).unwrap(),
        };
        let round = |denied| Sample {
            admitted: 100,
            denied,
            ..Sample::default()
        };
        cell.add(round(0), &tally, false).unwrap();
        assert_eq!(cell.samples.len(), 1);
        let error = cell.add(round(10), &tally, false).unwrap_err();
        cell.fail(&error);
        cell.add(round(0), &tally, false).unwrap();
        assert!(cell.samples.is_empty() && cell.failed.is_some());
    }
}
