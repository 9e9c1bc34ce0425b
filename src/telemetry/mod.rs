//! What the service says of itself.

mod format;

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use format::{Json, Text};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text when standard error is a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts logging to standard error; every line carries the instance id. The first call of the process wins.
///
/// A `level` that does not parse counts as `info`.
pub fn start(level: &str, style: Style, instance: Arc<str>) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(stderr);
    let started = if is_text(style) {
        let colours = stderr().is_terminal();
        builder
            .with_ansi(colours)
            .event_format(Text::new(instance))
            .try_init()
    } else {
        builder.event_format(Json::new(instance)).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
        return;
    }
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(%panic, "a task panicked: please report this"),
    ));
}

static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// Counts the restart of a background task; how many there were in this process.
pub fn restarted() -> u64 {
    RESTARTS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Restarts of background tasks in this process.
pub fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Whether that style writes for people here.
pub fn is_text(style: Style) -> bool {
    match style {
        Style::Auto => stderr().is_terminal(),
        Style::Json => false,
        Style::Text => true,
    }
}
