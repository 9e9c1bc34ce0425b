//! A deadline for each request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::http::{Problem, RetryAfter};
use crate::strategy::{Alarm, Alarms};

/// Answers 503 where a request takes too long.
#[derive(Debug, Clone)]
pub(in crate::server) struct DeadlineLayer {
    alarms: Arc<Alarms>,
    retry_after: Arc<RetryAfter>,
}

impl DeadlineLayer {
    /// Gives each request that long.
    pub(in crate::server) fn new(after: Duration) -> Self {
        Self {
            alarms: Arc::new(Alarms::new(after)),
            retry_after: Arc::default(),
        }
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
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Answering {
            answer: self.inner.call(request),
            alarm: Alarm::new(self.layer.alarms.clone()),
            retry_after: self.layer.retry_after.clone(),
        }
    }
}

pin_project! {
    /// An answer that may come too late.
    pub(in crate::server) struct Answering<F> {
        #[pin]
        answer: F,
        alarm: Alarm<Arc<Alarms>>,
        retry_after: Arc<RetryAfter>,
    }
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.alarm.poll_before(this.answer, cx)) {
            Ok(answer) => answer.map(IntoResponse::into_response),
            Err(_) => Ok(this.retry_after.on(too_late())),
        })
    }
}

fn too_late() -> Problem<'static> {
    let detail = "The request took too long.";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "Request timeout", detail)
}
