//! The tower layer that any axum application can wrap its routes in.

use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

use super::service::RateLimit;
use super::{ClientIp, HeaderStyle};
use crate::domain::Networks;
use crate::limiter::Limiter;

/// Limits requests by the rules of a [`Limiter`].
///
/// The service must know its peers: serve it with `into_make_service_with_connect_info::<SocketAddr>()`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{net::SocketAddr, time::Duration};
/// use axum::{Router, extract::ConnectInfo, http::Request, routing::get};
/// use tollgate::{Quota, http::RateLimitLayer};
/// use tower::ServiceExt;
///
/// let quota = Quota::new(1, 1, Duration::from_secs(60))?;
/// let layer = RateLimitLayer::new(tollgate::in_memory(quota));
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(layer);
///
/// let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711)));
/// let request = || Request::get("/").extension(peer).body(axum::body::Body::empty());
/// assert_eq!(app.clone().oneshot(request()?).await?.status(), 200);
/// assert_eq!(app.oneshot(request()?).await?.status(), 429);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    pub(super) limiter: Arc<Limiter>,
    pub(super) clients: ClientIp,
    pub(super) style: HeaderStyle,
    pub(super) jitter: Duration,
    pub(super) seed: u64,
}

impl RateLimitLayer {
    /// Limits by the peer's address.
    pub fn new(limiter: impl Into<Arc<Limiter>>) -> Self {
        Self {
            limiter: limiter.into(),
            clients: ClientIp::default(),
            style: HeaderStyle::default(),
            jitter: Duration::ZERO,
            seed: 0,
        }
    }

    /// Believes what these proxies say in `X-Forwarded-For`, and in the headers that name a plan.
    #[must_use]
    pub fn trusted_proxies(mut self, trusted: Networks) -> Self {
        self.clients = ClientIp::new(trusted);
        self
    }

    /// Tells of limits by these headers.
    #[must_use]
    pub fn headers(mut self, style: HeaderStyle) -> Self {
        self.style = style;
        self
    }

    /// Tells denied clients to come back later than they could, by up to `longest`, at random from `seed`.
    #[must_use]
    pub fn retry_after_jitter(mut self, longest: Duration, seed: u64) -> Self {
        (self.jitter, self.seed) = (longest, seed);
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit::new(inner, self)
    }
}
