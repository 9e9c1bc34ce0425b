//! The store.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::env::{A_DURATION, Reader, duration};
use crate::strategy::factory::Kind;
use crate::strategy::redis::Settings;

/// The variables that name a Redis; without any of them there is none.
pub(super) const NAMES: [&str; 3] = ["REDIS_URL", "REDIS_ADDR", "REDIS_ADDRESS"];
/// The variables that `REDIS_URL` replaces.
const PARTS: [&str; 5] = [
    "REDIS_ADDR",
    "REDIS_ADDRESS",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_DB",
];
const DEFAULT_PORT: u16 = 6379;

/// The store.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Reads `REDIS_URL`, else `REDIS_ADDR` or `REDIS_ADDRESS` (default localhost:6379), `REDIS_USERNAME`,
    /// `REDIS_PASSWORD` and `REDIS_DB`. `None` when the strategy needs no Redis. No password appears in `Debug`.
    pub settings: Option<Settings>,
    /// Reads `REDIS_POOL_SIZE`. Default 10.
    pub pool_size: usize,
    /// Reads `REDIS_KEY_PREFIX`. Default `ratelimit:`.
    pub key_prefix: String,
    /// Reads `REDIS_TIMEOUT`. Default 50 ms.
    pub timeout: Duration,
}

impl Redis {
    pub(super) fn read(reader: &mut Reader, kind: Kind) -> Self {
        let settings = settings(reader);
        let named = NAMES.iter().any(|name| reader.text(name).is_some());
        if named && !kind.needs_redis() {
            reader.warn(format!(
                "LIMITER_STRATEGY is {}: the Redis that is configured is not used",
                kind.name()
            ));
        }
        Self {
            settings: settings.filter(|_| kind.needs_redis()),
            pool_size: reader.value("REDIS_POOL_SIZE", "a number from 1 to 1000", |text| {
                text.parse().ok().filter(|size| (1..=1_000).contains(size))
            }),
            key_prefix: reader.value(
                "REDIS_KEY_PREFIX",
                "1 to 128 visible characters without `{` and `}`",
                key_prefix,
            ),
            timeout: reader.value("REDIS_TIMEOUT", A_DURATION, duration),
        }
    }
}

fn settings(reader: &mut Reader) -> Option<Settings> {
    if reader.text("REDIS_URL").is_none() {
        return from_parts(reader);
    }
    let ignored: Vec<&str> = PARTS
        .into_iter()
        .filter(|name| reader.text(name).is_some())
        .collect();
    if !ignored.is_empty() {
        reader.warn(format!(
            "REDIS_URL is set and counts: {} ignored",
            ignored.join(", ")
        ));
    }
    let allowed =
        "a URL such as redis://user:password@host:6379/0 (TLS, `rediss:`, is not supported yet)";
    reader.optional("REDIS_URL", allowed, |text| {
        text.into_connection_info()
            .ok()
            .and_then(|info| Settings::new(info).ok())
    })
}

fn from_parts(reader: &mut Reader) -> Option<Settings> {
    let name = reader.either("REDIS_ADDR", "REDIS_ADDRESS");
    let allowed = "host:port, such as localhost:6379 or [::1]:6379";
    let address = match reader.text(name) {
        Some(_) => reader.optional(name, allowed, address),
        None => Some(ConnectionAddr::Tcp("localhost".to_owned(), DEFAULT_PORT)),
    };
    let db = reader.value(
        "REDIS_DB",
        "a number of a database from 0 to 65535",
        |text| text.parse::<u16>().ok(),
    );
    let mut login = RedisConnectionInfo::default().set_db(i64::from(db));
    if let Some(username) = reader.text("REDIS_USERNAME") {
        login = login.set_username(username.trim());
    }
    if let Some(password) = reader.text("REDIS_PASSWORD") {
        login = login.set_password(password);
    }
    let info: ConnectionInfo = address?.into_connection_info().ok()?;
    Settings::new(info.set_redis_settings(login)).ok()
}

/// `host:port`, `host`, `:port` or `[IPv6]:port`.
fn address(text: &str) -> Option<ConnectionAddr> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (
                host,
                after.strip_prefix(':').or(after.is_empty().then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port? {
        "" if !text.ends_with(':') => DEFAULT_PORT,
        digits => digits.parse().ok().filter(|port| *port > 0)?,
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    host.chars()
        .all(word)
        .then(|| ConnectionAddr::Tcp(host.to_owned(), port))
}

fn key_prefix(text: &str) -> Option<String> {
    let visible = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
    ((1..=128).contains(&text.len()) && text.chars().all(visible)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form() {
        for (text, expected) in [
            ("localhost:6379", Some("localhost:6379")),
            ("redis", Some("redis:6379")),
            (":6380", Some("localhost:6380")),
            ("10.0.0.1:1", Some("10.0.0.1:1")),
            ("[::1]:6380", Some("::1:6380")),
            ("[::1]", Some("::1:6379")),
            ("redis:", None),
            ("redis:0", None),
            ("redis:65536", None),
            ("redis:port", None),
            ("::1", None),
            ("[::1", None),
            ("redis://host", None),
            ("a b:1", None),
        ] {
            assert_eq!(
                address(text).map(|address| address.to_string()),
                expected.map(str::to_owned),
                "{text}"
            );
        }
    }
}
