//! A tiny server that speaks RESP, for what no real one can be made to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What is told to a command, as bytes of the protocol.
type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Lets everybody in and answers commands as it was told.
pub(crate) struct Puppet {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Puppet {
    /// Asks `script` what to answer to a command, given as its first word; where that says nothing, `+OK`.
    pub(crate) async fn start(
        script: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (script, connections) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, script.clone()));
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(client: TcpStream, script: Arc<Script>) -> Option<()> {
    let mut client = BufReader::new(client);
    loop {
        let words = number(&mut client).await?;
        let mut first = String::new();
        for i in 0..words {
            let mut word = vec![0; number(&mut client).await? + 2];
            client.read_exact(&mut word).await.ok()?;
            if i == 0 {
                first = String::from_utf8_lossy(&word).trim_end().to_owned();
            }
        }
        let told = match &*first {
            "HELLO" => Some("%1\r\n+server\r\n+redis\r\n".to_owned()),
            command => script(command),
        };
        let told = told.unwrap_or_else(|| "+OK\r\n".to_owned());
        client.write_all(told.as_bytes()).await.ok()?;
    }
}

/// The number of a line such as `*3` or `$5`.
async fn number(client: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).await.ok()?;
    line.get(1..)?.trim_end().parse().ok()
}
