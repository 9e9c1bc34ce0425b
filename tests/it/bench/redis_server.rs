//! A redis-server process of the test's own, on a port of its own.

use std::iter;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use redis::{Client, Connection, FromRedisValue, RedisError, RedisResult};

use super::free_port;

/// Tries to start, and looks whether it answers.
const TRIES: u32 = 5;
const LOOKS: u32 = 3_000;

/// Whether the server knows the options that came with Redis 7. Valkey's first version is one later.
pub(crate) fn has_options_of_redis_7() -> bool {
    static MAJOR: LazyLock<u32> = LazyLock::new(|| {
        let version = Command::new("redis-server").arg("--version").output();
        let text = String::from_utf8(version.unwrap().stdout).unwrap();
        let (_, version) = text.split_once("v=").unwrap();
        version.split('.').next().unwrap().parse().unwrap()
    });
    *MAJOR >= 7
}

/// Ends with the test.
pub(crate) struct RedisServer {
    port: u16,
    extra: Vec<String>,
    variables: Vec<(&'static str, PathBuf)>,
    process: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these options of redis-server besides the usual.
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        Self::start_in(extra, Vec::new())
    }

    /// With these variables in its environment besides the usual.
    pub(crate) fn start_in(extra: &[&str], variables: Vec<(&'static str, PathBuf)>) -> Self {
        let extra = extra.iter().map(ToString::to_string).collect();
        let mut server = Self {
            port: 0,
            extra,
            variables,
            process: None,
        };
        for _ in 0..TRIES {
            server.port = free_port();
            if server.try_to_start() {
                return server;
            }
        }
        panic!("redis-server did not start in {TRIES} tries: is it installed?");
    }

    /// A port for a server that is not there yet: see [`Self::restart`].
    pub(crate) fn absent() -> Self {
        Self {
            port: free_port(),
            extra: Vec::new(),
            variables: Vec::new(),
            process: None,
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it on its port, empty.
    pub(crate) fn restart(&mut self) {
        self.stop();
        assert!(
            self.try_to_start(),
            "redis-server did not start on port {}",
            self.port
        );
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn connection(&self) -> Connection {
        Client::open(format!("redis://{}", self.address()))
            .unwrap()
            .get_connection()
            .unwrap()
    }

    /// Runs one command, given as words.
    pub(crate) fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.ask(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs one command that may be refused.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        redis::cmd(words[0])
            .arg(&words[1..])
            .query(&mut self.connection())
    }

    /// Returns once the server's clock, which was moved, reads that time, in microseconds since 1970: that of Valkey 9.1 takes
    /// up to a millisecond.
    pub(crate) fn reaches_us(&self, time_us: u64) {
        let mut connection = self.connection();
        let reads_us = || {
            let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut connection).unwrap();
            seconds * 1_000_000 + micros
        };
        assert!(
            iter::repeat_with(reads_us)
                .take(1_000_000)
                .any(|now_us| now_us >= time_us)
        );
    }

    /// When that key expires, in milliseconds since 1970, to one either way.
    pub(crate) fn expires_at_ms(&self, key: &str) -> u64 {
        let mut both = redis::pipe();
        both.atomic().cmd("TIME").cmd("PTTL").arg(key);
        let ((seconds, micros), left_ms): ((u64, u64), u64) =
            both.query(&mut self.connection()).unwrap();
        seconds * 1_000 + micros / 1_000 + left_ms
    }

    /// Keys in the database and, of these, keys that expire.
    pub(crate) fn keys_and_expires(&self) -> (usize, usize) {
        let keys: Vec<String> = self.run(&["KEYS", "*"]);
        let expiring = keys
            .iter()
            .filter(|key| self.run::<i64>(&["PTTL", key]) > 0)
            .count();
        (keys.len(), expiring)
    }

    fn try_to_start(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(&self.extra)
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is on the PATH: ./scripts/test.sh installs it");
        for _ in 0..LOOKS {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                self.process = Some(process);
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        false
    }

    /// Any answer will do, such as one that asks for a password, but for one that the server still reads its file.
    fn answers(&self) -> bool {
        let is_up = |error: &RedisError| !error.is_io_error() && error.code() != Some("LOADING");
        let client = Client::open(format!("redis://{}", self.address())).unwrap();
        let asked = client
            .get_connection()
            .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        asked.as_ref().err().is_none_or(is_up)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
