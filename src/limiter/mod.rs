//! Rules times a strategy make verdicts; and what happens when the strategy has none.

mod answer;
mod call;
mod covers;
mod index;
mod key_part;
mod matching;
mod path;
mod pattern;
mod reload;
mod rule;
mod rule_set;
pub mod rules_file;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tracing::{debug, warn};

use crate::domain::{OnStoreError, Verdict};
use crate::strategy::{Deciding, Fault, MAX_CHARGES, Scope, Strategy};

pub use answer::{Answer, Ruled, Ruling};
pub use call::{Call, Fields};
pub use key_part::{Absent, Part};
pub use matching::{Conditions, Match, Mismatch, Value};
pub use path::{PathPattern, PathPatternError};
pub use pattern::TextPattern;
pub use reload::{ReloadStatus, Reloader, tell_shadows};
pub use rule::{Costs, Effect, Limiting, Overrides, Rule, RuleMode};
pub use rule_set::{Applies, Counts, Reading, RuleSet, Version};

use rule_set::Keys;

#[cfg(test)]
mod tests;

/// Prefix of every key in the store unless another is chosen.
pub const DEFAULT_PREFIX: &str = "ratelimit:";

/// Network bits by which IPv6 clients are counted unless others are chosen: what one subscriber usually has.
pub const DEFAULT_IPV6_PREFIX: u8 = 64;

/// Counts requests by rules and says who may pass.
#[derive(Debug)]
pub struct Limiter {
    rules: ArcSwap<RuleSet>,
    strategy: Arc<dyn Strategy>,
    keys: Keys,
    told: AtomicBool,
    told_of_too_many: AtomicBool,
}

impl Limiter {
    /// A limiter with one rule. Keys start with [`DEFAULT_PREFIX`], IPv6 clients count by [`DEFAULT_IPV6_PREFIX`].
    pub fn new(rule: Rule, strategy: Arc<dyn Strategy>) -> Self {
        Self::with_rules(RuleSet::of_one(rule), strategy)
    }

    /// A limiter with these rules.
    pub fn with_rules(rules: RuleSet, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            strategy,
            keys: Keys {
                prefix: DEFAULT_PREFIX.into(),
                ipv6_prefix: DEFAULT_IPV6_PREFIX,
            },
            told: AtomicBool::new(false),
            told_of_too_many: AtomicBool::new(false),
        }
    }

    /// Starts every key with `prefix` instead.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.keys.prefix = prefix.into();
        self
    }

    /// Counts IPv6 clients by a network of that many bits instead, 0 to 128.
    #[must_use]
    pub fn with_ipv6_prefix(mut self, bits: u8) -> Self {
        self.keys.ipv6_prefix = bits;
        self
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        self.rules.load_full()
    }

    /// Puts other rules in force, all at once. Requests that were read under the old ones are decided by them. A rule
    /// that keeps its name and its algorithm keeps the usage of its buckets.
    pub fn replace_rules(&self, rules: RuleSet) {
        self.rules.store(Arc::new(rules));
        self.told_of_too_many.store(false, Ordering::Relaxed);
    }

    /// Reads the rules for a request: who is counted, by which limits.
    pub fn read(&self, call: &Call<'_>) -> Reading {
        RuleSet::read(self.rules.load(), call, &self.keys)
    }

    /// What each rule in force is to a request, in their order.
    pub fn explain<'a>(&self, rules: &'a RuleSet, call: &Call<'_>) -> Vec<Applies<'a>> {
        rules.explain(call, &self.keys)
    }

    /// Counts one request and says whether it may pass: [`read`](Self::read) and [`decide`](Self::decide).
    ///
    /// Dropping the future early may or may not have charged the request.
    pub async fn check(&self, call: &Call<'_>) -> Answer {
        let reading = self.read(call);
        self.decide(reading).await
    }

    /// Charges what was read, all limits or none, and says whether the request may pass.
    ///
    /// Dropping the future early may or may not have charged the request.
    pub async fn decide(&self, reading: Reading) -> Answer {
        match self.decide_at_once(reading) {
            Ok(answer) => answer,
            Err(reading) => {
                let decided = self.decide_later(&reading).await;
                self.answer(reading, decided)
            }
        }
    }

    /// The same where nobody needs to be waited for, without a future.
    ///
    /// # Errors
    ///
    /// The reading where somebody needs to be: nothing was charged, and [`decide_later`](Self::decide_later) will know.
    #[expect(clippy::result_large_err, reason = "what is not an error is larger")]
    pub fn decide_at_once(&self, mut reading: Reading) -> Result<Answer, Reading> {
        if reading.is_cut_off() && !self.told_of_too_many.swap(true, Ordering::Relaxed) {
            let version = reading.set.version();
            warn!(%version, most = MAX_CHARGES, "more rules apply to a request than one may have: the first ones count; told once");
        }
        if let Some(ruling) = reading.settled() {
            return Ok(Answer::new(reading, ruling));
        }
        match self.strategy.decide_at_once(reading.charges()) {
            Some(decided) => Ok(self.answer(reading, decided)),
            None => Err(reading.kept()),
        }
    }

    /// Decides a reading for which [`decide_at_once`](Self::decide_at_once) had no answer; [`answer`](Self::answer) makes one of
    /// what comes of it. In two parts, so that who waits keeps one reading in memory and not several.
    pub fn decide_later<'a>(&'a self, reading: &'a Reading) -> Deciding<'a> {
        self.strategy.decide_later(reading.charges())
    }

    /// Tells what [`decide`](Self::decide) would, and charges nothing.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the store cannot tell.
    pub async fn peek(&self, reading: Reading) -> Result<Answer, Fault> {
        let mut reading = reading.kept();
        let ruling = match reading.settled() {
            Some(ruling) => ruling,
            None => Ruling::Decided(self.strategy.peek(reading.charges()).await?),
        };
        Ok(Answer::new(reading, ruling))
    }

    /// The answer to a request of which [`decide_later`](Self::decide_later) said that, or had a fault instead.
    pub fn answer(&self, reading: Reading, decided: Result<Verdict, Fault>) -> Answer {
        let ruling = match decided {
            Ok(verdict) => Ruling::Decided(verdict),
            Err(fault) => self.undecided(&reading, &fault),
        };
        let answer = Answer::new(reading, ruling);
        answer.count();
        answer
    }

    /// The answer where even an instance of its own cannot decide.
    fn undecided(&self, reading: &Reading, fault: &Fault) -> Ruling {
        let policy = OnStoreError::strictest(reading.charges());
        self.tell(fault, policy);
        match policy {
            OnStoreError::Allow => Ruling::Unlimited,
            // Under `local` the strategy decides alone; where even that cannot be, nobody may pass.
            OnStoreError::Local | OnStoreError::Deny => Ruling::Unavailable,
        }
    }

    /// Tells of a fault of one request, once; those of the store are told by whoever keeps watch over it.
    fn tell(&self, fault: &Fault, policy: OnStoreError) {
        debug!(%fault, ambiguous = fault.is_ambiguous(), "no decision");
        if fault.scope() == Scope::Request && !self.told.swap(true, Ordering::Relaxed) {
            let (policy, advice) = (policy.name(), fault.advice());
            warn!(%fault, advice, policy, "a request could not be decided; told once, others at debug level");
        }
    }
}
