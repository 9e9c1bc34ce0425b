//! The service that asks before it lets a request through.

use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use tower::Service;
use tracing::error;

use super::retry_after::Jitter;
use super::{ClientIp, HeaderStyle, RateLimitLayer, RetryAfter, headers, reply};
use crate::limiter::{Answer, Call, Fields, Limiter, Reading, Ruling};

/// Asks the limiter for each request: passes it on, or answers 429 or 503 itself.
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    gate: Arc<Gate>,
}

/// What all clones share.
#[derive(Debug)]
struct Gate {
    limiter: Arc<Limiter>,
    clients: ClientIp,
    style: HeaderStyle,
    jitter: Jitter,
    retry_after: RetryAfter,
    told_of_no_peer: AtomicBool,
}

impl<S> RateLimit<S> {
    pub(super) fn new(inner: S, layer: &RateLimitLayer) -> Self {
        let gate = Gate {
            limiter: layer.limiter.clone(),
            clients: layer.clients.clone(),
            style: layer.style,
            jitter: Jitter::new(layer.jitter, layer.seed),
            retry_after: RetryAfter::default(),
            told_of_no_peer: AtomicBool::new(false),
        };
        Self {
            inner,
            gate: Arc::new(gate),
        }
    }
}

impl Gate {
    /// What the rules say of a request; `None` without a peer.
    fn read<B>(&self, request: &Request<B>) -> Option<Reading> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        let (uri, headers) = (request.uri(), request.headers());
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        Some(self.limiter.read(&Call {
            client: self.clients.of(peer.ip(), headers),
            method: request.method().as_str(),
            path: uri.path(),
            query: uri.query(),
            host: uri.authority().map(Authority::as_str).or(host),
            fields: headers,
            from_trusted_proxy: self.clients.trusts(peer.ip()),
        }))
    }

    /// Whether the request may pass, and what its response tells of the limits; else what it is answered.
    async fn admit(&self, reading: Option<Reading>) -> Result<Answer, Response> {
        let Some(reading) = reading else {
            return Err(self.no_peer());
        };
        let answer = self.limiter.decide(reading).await;
        Err(match &answer.ruling {
            Ruling::Decided(verdict) if verdict.admitted => return Ok(answer),
            Ruling::Unlimited => return Ok(answer),
            Ruling::Decided(_) => {
                let later = self.jitter.next();
                let mut response = reply::denied(&answer, later);
                headers::set(response.headers_mut(), &answer, self.style, later);
                response
            }
            Ruling::Inadmissible { rule, error } => reply::inadmissible(answer.rule(*rule), *error),
            Ruling::Banned { rule } => reply::banned(answer.rule(*rule)),
            Ruling::KeyAbsent { rule, part } => {
                reply::key_absent(answer.rule(*rule), answer.part(*rule, *part))
            }
            Ruling::Unavailable => self.retry_after.on(reply::unavailable()),
        })
    }

    /// Without a peer nobody can be told apart. A mistake in how the application is served, so it is refused and told.
    fn no_peer(&self) -> Response {
        if !self.told_of_no_peer.swap(true, Ordering::Relaxed) {
            error!(
                "requests carry no peer address: serve with into_make_service_with_connect_info::<SocketAddr>()"
            );
        }
        self.retry_after.on(reply::unavailable())
    }
}

impl Fields for HeaderMap {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }
}

impl<S, B> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; its fresh clone waits for the next request.
        let fresh = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, fresh);
        let gate = self.gate.clone();
        let reading = gate.read(&request);
        Box::pin(async move {
            let answer = match gate.admit(reading).await {
                Ok(answer) => answer,
                Err(refusal) => return Ok(refusal),
            };
            let mut response = ready.call(request).await?.into_response();
            headers::set(response.headers_mut(), &answer, gate.style, Duration::ZERO);
            Ok(response)
        })
    }
}
