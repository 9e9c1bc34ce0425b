//! Bounded waiting: one deadline around everything that a decision waits for.

use std::sync::Arc;
use std::time::Duration;

use super::{Deciding, Fault, Strategy};
use crate::domain::Charge;

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
}

impl Strategy for Deadline {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        let deciding = self.inner.decide(charges);
        Deciding::waiting(async move {
            match tokio::time::timeout(self.after, deciding).await {
                Ok(answer) => answer,
                Err(_) => Err(Fault::Timeout(self.after)),
            }
        })
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

        fn decide<'a>(&'a self, _: &'a [Charge]) -> Deciding<'a> {
            Deciding::waiting(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let after = Duration::from_millis(50);
        let started = Instant::now();
        let fault = Deadline::new(Arc::new(Never), after).decide(&[]).await;
        assert_eq!(
            (fault, started.elapsed()),
            (Err(Fault::Timeout(after)), after)
        );
    }
}
