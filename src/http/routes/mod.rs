//! The service's own routes, a file each.

mod api;
mod health;
mod probes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Problem;
use crate::domain::Clock;
use crate::limiter::{Limiter, ReloadStatus};
use crate::strategy::breaker::Breaker;
use crate::strategy::redis::Link;

pub use api::api;
pub use health::health;
pub use probes::{livez, readyz};

/// What the routes know of the instance that serves them.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Which instance answers.
    pub id: Arc<str>,
    /// The wall clock.
    pub wall: Arc<dyn Clock>,
    /// A clock that never steps, for the uptime.
    pub monotonic: Arc<dyn Clock>,
    /// What `monotonic` showed at the start, in microseconds.
    pub started_us: u64,
    /// The store's connection, if a store is configured.
    pub link: Option<Link>,
    /// Whether the store is given a rest; `None` when there is nothing outside this process.
    pub breaker: Option<Arc<Breaker>>,
    /// What limits the requests.
    pub limiter: Arc<Limiter>,
    /// How the rules file fares; `None` without one.
    pub reloads: Option<Arc<ReloadStatus>>,
    /// Whether the instance was told to stop.
    pub draining: Arc<AtomicBool>,
}

impl Instance {
    /// RFC 3339, in local time with its offset, to the second.
    fn local_time(&self) -> String {
        let now_us = i64::try_from(self.wall.now_us()).unwrap_or(i64::MAX);
        let now = Timestamp::from_microsecond(now_us).unwrap_or(Timestamp::MAX);
        now.to_zoned_datetime(TimeZone::system())
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.monotonic.now_us().saturating_sub(self.started_us))
    }
}

/// 404 for everything that is not a route.
pub async fn not_found() -> Problem<'static> {
    Problem::new(
        StatusCode::NOT_FOUND,
        "Not found",
        "There is nothing at this path.",
    )
}

/// 405 for a route that has no such method.
pub async fn method_not_allowed() -> Problem<'static> {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed",
        "This path does not answer to this method.",
    )
}
