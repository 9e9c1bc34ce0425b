//! Every layer around the routes, from the outside in.
//!
//! 1. a deadline for each request;
//! 2. on `/api`, the rate limit (in `router.rs`, so that it stands around that route alone).

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use crate::http::Problem;

/// Puts the layers around `routes`.
pub(super) fn wrap<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    request_timeout: Duration,
) -> Router<S> {
    routes.layer(from_fn(move |request: Request, next: Next| {
        deadline(request_timeout, request, next)
    }))
}

async fn deadline(after: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(after, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "The request took too long.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Request timeout", detail).into_response()
        }
    }
}
