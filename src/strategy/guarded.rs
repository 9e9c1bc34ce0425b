//! Bounded waiting: one deadline around everything that a decision waits for.

use std::sync::Arc;
use std::time::Duration;

use super::{Deciding, Fault, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Key, Receipt};

/// A strategy that gives up after a fixed time: turn, pool, connect and command together.
#[derive(Debug)]
pub struct Deadline {
    inner: Arc<dyn Strategy>,
    after: Duration,
}

impl Deadline {
    /// Gives `inner` at most `after` for each decision.
    pub fn new(inner: Arc<dyn Strategy>, after: Duration) -> Self {
        Self { inner, after }
    }

    fn within<'a, T: Send + Unpin + 'a>(&self, deciding: Deciding<'a, T>) -> Deciding<'a, T> {
        let after = self.after;
        Deciding::waiting(async move {
            match tokio::time::timeout(after, deciding).await {
                Ok(answer) => answer,
                Err(_) => Err(Fault::Timeout(after)),
            }
        })
    }
}

impl Strategy for Deadline {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        self.within(self.inner.ask(charges, intent))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.within(self.inner.give_back(receipts))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.within(self.inner.reset(key))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[derive(Debug)]
    struct Never;

    impl Strategy for Never {
        fn name(&self) -> &'static str {
            "never"
        }

        fn ask<'a>(&'a self, _: &'a [Charge], _: Intent) -> Deciding<'a> {
            Deciding::waiting(std::future::pending())
        }

        fn give_back(&self, _: Vec<Receipt>) -> Deciding<'_, ()> {
            Deciding::waiting(std::future::pending())
        }

        fn reset<'a>(&'a self, _: &'a Key) -> Deciding<'a, ()> {
            Deciding::waiting(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let after = Duration::from_millis(50);
        let started = Instant::now();
        let fault = Deadline::new(Arc::new(Never), after)
            .give_back(Vec::new())
            .await;
        assert_eq!(
            (fault, started.elapsed()),
            (Err(Fault::Timeout(after)), after)
        );
    }
}
