//! The service that asks before it lets a request through.

use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use tower::Service;
use tracing::error;

use super::{ClientIp, RetryAfter, headers, reply};
use crate::domain::Identity;
use crate::limiter::{Answer, Limiter};

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
    ipv6_prefix: u8,
    retry_after: RetryAfter,
    told_of_no_peer: AtomicBool,
}

impl<S> RateLimit<S> {
    pub(super) fn new(inner: S, limiter: Arc<Limiter>, clients: ClientIp, ipv6_prefix: u8) -> Self {
        let gate = Gate {
            limiter,
            clients,
            ipv6_prefix,
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
    /// Who asks; `None` without a peer.
    fn identity<B>(&self, request: &Request<B>) -> Option<Identity> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        let client = self.clients.of(peer.ip(), request.headers());
        Some(Identity::new().with_ip(client, self.ipv6_prefix))
    }

    async fn ask(&self, identity: Option<Identity>) -> Answer {
        match identity {
            Some(identity) => self.limiter.check(&identity).await,
            None => self.no_peer(),
        }
    }

    /// Without a peer nobody can be told apart. A mistake in how the application is served, so it is refused and told.
    fn no_peer(&self) -> Answer {
        if !self.told_of_no_peer.swap(true, Ordering::Relaxed) {
            error!(
                "requests carry no peer address: serve with into_make_service_with_connect_info::<SocketAddr>()"
            );
        }
        Answer::Unavailable
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
        let identity = gate.identity(&request);
        Box::pin(async move {
            let answer = gate.ask(identity).await;
            let rule = gate.limiter.rule();
            match answer {
                Answer::Decided(verdict) if verdict.admitted => {
                    let mut response = ready.call(request).await?.into_response();
                    if let Some(decision) = verdict.decisions.first() {
                        headers::set(response.headers_mut(), rule, decision);
                    }
                    Ok(response)
                }
                Answer::Decided(verdict) => Ok(reply::denied(rule, &verdict)),
                Answer::Inadmissible(error) => Ok(reply::inadmissible(error)),
                Answer::Unlimited => Ok(ready.call(request).await?.into_response()),
                Answer::Unavailable => Ok(gate.retry_after.on(reply::unavailable())),
            }
        })
    }
}
