//! Who may connect and how long things may take.

use std::time::Duration;

use super::env::{A_DURATION, A_DURATION_OR_OFF, Reader, duration, or_off};
use crate::domain::Networks;
use crate::http::HeaderStyle;

/// Who may connect and how long things may take.
#[derive(Debug, Clone)]
pub struct Http {
    /// Reads `TRUSTED_PROXIES`. Default none.
    pub trusted_proxies: Networks,
    /// Reads `RATELIMIT_HEADERS` (default `draft,legacy`) and `RATELIMIT_SHADOW_HEADER` (default `off`).
    pub headers: HeaderStyle,
    /// Reads `RETRY_AFTER_JITTER`. Default zero, written `off`.
    pub retry_after_jitter: Duration,
    /// Reads `HTTP_MAX_CONNECTIONS`. Default 10,000.
    pub max_connections: usize,
    /// Reads `HTTP_MAX_CONNECTIONS_PER_PEER`. Default 1,000.
    pub max_connections_per_peer: usize,
    /// Reads `HTTP_MAX_REQUESTS`. Default 4,096.
    pub max_requests: usize,
    /// Reads `HTTP_HEADER_TIMEOUT`. Default 5 s.
    pub header_timeout: Duration,
    /// Reads `HTTP_IDLE_TIMEOUT`. Default 75 s.
    pub idle_timeout: Duration,
    /// Reads `HTTP_REQUEST_TIMEOUT`. Default 10 s.
    pub request_timeout: Duration,
}

impl Http {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let networks =
            "a comma-separated list of networks, addresses and the words `loopback` and `private`";
        Self {
            trusted_proxies: reader.value("TRUSTED_PROXIES", networks, |text| text.parse().ok()),
            headers: HeaderStyle {
                shadow: reader.value("RATELIMIT_SHADOW_HEADER", "`on` or `off`", on_or_off),
                ..reader.value("RATELIMIT_HEADERS", STYLES, |text| text.parse().ok())
            },
            retry_after_jitter: reader.value("RETRY_AFTER_JITTER", A_DURATION_OR_OFF, or_off),
            max_connections: count(reader, "HTTP_MAX_CONNECTIONS"),
            max_connections_per_peer: count(reader, "HTTP_MAX_CONNECTIONS_PER_PEER"),
            max_requests: count(reader, "HTTP_MAX_REQUESTS"),
            header_timeout: reader.value("HTTP_HEADER_TIMEOUT", A_DURATION, duration),
            idle_timeout: reader.value("HTTP_IDLE_TIMEOUT", A_DURATION, duration),
            request_timeout: reader.value("HTTP_REQUEST_TIMEOUT", A_DURATION, duration),
        }
    }
}

const STYLES: &str = "`draft,legacy`, `draft`, `legacy` or `none`";

fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn count(reader: &mut Reader, name: &'static str) -> usize {
    reader.value(name, "a number from 1 to 1000000", |text| {
        text.parse()
            .ok()
            .filter(|number| (1..=1_000_000).contains(number))
    })
}
