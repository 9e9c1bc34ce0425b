//! Every route of the service.

use std::time::Duration;

use axum::Router;
use axum::routing::get;

use super::middleware;
use crate::http::RateLimitLayer;
use crate::http::routes::{Instance, api, health, method_not_allowed, not_found};

/// `GET /api` behind the limit, `GET /health` beside it.
pub fn router(instance: Instance, limit: RateLimitLayer, request_timeout: Duration) -> Router {
    let limited = Router::new().route("/api", get(api).layer(limit));
    let free = Router::new().route("/health", get(health));
    let routes = limited
        .merge(free)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    middleware::wrap(routes, request_timeout).with_state(instance)
}
