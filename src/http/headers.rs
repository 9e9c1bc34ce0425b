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
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::domain::Source;
use crate::limiter::{Answer, Ruled};

static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static SOURCE: HeaderName = HeaderName::from_static("x-ratelimit-source");
static STATE: HeaderName = HeaderName::from_static("ratelimit");
static SHADOW: HeaderName = HeaderName::from_static("x-ratelimit-shadow");

/// The largest integer that a structured field can carry (RFC 9651, section 3.3.1); a larger bucket is told as this.
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

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
    Values::of(answer, style, later).set(headers);
}

/// Values of headers, written one after the other into one piece of memory.
pub(super) struct Values {
    text: BytesMut,
    /// Each with where its value ends.
    names: SmallVec<[(&'static HeaderName, usize); 6]>,
}

impl Values {
    /// What an answer tells.
    pub(super) fn of(answer: &Answer, style: HeaderStyle, later: Duration) -> Self {
        let mut limits: SmallVec<[Ruled<'_>; 1]> = answer
            .enforced()
            .filter(|ruled| ruled.decision.source != Source::Nobody)
            .collect();
        // The sort is stable: what binds equally stays in the order of the rules.
        limits.sort_by_key(|ruled| binding(ruled));
        let mut values = Self {
            text: BytesMut::with_capacity(160 * limits.len()),
            names: SmallVec::new(),
        };
        if let Some(first) = limits.first() {
            if style.legacy {
                let reset = whole_seconds(first.decision.reset_after);
                values.number(&LIMIT, first.decision.limit);
                values.number(&REMAINING, first.decision.remaining);
                values.number(&RESET, reset);
            }
            if style.draft {
                values.list(&STATE, &limits, state);
                values.list(&POLICY, &limits, policy);
            }
            if let Some(wait) = first.decision.retry_after() {
                values.number(&RETRY_AFTER, whole_seconds(wait + later).max(1));
            }
        }
        if style.shadow {
            let denials: SmallVec<[Ruled<'_>; 1]> = answer.shadow_denials().collect();
            if !denials.is_empty() {
                values.list(&SHADOW, &denials, state);
            }
        }
        let is_local = |ruled: &Ruled<'_>| ruled.decision.source == Source::Local;
        if (style.draft || style.legacy) && limits.iter().any(is_local) {
            values.text.put_slice(Source::Local.name().as_bytes());
            values.end(&SOURCE);
        }
        values
    }

    fn number(&mut self, name: &'static HeaderName, number: u64) {
        push_number(&mut self.text, number);
        self.end(name);
    }

    fn list(
        &mut self,
        name: &'static HeaderName,
        limits: &[Ruled<'_>],
        write: impl Fn(&mut BytesMut, &Ruled<'_>),
    ) {
        for (i, ruled) in limits.iter().enumerate() {
            if i > 0 {
                self.text.put_slice(b", ");
            }
            write(&mut self.text, ruled);
        }
        self.end(name);
    }

    /// The value of that name is what was written since the last one ended.
    fn end(&mut self, name: &'static HeaderName) {
        self.names.push((name, self.text.len()));
    }

    /// Sets them, replacing any of the same name.
    pub(super) fn set(self, headers: &mut HeaderMap) {
        // And for the length of the body, so that the map grows once.
        headers.reserve(self.names.len() + 1);
        let text = self.text.freeze();
        let mut start = 0;
        for (name, end) in self.names {
            let value = HeaderValue::from_maybe_shared(text.slice(start..end))
                .expect("rule names and numbers are visible ASCII");
            headers.insert(name, value);
            start = end;
        }
    }
}

fn push_number(to: &mut BytesMut, number: u64) {
    to.put_slice(
        itoa::Buffer::new()
            .format(number.min(LARGEST_INTEGER))
            .as_bytes(),
    );
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
fn policy(to: &mut BytesMut, ruled: &Ruled<'_>) {
    let window = whole_seconds(ruled.charge.limit().quota.fill_time());
    item(to, ruled, b"q", ruled.decision.limit, b"w", window);
}

/// `"default";r=95;t=1`.
fn state(to: &mut BytesMut, ruled: &Ruled<'_>) {
    let decision = ruled.decision;
    let next = whole_seconds(decision.retry_after().unwrap_or(decision.next_after));
    item(to, ruled, b"r", decision.remaining, b"t", next);
}

/// The rule's name with two parameters.
fn item(to: &mut BytesMut, ruled: &Ruled<'_>, a: &[u8], first: u64, b: &[u8], second: u64) {
    to.put_u8(b'"');
    to.put_slice(ruled.rule.name.as_str().as_bytes());
    to.put_u8(b'"');
    for (name, number) in [(a, first), (b, second)] {
        to.put_u8(b';');
        to.put_slice(name);
        to.put_u8(b'=');
        push_number(to, number);
    }
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
