//! What the tests share: servers, strategies, charges.

#[cfg(target_os = "linux")]
pub(crate) mod fake_clock;
pub(crate) mod folder;
pub(crate) mod instance;
pub(crate) mod proxy;
pub(crate) mod puppet;
pub(crate) mod redis_server;
pub(crate) mod rules_file;
pub(crate) mod strategies;

#[cfg(target_os = "linux")]
pub(crate) use fake_clock::FakeClock;
pub(crate) use folder::Folder;
pub(crate) use instance::{Instance, Process};
pub(crate) use proxy::Proxy;
pub(crate) use puppet::Puppet;
pub(crate) use redis_server::{RedisServer, has_options_of_redis_7};
pub(crate) use rules_file::RulesFile;
pub(crate) use strategies::{bare, charge, kinds, quota, stack};

use std::net::TcpListener;

/// A port that nobody listens on. Somebody else may take it, so a server that fails to start on it is tried again.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
