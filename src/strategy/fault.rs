//! Why a strategy could not decide.

use std::time::Duration;

use super::refusal::{Remedy, Scope, meaning};
use crate::domain::{CostAboveCapacity, Unmergeable};

/// Why a strategy could not decide. Each says whether the request may have been charged all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No answer came in time.
    #[error("no answer from the store within {0:?}")]
    Timeout(Duration),
    /// There is no connection, so nothing was sent.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke before the answer came.
    #[error("the connection to the store was lost: {0}")]
    Lost(String),
    /// The store had too many faults and is given a rest: nothing was sent.
    #[error("the store is given a rest after too many faults")]
    Resting,
    /// Every connection that this instance may have is in use, so nothing was sent.
    #[error("all connections of the pool are in use")]
    PoolExhausted,
    /// So many requests wait for a call to the store already that this one was not sent.
    #[error("too many requests wait for the store")]
    QueueFull,
    /// It waited for its turn while the store answered no call, and was not sent.
    #[error("not sent: for {0:?} the store did not answer the requests before this one")]
    NotSent(Duration),
    /// The server answered with an error instead of executing the command; see [`REFUSALS`](super::REFUSALS).
    #[error("the store refused: {code} {message}")]
    Refused {
        /// The first word of the server's answer, such as `READONLY`.
        code: String,
        /// The rest of it.
        message: String,
    },
    /// Others changed the same keys at every try.
    #[error("contended: others changed the same keys in each of {attempts} tries")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The server's answer is not one that the command can have.
    #[error("the store gave an answer that makes no sense: {0}")]
    BadReply(String),
    /// The table is full of live buckets, and the overflow buckets cannot hold this request either.
    #[error("the table of keys is full")]
    TableFull,
    /// The cost is above the capacity: it can never pass, however long one waits.
    #[error(transparent)]
    Inadmissible(CostAboveCapacity),
    /// The request itself is not one that can be decided.
    #[error("malformed request: {0}")]
    Malformed(String),
}

impl Fault {
    /// Whether the request may have been charged: then it must never be tried again.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Lost(_) | Self::BadReply(_) => true,
            Self::Refused { code, .. } => meaning(code).is_ambiguous,
            Self::Unreachable(_)
            | Self::Resting
            | Self::PoolExhausted
            | Self::QueueFull
            | Self::NotSent(_)
            | Self::Contended { .. }
            | Self::TableFull
            | Self::Inadmissible(_)
            | Self::Malformed(_) => false,
        }
    }

    /// What this fault speaks of: only what speaks of the store counts for the breaker.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Timeout(_)
            | Self::Unreachable(_)
            | Self::Lost(_)
            | Self::Resting
            | Self::NotSent(_)
            | Self::BadReply(_) => Scope::Store,
            Self::Refused { code, .. } => meaning(code).scope,
            Self::PoolExhausted
            | Self::QueueFull
            | Self::Contended { .. }
            | Self::TableFull
            | Self::Inadmissible(_)
            | Self::Malformed(_) => Scope::Request,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused { code, .. } => meaning(code).remedy,
            _ => Remedy::GiveUp,
        }
    }

    /// Whether the request itself is at fault: no store could decide it.
    pub fn is_of_the_request(&self) -> bool {
        matches!(self, Self::Inadmissible(_) | Self::Malformed(_))
    }

    /// One word for it, for logs and metrics: a server's error code as it stands, else the variant.
    pub fn kind(&self) -> &str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Lost(_) => "lost",
            Self::Resting => "resting",
            Self::PoolExhausted => "pool_exhausted",
            Self::QueueFull => "queue_full",
            Self::NotSent(_) => "not_sent",
            Self::Refused { code, .. } => code,
            Self::Contended { .. } => "contended",
            Self::BadReply(_) => "bad_reply",
            Self::TableFull => "table_full",
            Self::Inadmissible(_) => "inadmissible",
            Self::Malformed(_) => "malformed",
        }
    }

    /// What an operator can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Timeout(_) => {
                "the store is slow, frozen or behind a network that drops packets: look at its load, or raise REDIS_TIMEOUT"
            }
            Self::Unreachable(_) => "look whether the store runs and REDIS_ADDR names it",
            Self::Lost(_) => {
                "the store or the network between closed the connection: look at the store's log"
            }
            Self::Resting => "it is probed and used again as soon as it answers",
            Self::PoolExhausted => "raise REDIS_POOL_SIZE",
            Self::QueueFull => {
                "run more instances, or a faster store: it decides less than is asked"
            }
            Self::NotSent(_) => {
                "the store is slow, frozen or behind a network that drops packets: look at its load, or raise REDIS_TIMEOUT"
            }
            Self::Refused { code, .. } => meaning(code).advice,
            Self::Contended { .. } => {
                "too many instances change one key: the strategy `lua` knows no contention"
            }
            Self::BadReply(_) => {
                "what answers is not a Redis that is supported: 6.2 or later, Valkey 7.2 or later"
            }
            Self::TableFull => "raise LIMITER_MAX_KEYS",
            Self::Inadmissible(_) => "lower the cost, or raise the capacity",
            Self::Malformed(_) => "correct the request",
        }
    }
}

impl From<Unmergeable> for Fault {
    fn from(error: Unmergeable) -> Self {
        match error {
            Unmergeable::CostAboveCapacity(error) => Self::Inadmissible(error),
            Unmergeable::TwoLimits | Unmergeable::TwoModes => Self::Malformed(error.to_string()),
        }
    }
}
