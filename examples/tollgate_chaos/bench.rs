//! Everything that one experiment stands on, and one run of it: load, a fault in the middle, and what was seen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep, sleep_until};

use crate::crowds;
use crate::experiments::Experiment;
use crate::faults::{Aftermath, Fault};
use crate::fleet::{Fleet, INSTANCES, Line};
use crate::generator::{Load, Outcome, Record, Target};
use crate::law::Quota;
use crate::ledger::{Counts, Ledger};
use crate::namespace::Namespace;
use crate::proxy::{Faults, Gate};
use crate::redis_server::RedisServer;
use crate::witness::Witness;

/// After all instances are known to Redis, so long until each has heard of all.
const SETTLING: Duration = Duration::from_millis(1_500);
/// Longest wait for instances to know of each other, and to ask the store again.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a fault begins and ends, of the time that an experiment takes.
const FAULT: (f64, f64) = (0.2, 0.7);

/// How experiments are run.
pub(crate) struct Plan {
    pub(crate) binary: PathBuf,
    pub(crate) namespace: String,
    pub(crate) during: Duration,
    /// Requests a second.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

/// What was seen of one experiment.
pub(crate) struct Observed {
    pub(crate) records: Vec<Record>,
    pub(crate) lines: Vec<Line>,
    pub(crate) aftermath: Aftermath,
    /// When the store accepted a write again.
    pub(crate) healed: Instant,
    /// Latest moment at which an instance was first seen to decide by the store again; `None` if one never was.
    pub(crate) back: Option<Instant>,
    pub(crate) counts: Counts,
    /// How many leases were granted before the fault.
    pub(crate) lent_before: u64,
    pub(crate) quota: Quota,
    /// Requests besides those of the generator, to see who is back.
    pub(crate) looks: u64,
    /// Instances that cannot use as many connections as their pool may have.
    pub(crate) short_of_connections: Vec<usize>,
    /// Idle connections that held bytes nobody asked for.
    pub(crate) surplus: usize,
    /// Instances that run at the end.
    pub(crate) running: usize,
}

/// The processes of one experiment.
pub(crate) struct Bench {
    pub(crate) redis: RedisServer,
    pub(crate) gates: Vec<Gate>,
    pub(crate) fleet: Fleet,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) load: Load,
    pub(crate) quota: Quota,
    /// Where no proxy counts.
    witness: Option<Witness>,
    /// Last, so that it goes after what runs in it.
    pub(crate) namespace: Option<Namespace>,
}

impl Bench {
    async fn start(experiment: &Experiment, plan: &Plan) -> Result<Self> {
        let namespace = match experiment.fault {
            Fault::BlackHole => Some(Namespace::make(&plan.namespace)?),
            _ => None,
        };
        let mut redis = RedisServer::absent(namespace.as_ref())?;
        let is_absent = matches!(experiment.fault, Fault::Absent);
        if !is_absent {
            redis.start().await?;
        }
        let ledger = Arc::new(Ledger::default());
        let mut gates = Vec::new();
        for number in 0..INSTANCES {
            let faults = Faults {
                refuse: is_absent,
                ..Faults::default()
            };
            let seed = plan.seed + number as u64;
            gates.push(Gate::open(redis.address, ledger.clone(), faults, seed).await?);
        }
        let stores = match namespace {
            // Packets are swallowed on the way to Redis itself.
            Some(_) => vec![redis.address; INSTANCES],
            None => gates.iter().map(|gate| gate.address).collect(),
        };
        let witness = match namespace {
            Some(_) => Some(Witness::of(redis.socket(), ledger.clone()).await?),
            None => None,
        };
        let quota = experiment.quota(plan);
        let Quota { capacity, rate } = quota;
        let (capacity_text, rate) = (capacity.to_string(), rate.to_string());
        let limit = [
            ("LIMITER_CAPACITY", capacity_text.as_str()),
            ("LIMITER_REFILL_RATE", &rate),
        ];
        let settings = [&limit, experiment.settings].concat();
        let fleet = Fleet::start(plan.binary.clone(), &settings, stores).await?;
        let load = Load {
            targets: fleet.targets.clone(),
            limit: capacity,
            strangers: Arc::new(AtomicU32::new(0)),
        };
        let bench = Self {
            redis,
            gates,
            fleet,
            ledger,
            load,
            quota,
            witness,
            namespace,
        };
        if !is_absent {
            bench.until_acquainted().await?;
        }
        Ok(bench)
    }

    /// At every gate the same goes wrong.
    pub(crate) fn suffer(&self, faults: Faults) {
        self.gates.iter().for_each(|gate| gate.suffer(faults));
    }

    async fn until_acquainted(&self) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let known: usize = self.redis.run(&["ZCARD", "ratelimit:!instances"]).await?;
            if known == INSTANCES {
                sleep(SETTLING).await;
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("the instances do not send heartbeats")
    }

    /// When that instance is seen to decide by the store; `None` if it never is.
    async fn until_back(&self, instance: usize) -> Option<Instant> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let stranger = self.load.stranger();
            let record = self
                .load
                .ask(Instant::now(), instance, stranger, None)
                .await;
            if is_by_the_store(&record) {
                return Some(record.ended);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

pub(crate) fn is_by_the_store(record: &Record) -> bool {
    matches!(&record.outcome, Outcome::Answered(answer) if answer.status == 200 && !answer.is_local)
}

/// Runs one experiment.
pub(crate) async fn observe(experiment: &Experiment, plan: &Plan) -> Result<Observed> {
    let mut bench = Bench::start(experiment, plan).await?;
    let begin = Instant::now();
    let (load, aborts) = (bench.load.clone(), experiment.aborts);
    let (rate, during, seed) = (plan.rate * experiment.crowd, plan.during, plan.seed);
    let is_loaded = experiment.is_loaded;
    let loading = tokio::spawn(async move {
        match is_loaded {
            true => load.run(rate, during, aborts, seed).await,
            false => Vec::new(),
        }
    });
    sleep_until(begin + during.mul_f64(FAULT.0)).await;
    // On a machine that stalls a key may not be hot yet.
    while experiment.lends() && bench.ledger.counts().lent == 0 && begin.elapsed() < during / 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let lent_before = bench.ledger.counts().lent;
    let until = begin + during.mul_f64(FAULT.1);
    let aftermath = experiment.fault.inflict(&mut bench, until).await?;
    let healed = bench.redis.until_writable().await?;
    let records = loading.await.context("the generator")?;
    let strangers = bench.load.strangers.load(Ordering::Relaxed);
    let mut back = Some(healed);
    for instance in 0..INSTANCES {
        let mut seen = records
            .iter()
            .filter(|record| record.instance == instance && record.scheduled >= healed)
            .filter(|record| is_by_the_store(record) && record.is_a_strangers())
            .map(|record| record.ended);
        let at = match seen.next() {
            Some(first) => Some(seen.fold(first, Instant::min)),
            None => bench.until_back(instance).await,
        };
        back = back.zip(at).map(|(a, b)| a.max(b));
    }
    let short_of_connections = match experiment.pool {
        Some(size) => crowds::short_of_connections(&bench, size).await,
        None => Vec::new(),
    };
    if let Some(witness) = &mut bench.witness {
        witness.until_all_is_heard(&bench.redis).await?;
    }
    Ok(Observed {
        records,
        lines: bench.fleet.lines(),
        aftermath,
        healed,
        back,
        counts: bench.ledger.counts(),
        lent_before,
        quota: bench.quota,
        looks: (bench.load.strangers.load(Ordering::Relaxed) - strangers).into(),
        short_of_connections,
        surplus: bench.load.targets.iter().map(Target::surplus).sum(),
        running: bench.fleet.running(),
    })
}
