//! Background tasks that do not end with a panic.

use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tracing::error;

use crate::telemetry;

/// Pause before a task that panicked is started again.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs what `start` makes, and makes it anew whenever it panics; each such restart is counted. Aborting the handle ends it.
pub(super) fn supervise<F>(
    name: &'static str,
    start: impl Fn() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            // A set of one: it ends its task when it is dropped.
            let mut task = JoinSet::new();
            task.spawn(start());
            match task.join_next().await {
                Some(Err(end)) if end.is_panic() => {
                    let restarts = telemetry::restarted();
                    error!(
                        task = name,
                        restarts, "a background task panicked and is started again"
                    );
                }
                _ => return,
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_and_counted() {
        let runs = Arc::new(AtomicU32::new(0));
        let before = telemetry::restarts();
        let counted = runs.clone();
        let task = supervise("test", move || {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move { assert!(run >= 2, "a mistake") }
        });
        task.await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        assert!(telemetry::restarts() >= before + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn aborting_it_ends_the_task_too() {
        let alive = Arc::new(());
        let held = alive.clone();
        let task = supervise("test", move || {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
