//! When to ask again after a 503: not all at once.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};

/// Longest wait that is named, in seconds; the shortest is 1.
const SPREAD: u64 = 3;

/// Names 1 to 3 seconds in turn, so that those who were turned away together do not come back together.
#[derive(Debug, Default)]
pub struct RetryAfter(AtomicU64);

impl RetryAfter {
    /// That answer, with `Retry-After`.
    pub fn on(&self, answer: impl IntoResponse) -> Response {
        let seconds = 1 + self.0.fetch_add(1, Ordering::Relaxed) % SPREAD;
        let mut response = answer.into_response();
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        response
    }
}
