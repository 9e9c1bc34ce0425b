//! The service that asks before it lets a request through.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::error;

use super::headers::Values;
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

impl<S: Clone> RateLimit<S> {
    /// The service that was polled ready, for this request; a fresh clone waits for the next.
    fn take_ready(&mut self) -> S {
        let fresh = self.inner.clone();
        mem::replace(&mut self.inner, fresh)
    }

    /// Answers instead of the service, which gives back what it may have reserved when it was polled ready.
    fn refuse<F, E>(&mut self, refusal: Response) -> ResponseFuture<F, E> {
        drop(self.take_ready());
        ResponseFuture::refused(refusal)
    }
}

impl Gate {
    /// What the rules say of a request; `None` without a peer.
    fn read<B>(&self, request: &Request<B>) -> Option<Reading> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        let (uri, headers) = (request.uri(), request.headers());
        let peer = peer.ip();
        let from_trusted_proxy = self.clients.trusts(peer);
        Some(self.limiter.read(&Call {
            client: self.clients.behind(peer, from_trusted_proxy, headers),
            method: request.method().as_str(),
            path: uri.path(),
            query: uri.query(),
            host: uri.authority().map(Authority::as_str),
            fields: headers,
            from_trusted_proxy,
        }))
    }

    /// What the response of a request that may pass tells of the limits; else what it is answered.
    #[expect(clippy::result_large_err, reason = "what is not an error is larger")]
    fn admit(&self, answer: &Answer) -> Result<Values, Response> {
        Err(match &answer.ruling {
            Ruling::Decided(verdict) if verdict.admitted => {
                return Ok(Values::of(answer, self.style, Duration::ZERO));
            }
            Ruling::Unlimited => return Ok(Values::of(answer, self.style, Duration::ZERO)),
            Ruling::Decided(_) => {
                let later = self.jitter.next();
                let mut response = reply::denied(answer, later);
                headers::set(response.headers_mut(), answer, self.style, later);
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
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(reading) = self.gate.read(&request) else {
            return self.refuse(self.gate.no_peer());
        };
        let reading = match self.gate.limiter.decide_at_once(reading) {
            Ok(answer) => {
                return match self.gate.admit(&answer) {
                    Ok(values) => ResponseFuture::admitted(self.inner.call(request), values),
                    Err(refusal) => self.refuse(refusal),
                };
            }
            Err(reading) => reading,
        };
        let mut ready = self.take_ready();
        let gate = self.gate.clone();
        ResponseFuture::waiting(async move {
            let decided = gate.limiter.decide_later(&reading).await;
            // In a block, so that no room is kept for the answer while the service is waited for.
            let values = {
                let answer = gate.limiter.answer(reading, decided);
                match gate.admit(&answer) {
                    Ok(values) => values,
                    Err(refusal) => return Ok(refusal),
                }
            };
            let mut response = ready.call(request).await?.into_response();
            values.set(response.headers_mut());
            Ok(response)
        })
    }
}

pin_project! {
    /// A response on its way.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, E> {
        #[pin]
        way: Way<F, E>,
    }
}

pin_project! {
    #[project = Step]
    enum Way<F, E> {
        /// Answered without the service.
        Refused { response: Option<Response> },
        /// Decided at once; the service answers.
        Admitted { #[pin] response: F, values: Option<Values> },
        /// The store is asked first.
        Waiting { response: Pin<Box<dyn Future<Output = Result<Response, E>> + Send>> },
    }
}

impl<F, E> ResponseFuture<F, E> {
    fn refused(response: Response) -> Self {
        let response = Some(response);
        Self {
            way: Way::Refused { response },
        }
    }

    fn admitted(response: F, values: Values) -> Self {
        let values = Some(values);
        Self {
            way: Way::Admitted { response, values },
        }
    }

    fn waiting(response: impl Future<Output = Result<Response, E>> + Send + 'static) -> Self {
        let response = Box::pin(response);
        Self {
            way: Way::Waiting { response },
        }
    }
}

impl<F, R, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const POLLED_AGAIN: &str = "not polled after it resolved";
        match self.project().way.project() {
            Step::Refused { response } => Poll::Ready(Ok(response.take().expect(POLLED_AGAIN))),
            Step::Admitted { response, values } => response.poll(cx).map_ok(|response| {
                let mut response = response.into_response();
                let values = values.take().expect(POLLED_AGAIN);
                values.set(response.headers_mut());
                response
            }),
            Step::Waiting { response } => response.as_mut().poll(cx),
        }
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, poll_fn, ready};
    use std::pin::pin;
    use std::task::Waker;

    use axum::body::Body;
    use tower::limit::ConcurrencyLimitLayer;
    use tower::{Layer, ServiceBuilder, service_fn};

    use super::*;
    use crate::domain::Quota;

    fn now<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn request() -> Request<Body> {
        let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4_711)));
        let request = Request::get("/api").extension(peer);
        request.body(Body::empty()).unwrap()
    }

    fn answer(_: Request<Body>) -> Ready<Result<Response, Infallible>> {
        ready(Ok(Response::default()))
    }

    /// A service that has one place takes it when it is polled ready: who is refused must not keep it.
    #[test]
    fn who_is_refused_holds_no_place_of_the_service() {
        let quota = Quota::new(1, 1, Duration::from_secs(1_000)).unwrap();
        let layer = RateLimitLayer::new(crate::in_memory(quota));
        let one = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1));
        let mut first = layer.layer(one.service(service_fn(answer)));
        let mut second = first.clone();
        for status in [200, 429, 429] {
            assert!(now(poll_fn(|cx| first.poll_ready(cx))).is_ready());
            let Poll::Ready(Ok(response)) = now(first.call(request())) else {
                panic!("it waits")
            };
            assert_eq!(response.status(), status);
        }
        assert!(now(poll_fn(|cx| first.poll_ready(cx))).is_ready());
        let without_peer = Request::new(Body::empty());
        assert!(now(first.call(without_peer)).is_ready());
        assert!(now(poll_fn(|cx| second.poll_ready(cx))).is_ready());
    }
}
