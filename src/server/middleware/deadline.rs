//! A deadline for each request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::http::{Problem, RetryAfter};

/// Answers 503 where a request takes too long.
#[derive(Debug, Clone)]
pub(in crate::server) struct DeadlineLayer {
    after: Duration,
    retry_after: Arc<RetryAfter>,
}

impl DeadlineLayer {
    /// Gives each request that long.
    pub(in crate::server) fn new(after: Duration) -> Self {
        let retry_after = Arc::default();
        Self { after, retry_after }
    }

    fn too_late(&self) -> Response {
        let detail = "The request took too long.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Problem::new(status, "Request timeout", detail);
        self.retry_after.on(problem)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        let layer = self.clone();
        Deadline { inner, layer }
    }
}

#[derive(Debug, Clone)]
pub(in crate::server) struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S> Service<Request> for Deadline<S>
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
        let (answer, layer) = (self.inner.call(request), self.layer.clone());
        Box::pin(async move {
            match timeout(layer.after, answer).await {
                Ok(answer) => Ok(answer?.into_response()),
                Err(_) => Ok(layer.too_late()),
            }
        })
    }
}
