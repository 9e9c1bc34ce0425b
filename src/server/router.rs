//! Every route of the service.

use std::time::Duration;

use axum::Router;
use axum::routing::get;

use super::middleware;
use crate::http::RateLimitLayer;
use crate::http::routes::{Instance, api, health, livez, method_not_allowed, not_found, readyz};

/// Bounds of what requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most limited requests at once; more are answered 503.
    pub requests: usize,
    /// Longest time for one request; then it is answered 503.
    pub request_timeout: Duration,
}

/// `GET /api` behind the limit; `GET /health`, `/livez` and `/readyz` beside it, which answer under any load.
pub fn router(instance: Instance, limit: RateLimitLayer, bounds: Bounds) -> Router {
    let limited = middleware::shed(
        Router::new().route("/api", get(api).layer(limit)),
        bounds.requests,
    );
    let free = Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz));
    let routes = limited
        .merge(free)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    middleware::wrap(routes, bounds.request_timeout).with_state(instance)
}
