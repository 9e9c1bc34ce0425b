//! What own strategies are compared with, served by the same code: `tollgate_bench serve NAME`.
//!
//! Router, handler, middleware and accept loop are the service's own; only the limit differs. The process ends when
//! its standard input does.

mod around;
mod bare;
mod pooled;
mod rival;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail};
use axum::Router;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tollgate::Clock;
use tollgate::config::{Config, Environment};
use tollgate::http::routes::Instance;
use tollgate::server::{Bounds, Limits, MonotonicClock, Shutdown, WallClock, serve};
use tower::layer::util::Identity;

/// Longest wait for open requests at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves the contender of that name; settings are the service's own variables.
pub(crate) async fn run(name: &str) -> Result<()> {
    let config = Config::read(&Environment::new(std::env::vars_os(), None))?;
    let (instance, bounds) = (instance(&config), Bounds::from(&config));
    let app = match name {
        "bare" => tollgate::server::router(instance, Identity::new(), bounds),
        "bare-429" => tollgate::server::router(instance, bare::DenyLayer, bounds),
        "pooled-evalsha" => tollgate::server::router(instance, pooled::layer(&config)?, bounds),
        "tower-governor" => tollgate::server::router(instance, rival::layer(&config)?, bounds),
        _ => bail!("nothing is called {name:?}"),
    };
    listen(&config, app).await
}

async fn listen(config: &Config, app: Router) -> Result<()> {
    let listener = TcpListener::bind(config.server.address).await?;
    let limits = Limits {
        drain: DRAIN,
        ..Limits::from(config)
    };
    let (_commands, shutdown) = Shutdown::new();
    let stop = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    serve(listener, app, limits, stop, shutdown).await;
    Ok(())
}

/// Only the probes ask its limiter, of which there is none here.
fn instance(config: &Config) -> Instance {
    let monotonic: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
    Instance {
        id: format!("{}-{:06x}", std::process::id(), 0).into(),
        wall: Arc::new(WallClock),
        started_us: monotonic.now_us(),
        monotonic,
        link: None,
        breaker: None,
        limiter: Arc::new(tollgate::in_memory(config.limiter.limit.quota)),
        reloads: None,
        draining: Arc::new(AtomicBool::new(false)),
    }
}
