//! The service: builds everything from the configuration, serves until it is told to stop, drains.

mod assembly;
mod clock;
mod connection;
mod head_timeout;
mod middleware;
mod peers;
mod reload;
mod router;
mod shutdown;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::config::Config;
use crate::domain::Clock;
use crate::http::routes::Instance;
use crate::limiter::rules_file::RulesFile;
use crate::limiter::{Reloader, tell_shadows};
use crate::strategy::Fault;
use crate::strategy::factory::{Care, Plan, build};
use crate::strategy::redis::Settings;

use reload::Live;

pub use assembly::limiter_to_look_with;
pub use clock::{MonotonicClock, WallClock};
pub use connection::{Limits, serve};
pub use reload::Reread;
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

/// Serves on `listener` by these rules until `shutdown` says so, then lets open requests end within the configured time.
///
/// A store that cannot be reached now is used as soon as it can be.
///
/// # Errors
///
/// When the configured strategy cannot be built.
pub async fn run(
    config: Config,
    rules: RulesFile,
    id: Arc<str>,
    listener: TcpListener,
    shutdown: Shutdown,
    reread: Reread,
) -> Result<(), Fault> {
    config
        .warnings
        .iter()
        .for_each(|warning| warn!("{warning}"));
    let sources = rules.sources.clone();
    for warning in rules.warnings.iter() {
        warn!(version = %rules.version, "{warning}");
    }
    let monotonic: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
    let stack = build(&Plan {
        care: Some(Care {
            instance: id.to_string(),
            key_prefix: config.redis.key_prefix.clone(),
            instances: config.limiter.instances,
        }),
        ..assembly::plan(&config, monotonic.clone())
    })?;
    let limiter = Arc::new(assembly::limiter(&config, rules.into_set(), &stack));
    let reloader = config
        .limiter
        .rules_file
        .as_deref()
        .map(|path| Reloader::new(limiter.clone(), path, config.limiter.basis(), sources));
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
            reloads: reloader.as_ref().map(Reloader::status),
            draining: draining.clone(),
        },
        assembly::layer(&config, limiter.clone()),
        Bounds::from(&config),
    );

    let set = limiter.rules();
    let quota = reloader.is_none().then_some(config.limiter.limit.quota);
    let redis = config.redis.settings.as_ref().map(Settings::address);
    info!(
        address = listener
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default(),
        strategy = config.limiter.strategy(),
        rules = quota.is_none().then(|| set.rules().len()),
        rules_version = quota.is_none().then(|| set.version().to_string()),
        capacity = quota.map(|quota| quota.capacity()),
        fill_seconds = quota.map(|quota| quota.fill_time().as_secs_f64()),
        on_store_error = config.limiter.on_store_error.name(),
        redis = redis.as_deref().unwrap_or("none"),
        "listening"
    );
    drop(set);
    let stop = async {
        shutdown.reached(Stage::Drain).await;
        draining.store(true, Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(config.server.shutdown_delay) => {}
            () = shutdown.reached(Stage::End) => {}
        }
    };
    let live = Live {
        config: config.clone(),
        limiter: limiter.clone(),
        reloader,
    };
    let following = tokio::spawn(reload::follow(live, reread));
    connection::serve(listener, app, (&config).into(), stop, shutdown.clone()).await;
    following.abort();
    tell_shadows(&limiter.rules());
    tokio::select! {
        () = stack.leave(config.redis.timeout.min(LONGEST_FAREWELL)) => {}
        () = shutdown.reached(Stage::End) => {}
    }
    info!("stopped");
    Ok(())
}
