//! A bound on requests at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tracing::warn;

use crate::http::{Problem, RetryAfter};

/// Answers at most so many requests at once, and 503 above that.
#[derive(Debug, Clone)]
pub(in crate::server) struct ShedLayer(Arc<Shedder>);

#[derive(Debug)]
struct Shedder {
    places: Arc<Semaphore>,
    retry_after: RetryAfter,
    told: AtomicBool,
}

impl ShedLayer {
    /// Has places for so many, whatever it is put around.
    pub(in crate::server) fn new(requests: usize) -> Self {
        Self(Arc::new(Shedder {
            places: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
            retry_after: RetryAfter::default(),
            told: AtomicBool::new(false),
        }))
    }
}

impl Shedder {
    fn turn_away(&self) -> Response {
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

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        let layer = self.clone();
        Shed { inner, layer }
    }
}

#[derive(Debug, Clone)]
pub(in crate::server) struct Shed<S> {
    inner: S,
    layer: ShedLayer,
}

impl<S> Service<Request> for Shed<S>
where
    S: Service<Request>,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let shedder = &self.layer.0;
        let Ok(place) = shedder.places.clone().try_acquire_owned() else {
            let away = shedder.turn_away();
            return Box::pin(async { Ok(away) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            drop(place);
            Ok(answer.into_response())
        })
    }
}
