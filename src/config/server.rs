//! Where and as whom to serve.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::env::{A_DURATION, A_DURATION_OR_OFF, Reader, duration, or_off};

/// Where and as whom to serve.
#[derive(Debug, Clone)]
pub struct Server {
    /// Reads `BIND_ADDRESS` (default `0.0.0.0`) and `PORT` (default 8080).
    pub address: SocketAddr,
    /// Reads `INSTANCE_ID`: 1 to 64 of `A-Z a-z 0-9 . _ -`. `None` makes one up.
    pub instance_id: Option<String>,
    /// Reads `SHUTDOWN_TIMEOUT`. Default 10 s.
    pub shutdown_timeout: Duration,
    /// Reads `SHUTDOWN_DELAY`. Default zero, written `off`.
    pub shutdown_delay: Duration,
}

impl Server {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let port = reader.value("PORT", "a port from 0 to 65535", |text| text.parse().ok());
        let ip: IpAddr = reader.value("BIND_ADDRESS", "an IP address", |text| text.parse().ok());
        Self {
            address: SocketAddr::new(ip, port),
            instance_id: reader.optional(
                "INSTANCE_ID",
                "1 to 64 letters, digits, `.`, `_` and `-`",
                instance_id,
            ),
            shutdown_timeout: reader.value("SHUTDOWN_TIMEOUT", A_DURATION, duration),
            shutdown_delay: reader.value("SHUTDOWN_DELAY", A_DURATION_OR_OFF, or_off),
        }
    }
}

fn instance_id(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    ((1..=64).contains(&text.len()) && text.chars().all(plain)).then(|| text.to_owned())
}
