//! An answer as response headers.
//!
//! | header | value |
//! | --- | --- |
//! | `X-RateLimit-Limit` | the capacity of the limit that denied the request, else of the one with the least left |
//! | `X-RateLimit-Remaining` | whole tokens left in it |
//! | `X-RateLimit-Reset` | seconds until it is full |
//! | `RateLimit-Policy` | `"default";q=100;w=10` for each limit: the capacity and the seconds in which it refills |
//! | `RateLimit` | `"default";r=95;t=1` for each limit: whole tokens left and the seconds until one more exists (on a denial, until the same request can pass) |
//! | `Retry-After` | on a denial, the longest of those seconds, at least 1 |
//! | `X-RateLimit-Source` | `local` when this instance decided alone because the store could not |
//! | `X-RateLimit-Shadow` | on request, `"name";r=0;t=1` for each limit in shadow that would have denied |
//!
//! The limit that binds stands first. Seconds are rounded up. The `RateLimit` fields follow
//! draft-ietf-httpapi-ratelimit-headers, drafts 08 to 11; they and `X-RateLimit-Shadow` are lists (RFC 9651).

use std::cmp::Reverse;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::domain::Source;
use crate::limiter::{Answer, Ruled};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const SOURCE: HeaderName = HeaderName::from_static("x-ratelimit-source");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const SHADOW: HeaderName = HeaderName::from_static("x-ratelimit-shadow");

/// Which headers tell of limits. `Retry-After` stands on every denial, whatever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderStyle {
    /// `RateLimit-Policy` and `RateLimit`.
    pub draft: bool,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    pub legacy: bool,
    /// `X-RateLimit-Shadow`.
    pub shadow: bool,
}

impl Default for HeaderStyle {
    fn default() -> Self {
        Self {
            draft: true,
            legacy: true,
            shadow: false,
        }
    }
}

impl FromStr for HeaderStyle {
    type Err = ();

    /// Reads `none`, or `draft` and `legacy` with a comma between.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut style = Self {
            draft: false,
            legacy: false,
            shadow: false,
        };
        if text == "none" {
            return Ok(style);
        }
        for word in text.split(',').map(str::trim) {
            match word {
                "draft" => style.draft = true,
                "legacy" => style.legacy = true,
                _ => return Err(()),
            }
        }
        Ok(style)
    }
}

/// Sets the headers of an answer, replacing any of the same name. `later` is added to how long a denied client is told
/// to wait. For who asks a [`Limiter`](crate::limiter::Limiter) without the layer.
pub fn set(headers: &mut HeaderMap, answer: &Answer, style: HeaderStyle, later: Duration) {
    let mut limits: SmallVec<[Ruled<'_>; 1]> = answer
        .enforced()
        .filter(|ruled| ruled.decision.source != Source::Nobody)
        .collect();
    // The sort is stable: what binds equally stays in the order of the rules.
    limits.sort_by_key(|ruled| binding(ruled));
    if let Some(first) = limits.first() {
        if style.legacy {
            let reset = whole_seconds(first.decision.reset_after);
            headers.insert(LIMIT, first.decision.limit.into());
            headers.insert(REMAINING, first.decision.remaining.into());
            headers.insert(RESET, reset.into());
        }
        if style.draft {
            headers.insert(STATE, list(&limits, state));
            headers.insert(POLICY, list(&limits, policy));
        }
        if let Some(wait) = first.decision.retry_after() {
            headers.insert(RETRY_AFTER, whole_seconds(wait + later).max(1).into());
        }
    }
    let is_local = |ruled: &Ruled<'_>| ruled.decision.source == Source::Local;
    if (style.draft || style.legacy) && limits.iter().any(is_local) {
        headers.insert(SOURCE, HeaderValue::from_static(Source::Local.name()));
    }
    if style.shadow {
        let denials: SmallVec<[Ruled<'_>; 1]> = answer.shadow_denials().collect();
        if !denials.is_empty() {
            headers.insert(SHADOW, list(&denials, state));
        }
    }
}

/// The limit that denies for the longest comes first; if none denies, the one with the least left.
fn binding(ruled: &Ruled<'_>) -> (Reverse<Option<Duration>>, u64, Reverse<Duration>) {
    let decision = ruled.decision;
    (
        Reverse(decision.retry_after()),
        decision.remaining,
        Reverse(decision.next_after),
    )
}

/// `"default";q=100;w=10`.
fn policy(to: &mut String, ruled: &Ruled<'_>) {
    let window = whole_seconds(ruled.charge.limit().quota.fill_time());
    let (name, limit) = (ruled.rule.name.as_str(), ruled.decision.limit);
    // Writing to a String cannot fail.
    let _ = write!(to, "\"{name}\";q={limit};w={window}");
}

/// `"default";r=95;t=1`.
fn state(to: &mut String, ruled: &Ruled<'_>) {
    let decision = ruled.decision;
    let next = whole_seconds(decision.retry_after().unwrap_or(decision.next_after));
    let (name, remaining) = (ruled.rule.name.as_str(), decision.remaining);
    let _ = write!(to, "\"{name}\";r={remaining};t={next}");
}

fn list(limits: &[Ruled<'_>], write: impl Fn(&mut String, &Ruled<'_>)) -> HeaderValue {
    let mut text = String::with_capacity(limits.len() * 32);
    for ruled in limits {
        if !text.is_empty() {
            text.push_str(", ");
        }
        write(&mut text, ruled);
    }
    HeaderValue::try_from(text).expect("rule names and numbers are visible ASCII")
}

/// Seconds, rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_are_read() {
        let style = |draft, legacy| {
            Ok(HeaderStyle {
                draft,
                legacy,
                shadow: false,
            })
        };
        for (text, expected) in [
            ("draft,legacy", style(true, true)),
            ("legacy, draft", style(true, true)),
            ("draft", style(true, false)),
            ("legacy", style(false, true)),
            ("none", style(false, false)),
            ("", Err(())),
            ("none,draft", Err(())),
            ("Draft", Err(())),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        let micros = Duration::from_micros;
        for (duration, expected) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(whole_seconds(micros(duration)), expected);
        }
    }
}
