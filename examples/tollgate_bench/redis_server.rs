//! A redis-server process of this program's own, on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use crate::process::{Process, free_address};

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    admin: MultiplexedConnection,
}

/// What it counted so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Scripts that clients called.
    pub(crate) scripts: u64,
    /// Transactions, a heartbeat a second of each instance among them.
    pub(crate) transactions: u64,
    /// Bytes in use.
    pub(crate) memory: u64,
    /// Keys it holds.
    pub(crate) keys: u64,
}

impl RedisServer {
    /// Starts one, empty, that writes nothing to disk.
    pub(crate) async fn start() -> Result<Self> {
        let address = free_address()?;
        let port = address.port().to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let mut process = Process::start(Path::new("redis-server"), &arguments, &[])?;
        process
            .until_listening(address)
            .await
            .context("redis-server")?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(60)));
        let admin = Client::open(format!("redis://{address}"))?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self {
            address,
            process,
            admin,
        })
    }

    pub(crate) async fn counts(&self) -> Result<Counts> {
        let mut admin = self.admin.clone();
        let info: String = redis::cmd("INFO")
            .arg("everything")
            .query_async(&mut admin)
            .await?;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut admin).await?;
        Ok(Counts {
            scripts: calls(&info, &["evalsha", "eval"]),
            transactions: calls(&info, &["exec"]),
            memory: field(&info, "used_memory:").context("no used_memory")?,
            keys,
        })
    }
}

/// How often these commands were called.
fn calls(info: &str, commands: &[&str]) -> u64 {
    let calls = |command: &&str| -> Option<u64> {
        let name = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&name))?;
        line.split(',').next()?.parse().ok()
    };
    commands.iter().filter_map(calls).sum()
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}
