//! Every layer around the routes, from the outside in.
//!
//! 1. a handler that panics costs its own request and nothing else;
//! 2. a deadline for each request;
//! 3. on what is limited, a bound on requests at once: what is above it is answered 503 at once instead of queued;
//! 4. around the same, the rate limits (in `router.rs`).
//!
//! They are put around a route in one piece: each time that a router is wrapped by itself, every request clones and
//! allocates what was wrapped before once more.

mod deadline;
mod shed;

use std::any::Any;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::http::Problem;

pub(super) use deadline::DeadlineLayer;
pub(super) use shed::ShedLayer;

/// Answers 500 where a handler panics.
pub(super) fn catch_panics() -> CatchPanicLayer<Panicked> {
    CatchPanicLayer::custom(Panicked)
}

/// The answer; the panic itself was told by the panic hook.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = axum::body::Body;

    fn response_for_panic(&mut self, _: Box<dyn Any + Send>) -> Response {
        let detail = "The server made a mistake; it is in its log.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
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
        let app = routes.layer(catch_panics());
        assert_eq!(status(&app, "/broken").await.0, 500);
        assert_eq!(status(&app, "/whole").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_told_when_to_come_again() {
        let routes = Router::new().route("/", get(async || std::future::pending::<()>().await));
        let app = routes.layer(DeadlineLayer::new(LONG));
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
        let app = Router::new()
            .route("/", get(stays))
            .layer(ShedLayer::new(1));
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
