//! The service: builds everything from the configuration, serves until it is told to stop, drains.

mod clock;
mod connection;
mod head_timeout;
mod middleware;
mod peers;
mod router;
mod shutdown;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::config::Config;
use crate::domain::Clock;
use crate::http::RateLimitLayer;
use crate::http::routes::Instance;
use crate::limiter::Limiter;
use crate::strategy::Fault;
use crate::strategy::factory::{Care, Plan, build};

pub use clock::{MonotonicClock, WallClock};
pub use connection::Limits;
pub use router::{Bounds, router};
pub use shutdown::{Shutdown, Stage};

/// Longest wait for the store to hear that this instance leaves: without it, it is forgotten a few seconds later.
const LONGEST_FAREWELL: Duration = Duration::from_millis(500);

/// The name of an instance that was given none: `<pid>-<6 hex>`.
pub fn instance_id(config: &Config) -> Arc<str> {
    match &config.server.instance_id {
        Some(id) => id.as_str().into(),
        None => format!("{}-{:06x}", std::process::id(), fastrand::u32(..1 << 24)).into(),
    }
}

/// Serves on `listener` until `shutdown` says so, then lets open requests end within the configured time.
///
/// A store that cannot be reached now is used as soon as it can be.
///
/// # Errors
///
/// When the configured strategy cannot be built.
pub async fn run(
    config: Config,
    id: Arc<str>,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), Fault> {
    config
        .warnings
        .iter()
        .for_each(|warning| warn!("{warning}"));
    let monotonic: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
    let stack = build(&Plan {
        kind: config.limiter.kind,
        redis: config.redis.settings.clone(),
        pool_size: config.redis.pool_size,
        timeout: config.redis.timeout,
        max_keys: config.limiter.max_keys,
        clock: monotonic.clone(),
        hasher: RandomState::new(),
        seed: fastrand::u64(..),
        denial_cache: config.limiter.denial_cache,
        care: Some(Care {
            instance: id.to_string(),
            key_prefix: config.redis.key_prefix.clone(),
            instances: config.limiter.instances,
        }),
    })?;
    let limiter = Arc::new(
        Limiter::new(config.limiter.default_rule(), stack.strategy.clone())
            .with_prefix(&config.redis.key_prefix)
            .with_ipv6_prefix(config.limiter.ipv6_prefix),
    );
    let draining = Arc::new(AtomicBool::new(false));
    let app = router(
        Instance {
            id,
            wall: Arc::new(WallClock),
            started_us: monotonic.now_us(),
            monotonic,
            link: stack.link.clone(),
            breaker: stack.breaker.clone(),
            limiter: limiter.clone(),
            draining: draining.clone(),
        },
        layer(&config, limiter),
        Bounds {
            requests: config.http.max_requests,
            request_timeout: config.http.request_timeout,
        },
    );

    let (quota, redis) = (
        config.limiter.limit.quota,
        config
            .redis
            .settings
            .as_ref()
            .map(crate::strategy::redis::Settings::address),
    );
    info!(
        address = listener
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default(),
        strategy = config.limiter.strategy(),
        capacity = quota.capacity(),
        fill_seconds = quota.fill_time().as_secs_f64(),
        on_store_error = config.limiter.on_store_error.name(),
        redis = redis.as_deref().unwrap_or("none"),
        "listening"
    );
    let limits = Limits {
        connections: config.http.max_connections,
        connections_per_peer: config.http.max_connections_per_peer,
        trusted_proxies: config.http.trusted_proxies.clone(),
        header_timeout: config.http.header_timeout,
        idle_timeout: config.http.idle_timeout,
        drain: config.server.shutdown_timeout,
    };
    let stop = async {
        shutdown.reached(Stage::Drain).await;
        draining.store(true, Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(config.server.shutdown_delay) => {}
            () = shutdown.reached(Stage::End) => {}
        }
    };
    connection::serve(listener, app, limits, stop, shutdown.clone()).await;
    tokio::select! {
        () = stack.leave(config.redis.timeout.min(LONGEST_FAREWELL)) => {}
        () = shutdown.reached(Stage::End) => {}
    }
    info!("stopped");
    Ok(())
}

fn layer(config: &Config, limiter: Arc<Limiter>) -> RateLimitLayer {
    RateLimitLayer::new(limiter)
        .trusted_proxies(config.http.trusted_proxies.clone())
        .headers(config.http.headers)
        .retry_after_jitter(config.http.retry_after_jitter, fastrand::u64(..))
}
