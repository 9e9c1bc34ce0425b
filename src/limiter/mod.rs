//! Rules times a strategy makes verdicts; and what happens when the strategy has none.

mod failure;
mod rule;

use std::sync::Arc;

use crate::domain::{Charge, Clock, CostAboveCapacity, Identity, Key, Verdict};
use crate::strategy::{Fault, Strategy};

use failure::FaultLog;
pub use failure::OnStoreError;
pub use rule::Rule;

/// Prefix of every key in the store unless another is chosen.
pub const DEFAULT_PREFIX: &str = "ratelimit:";

/// Counts requests by a rule and says who may pass.
#[derive(Debug)]
pub struct Limiter {
    rule: Rule,
    strategy: Arc<dyn Strategy>,
    prefix: Box<str>,
    on_store_error: OnStoreError,
    faults: FaultLog,
}

/// What a request is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The limits were asked: admitted or denied, with the numbers.
    Decided(Verdict),
    /// The cost is above the capacity: it can never pass, so no wait is named.
    Inadmissible(CostAboveCapacity),
    /// The store could not be asked and the policy is to let it pass: nothing was counted.
    Unlimited,
    /// The store could not be asked and the policy is to refuse.
    Unavailable,
}

impl Limiter {
    /// A limiter with one rule. Keys start with [`DEFAULT_PREFIX`]; a store that fails denies. `clock` only spaces log
    /// lines.
    pub fn new(rule: Rule, strategy: Arc<dyn Strategy>, clock: Arc<dyn Clock>) -> Self {
        Self {
            rule,
            strategy,
            prefix: DEFAULT_PREFIX.into(),
            on_store_error: OnStoreError::Deny,
            faults: FaultLog::new(clock),
        }
    }

    /// Starts every key with `prefix` instead.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What to answer when the store cannot decide.
    #[must_use]
    pub fn on_store_error(mut self, policy: OnStoreError) -> Self {
        self.on_store_error = policy;
        self
    }

    /// The rule by which requests are counted.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Counts one request of `identity` and says whether it may pass.
    ///
    /// Dropping the future early may or may not have charged the request.
    pub async fn check(&self, identity: &Identity) -> Answer {
        match self.decide(identity).await {
            Ok(verdict) => {
                self.faults.cleared();
                Answer::Decided(verdict)
            }
            Err(Fault::Inadmissible(error)) => Answer::Inadmissible(error),
            Err(fault) => {
                self.faults.met(&fault, self.on_store_error);
                match self.on_store_error {
                    OnStoreError::Allow => Answer::Unlimited,
                    OnStoreError::Deny => Answer::Unavailable,
                }
            }
        }
    }

    async fn decide(&self, identity: &Identity) -> Result<Verdict, Fault> {
        let Rule { name, limit, cost } = &self.rule;
        let key = Key::new(&self.prefix, limit.algorithm, name, identity);
        let charge =
            Charge::new(key, *limit, *cost).map_err(|error| Fault::Malformed(error.to_string()))?;
        self.strategy.decide(&[charge]).await
    }
}
