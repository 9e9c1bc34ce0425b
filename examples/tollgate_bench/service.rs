//! A contender that runs: its instances, its Redis, the load balancer before it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::folder::Folder;
use crate::generator::{Ask, Clients, Load};
use crate::nginx::Nginx;
use crate::peers::Peers;
use crate::process::{Process, free_address};
use crate::redis_server::RedisServer;
use crate::subject::{Contender, Quota, Subject};
use crate::traefik::Traefik;

/// What services are started from.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The service itself.
    pub(crate) service: PathBuf,
    /// This program.
    pub(crate) myself: PathBuf,
    pub(crate) peers: Peers,
}

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) instances: Vec<Process>,
    pub(crate) redis: Option<Rc<RedisServer>>,
    balancer: Option<Nginx>,
    /// What a proxy passes requests on to; not counted.
    _backend: Option<Process>,
    targets: Vec<SocketAddr>,
    ask: Ask,
    _folder: Option<Folder>,
}

/// CPU time of everything that a request costs, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) service: u64,
    pub(crate) redis: u64,
    pub(crate) balancer: u64,
}

impl Service {
    /// Starts it on that Redis.
    pub(crate) async fn start(
        subject: &Subject,
        redis: Option<Rc<RedisServer>>,
        programs: &Programs,
    ) -> Result<Self> {
        let mut service = Self {
            instances: Vec::new(),
            redis,
            balancer: None,
            _backend: None,
            targets: Vec::new(),
            ask: Ask::Api,
            _folder: None,
        };
        for _ in 0..subject.instances {
            service.add(subject, programs).await?;
        }
        if subject.balanced {
            let balancer = Nginx::balancer(&service.targets).await?;
            service.targets = vec![balancer.address];
            service.balancer = Some(balancer);
        }
        Ok(service)
    }

    /// What to send it.
    pub(crate) fn load(&self, clients: Clients) -> Load {
        Load {
            targets: self.targets.clone(),
            ask: self.ask,
            clients,
        }
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let instances = self.instances.iter().map(Process::cpu_us);
        let of = |process: Option<&Process>| process.map_or(Ok(0), Process::cpu_us);
        Ok(Cpu {
            service: instances.sum::<Result<u64>>()?,
            redis: of(self.redis.as_ref().map(|redis| &redis.process))?,
            balancer: of(self.balancer.as_ref().map(|nginx| &nginx.process))?,
        })
    }

    /// Resident memory of all instances, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.instances.iter().map(Process::resident).sum()
    }

    /// Most resident memory that each instance ever had, in bytes, in all.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.instances.iter().map(Process::peak).sum()
    }

    async fn add(&mut self, subject: &Subject, programs: &Programs) -> Result<()> {
        let (quota, address) = (subject.quota, free_address()?);
        let port = address.port().to_string();
        match &subject.contender {
            Contender::Own(kind) => {
                let strategy = format!("tokenbucket-{}", kind.name());
                let settings = settings(quota, &port, &strategy);
                self.spawn(&programs.service, &[], settings, address).await
            }
            Contender::Served(name) => {
                let settings = settings(quota, &port, "tokenbucket-lua");
                self.spawn(&programs.myself, &["serve", name], settings, address)
                    .await
            }
            Contender::Charges(kind, count) => {
                let strategy = format!("tokenbucket-{}", kind.name());
                let mut settings = settings(quota, &port, &strategy);
                let folder = Folder::make()?;
                let file = folder.write("rules.yaml", &rules(quota, *count))?;
                settings.push(("RULES_FILE", file));
                self._folder = Some(folder);
                self.spawn(&programs.service, &[], settings, address).await
            }
            Contender::Nginx { limited } => {
                let nginx = Nginx::alone(limited.then_some(quota)).await?;
                self.targets.push(nginx.address);
                self.balancer = None;
                self.instances.push(nginx.process);
                self._folder = Some(nginx.folder);
                Ok(())
            }
            Contender::Throttlecrab => {
                let (count, period) = quota.refill();
                self.ask = Ask::Throttle {
                    capacity: quota.capacity(),
                    count,
                    period,
                };
                let arguments = [
                    "--http",
                    "--http-host",
                    "127.0.0.1",
                    "--http-port",
                    &port,
                    "--log-level",
                    "error",
                ];
                self.spawn(
                    Path::new("throttlecrab-server"),
                    &arguments,
                    Vec::new(),
                    address,
                )
                .await
            }
            Contender::Flexible { limited } => {
                let folder = Folder::make()?;
                let script = folder.write("flexible.cjs", include_str!("flexible.js"))?;
                let modules = programs.peers.flexible.as_ref().context("no packages")?;
                let (points, seconds) = quota.window();
                let mut settings = vec![
                    ("PORT", port.clone()),
                    ("NODE_PATH", modules.display().to_string()),
                    ("POINTS", points.to_string()),
                    ("DURATION", seconds.to_string()),
                ];
                if let Some(redis) = self.redis.as_ref().filter(|_| *limited) {
                    settings.push(("REDIS_PORT", redis.address.port().to_string()));
                }
                self._folder = Some(folder);
                self.spawn(Path::new("node"), &[&script], settings, address)
                    .await
            }
            Contender::Traefik { limited } => {
                let program = programs.peers.traefik.as_ref().context("no Traefik")?;
                let settings = settings(quota, &port, "tokenbucket-memory");
                let mut backend = Process::start(&programs.myself, &["serve", "bare"], &settings)?;
                backend.until_listening(address).await?;
                let redis = self.redis.as_ref().filter(|_| *limited);
                let limit = redis.map(|redis| (quota, redis.address));
                let traefik = Traefik::before(address, limit, program).await?;
                self.targets.push(traefik.address);
                self.instances.push(traefik.process);
                self._backend = Some(backend);
                self._folder = Some(traefik.folder);
                Ok(())
            }
        }
    }

    async fn spawn(
        &mut self,
        program: &Path,
        arguments: &[&str],
        mut settings: Vec<(&'static str, String)>,
        address: SocketAddr,
    ) -> Result<()> {
        if let Some(redis) = &self.redis {
            settings.push(("REDIS_ADDR", redis.address.to_string()));
        }
        let mut process = Process::start(program, arguments, &settings)?;
        process
            .until_listening(address)
            .await
            .with_context(|| program.display().to_string())?;
        self.instances.push(process);
        self.targets.push(address);
        Ok(())
    }
}

/// So many limits of every client.
fn rules(quota: Quota, count: usize) -> String {
    let (tokens, period) = quota.refill();
    let limit = format!("limit: {tokens} per {period}s, burst: {}", quota.capacity());
    let rule = |i| format!("  - {{ name: rule-{i}, key: ip, {limit} }}\n");
    let rules: String = (0..count).map(rule).collect();
    format!("rules:\n{rules}")
}

/// The service's own variables: its defaults, but for the limit, who is believed, and how long Redis is waited for. On a
/// machine that stalls, an instance would else decide alone, and that would be measured.
fn settings(quota: Quota, port: &str, strategy: &str) -> Vec<(&'static str, String)> {
    vec![
        ("PORT", port.to_owned()),
        ("BIND_ADDRESS", "127.0.0.1".to_owned()),
        ("TRUSTED_PROXIES", "loopback".to_owned()),
        ("REDIS_TIMEOUT", "5s".to_owned()),
        ("LIMITER_STRATEGY", strategy.to_owned()),
        ("LIMITER_CAPACITY", quota.capacity().to_string()),
        ("LIMITER_REFILL_RATE", quota.rate().to_owned()),
        // The largest scenario has a million keys, which do not spread evenly over the shards.
        ("LIMITER_MAX_KEYS", "2000000".to_owned()),
    ]
}
