//! Instances of the service: in this process, or a process of their own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use reqwest::{Client, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tollgate::config::{Config, Environment, VARIABLES};
use tollgate::server::{self, Reread, Shutdown, Stage};

/// The service in this process, on a free port, as `main` builds it from these variables.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    client: Client,
    stop: watch::Sender<Stage>,
    running: JoinHandle<()>,
}

impl Instance {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let pairs = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let config = Config::read(&Environment::new(pairs, None)).unwrap();
        let rules = config.limiter.rule_set().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, shutdown) = Shutdown::new();
        let running = tokio::spawn(async move {
            server::run(
                config,
                rules,
                "test".into(),
                listener,
                shutdown,
                Reread::never(),
            )
            .await
            .unwrap();
        });
        Self {
            address,
            client: Client::builder().build().unwrap(),
            stop,
            running,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.client.get(format!("http://{}{path}", self.address));
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(*name, *value)
            })
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> Response {
        self.client
            .post(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    /// Asks for the shutdown and waits until the service ended.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(Stage::Drain);
        self.running.await.unwrap();
    }

    pub(crate) fn drain(&self) {
        self.stop.send_replace(Stage::Drain);
    }
}

/// The service as a process of its own, on a free port; killed with the test.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
    /// The fields of the log line that says where it listens.
    pub(crate) listening: serde_json::Value,
    lines: mpsc::Receiver<String>,
    /// Log lines from before it said where it listens.
    earlier: Vec<String>,
}

impl Process {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_of(command(), variables)
    }

    /// In that folder, where a `.env` may stand.
    pub(crate) fn start_in(folder: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = command();
        command.current_dir(folder);
        Self::start_of(command, variables)
    }

    fn start_of(mut command: Command, variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .envs(variables.iter().copied())
            .env("PORT", "0")
            .env("BIND_ADDRESS", "127.0.0.1")
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut earlier = Vec::new();
        let listening: serde_json::Value = loop {
            let line = lines
                .recv()
                .expect("the process says where it listens before it ends");
            let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
            if fields["message"] == "listening" {
                break fields;
            }
            earlier.push(line);
        };
        Self {
            address: listening["address"].as_str().unwrap().parse().unwrap(),
            child,
            listening,
            lines,
            earlier,
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Reads log lines until one has that text; those that were read.
    pub(crate) fn until_logged(&self, text: &str) -> Vec<String> {
        let has = |line: &String| line.contains(text);
        let mut read = Vec::new();
        if self.earlier.iter().any(has) {
            return read;
        }
        for line in &self.lines {
            read.push(line);
            if read.last().is_some_and(has) {
                return read;
            }
        }
        panic!("it ended and never logged {text:?}");
    }

    /// Waits for the end: its exit status, and the log lines that were not read yet.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        (status, self.lines.iter().collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with no setting of this process's environment, in a folder without `.env`.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    VARIABLES.iter().for_each(|variable| {
        command.env_remove(variable.name);
    });
    command.current_dir(std::env::temp_dir());
    command
}
