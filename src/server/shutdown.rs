//! When to stop: the first signal drains, the second ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serve.
    Run,
    /// Accept nothing new and let open requests end.
    Drain,
    /// End at once.
    End,
}

/// Tells when to stop.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Stage>);

impl Shutdown {
    /// A shutdown that the other half commands. Dropping that half commands nothing.
    pub fn new() -> (watch::Sender<Stage>, Self) {
        let (sender, receiver) = watch::channel(Stage::Run);
        (sender, Self(receiver))
    }

    /// Drains on the first SIGTERM or SIGINT and ends on the second.
    ///
    /// # Errors
    ///
    /// When the signals cannot be listened to.
    pub fn on_signals() -> io::Result<Self> {
        let (sender, shutdown) = Self::new();
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::spawn(async move {
            for stage in [Stage::Drain, Stage::End] {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                };
                match stage {
                    Stage::End => warn!(signal = name, "ending at once"),
                    _ => info!(
                        signal = name,
                        "stopping: open requests may end, a second signal ends at once"
                    ),
                }
                sender.send_replace(stage);
            }
        });
        Ok(shutdown)
    }

    /// Resolves once that stage is reached.
    pub async fn reached(&self, stage: Stage) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= stage).await.is_err() {
            // Nobody is left who could command anything.
            std::future::pending::<()>().await;
        }
    }
}
