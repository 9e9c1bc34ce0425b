//! A distributed rate limiter: many instances of a service share one set of limits, exactly.
//!
//! An **algorithm** is a pure function of what was remembered, the time and the cost. A **strategy** remembers, and
//! commits such steps: that is where atomicity lives. A **transport** only translates.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`domain`] | quotas, keys, charges, decisions |
//! | [`algorithm`] | how a limit decides |
//! | [`strategy`] | how a decision is committed: in Redis by a script or a transaction, or in memory |
//! | [`limiter`] | rules times a strategy; what happens when the store fails |
//! | [`http`] | the tower layer, the routes |
//! | [`config`], [`server`], [`cli`], [`telemetry`] | the service around them |
//!
//! To limit the routes of an axum application, wrap them in a [`http::RateLimitLayer`]. To ask without HTTP:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tollgate::{Quota, limiter::{Call, Ruling}};
//!
//! // A burst of 2, then one a minute.
//! let limiter = tollgate::in_memory(Quota::new(2, 1, Duration::from_secs(60))?);
//! let alice = Call::of("192.0.2.1".parse()?);
//! for expected in [true, true, false] {
//!     let answer = limiter.check(&alice).await;
//!     let Ruling::Decided(verdict) = answer.ruling else { unreachable!("memory never fails") };
//!     assert_eq!(verdict.admitted, expected);
//! }
//! # Ok(())
//! # }
//! ```

pub mod algorithm;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod limiter;
pub mod server;
pub mod strategy;
pub mod telemetry;

use std::hash::RandomState;
use std::sync::Arc;

pub use domain::{
    Charge, Clock, Cost, CostAboveCapacity, Decision, Identity, Key, Limit, ManualClock, Mode,
    Networks, NetworksError, OnStoreError, Outcome, Quota, QuotaError, Receipt, RuleName,
    RuleNameError, Source, Unmergeable, Verdict,
};

/// Most keys that [`in_memory`] remembers.
const MAX_KEYS: usize = 1_000_000;

/// A limiter that counts by token bucket in this process: for one instance, for tests, and to begin with.
///
/// It remembers up to a million keys, on this machine's monotonic clock.
pub fn in_memory(quota: Quota) -> limiter::Limiter {
    let clock = Arc::new(server::MonotonicClock::start());
    let memory = strategy::Memory::new(MAX_KEYS, clock, &RandomState::new());
    limiter::Limiter::new(limiter::Rule::token_bucket(quota), Arc::new(memory))
}
