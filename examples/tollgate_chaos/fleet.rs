//! Instances of the service: processes of the release build, and what they log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::generator::Target;
use crate::redis_server::CANARY;

/// How many there are.
pub(crate) const INSTANCES: usize = 3;
/// Longest wait for one that starts.
const PATIENCE: Duration = Duration::from_secs(30);

/// One line of a log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) instance: usize,
    pub(crate) text: String,
}

/// The instances; they end when it is dropped.
pub(crate) struct Fleet {
    binary: PathBuf,
    settings: Vec<(String, String)>,
    stores: Vec<SocketAddr>,
    processes: Vec<Option<Child>>,
    lines: Arc<Mutex<Vec<Line>>>,
    pub(crate) targets: Arc<Vec<Target>>,
}

impl Fleet {
    /// Starts one instance for each of `stores`, the address at which it finds Redis.
    pub(crate) async fn start(
        binary: PathBuf,
        settings: &[(&str, &str)],
        stores: Vec<SocketAddr>,
    ) -> Result<Self> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut fleet = Self {
            binary,
            settings: settings.iter().map(owned).collect(),
            processes: stores.iter().map(|_| None).collect(),
            targets: Arc::new(stores.iter().map(|_| Target::default()).collect()),
            stores,
            lines: Arc::default(),
        };
        for instance in 0..fleet.stores.len() {
            fleet.start_one(instance).await?;
        }
        Ok(fleet)
    }

    /// Starts an instance that does not run.
    pub(crate) async fn start_one(&mut self, instance: usize) -> Result<()> {
        let mut command = Command::new(&self.binary);
        for variable in tollgate::config::VARIABLES {
            command.env_remove(variable.name);
        }
        let mut child = command
            // Where no `.env` changes what is tested.
            .current_dir("/")
            .env("PORT", "0")
            .env("BIND_ADDRESS", "127.0.0.1")
            .env("TRUSTED_PROXIES", "loopback")
            .env("LOG_FORMAT", "json")
            .env("REDIS_ADDR", self.stores[instance].to_string())
            .env("REDIS_PASSWORD", CANARY)
            .env("LIMITER_INSTANCES", self.stores.len().to_string())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.binary.display()))?;
        let stderr = child.stderr.take().context("it is piped")?;
        let (tell, told) = oneshot::channel();
        let lines = self.lines.clone();
        tokio::spawn(async move {
            let (mut reader, mut tell) = (BufReader::new(stderr).lines(), Some(tell));
            while let Ok(Some(text)) = reader.next_line().await {
                if let Some(address) = listening(&text)
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(address);
                }
                let at = Instant::now();
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Line { at, instance, text });
            }
        });
        let address = timeout(PATIENCE, told).await;
        let address = address.context("an instance does not start")?;
        let address = address.context("an instance ended before it listened")?;
        self.processes[instance] = Some(child);
        self.targets[instance].set(Some(address));
        Ok(())
    }

    /// Kills an instance; requests go elsewhere from the moment before. That moment.
    pub(crate) async fn kill(&mut self, instance: usize) -> Result<Instant> {
        self.targets[instance].set(None);
        if let Some(mut process) = self.processes[instance].take() {
            process.kill().await?;
        }
        Ok(Instant::now())
    }

    /// Everything that was logged so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many of those that should run do.
    pub(crate) fn running(&mut self) -> usize {
        let runs = |process: &mut Option<Child>| {
            process
                .as_mut()
                .is_some_and(|process| matches!(process.try_wait(), Ok(None)))
        };
        self.processes
            .iter_mut()
            .map(runs)
            .filter(|runs| *runs)
            .count()
    }
}

/// Where an instance listens, if that is what the line says.
fn listening(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_it = line["message"] == "listening";
    line["address"].as_str().filter(|_| is_it)?.parse().ok()
}
