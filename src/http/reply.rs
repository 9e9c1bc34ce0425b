//! Answers that are not a success: problem details (RFC 9457) with the member `error` of the replaced services.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::headers;
use crate::domain::{CostAboveCapacity, Decision, Verdict};
use crate::limiter::Rule;

/// The problem type of draft-ietf-httpapi-ratelimit-headers for a quota that is used up.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// A problem as JSON (`application/problem+json`).
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    error: &'static str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated_policies: Vec<String>,
}

impl Problem {
    /// A problem of that status; `error` is what the replaced services' clients read.
    pub fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            error,
            violated_policies: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = HeaderValue::from_static("application/problem+json");
        (status, [(CONTENT_TYPE, content_type)], Json(self)).into_response()
    }
}

/// 429 with the numbers of the limit that denied the request.
pub(super) fn denied(rule: &Rule, verdict: &Verdict) -> Response {
    let denial = verdict
        .decisions
        .iter()
        .find(|decision| !decision.is_allowed());
    let detail = match denial.and_then(Decision::retry_after) {
        Some(wait) => format!("Try again in {} s.", headers::whole_seconds(wait).max(1)),
        None => "Try again later.".to_owned(),
    };
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded", detail);
    problem.kind = QUOTA_EXCEEDED;
    problem.violated_policies = vec![rule.name.as_str().to_owned()];
    let mut response = problem.into_response();
    if let Some(decision) = denial {
        headers::set(response.headers_mut(), rule, decision);
    }
    response
}

/// 422: the cost is above the capacity, so there is nothing to wait for.
pub(super) fn inadmissible(error: CostAboveCapacity) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem::new(status, "Cost above the limit", format!("{error}.")).into_response()
}

/// 503: the store could not decide.
pub(super) fn unavailable() -> Problem {
    let detail = "The rate limiter cannot reach its store.";
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "Rate limiter unavailable",
        detail,
    )
}
