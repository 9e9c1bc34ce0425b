//! What one request asks of one limit.

use std::num::NonZeroU64;

use crate::algorithm::Algorithm;
use crate::domain::{Key, OnStoreError, Quota};

/// Charges of one request that are worked on without a heap; more are rare.
pub const FEW_CHARGES: usize = 4;

/// Tokens that one request takes: 1 or more.
pub type Cost = NonZeroU64;

/// How something is counted: an algorithm with a quota.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Decides from what is remembered.
    pub algorithm: &'static dyn Algorithm,
    /// How much is allowed.
    pub quota: Quota,
}

impl PartialEq for Limit {
    fn eq(&self, other: &Self) -> bool {
        self.quota == other.quota && self.algorithm.name() == other.algorithm.name()
    }
}

impl Eq for Limit {}

/// Whether a charge can deny its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The request is denied when this charge does not fit.
    Enforced,
    /// The request is never denied by this charge; it is committed only if the request is admitted and it fits.
    Observed,
}

/// A key, its limit, a cost that can fit, and whether it is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    key: Key,
    limit: Limit,
    cost: Cost,
    mode: Mode,
    on_store_error: OnStoreError,
}

/// A cost that its limit can never admit, however long one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cost of {cost} can never pass a limit of {capacity}")]
pub struct CostAboveCapacity {
    /// The cost that was asked for, in tokens.
    pub cost: u64,
    /// The capacity of the limit, in tokens.
    pub capacity: u64,
}

/// Why two charges of one key cannot be made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmergeable {
    /// They count it differently.
    #[error("the same key under two limits")]
    TwoLimits,
    /// One is enforced and one only observed.
    #[error("the same key both enforced and observed")]
    TwoModes,
    /// Their sum can never pass.
    #[error(transparent)]
    CostAboveCapacity(#[from] CostAboveCapacity),
}

impl Charge {
    /// An enforced charge of `cost` tokens.
    ///
    /// # Errors
    ///
    /// When the cost is above the capacity: no wait could ever make it fit.
    pub fn new(key: Key, limit: Limit, cost: Cost) -> Result<Self, CostAboveCapacity> {
        let capacity = limit.quota.capacity();
        if cost.get() > capacity {
            return Err(CostAboveCapacity {
                cost: cost.get(),
                capacity,
            });
        }
        Ok(Self {
            key,
            limit,
            cost,
            mode: Mode::Enforced,
            on_store_error: OnStoreError::Local,
        })
    }

    /// This charge and another of the same key as one, of the sum.
    ///
    /// # Errors
    ///
    /// When they are under two limits or in two modes, or when the sum is above the capacity.
    pub fn merged(self, other: &Self) -> Result<Self, Unmergeable> {
        if self.limit != other.limit {
            return Err(Unmergeable::TwoLimits);
        }
        if self.mode != other.mode {
            return Err(Unmergeable::TwoModes);
        }
        let cost = self.cost.saturating_add(other.cost.get());
        Ok(Self {
            mode: self.mode,
            on_store_error: self.on_store_error,
            ..Self::new(self.key, self.limit, cost)?
        })
    }

    /// The same charge, only observed.
    #[must_use]
    pub fn observed(self) -> Self {
        Self {
            mode: Mode::Observed,
            ..self
        }
    }

    /// The same charge, with another answer for when the store cannot decide; [`OnStoreError::Local`] is the first.
    #[must_use]
    pub fn with_on_store_error(self, on_store_error: OnStoreError) -> Self {
        Self {
            on_store_error,
            ..self
        }
    }

    /// Whose bucket.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How it is counted.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Tokens to take. At most the capacity.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether this charge can deny its request.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What this charge is answered when the store cannot decide.
    pub fn on_store_error(&self) -> OnStoreError {
        self.on_store_error
    }

    /// Whether this charge can deny its request.
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforced
    }
}
