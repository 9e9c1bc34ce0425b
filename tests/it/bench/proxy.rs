//! A TCP proxy in front of Redis that can hold replies back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes everything on, until it is told to hold replies.
pub(crate) struct Proxy {
    address: String,
    holding: watch::Sender<bool>,
    held: Arc<AtomicUsize>,
    changed: watch::Sender<()>,
    asked: watch::Sender<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (holding, held) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
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
        self.holding.send_replace(true);
    }

    pub(crate) fn release_replies(&self) {
        self.holding.send_replace(false);
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
    holding: watch::Receiver<bool>,
    asked: watch::Sender<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        if *holding.borrow() {
            asked.send_modify(|asked| asked.extend_from_slice(&buffer[..read]));
        }
    }
    let _ = to.shutdown().await;
}

async fn pass_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut holding: watch::Receiver<bool>,
    held: Arc<AtomicUsize>,
    changed: watch::Sender<()>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if *holding.borrow() {
            held.fetch_add(1, Ordering::SeqCst);
            changed.send_replace(());
            if holding.wait_for(|holding| !holding).await.is_err() {
                return;
            }
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
