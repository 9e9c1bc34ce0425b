//! Rules times a strategy makes verdicts; and what happens when the strategy has none.

mod failure;
mod rule;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, warn};

use crate::domain::{Charge, CostAboveCapacity, Identity, Key, Verdict};
use crate::strategy::{Fault, Scope, Strategy};

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
    told: AtomicBool,
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
    /// A limiter with one rule. Keys start with [`DEFAULT_PREFIX`]; a store that fails denies.
    pub fn new(rule: Rule, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            rule,
            strategy,
            prefix: DEFAULT_PREFIX.into(),
            on_store_error: OnStoreError::Deny,
            told: AtomicBool::new(false),
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
            Ok(verdict) => Answer::Decided(verdict),
            Err(Fault::Inadmissible(error)) => Answer::Inadmissible(error),
            Err(fault) => {
                self.tell(&fault);
                match self.on_store_error {
                    OnStoreError::Allow => Answer::Unlimited,
                    // Under `local` the strategy decides alone; where even that cannot be, nobody may pass.
                    OnStoreError::Local | OnStoreError::Deny => Answer::Unavailable,
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

    /// Tells of a fault of one request, once; those of the store are told by whoever keeps watch over it.
    fn tell(&self, fault: &Fault) {
        debug!(%fault, ambiguous = fault.is_ambiguous(), "no decision");
        if fault.scope() == Scope::Request && !self.told.swap(true, Ordering::Relaxed) {
            let (policy, advice) = (self.on_store_error.name(), fault.advice());
            warn!(%fault, advice, policy, "a request could not be decided; told once, others at debug level");
        }
    }
}
