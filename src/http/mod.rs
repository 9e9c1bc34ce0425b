//! HTTP: translates requests into questions to a [`Limiter`](crate::limiter::Limiter) and verdicts into answers.

mod client_ip;
mod duration;
mod headers;
mod layer;
mod reply;
mod retry_after;
pub mod routes;
mod service;

pub use client_ip::ClientIp;
pub use duration::go_duration;
pub use headers::{HeaderStyle, set as set_headers};
pub use layer::RateLimitLayer;
pub use reply::Problem;
pub use retry_after::RetryAfter;
pub use service::{RateLimit, ResponseFuture};
