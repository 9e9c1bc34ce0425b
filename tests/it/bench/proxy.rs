//! A TCP proxy in front of Redis that can hold replies back, or lose them with their connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Holding,
    /// The connections on which one is held are closed.
    Closing,
    /// The same, by a reset.
    Resetting,
}

/// Passes everything on, until it is told to hold replies.
pub(crate) struct Proxy {
    address: String,
    holding: watch::Sender<Gate>,
    held: Arc<AtomicUsize>,
    changed: watch::Sender<()>,
    asked: watch::Sender<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (holding, held) = (
            watch::Sender::new(Gate::Open),
            Arc::new(AtomicUsize::new(0)),
        );
        let (changed, asked) = (watch::Sender::new(()), watch::Sender::new(Vec::new()));
        let record = asked.clone();
        let (upstream, gate, count, tell) = (
            upstream.to_owned(),
            holding.clone(),
            held.clone(),
            changed.clone(),
        );
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&upstream).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(
                    from_client,
                    to_server,
                    gate.subscribe(),
                    record.clone(),
                ));
                tokio::spawn(pass_replies(
                    from_server,
                    to_client,
                    gate.subscribe(),
                    count.clone(),
                    tell.clone(),
                ));
            }
        });
        Self {
            address,
            holding,
            held,
            changed,
            asked,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn hold_replies(&self) {
        self.asked.send_modify(Vec::clear);
        self.holding.send_replace(Gate::Holding);
    }

    pub(crate) fn release_replies(&self) {
        self.holding.send_replace(Gate::Open);
    }

    /// Closes the connections on which a reply is held, in good order or by a reset.
    pub(crate) fn cut(&self, in_good_order: bool) {
        self.holding.send_replace(if in_good_order {
            Gate::Closing
        } else {
            Gate::Resetting
        });
    }

    /// Waits until that command was passed on, whose reply is then held.
    pub(crate) async fn until_asked(&self, command: &str) {
        let mut asked = self.asked.subscribe();
        let is_in = |asked: &Vec<u8>| {
            asked
                .windows(command.len())
                .any(|word| word == command.as_bytes())
        };
        asked.wait_for(is_in).await.unwrap();
    }

    /// Waits until that many replies are held.
    pub(crate) async fn until_held(&self, replies: usize) {
        let mut changed = self.changed.subscribe();
        while self.held.load(Ordering::SeqCst) < replies {
            changed.changed().await.unwrap();
        }
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut holding: watch::Receiver<Gate>,
    asked: watch::Sender<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = holding.wait_for(is_cut) => break,
        };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        if *holding.borrow() == Gate::Holding {
            asked.send_modify(|asked| asked.extend_from_slice(&buffer[..read]));
        }
    }
    let _ = to.shutdown().await;
}

async fn pass_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut holding: watch::Receiver<Gate>,
    held: Arc<AtomicUsize>,
    changed: watch::Sender<()>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if *holding.borrow() == Gate::Holding {
            held.fetch_add(1, Ordering::SeqCst);
            changed.send_replace(());
            match holding
                .wait_for(|gate| *gate != Gate::Holding)
                .await
                .as_deref()
            {
                Ok(Gate::Resetting) => return reset(to),
                Ok(Gate::Open) => {}
                _ => return,
            }
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn is_cut(gate: &Gate) -> bool {
    matches!(gate, Gate::Closing | Gate::Resetting)
}

/// Closes it without a farewell, as soon as its other half is gone.
fn reset(half: OwnedWriteHalf) {
    let at_once = Some(Duration::ZERO);
    SockRef::from(half.as_ref()).set_linger(at_once).unwrap();
    half.forget();
}
