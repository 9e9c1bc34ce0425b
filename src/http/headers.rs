//! A decision as response headers.
//!
//! | header | value |
//! | --- | --- |
//! | `X-RateLimit-Limit` | the capacity |
//! | `X-RateLimit-Remaining` | whole tokens left |
//! | `X-RateLimit-Reset` | seconds until the bucket is full |
//! | `RateLimit-Policy` | `"default";q=100;w=10`: the capacity and the seconds in which it refills |
//! | `RateLimit` | `"default";r=95;t=1`: whole tokens left and the seconds until one more exists (on a denial, until the same request can pass) |
//! | `Retry-After` | on a denial, those seconds, at least 1 |
//! | `X-RateLimit-Source` | `local` when this instance decided alone because the store could not |
//!
//! Seconds are rounded up. The `RateLimit` fields follow draft-ietf-httpapi-ratelimit-headers, drafts 08 to 11.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::{Decision, Source};
use crate::limiter::Rule;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const SOURCE: HeaderName = HeaderName::from_static("x-ratelimit-source");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Sets the headers of a decision under `rule`, replacing any of the same name.
pub(super) fn set(headers: &mut HeaderMap, rule: &Rule, decision: &Decision) {
    let wait = decision.retry_after();
    let next = whole_seconds(wait.unwrap_or(decision.next_after));
    let (name, window) = (
        rule.name.as_str(),
        whole_seconds(rule.limit.quota.fill_time()),
    );
    headers.insert(LIMIT, decision.limit.into());
    headers.insert(REMAINING, decision.remaining.into());
    headers.insert(RESET, whole_seconds(decision.reset_after).into());
    headers.insert(
        POLICY,
        value(format!("\"{name}\";q={};w={window}", decision.limit)),
    );
    headers.insert(
        STATE,
        value(format!("\"{name}\";r={};t={next}", decision.remaining)),
    );
    if wait.is_some() {
        headers.insert(RETRY_AFTER, next.max(1).into());
    }
    if decision.source == Source::Local {
        headers.insert(SOURCE, HeaderValue::from_static(Source::Local.name()));
    }
}

/// Seconds, rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("a rule name and numbers are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Outcome, Quota};

    fn headers(capacity: u64, decision: Decision) -> Vec<(String, String)> {
        let rule = Rule::token_bucket(Quota::new(capacity, 10, Duration::from_secs(1)).unwrap());
        let mut headers = HeaderMap::new();
        set(&mut headers, &rule, &decision);
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    fn expected(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn an_admitted_request() {
        let decision = Decision {
            outcome: Outcome::Allowed,
            limit: 100,
            remaining: 95,
            reset_after: Duration::from_micros(500_001),
            next_after: Duration::from_micros(1),
            source: Source::Store,
        };
        assert_eq!(
            headers(100, decision),
            expected(&[
                ("x-ratelimit-limit", "100"),
                ("x-ratelimit-remaining", "95"),
                ("x-ratelimit-reset", "1"),
                ("ratelimit-policy", "\"default\";q=100;w=10"),
                ("ratelimit", "\"default\";r=95;t=1"),
            ])
        );
    }

    #[test]
    fn a_denied_request_is_told_when_to_come_back() {
        let decision = Decision {
            outcome: Outcome::Denied {
                retry_after: Duration::from_micros(1_000_001),
            },
            limit: 5,
            remaining: 0,
            reset_after: Duration::from_secs(3),
            next_after: Duration::from_micros(1),
            source: Source::Store,
        };
        assert_eq!(
            headers(5, decision),
            expected(&[
                ("x-ratelimit-limit", "5"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "3"),
                ("ratelimit-policy", "\"default\";q=5;w=1"),
                ("ratelimit", "\"default\";r=0;t=2"),
                ("retry-after", "2"),
            ])
        );
    }
}
