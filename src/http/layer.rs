//! The tower layer that any axum application can wrap its routes in.

use std::sync::Arc;

use tower::Layer;

use super::service::RateLimit;
use super::{ClientIp, TrustedProxies};
use crate::limiter::Limiter;

/// Network bits by which IPv6 clients are counted: what one subscriber usually has.
pub(super) const DEFAULT_IPV6_PREFIX: u8 = 64;

/// Limits requests by the client's address.
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
    limiter: Arc<Limiter>,
    clients: ClientIp,
    ipv6_prefix: u8,
}

impl RateLimitLayer {
    /// Limits by the peer's address; IPv6 peers by their /64 network.
    pub fn new(limiter: impl Into<Arc<Limiter>>) -> Self {
        Self {
            limiter: limiter.into(),
            clients: ClientIp::default(),
            ipv6_prefix: DEFAULT_IPV6_PREFIX,
        }
    }

    /// Believes what these proxies say in `X-Forwarded-For`.
    #[must_use]
    pub fn trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.clients = ClientIp::new(trusted);
        self
    }

    /// Counts IPv6 clients by a network of that many bits, 0 to 128.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit::new(
            inner,
            self.limiter.clone(),
            self.clients.clone(),
            self.ipv6_prefix,
        )
    }
}
