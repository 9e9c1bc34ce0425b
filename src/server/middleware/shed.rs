//! A bound on requests at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::warn;

use crate::http::{Problem, RetryAfter};

/// Answers at most so many requests at once, and 503 above that.
#[derive(Debug, Clone)]
pub(in crate::server) struct ShedLayer(Arc<Shedder>);

#[derive(Debug)]
struct Shedder {
    most: usize,
    requests: AtomicUsize,
    retry_after: RetryAfter,
    told: AtomicBool,
}

/// A place among those that are answered, until it is dropped.
#[derive(Debug)]
struct Place(Arc<Shedder>);

impl ShedLayer {
    /// Has places for so many, whatever it is put around.
    pub(in crate::server) fn new(requests: usize) -> Self {
        Self(Arc::new(Shedder {
            most: requests,
            requests: AtomicUsize::new(0),
            retry_after: RetryAfter::default(),
            told: AtomicBool::new(false),
        }))
    }

    fn place(&self) -> Option<Place> {
        let (order, requests) = (Ordering::Relaxed, &self.0.requests);
        let more = |requests| (requests < self.0.most).then_some(requests + 1);
        requests.fetch_update(order, order, more).ok()?;
        Some(Place(self.0.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
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
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.layer.place() {
            Some(place) => Answering::Placed {
                answer: self.inner.call(request),
                place: Some(place),
            },
            None => Answering::Away {
                answer: Some(self.layer.0.turn_away()),
            },
        }
    }
}

pin_project! {
    /// An answer on its way.
    #[project = Step]
    pub(in crate::server) enum Answering<F> {
        Placed { #[pin] answer: F, place: Option<Place> },
        Away { answer: Option<Response> },
    }
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Step::Placed { answer, place } => {
                let answer = ready!(answer.poll(cx));
                drop(place.take());
                Poll::Ready(answer.map(IntoResponse::into_response))
            }
            Step::Away { answer } => {
                let answer = answer.take().expect("not polled after it resolved");
                Poll::Ready(Ok(answer))
            }
        }
    }
}
