//! Where Redis is and how to speak to it.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo};
use socket2::TcpKeepalive;

use crate::strategy::Fault;

/// Unacknowledged data, or silence, after which the kernel gives a connection up.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Shortest and longest wait for a connection.
const CONNECT_TIMEOUTS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(5));

/// Where Redis is and how to speak to it. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Settings(ConnectionInfo);

impl Settings {
    /// Settings for this server, with the socket options that a limiter needs.
    ///
    /// # Errors
    ///
    /// When the description cannot make a connection, such as a URL that does not parse.
    pub fn new(server: impl IntoConnectionInfo) -> Result<Self, Fault> {
        let info = server
            .into_connection_info()
            .map_err(|error| Fault::Unreachable(error.to_string()))?;
        let keepalive = TcpKeepalive::new()
            .with_time(DEAD_AFTER)
            .with_interval(Duration::from_secs(1));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_AFTER);
        // The client's name would take a right more, and one that is refused fills the server's ACL LOG.
        let redis = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self(info.set_tcp_settings(tcp).set_redis_settings(redis)))
    }

    /// The server's address as an operator would write it; no credentials.
    pub fn address(&self) -> String {
        self.0.addr().to_string()
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.0
    }

    /// For connections whose requests have `deadline`. No response timeout: that deadline covers it.
    pub(super) fn connection_config(deadline: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout(deadline)))
            .set_response_timeout(None)
    }
}

/// Longest wait for a connection, log-in included: several round trips, each of which a request would wait for, but
/// short enough to try again soon after a network that dropped packets is whole.
pub(super) fn connect_timeout(deadline: Duration) -> Duration {
    (deadline * 4).clamp(CONNECT_TIMEOUTS.0, CONNECT_TIMEOUTS.1)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings")
            .field(&self.address())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the server is given as: a request must not wait for Nagle, nor a connection for a peer that is gone.
    #[test]
    fn every_connection_has_the_options_of_a_limiter() {
        for server in ["redis://127.0.0.1:1", "redis://user:secret@localhost/3"] {
            let settings = Settings::new(server).unwrap();
            let tcp = settings.info().tcp_settings();
            assert!(tcp.nodelay() && tcp.keepalive().is_some(), "{server}");
            if cfg!(target_os = "linux") {
                assert_eq!(tcp.user_timeout(), Some(DEAD_AFTER), "{server}");
            }
        }
    }

    #[test]
    fn its_debug_shows_no_password() {
        let settings = Settings::new("redis://user:secret@localhost/3").unwrap();
        assert_eq!(format!("{settings:?}"), "Settings(\"localhost:6379\", ..)");
    }
}
