//! Why a strategy could not decide.

use std::time::Duration;

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
    /// The server answered with an error instead of executing the command.
    #[error("the store refused: {code} {message}")]
    Refused {
        /// The first word of the server's answer, such as `READONLY`.
        code: String,
        /// The rest of it.
        message: String,
    },
    /// The record under this key cannot be used.
    #[error("the record of this key cannot be used: {code} {message}")]
    BadRecord {
        /// The first word of the server's answer, such as `WRONGTYPE`.
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

/// What a fault speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The store: others will meet it too.
    Store,
    /// These keys or this request: it says nothing about the store.
    Request,
}

impl Fault {
    /// Whether the request may have been charged: then it must never be tried again.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Lost(_) | Self::BadReply(_) => true,
            Self::Unreachable(_)
            | Self::Refused { .. }
            | Self::BadRecord { .. }
            | Self::Contended { .. }
            | Self::TableFull
            | Self::Inadmissible(_)
            | Self::Malformed(_) => false,
        }
    }

    /// What this fault speaks of.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Timeout(_)
            | Self::Unreachable(_)
            | Self::Lost(_)
            | Self::Refused { .. }
            | Self::BadReply(_) => Scope::Store,
            Self::BadRecord { .. }
            | Self::Contended { .. }
            | Self::TableFull
            | Self::Inadmissible(_)
            | Self::Malformed(_) => Scope::Request,
        }
    }

    /// One word for it, for logs and metrics: a server's error code as it stands, else the variant.
    pub fn kind(&self) -> &str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Lost(_) => "lost",
            Self::Refused { code, .. } | Self::BadRecord { code, .. } => code,
            Self::Contended { .. } => "contended",
            Self::BadReply(_) => "bad_reply",
            Self::TableFull => "table_full",
            Self::Inadmissible(_) => "inadmissible",
            Self::Malformed(_) => "malformed",
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
