//! Builds a strategy, with everything that stands around it, from what was configured.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use super::redis::{Hash, Link, Lua, Settings, Transaction, pool};
use super::{Deadline, Fault, Memory, Strategy};
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
    /// Read, decide, write: not atomic.
    Hash,
    /// In this process.
    Memory,
}

impl Kind {
    /// Every strategy.
    pub const ALL: [Self; 4] = [Self::Lua, Self::Transaction, Self::Hash, Self::Memory];

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lua => "lua",
            Self::Transaction => "transaction",
            Self::Hash => "hash",
            Self::Memory => "memory",
        }
    }

    /// The strategy of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
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
    /// Most keys that `memory` remembers.
    pub max_keys: usize,
    /// What tells `memory` the time; should never step back.
    pub clock: Arc<dyn Clock>,
    /// What spreads the keys of `memory`, so that nobody can choose colliding ones.
    pub hasher: RandomState,
    /// Where jitter starts.
    pub seed: u64,
}

/// A built strategy and the connection by which its store can be asked for its health.
#[derive(Debug, Clone)]
pub struct Stack {
    /// What decides.
    pub strategy: Arc<dyn Strategy>,
    /// The store's connection; `None` when there is no store outside this process.
    pub link: Option<Link>,
}

/// Builds the stack. Connections are made in the background: a store that is absent now is used once it is there.
///
/// # Errors
///
/// When the settings cannot make a client, or a strategy that needs Redis has none.
pub fn build(plan: &Plan) -> Result<Stack, Fault> {
    let (strategy, link): (Arc<dyn Strategy>, Option<Link>) = match plan.kind {
        Kind::Lua => {
            let link = plan.link(SHARED_CONNECTIONS)?;
            (Arc::new(Lua::new(link.clone())), Some(link))
        }
        Kind::Transaction => {
            // A tenth less than the deadline around it, so that it can say what it waited for.
            let (link, within) = (plan.link(1)?, plan.timeout * 9 / 10);
            let pool = pool(plan.settings()?, plan.pool_size, within)?;
            (
                Arc::new(Transaction::new(pool, link.clone(), within, plan.seed)),
                Some(link),
            )
        }
        Kind::Hash => {
            let link = plan.link(SHARED_CONNECTIONS)?;
            (Arc::new(Hash::new(link.clone())), Some(link))
        }
        Kind::Memory => {
            let memory = Memory::new(plan.max_keys, plan.clock.clone(), plan.hasher.clone());
            return Ok(Stack {
                strategy: Arc::new(memory),
                link: None,
            });
        }
    };
    Ok(Stack {
        strategy: Arc::new(Deadline::new(strategy, plan.timeout, plan.seed)),
        link,
    })
}

impl Plan {
    fn settings(&self) -> Result<&Settings, Fault> {
        let missing = || Fault::Unreachable(format!("{} needs a Redis", self.kind.name()));
        self.redis.as_ref().ok_or_else(missing)
    }

    fn link(&self, connections: usize) -> Result<Link, Fault> {
        Link::open(self.settings()?, connections, self.timeout, self.seed)
    }
}
