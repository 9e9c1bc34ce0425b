//! Answers that are not a success: problem details (RFC 9457) with the member `error` of the replaced services.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use smallvec::{SmallVec, smallvec};

use super::headers;
use crate::domain::CostAboveCapacity;
use crate::limiter::{Answer, Part, Rule};

/// The problem type of draft-ietf-httpapi-ratelimit-headers for a quota that is used up.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Room for a problem in JSON, so that writing it seldom moves it.
const USUAL_BODY: usize = 384;

/// Headers of a denial: type, length, date, those of a limit.
const USUAL_HEADERS: usize = 9;

/// A problem as JSON (`application/problem+json`).
#[derive(Debug, Clone, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    error: &'static str,
    #[serde(
        rename = "violated-policies",
        skip_serializing_if = "SmallVec::is_empty"
    )]
    violated_policies: SmallVec<[&'a str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl<'a> Problem<'a> {
    /// A problem of that status; `error` is what the replaced services' clients read.
    pub fn new(status: StatusCode, error: &'static str, detail: impl Into<Cow<'a, str>>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            error,
            violated_policies: SmallVec::new(),
            retry_after_ms: None,
        }
    }
}

impl IntoResponse for Problem<'_> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(USUAL_BODY);
        serde_json::to_writer(&mut body, &self).expect("a problem is JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        // With room for those of a limit, so that it is made once.
        headers.reserve(USUAL_HEADERS);
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, content_type);
        response
    }
}

/// 429 with the numbers of the limits that denied the request.
pub(super) fn denied(answer: &Answer, later: Duration) -> Response {
    let denials = answer
        .enforced()
        .filter_map(|ruled| Some((ruled.rule.name.as_str(), ruled.decision.retry_after()?)));
    let denials: SmallVec<[(&str, Duration); 1]> = denials.collect();
    let longest = denials.iter().max_by_key(|(_, wait)| *wait);
    let (name, wait) = longest.copied().unwrap_or_default();
    let wait = wait + later;
    let seconds = headers::whole_seconds(wait).max(1);
    let detail = format!("The limit \"{name}\" is used up. Try again in {seconds} s.");
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded", detail);
    problem.kind = QUOTA_EXCEEDED;
    problem.violated_policies = denials.iter().map(|(name, _)| *name).collect();
    problem.retry_after_ms = Some(whole_millis(wait));
    problem.into_response()
}

/// 422: the cost is above the capacity, so there is nothing to wait for.
pub(super) fn inadmissible(rule: &Rule, error: CostAboveCapacity) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let name = rule.name.as_str();
    let CostAboveCapacity { cost, capacity } = error;
    let detail = format!(
        "This request costs {cost}, and the limit \"{name}\" never holds more than {capacity}."
    );
    let mut problem = Problem::new(status, "Cost above the limit", detail);
    problem.violated_policies = smallvec![name];
    problem.into_response()
}

/// 403: a rule refuses such requests.
pub(super) fn banned(rule: &Rule) -> Response {
    let detail = format!("The rule \"{}\" refuses such requests.", rule.name.as_str());
    Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail).into_response()
}

/// 403: what a rule counts by is absent.
pub(super) fn key_absent(rule: &Rule, part: Option<&Part>) -> Response {
    let part = part.map_or_else(|| "part of it".to_owned(), Part::to_string);
    let name = rule.name.as_str();
    let detail = format!("The limit \"{name}\" needs the {part}, which this request lacks.");
    Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail).into_response()
}

/// 503: the store could not decide.
pub(super) fn unavailable() -> Problem<'static> {
    let detail = "The rate limiter cannot reach its store.";
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "Rate limiter unavailable",
        detail,
    )
}

/// Milliseconds, rounded up.
fn whole_millis(duration: Duration) -> u64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}
