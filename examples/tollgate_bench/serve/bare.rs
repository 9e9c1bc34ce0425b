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
}

const DENIAL: Denial = Denial {
    kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: "Too Many Requests",
    status: 429,
    detail: "Try again in 1 s.",
    error: "Rate limit exceeded",
    violated_policies: ["default"],
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
