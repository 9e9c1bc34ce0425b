//! The 429 that a denied client gets, answered without asking anybody.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tower::{Layer, Service};

/// The same members as a real denial, written out for each answer as a real one is.
#[derive(Serialize)]
struct Denial {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    error: &'static str,
    #[serde(rename = "violated-policies")]
    violated_policies: [&'static str; 1],
    retry_after_ms: u64,
}

const DENIAL: Denial = Denial {
    kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: "Too Many Requests",
    status: 429,
    detail: "The limit \"default\" is used up. Try again in 1 s.",
    error: "Rate limit exceeded",
    violated_policies: ["default"],
    retry_after_ms: 100,
};

const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderValue::from_static("10"),
    ),
    (
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderValue::from_static("0"),
    ),
    (
        HeaderName::from_static("x-ratelimit-reset"),
        HeaderValue::from_static("1"),
    ),
    (
        HeaderName::from_static("ratelimit-policy"),
        HeaderValue::from_static("\"default\";q=10;w=1"),
    ),
    (
        HeaderName::from_static("ratelimit"),
        HeaderValue::from_static("\"default\";r=0;t=1"),
    ),
    (RETRY_AFTER, HeaderValue::from_static("1")),
];

/// Stands where the limit stands and answers instead of the route.
#[derive(Clone)]
pub(super) struct Deny;

impl Service<Request> for Deny {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(
            (StatusCode::TOO_MANY_REQUESTS, HEADERS, Json(DENIAL)).into_response()
        ))
    }
}

/// A layer that denies everybody.
#[derive(Clone)]
pub(super) struct DenyLayer;

impl<S> Layer<S> for DenyLayer {
    type Service = Deny;

    fn layer(&self, _: S) -> Deny {
        Deny
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::extract::ConnectInfo;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use tollgate::http::RateLimitLayer;
    use tower::ServiceExt;

    use super::*;

    /// The first answer that is a denial.
    async fn denial(router: Router) -> (HeaderMap, String) {
        loop {
            let peer = ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 9)));
            let request = Request::get("/api").extension(peer).body(Body::empty());
            let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
            let (parts, body) = answer.into_parts();
            if parts.status == StatusCode::TOO_MANY_REQUESTS {
                let body = to_bytes(body, 9_999).await.unwrap();
                return (parts.headers, String::from_utf8(body.to_vec()).unwrap());
            }
        }
    }

    /// But for how long to wait, which differs from one denial to the next.
    #[tokio::test]
    async fn the_denial_is_that_of_the_service() {
        let quota = tollgate::Quota::new(10, 10, Duration::from_secs(1)).unwrap();
        let real = RateLimitLayer::new(tollgate::in_memory(quota));
        let route = || Router::new().route("/api", get(async || "not limited"));
        let (headers, body) = denial(route().layer(real)).await;
        let (bare_headers, bare_body) = denial(route().layer(DenyLayer)).await;
        let told = |headers: &HeaderMap| {
            let told = headers.iter().filter(|(name, _)| *name != "content-length");
            let told = told.map(|(name, value)| format!("{name}: {value:?}"));
            let mut told: Vec<_> = told.collect();
            told.sort();
            told
        };
        assert_eq!(told(&headers), told(&bare_headers));
        let before_the_wait =
            |body: &str| body.split_once("\"retry_after_ms\":").unwrap().0.to_owned();
        assert_eq!(before_the_wait(&body), before_the_wait(&bare_body));
    }
}
