//! Every layer around the routes, from the outside in.
//!
//! 1. a handler that panics costs its own request and nothing else;
//! 2. a deadline for each request;
//! 3. on what is limited, a bound on requests at once: what is above it is answered 503 at once instead of queued;
//! 4. around the same, the rate limits (in `router.rs`).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::warn;

use crate::http::{Problem, RetryAfter};

/// Puts the layers around all `routes`.
pub(super) fn wrap<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    request_timeout: Duration,
) -> Router<S> {
    let retry_after = Arc::new(RetryAfter::default());
    routes
        .layer(from_fn(move |request: Request, next: Next| {
            let retry_after = retry_after.clone();
            async move { deadline(request_timeout, &retry_after, request, next).await }
        }))
        .layer(CatchPanicLayer::custom(panicked))
}

/// Answers at most so many requests of these `routes` at once.
pub(super) fn shed<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    requests: usize,
) -> Router<S> {
    let shedder = Arc::new(Shedder {
        places: Semaphore::new(requests.min(Semaphore::MAX_PERMITS)),
        retry_after: RetryAfter::default(),
        told: AtomicBool::new(false),
    });
    routes.layer(from_fn(move |request: Request, next: Next| {
        let shedder = shedder.clone();
        async move { shedder.answer(request, next).await }
    }))
}

/// Turns away what is too much.
struct Shedder {
    places: Semaphore,
    retry_after: RetryAfter,
    told: AtomicBool,
}

impl Shedder {
    async fn answer(&self, request: Request, next: Next) -> Response {
        if let Ok(_place) = self.places.try_acquire() {
            return next.run(request).await;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(
                "too many requests at once: some are answered 503 (HTTP_MAX_REQUESTS); told once"
            );
        }
        let detail = "Too many requests are being answered at once.";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", detail);
        self.retry_after.on(problem)
    }
}

async fn deadline(
    after: Duration,
    retry_after: &RetryAfter,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(after, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "The request took too long.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            retry_after.on(Problem::new(status, "Request timeout", detail))
        }
    }
}

/// The panic itself was told by the panic hook.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let detail = "The server made a mistake; it is in its log.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    async fn status(app: &Router, path: &str) -> (u16, bool) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let retry_after = response.headers().contains_key("retry-after");
        (response.status().as_u16(), retry_after)
    }

    #[tokio::test]
    async fn a_handler_that_panics_costs_one_request() {
        async fn broken() -> &'static str {
            panic!("a mistake")
        }
        let routes = Router::new()
            .route("/broken", get(broken))
            .route("/whole", get(async || "hello"));
        let app = wrap(routes, LONG);
        assert_eq!(status(&app, "/broken").await.0, 500);
        assert_eq!(status(&app, "/whole").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_told_when_to_come_again() {
        let app = wrap(
            Router::new().route("/", get(async || std::future::pending::<()>().await)),
            LONG,
        );
        let started = tokio::time::Instant::now();
        assert_eq!(status(&app, "/").await, (503, true));
        assert_eq!(started.elapsed().as_secs(), LONG.as_secs());
    }

    #[tokio::test]
    async fn more_requests_than_allowed_are_turned_away_at_once() {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (entered.clone(), leave.clone());
        let stays = move || {
            let (tell, wait) = (tell.clone(), wait.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
            }
        };
        let app = shed(Router::new().route("/", get(stays)), 1);
        let within = tokio::spawn({
            let app = app.clone();
            async move { status(&app, "/").await }
        });
        entered.notified().await;
        for _ in 0..100 {
            assert_eq!(status(&app, "/").await, (503, true));
        }
        leave.notify_one();
        assert_eq!(within.await.unwrap(), (200, false));
        leave.notify_one();
        assert_eq!(
            status(&app, "/").await,
            (200, false),
            "the place is free again"
        );
    }
}
