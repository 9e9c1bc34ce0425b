//! Changes what can change while the service runs: on SIGHUP, and when the rules file changes.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::{Config, Invalid};
use crate::limiter::{Limiter, Reloader, RuleSet};

/// How often the rules file is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Reads the configuration anew, whenever it is asked to.
pub struct Reread {
    asked: mpsc::Receiver<()>,
    read: Box<dyn Fn() -> Result<Config, Invalid> + Send + Sync>,
}

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread").finish_non_exhaustive()
    }
}

impl Reread {
    /// Reads it with `read` for each message of the other half.
    pub fn new(
        read: impl Fn() -> Result<Config, Invalid> + Send + Sync + 'static,
    ) -> (mpsc::Sender<()>, Self) {
        let (ask, asked) = mpsc::channel(1);
        let read = Box::new(read);
        (ask, Self { asked, read })
    }

    /// Reads it with `read` on each SIGHUP.
    ///
    /// # Errors
    ///
    /// When the signal cannot be listened to.
    pub fn on_hangup(
        read: impl Fn() -> Result<Config, Invalid> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (ask, reread) = Self::new(read);
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() && ask.send(()).await.is_ok() {}
        });
        Ok(reread)
    }

    /// Never.
    pub fn never() -> Self {
        Self::new(|| Err(Invalid(Vec::new()))).1
    }
}

/// What can change while the service runs.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) config: Config,
    pub(super) limiter: Arc<Limiter>,
    /// `None` without a rules file.
    pub(super) reloader: Option<Reloader>,
}

/// Follows the file and the requests to read anew, for ever.
pub(super) async fn follow(live: Live, mut reread: Reread) {
    let has_file = live.reloader.is_some();
    let live = Arc::new(Mutex::new(live));
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deaf = false;
    loop {
        let config = tokio::select! {
            _ = tick.tick(), if has_file => None,
            asked = reread.asked.recv(), if !deaf => match asked {
                Some(()) => Some((reread.read)()),
                None => {
                    deaf = true;
                    continue;
                }
            },
            else => return,
        };
        let live = live.clone();
        // A file of many rules takes a while to read: requests must not wait for it.
        let done = spawn_blocking(move || {
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            match config {
                Some(config) => live.reread(config),
                None => live.look(),
            }
        });
        if done.await.is_err() {
            error!(
                "reading the rules anew failed by a mistake of this program: those before stay in force"
            );
        }
    }
}

impl Live {
    fn look(&mut self) {
        if let Some(reloader) = &mut self.reloader {
            reloader.look();
        }
    }

    fn reread(&mut self, config: Result<Config, Invalid>) {
        let config = match config {
            Ok(config) => config,
            Err(invalid) => {
                return error!(%invalid, "the settings were refused: those before them stay in force");
            }
        };
        for name in self.config.waits_for_a_restart(&config) {
            warn!(setting = name, "changed, but counts only after a restart");
        }
        self.config.adopt(&config);
        let limiter = &self.config.limiter;
        match &mut self.reloader {
            Some(reloader) => reloader.reload(limiter.basis()),
            None => {
                let set = RuleSet::of_one(limiter.default_rule());
                if self.limiter.rules().version() != set.version() {
                    let version = set.version();
                    self.limiter.replace_rules(set);
                    info!(%version, "another limit is in force");
                }
            }
        }
    }
}
