//! The load: connections that are kept alive, each with one request under way at any time, on a thread of its own.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use crate::answer::{Answer, Denial, Reader};

/// Connections at once.
pub(crate) const CONNECTIONS: u32 = 64;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Where to; connections are spread over them.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) ask: Ask,
    /// How many clients there are, by their addresses.
    pub(crate) clients: Clients,
}

/// What a request looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// `GET /api`, the client in `X-Forwarded-For`.
    Api,
    /// `POST /throttle` of throttlecrab, the client and its limit in the body.
    Throttle {
        capacity: u64,
        count: u64,
        period: u64,
    },
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// One of so many, by chance.
    AnyOf(u32),
    /// Each of so many once, one after the other, and then no more.
    EachOf(u32),
}

/// What came back while it was counted.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) denied: u64,
    /// Answers of an instance that decided without its store.
    pub(crate) local: u64,
    /// Neither 200 nor 429.
    pub(crate) other: u64,
    /// Bytes of the last answer.
    pub(crate) bytes: usize,
    /// Nanoseconds from sending a request to having its answer.
    pub(crate) latency: Histogram<u64>,
}

/// A load that runs; ends when dropped.
pub(crate) struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Tally>>>,
}

#[derive(Debug, Default)]
struct Shared {
    answered: AtomicU64,
    counts: AtomicBool,
    ends: AtomicBool,
}

impl Running {
    pub(crate) fn start(load: Load, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let thread = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || generate(&load, seed, &seen))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Whether answers are counted in the tally from now on.
    pub(crate) fn count(&self, counts: bool) {
        self.shared.counts.store(counts, Ordering::Relaxed);
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it; what came back.
    pub(crate) async fn end(mut self) -> Result<Tally> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow!("the generator panicked"))?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            admitted: 0,
            denied: 0,
            local: 0,
            other: 0,
            bytes: 0,
            latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
        })
    }

    fn add(&mut self, answer: Answer, took: u64) {
        match answer.status {
            200 => self.admitted += 1,
            429 => self.denied += 1,
            _ => self.other += 1,
        }
        self.local += u64::from(answer.is_local);
        self.bytes = answer.bytes;
        self.latency.saturating_record(took);
    }
}

fn generate(load: &Load, seed: u64, shared: &Arc<Shared>) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let chooser = Rc::new(RefCell::new(Chooser::new(load.clients, seed)));
    LocalSet::new().block_on(&runtime, async {
        let mut connections = JoinSet::new();
        for i in 0..CONNECTIONS {
            let connection = Connection {
                target: load.targets[i as usize % load.targets.len()],
                ask: load.ask,
                chooser: chooser.clone(),
                tally: tally.clone(),
                shared: shared.clone(),
            };
            connections.spawn_local(connection.converse());
        }
        while let Some(done) = connections.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })?;
    let tally = Rc::into_inner(tally).context("a connection is left")?;
    Ok(tally.into_inner())
}

struct Connection {
    target: SocketAddr,
    ask: Ask,
    chooser: Rc<RefCell<Chooser>>,
    tally: Rc<RefCell<Tally>>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn converse(self) -> Result<()> {
        let mut stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut request) = (Reader::new(self.ask.denial()), Vec::new());
        let mut sent = Instant::now();
        while !self.shared.ends.load(Ordering::Relaxed) {
            let Some(client) = self.chooser.borrow_mut().next() else {
                break;
            };
            self.ask.write(&mut request, client);
            stream.write_all(&request).await?;
            let answer = reader.next(&mut stream).await?;
            let now = Instant::now();
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
            if self.shared.counts.load(Ordering::Relaxed) {
                let took = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
                self.tally.borrow_mut().add(answer, took);
            }
            sent = now;
        }
        Ok(())
    }
}

impl Ask {
    fn denial(self) -> Denial {
        match self {
            Self::Api => Denial::Status,
            Self::Throttle { .. } => Denial::Member,
        }
    }

    /// Writes the request of that client, in place of what was there.
    fn write(self, request: &mut Vec<u8>, client: u32) {
        request.clear();
        let [_, a, b, c] = client.to_be_bytes();
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Api => write!(
                request,
                "GET /api HTTP/1.1\r\nHost: bench\r\nX-Forwarded-For: 10.{a}.{b}.{c}\r\n\r\n"
            ),
            Self::Throttle {
                capacity,
                count,
                period,
            } => {
                let body = format!(
                    r#"{{"key":"10.{a}.{b}.{c}","max_burst":{capacity},"count_per_period":{count},"period":{period}}}"#
                );
                write!(
                    request,
                    "POST /throttle HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
    }
}

/// Says whose request is next.
struct Chooser {
    clients: Clients,
    next: u32,
    state: u64,
}

impl Chooser {
    fn new(clients: Clients, seed: u64) -> Self {
        let (next, state) = (0, seed | 1);
        Self {
            clients,
            next,
            state,
        }
    }

    fn next(&mut self) -> Option<u32> {
        match self.clients {
            Clients::AnyOf(count) => {
                // xorshift64.
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                let scaled = ((self.state >> 32) * u64::from(count)) >> 32;
                u32::try_from(scaled).ok()
            }
            Clients::EachOf(count) => {
                let next = Some(self.next).filter(|next| *next < count)?;
                self.next += 1;
                Some(next)
            }
        }
    }
}
