//! Which requests are counted together, and under which limit.

use crate::algorithm::TokenBucket;
use crate::domain::{Cost, Limit, Quota, RuleName};

/// Requests that are counted together, under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called, in keys and headers.
    pub name: RuleName,
    /// How it counts.
    pub limit: Limit,
    /// Tokens that each request takes.
    pub cost: Cost,
}

impl Rule {
    /// The rule of a service without a rules file: named `default`, one token a request.
    pub fn default_of(limit: Limit) -> Self {
        Self {
            name: RuleName::default_rule(),
            limit,
            cost: Cost::MIN,
        }
    }

    /// A rule named `default` that counts by token bucket, one token a request.
    pub fn token_bucket(quota: Quota) -> Self {
        Self::default_of(Limit {
            algorithm: &TokenBucket,
            quota,
        })
    }
}
