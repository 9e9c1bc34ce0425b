//! `tollgate healthcheck`: whether the server on this machine answers.
//!
//! Any answer of `/health` will do, a 503 for want of Redis too: a restart would not bring Redis back, and the instance
//! keeps answering by its policy meanwhile.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait to connect, to write and to read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `GET /health` of the server at `address` and returns the status line.
///
/// # Errors
///
/// When nobody answers in time, or not in HTTP.
pub fn check(address: SocketAddr) -> io::Result<String> {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(16 * 1024).read_to_end(&mut answer)?;
    let status = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    match std::str::from_utf8(status) {
        Ok(line) if line.starts_with("HTTP/1.1 200 ") || line.starts_with("HTTP/1.1 503 ") => {
            Ok(line.to_owned())
        }
        _ => Err(io::Error::other(
            "the answer is not that of a server of this kind",
        )),
    }
}
