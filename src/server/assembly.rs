//! Builds the parts from the configuration.

use std::hash::RandomState;
use std::sync::Arc;

use super::MonotonicClock;
use crate::config::Config;
use crate::domain::Clock;
use crate::http::RateLimitLayer;
use crate::limiter::rules_file::RulesFile;
use crate::limiter::{Limiter, RuleSet};
use crate::strategy::Fault;
use crate::strategy::factory::{Plan, Stack, build};

/// What the strategy is built from; without care of a store that fails.
pub(super) fn plan(config: &Config, clock: Arc<dyn Clock>) -> Plan {
    Plan {
        kind: config.limiter.kind,
        redis: config.redis.settings.clone(),
        pool_size: config.redis.pool_size,
        timeout: config.redis.timeout,
        max_keys: config.limiter.max_keys,
        clock,
        hasher: RandomState::new(),
        seed: fastrand::u64(..),
        denial_cache: config.limiter.denial_cache,
        lease_max: config.limiter.lease_max,
        care: None,
    }
}

/// What counts requests by these rules in that store.
pub(super) fn limiter(config: &Config, rules: RuleSet, stack: &Stack) -> Limiter {
    Limiter::with_rules(rules, stack.strategy.clone())
        .with_prefix(&config.redis.key_prefix)
        .with_ipv6_prefix(config.limiter.ipv6_prefix)
}

/// A limiter for somebody who only looks: it sends no heartbeats, so it counts as no instance.
///
/// # Errors
///
/// When the configured strategy cannot be built.
pub fn limiter_to_look_with(config: &Config, rules: RulesFile) -> Result<Limiter, Fault> {
    let stack = build(&plan(config, Arc::new(MonotonicClock::start())))?;
    Ok(limiter(config, rules.into_set(), &stack))
}

/// The limiter as a layer around routes.
pub(super) fn layer(config: &Config, limiter: Arc<Limiter>) -> RateLimitLayer {
    RateLimitLayer::new(limiter)
        .trusted_proxies(config.http.trusted_proxies.clone())
        .headers(config.http.headers)
        .retry_after_jitter(config.http.retry_after_jitter, fastrand::u64(..))
}
