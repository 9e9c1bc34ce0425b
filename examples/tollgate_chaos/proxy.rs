//! A TCP proxy before Redis, with a gate for each instance, that does what networks do and counts what it passes on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::calls::charges;
use crate::ledger::{Conversation, Ledger};
use crate::resp::{frame, words};

/// What goes wrong at a gate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Faults {
    /// Replies are so much later.
    pub(crate) delay: Duration,
    /// Nothing passes, either way. As on a network that drops packets, what was sent arrives when it is over.
    pub(crate) drop: bool,
    /// New connections are refused.
    pub(crate) refuse: bool,
    /// Share of charges at which the connection is cut before they are passed on.
    pub(crate) cut_requests: f64,
    /// Share of charges at which the connection is cut when the reply is there, which is lost.
    pub(crate) cut_replies: f64,
}

/// Where one instance finds Redis.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    faults: watch::Sender<Faults>,
    accepting: JoinHandle<Result<()>>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Gate {
    /// Opens a gate on a free port to `upstream`; what passes is counted in `ledger`.
    pub(crate) async fn open(
        upstream: SocketAddr,
        ledger: Arc<Ledger>,
        faults: Faults,
        seed: u64,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let faults = watch::Sender::new(faults);
        let listening = Listening {
            upstream,
            ledger,
            faults: faults.subscribe(),
            rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        };
        Ok(Self {
            address,
            faults,
            accepting: tokio::spawn(listening.accept(listener)),
        })
    }

    /// From now on this goes wrong, on open connections too.
    pub(crate) fn suffer(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }
}

struct Listening {
    upstream: SocketAddr,
    ledger: Arc<Ledger>,
    faults: watch::Receiver<Faults>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

impl Listening {
    async fn accept(mut self, mut listener: TcpListener) -> Result<()> {
        let address = listener.local_addr()?;
        loop {
            if self.faults.borrow().refuse {
                drop(listener);
                self.faults.wait_for(|faults| !faults.refuse).await?;
                listener = TcpListener::bind(address).await?;
            }
            tokio::select! {
                accepted = listener.accept() => {
                    let pass = Pass {
                        upstream: self.upstream,
                        faults: self.faults.clone(),
                        rng: self.rng.clone(),
                        talk: Arc::new(Mutex::new(Conversation::new(self.ledger.clone()))),
                        doomed: Arc::default(),
                    };
                    tokio::spawn(pass.run(accepted?.0));
                }
                changed = self.faults.changed() => changed?,
            }
        }
    }
}

/// One connection through the gate.
#[derive(Clone)]
struct Pass {
    upstream: SocketAddr,
    faults: watch::Receiver<Faults>,
    rng: Arc<Mutex<fastrand::Rng>>,
    talk: Arc<Mutex<Conversation>>,
    /// The next reply is lost, and the connection with it.
    doomed: Arc<AtomicBool>,
}

impl Pass {
    async fn run(mut self, client: TcpStream) -> Result<()> {
        self.until_passing().await?;
        let server = match TcpStream::connect(self.upstream).await {
            Ok(server) => server,
            Err(error) => {
                // A reset: the nearest to a refusal for who is connected already.
                SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
                return Err(error.into());
            }
        };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (late, due) = mpsc::unbounded_channel();
        // When one of them ends, both sockets close: nothing lives on half-way.
        tokio::select! {
            ended = self.clone().requests(from_client, to_server) => ended,
            ended = self.clone().replies(from_server, late) => ended,
            ended = deliver(due, to_client) => ended,
        }
    }

    async fn requests(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let bytes = &buffer[..read];
            self.until_passing().await?;
            let faults = *self.faults.borrow();
            if has_charge(bytes) {
                if self.chance(faults.cut_requests) {
                    return Ok(());
                }
                if self.chance(faults.cut_replies) {
                    self.doomed.store(true, Ordering::SeqCst);
                }
            }
            // Counted before it is written, or the reply could be there first.
            self.talk
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .asks(bytes);
            to.write_all(bytes).await?;
        }
    }

    async fn replies(
        mut self,
        mut from: OwnedReadHalf,
        late: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    ) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let bytes = &buffer[..read];
            self.talk
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .hears(bytes);
            if self.doomed.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.until_passing().await?;
            let due = Instant::now() + self.faults.borrow().delay;
            late.send((due, bytes.to_vec()))?;
        }
    }

    async fn until_passing(&mut self) -> Result<()> {
        self.faults.wait_for(|faults| !faults.drop).await?;
        Ok(())
    }

    fn chance(&self, share: f64) -> bool {
        share > 0.0
            && self
                .rng
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .f64()
                < share
    }
}

/// Writes each reply when it is due; a later one never before an earlier one.
async fn deliver(
    mut due: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
) -> Result<()> {
    while let Some((at, bytes)) = due.recv().await {
        if at > Instant::now() {
            sleep_until(at).await;
        }
        to.write_all(&bytes).await?;
    }
    // The other two see how the connection ended.
    std::future::pending().await
}

/// Whether any of these commands charges.
fn has_charge(mut bytes: &[u8]) -> bool {
    while let Some(length) = frame(bytes) {
        let words = words(&bytes[..length]);
        if words.first() == Some(&&b"EXEC"[..]) || !charges(&words).is_empty() {
            return true;
        }
        bytes = &bytes[length..];
    }
    false
}
