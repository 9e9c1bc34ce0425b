//! Every route of the service.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{Route, get};
use tower::{Layer, Service};

use super::middleware::{DeadlineLayer, ShedLayer, catch_panics};
use crate::config::Config;
use crate::http::routes::{Instance, api, health, livez, method_not_allowed, not_found, readyz};

/// Bounds of what requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most limited requests at once; more are answered 503.
    pub requests: usize,
    /// Longest time for one request; then it is answered 503.
    pub request_timeout: Duration,
}

impl From<&Config> for Bounds {
    fn from(config: &Config) -> Self {
        Self {
            requests: config.http.max_requests,
            request_timeout: config.http.request_timeout,
        }
    }
}

/// `GET /api` and whatever else is asked for, behind the limits; `GET /health`, `/livez` and `/readyz` beside them, which
/// answer under any load.
///
/// The limits are a [`RateLimitLayer`](crate::http::RateLimitLayer), or whatever that is to be compared with.
pub fn router<L>(instance: Instance, limits: L, bounds: Bounds) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    let outer = (catch_panics(), DeadlineLayer::new(bounds.request_timeout));
    let limited = Router::new()
        .route("/api", get(api))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((outer.clone(), ShedLayer::new(bounds.requests), limits));
    let free = Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(outer);
    limited.merge(free).with_state(Arc::new(instance))
}
