//! What was decided: a decision for each charge, a verdict for the whole request.

use std::time::Duration;

use smallvec::SmallVec;

/// Whether one charge by itself was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The limit had room for the cost.
    Allowed,
    /// The limit had no room.
    Denied {
        /// Shortest wait after which the same cost is admitted if nobody else takes tokens meanwhile.
        /// At least one microsecond.
        retry_after: Duration,
    },
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The store that all instances share, or the memory of a single instance without one.
    Store,
    /// This instance alone, at its share of the quota, because the store could not.
    Local,
    /// This instance, which remembers that the store denied the same a moment ago.
    Cache,
    /// This instance, of tokens that it took ahead in the store.
    Lease,
    /// Nobody: the store could not, and the charge is one that then passes uncounted.
    Nobody,
}

impl Source {
    /// One word for it, for headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Local => "local",
            Self::Cache => "cache",
            Self::Lease => "lease",
            Self::Nobody => "nobody",
        }
    }
}

/// The answer of one limit to one charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether this charge by itself was allowed, whatever the other charges of the request were told.
    pub outcome: Outcome,
    /// The capacity of the limit, in tokens.
    pub limit: u64,
    /// Whole tokens left in the store after this request, whatever its outcome. At most `limit`.
    pub remaining: u64,
    /// Time until the bucket is full if nobody takes tokens meanwhile; zero when it is full.
    pub reset_after: Duration,
    /// Time until `remaining` is one more; zero when the bucket is full.
    pub next_after: Duration,
    /// Who decided.
    pub source: Source,
}

impl Decision {
    /// Whether this charge by itself was allowed.
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// How long to wait before the same cost can pass; `None` when it was allowed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Allowed => None,
            Outcome::Denied { retry_after } => Some(retry_after),
        }
    }
}

/// The answer to one request: a decision for each of its charges, in their order.
///
/// It cannot be copied, for it can be turned into [receipts](Self::into_receipts) once.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One decision a charge, in the order of the charges.
    pub decisions: SmallVec<[Decision; 1]>,
    /// Whether every enforced charge was allowed; only then was anything charged.
    pub admitted: bool,
    /// The store's time of this decision, in microseconds since 1970.
    pub now_us: u64,
}

impl Verdict {
    /// Whether it says anything of the store as it is now: not what was remembered of it, nor what was taken ahead there.
    pub fn is_news(&self) -> bool {
        !self.is_from(Source::Cache) && !self.is_from(Source::Lease)
    }

    /// Whether any of its decisions came from there.
    pub fn is_from(&self, source: Source) -> bool {
        self.decisions
            .iter()
            .any(|decision| decision.source == source)
    }
}
