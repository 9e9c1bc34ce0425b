//! tower_governor as its own documentation sets it up, with headers and keyed by `X-Forwarded-For`.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use governor::middleware::StateInformationMiddleware;
use tollgate::config::Config;
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::SmartIpKeyExtractor;

type Rival = GovernorLayer<SmartIpKeyExtractor, StateInformationMiddleware, Body>;

/// The limit that `LIMITER_CAPACITY` and `LIMITER_REFILL_RATE` name.
pub(super) fn layer(config: &Config) -> Result<Rival> {
    let quota = config.limiter.limit.quota;
    let capacity = u32::try_from(quota.capacity()).context("the capacity")?;
    let period = Duration::from_secs_f64(quota.fill_time().as_secs_f64() / f64::from(capacity));
    let limit = GovernorConfigBuilder::default()
        .period(period)
        .burst_size(capacity)
        .key_extractor(SmartIpKeyExtractor)
        .use_headers()
        .finish()
        .context("no limit")?;
    Ok(GovernorLayer::new(limit))
}
