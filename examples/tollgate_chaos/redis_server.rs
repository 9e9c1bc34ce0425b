//! A redis-server process of this program's own, on loopback or in a network namespace.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::namespace::Namespace;

/// The password, which must never be seen in a log.
pub(crate) const CANARY: &str = "canary-5f1c0e";
/// Longest wait for a server that starts or comes back.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between looks whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Ends when dropped.
pub(crate) struct RedisServer {
    pub(crate) address: SocketAddr,
    /// Where it can be reached too, whatever the network does.
    socket: PathBuf,
    /// The command before `redis-server`, where it runs elsewhere.
    within: Vec<String>,
    process: Option<Child>,
    /// Opened while all was well: it outlives a changed password and full `maxclients`.
    admin: Option<MultiplexedConnection>,
}

impl RedisServer {
    /// A place for a server; nothing runs there yet.
    pub(crate) fn absent(namespace: Option<&Namespace>) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let (ip, within) = match namespace {
            Some(namespace) => (namespace.inside().into(), namespace.prefix()),
            None => (free.ip(), Vec::new()),
        };
        let (process, port) = (std::process::id(), free.port());
        Ok(Self {
            address: SocketAddr::new(ip, port),
            socket: std::env::temp_dir().join(format!("tollgate-chaos-{process}-{port}.sock")),
            within,
            process: None,
            admin: None,
        })
    }

    /// Starts it, empty.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut words = self.within.clone();
        words.extend(["redis-server", "--save", "", "--appendonly", "no"].map(str::to_owned));
        words.extend(["--bind".to_owned(), self.address.ip().to_string()]);
        words.extend(["--port".to_owned(), self.address.port().to_string()]);
        words.extend(["--unixsocket".to_owned(), self.socket.display().to_string()]);
        words.extend(["--requirepass", CANARY].map(str::to_owned));
        if has_debug_switch().await? {
            words.extend(["--enable-debug-command", "yes"].map(str::to_owned));
        }
        let process = Command::new(&words[0])
            .args(&words[1..])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server cannot be started: is it installed?")?;
        self.process = Some(process);
        self.until_writable().await?;
        self.admin = Some(self.connect().await?);
        Ok(())
    }

    /// Where it can be reached whatever the network does.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        self.admin = None;
        Ok(())
    }

    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let id = self.process.as_ref().and_then(Child::id);
        signal(id.context("it does not run")?, name).await
    }

    /// Runs one command, given as words, for as long as it takes.
    pub(crate) async fn run<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let mut admin = self.admin.clone().context("it does not run")?;
        Ok(command(words).query_async(&mut admin).await?)
    }

    /// Waits until a write is accepted; when that was.
    pub(crate) async fn until_writable(&self) -> Result<Instant> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let write = async {
                let mut connection = self.connect().await?;
                let set = command(&["SET", "chaos-probe", "1", "PX", "1000"]);
                anyhow::Ok(set.query_async::<()>(&mut connection).await?)
            };
            if matches!(timeout(Duration::from_secs(1), write).await, Ok(Ok(()))) {
                return Ok(Instant::now());
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("Redis at {} takes no writes", self.address)
    }

    /// Scripts that were executed, and those that were refused, since the server started.
    pub(crate) async fn scripts(&self) -> Result<(u64, u64)> {
        let stats: String = self.run(&["INFO", "commandstats"]).await?;
        let lines = stats
            .lines()
            .filter(|line| line.starts_with("cmdstat_eval"));
        let sum = |name: &str| -> u64 {
            let fields = lines.clone().flat_map(|line| line.split([',', ':']));
            let values = fields.filter_map(|field| field.strip_prefix(name)?.parse::<u64>().ok());
            values.sum()
        };
        let refused = sum("failed_calls=") + sum("rejected_calls=");
        Ok((sum("calls=").saturating_sub(sum("failed_calls=")), refused))
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = Client::open(format!("redis://:{CANARY}@{}", self.address))?;
        let patient = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(Duration::from_secs(1)));
        let connection = client.get_multiplexed_async_connection_with_config(&patient);
        Ok(connection.await?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Redis removes it only when it ends in good order.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

/// Redis 7 has DEBUG only where it was asked for; earlier ones do not know the switch.
async fn has_debug_switch() -> Result<bool> {
    let version = Command::new("redis-server")
        .arg("--version")
        .output()
        .await
        .context("redis-server cannot be started: is it installed?")?;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    let major = text
        .split_once("v=")
        .and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
    Ok(major.is_some_and(|major| major >= 7))
}

/// Sends a signal to one process.
pub(crate) async fn signal(id: u32, name: &str) -> Result<()> {
    let id = id.to_string();
    let sent = Command::new("kill")
        .args(["-s", name, &id])
        .status()
        .await?;
    if !sent.success() {
        bail!("process {id} could not be sent {name}");
    }
    Ok(())
}
