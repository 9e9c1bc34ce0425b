//! A layer made of a question: a request is admitted with headers, or answered at once.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use tower::{Layer, Service};

/// The headers of an admitted request, or the answer to a denied one.
pub(super) type Answer = Result<Result<HeaderMap, Response>>;
/// An answer on its way.
pub(super) type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

type Ask = dyn Fn(&Request) -> Asked + Send + Sync;

/// Asks for each request.
#[derive(Clone)]
pub(super) struct Around(Arc<Ask>);

/// The same around one route.
#[derive(Clone)]
pub(super) struct Asking {
    ask: Arc<Ask>,
    inner: Route,
}

impl Around {
    pub(super) fn new(ask: impl Fn(&Request) -> Asked + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl Layer<Route> for Around {
    type Service = Asking;

    fn layer(&self, inner: Route) -> Asking {
        let ask = self.0.clone();
        Asking { ask, inner }
    }
}

impl Service<Request> for Asking {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let fresh = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, fresh);
        let asked = (self.ask)(&request);
        Box::pin(async move {
            match asked.await {
                Ok(Ok(headers)) => {
                    let mut response = ready.call(request).await?;
                    response.headers_mut().extend(headers);
                    Ok(response)
                }
                Ok(Err(denied)) => Ok(denied),
                Err(_) => Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
            }
        })
    }
}
