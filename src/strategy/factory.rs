//! Builds a strategy, with everything that stands around it, from what was configured.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::breaker::{Breaker, Breaking};
use super::pulse::Pulse;
use super::redis::{Hash, Heart, Lender, Link, Lua, Pool, Settings, Transaction, pool};
use super::supervisor::supervise;
use super::{Deadline, DenialCache, Fallback, Fault, Lease, Members, Memory, Strategy};
use crate::algorithm::{Algorithm, TokenBucket};
use crate::domain::Clock;

/// Shared connections for strategies that pipeline; one can carry some 80,000 decisions a second.
const SHARED_CONNECTIONS: usize = 2;

/// Which strategy to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One atomic script.
    Lua,
    /// WATCH, MULTI, EXEC.
    Transaction,
    /// The script, and tokens of hot keys that each instance takes ahead.
    Lease,
    /// Read, decide, write: not atomic.
    Hash,
    /// In this process.
    Memory,
}

impl Kind {
    /// Every strategy.
    pub const ALL: [Self; 5] = [
        Self::Lua,
        Self::Transaction,
        Self::Lease,
        Self::Hash,
        Self::Memory,
    ];

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lua => "lua",
            Self::Transaction => "transaction",
            Self::Lease => "lease",
            Self::Hash => "hash",
            Self::Memory => "memory",
        }
    }

    /// The strategy of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it can be chosen with that algorithm: `lease` lends of a token bucket alone.
    pub fn serves(self, algorithm: &dyn Algorithm) -> bool {
        self != Self::Lease || algorithm.name() == TokenBucket.name()
    }

    /// Whether it remembers in Redis.
    pub fn needs_redis(self) -> bool {
        self != Self::Memory
    }
}

/// What a strategy is built from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which one.
    pub kind: Kind,
    /// Where Redis is; only `memory` does without.
    pub redis: Option<Settings>,
    /// Exclusive connections that `transaction` may hold.
    pub pool_size: usize,
    /// Longest that a decision waits for the store, everything included.
    pub timeout: Duration,
    /// Most keys that this process remembers.
    pub max_keys: usize,
    /// What tells the time in this process; should never step back.
    pub clock: Arc<dyn Clock>,
    /// What spreads the keys that this process remembers, so that nobody can choose colliding ones.
    pub hasher: RandomState,
    /// Where jitter starts.
    pub seed: u64,
    /// How long denials are remembered; `None` for not at all. `hash` and `memory` never remember them.
    pub denial_cache: Option<Duration>,
    /// Most that `lease` takes ahead, in percent of what is left.
    pub lease_max: u64,
    /// What is done about a store that fails; `None` for nothing but telling each request of its fault.
    pub care: Option<Care>,
}

/// What is done about a store that fails: heartbeats and a breaker, and decisions without it.
#[derive(Debug, Clone)]
pub struct Care {
    /// The name of this instance.
    pub instance: String,
    /// What every key in the store starts with.
    pub key_prefix: String,
    /// How many instances share the store, as long as no heartbeat was heard.
    pub instances: u64,
}

/// A built strategy, and what there is to know of its store.
#[derive(Debug, Clone)]
pub struct Stack {
    /// What decides.
    pub strategy: Arc<dyn Strategy>,
    /// The store's connection; `None` when there is no store outside this process.
    pub link: Option<Link>,
    /// Whether the store is given a rest; `None` without care.
    pub breaker: Option<Arc<Breaker>>,
    /// How many instances share the store; `None` without care.
    pub members: Option<Arc<Members>>,
    pulse: Option<Arc<Beating>>,
}

/// The heartbeats of this instance, until it is dropped.
#[derive(Debug)]
struct Beating {
    heart: Arc<Heart>,
    task: JoinHandle<()>,
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stack {
    /// Tells the store that this instance leaves, for at most `within`. Others then divide the quota by one less.
    pub async fn leave(&self, within: Duration) {
        let Some(pulse) = &self.pulse else { return };
        pulse.task.abort();
        match timeout(within, pulse.heart.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => debug!(%fault, "the store was not told that this instance leaves"),
            Err(_) => debug!("the store was not told in time that this instance leaves"),
        }
    }
}

/// A strategy without anything around it, and what it stands on.
struct Bare {
    strategy: Arc<dyn Strategy>,
    link: Link,
    pool: Option<Pool>,
}

/// Builds the stack. Connections are made in the background: a store that is absent now is used once it is there.
///
/// # Errors
///
/// When the settings cannot make a client, or a strategy that needs Redis has none.
///
/// # Panics
///
/// Outside a tokio runtime, if the strategy needs Redis.
pub fn build(plan: &Plan) -> Result<Stack, Fault> {
    let Some(bare) = plan.bare()? else {
        return Ok(Stack {
            strategy: Arc::new(plan.memory()),
            link: None,
            breaker: None,
            members: None,
            pulse: None,
        });
    };
    let link = bare.link.clone();
    let bounded: Arc<dyn Strategy> = Arc::new(Deadline::new(
        plan.with_lease(plan.with_denial_cache(bare.strategy), &link),
        plan.timeout,
        plan.seed,
    ));
    let Some(care) = &plan.care else {
        return Ok(Stack {
            strategy: bounded,
            link: Some(link),
            breaker: None,
            members: None,
            pulse: None,
        });
    };
    let breaker = Arc::new(Breaker::new(plan.clock.clone()));
    let members = Arc::new(Members::new(care.instances));
    let fallback = Arc::new(Fallback::new(
        Arc::new(Breaking::new(bounded.clone(), breaker.clone())),
        bounded,
        plan.memory(),
        members.clone(),
    ));
    let heart = Arc::new(Heart::new(
        link.clone(),
        &care.key_prefix,
        &care.instance,
        plan.seed,
    ));
    let pulse = Pulse {
        heart: heart.clone(),
        link: link.clone(),
        breaker: breaker.clone(),
        members: members.clone(),
        fallback: fallback.clone(),
        pool: bare.pool,
        within: plan.timeout,
        clock: plan.clock.clone(),
        rng: fastrand::Rng::with_seed(plan.seed),
    };
    let task = supervise("heartbeat", move || pulse.clone().run());
    Ok(Stack {
        strategy: fallback,
        link: Some(link),
        breaker: Some(breaker),
        members: Some(members),
        pulse: Some(Arc::new(Beating { heart, task })),
    })
}

impl Plan {
    /// The strategy alone; `None` for the one that needs no store.
    fn bare(&self) -> Result<Option<Bare>, Fault> {
        let (strategy, link, pool): (Arc<dyn Strategy>, _, _) = match self.kind {
            Kind::Lua | Kind::Lease => {
                let link = self.link(SHARED_CONNECTIONS)?;
                (Arc::new(Lua::new(link.clone())), link, None)
            }
            Kind::Transaction => {
                // A tenth less than the deadline around it, so that it can say what it waited for.
                let (link, within) = (self.link(1)?, self.timeout * 9 / 10);
                let pool = pool(self.settings()?, self.pool_size, within)?;
                let transaction = Transaction::new(pool.clone(), link.clone(), within, self.seed);
                (Arc::new(transaction), link, Some(pool))
            }
            Kind::Hash => {
                let link = self.link(SHARED_CONNECTIONS)?;
                (Arc::new(Hash::new(link.clone())), link, None)
            }
            Kind::Memory => return Ok(None),
        };
        Ok(Some(Bare {
            strategy,
            link,
            pool,
        }))
    }

    fn with_denial_cache(&self, strategy: Arc<dyn Strategy>) -> Arc<dyn Strategy> {
        match self.denial_cache {
            // What races is left as it is.
            Some(longest) if self.kind != Kind::Hash => Arc::new(DenialCache::new(
                strategy,
                self.clock.clone(),
                longest,
                &self.hasher,
            )),
            _ => strategy,
        }
    }

    /// Outside of the denial cache: what a lease pays nobody needs to be asked for.
    fn with_lease(&self, strategy: Arc<dyn Strategy>, link: &Link) -> Arc<dyn Strategy> {
        if self.kind != Kind::Lease {
            return strategy;
        }
        Arc::new(Lease::new(
            strategy,
            Arc::new(Lender::new(link.clone())),
            self.clock.clone(),
            self.lease_max,
            &self.hasher,
        ))
    }

    fn memory(&self) -> Memory {
        Memory::new(self.max_keys, self.clock.clone(), &self.hasher)
    }

    fn settings(&self) -> Result<&Settings, Fault> {
        let missing = || Fault::Unreachable(format!("{} needs a Redis", self.kind.name()));
        self.redis.as_ref().ok_or_else(missing)
    }

    fn link(&self, connections: usize) -> Result<Link, Fault> {
        Link::open(self.settings()?, connections, self.timeout, self.seed)
    }
}
