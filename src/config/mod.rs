//! What the process was told: environment variables, and `.env` for those that are not set.
//!
//! Blank means unset. Every problem is reported at once, each with the variable, what was given and what is allowed.
//! The names of both services that this one replaces are understood.

mod env;
mod error;
mod http;
mod limiter;
mod log;
mod redis;
mod server;
mod variables;

pub use env::{Environment, Origin};
pub use error::{Invalid, Problem};
pub use http::Http;
pub use limiter::Limiter;
pub use log::Log;
pub use redis::Redis;
pub use server::Server;
pub use variables::{LIVE, VARIABLES, Variable};

use env::Reader;

/// Every setting, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where and as whom to serve.
    pub server: Server,
    /// Who may connect and how long things may take.
    pub http: Http,
    /// The store.
    pub redis: Redis,
    /// What is limited and how.
    pub limiter: Limiter,
    /// What is logged and how.
    pub log: Log,
    /// What it was read from.
    environment: Environment,
    /// What is legal but worth a line in the log at the start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads every setting.
    ///
    /// # Errors
    ///
    /// Every problem that there is, not only the first.
    pub fn read(environment: &Environment) -> Result<Self, Invalid> {
        let mut reader = Reader::new(environment)?;
        let server = Server::read(&mut reader);
        let http = Http::read(&mut reader);
        let limiter = Limiter::read(&mut reader);
        let redis = Redis::read(&mut reader, limiter.kind);
        let log = Log::read(&mut reader);
        let warnings = reader.finish()?;
        Ok(Self {
            server,
            http,
            redis,
            limiter,
            log,
            environment: environment.clone(),
            warnings,
        })
    }

    /// Takes over what can change while the service runs: [`LIVE`].
    pub fn adopt(&mut self, other: &Self) {
        self.limiter.mode = other.limiter.mode;
        self.limiter.on_store_error = other.limiter.on_store_error;
        self.limiter.limit.quota = other.limiter.limit.quota;
    }

    /// The variables that `other` was read from with other values, but that count only after a restart.
    pub fn waits_for_a_restart(&self, other: &Self) -> Vec<&'static str> {
        fn value<'a>(config: &'a Config, name: &str) -> Option<&'a str> {
            config.environment.value(name).map(|(value, _)| value)
        }
        let names = VARIABLES.iter().map(|variable| variable.name);
        let names = names.filter(|name| !LIVE.contains(name));
        names
            .filter(|name| value(self, name) != value(other, name))
            .collect()
    }
}
