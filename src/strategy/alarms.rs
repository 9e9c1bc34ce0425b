//! Timers that are used again.
//!
//! A timer of tokio's is made, put among all others under a lock and taken out again; that is much for a request that
//! is answered at once or soon. Here a timer is taken only once something has to be waited for, and given back set: to set
//! it later, as the next request does, leaves it where it is among the others. One that nobody uses rings in vain once, and
//! until then keeps the task that it would have woken in memory.
//!
//! All users must be of one runtime, which may not end before them.

use std::fmt;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::panicking;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Most timers that are kept while nobody uses them.
const MOST_IDLE: usize = 1024;

/// Timers that all run for as long.
pub(crate) struct Alarms {
    after: Duration,
    idle: Mutex<Vec<Pin<Box<Sleep>>>>,
}

/// One of them, taken when it is first waited for.
pub(crate) struct Alarm<P: Deref<Target = Alarms>> {
    of: P,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLate;

impl Alarms {
    /// Of that time.
    pub(crate) fn new(after: Duration) -> Self {
        let idle = Mutex::default();
        Self { after, idle }
    }

    /// How long they run.
    pub(crate) fn after(&self) -> Duration {
        self.after
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Pin<Box<Sleep>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Deref<Target = Alarms>> Alarm<P> {
    /// One that is not set.
    pub(crate) fn new(of: P) -> Self {
        Self { of, sleep: None }
    }

    /// Polls `future`; where it is not ready, whether the time is over that began when it was first polled so.
    pub(crate) fn poll_before<F: Future>(
        &mut self,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, TooLate>> {
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let sleep = self.sleep.get_or_insert_with(|| {
            let deadline = Instant::now() + self.of.after;
            let Some(mut sleep) = self.of.idle().pop() else {
                return Box::pin(sleep_until(deadline));
            };
            sleep.as_mut().reset(deadline);
            sleep
        });
        // A future that has used up what it may do in a turn must not keep the time from being looked at.
        ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
        Poll::Ready(Err(TooLate))
    }
}

impl<P: Deref<Target = Alarms>> Drop for Alarm<P> {
    fn drop(&mut self) {
        // One that panics is of a runtime that ended.
        let Some(sleep) = self.sleep.take().filter(|_| !panicking()) else {
            return;
        };
        let mut idle = self.of.idle();
        if idle.len() < MOST_IDLE {
            idle.push(sleep);
        }
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alarms").field(&self.after).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tokio::task::coop::consume_budget;
    use tokio::time::sleep;

    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    impl Alarms {
        async fn within<F: Future>(&self, future: F) -> Result<F::Output, TooLate> {
            let (mut future, mut alarm) = (pin!(future), Alarm::new(self));
            poll_fn(|cx| alarm.poll_before(future.as_mut(), cx)).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_use_has_all_of_the_time() {
        let alarms = Alarms::new(AFTER);
        for wait in [1, 4, 4, 1, 4] {
            let answer = sleep(Duration::from_secs(wait));
            assert_eq!(alarms.within(answer).await, Ok(()));
            assert_eq!(alarms.idle().len(), 1, "one is enough");
        }
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(alarms.within(pending::<()>()).await, Err(TooLate));
            assert_eq!(begun.elapsed(), AFTER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_answered_at_once_takes_none() {
        let alarms = Alarms::new(AFTER);
        assert_eq!(alarms.within(ready(7)).await, Ok(7));
        assert!(alarms.idle().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rang_unused_is_as_good_as_new() {
        let alarms = Alarms::new(AFTER);
        let soon = || sleep(Duration::from_secs(1));
        assert_eq!(alarms.within(soon()).await, Ok(()));
        sleep(3 * AFTER).await;
        assert_eq!(alarms.within(soon()).await, Ok(()));
        assert_eq!(alarms.within(pending::<()>()).await, Err(TooLate));
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_so_many_are_kept() {
        let alarms = Alarms::new(AFTER);
        let waits = (0..MOST_IDLE + 10).map(|_| alarms.within(sleep(Duration::from_secs(1))));
        let all: Vec<_> = waits.map(Box::pin).collect();
        futures_of(all).await;
        assert_eq!(alarms.idle().len(), MOST_IDLE);
    }

    /// All of them at the same time.
    async fn futures_of(mut all: Vec<impl Future + Unpin>) {
        poll_fn(|cx| {
            all.retain_mut(|one| Pin::new(one).poll(cx).is_pending());
            if all.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// It has more to do each time that it is polled, a thousand times as long as it may.
    #[tokio::test]
    async fn who_is_always_busy_is_stopped_too() {
        let after = Duration::from_millis(5);
        let (alarms, begun) = (Alarms::new(after), Instant::now());
        let busy = async {
            while begun.elapsed() < 1_000 * after {
                consume_budget().await;
            }
        };
        assert_eq!(alarms.within(busy).await, Err(TooLate));
    }

    /// A timer of a runtime that ended panics, and is not lent to the next.
    #[test]
    fn a_runtime_that_ended_costs_one_wait() {
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().unwrap()
        };
        let alarms = Alarms::new(AFTER);
        let soon = async || alarms.within(sleep(Duration::from_secs(1))).await;
        assert_eq!(runtime().block_on(soon()), Ok(()));
        let next = runtime();
        let first = catch_unwind(AssertUnwindSafe(|| next.block_on(soon())));
        assert!(first.is_err());
        assert_eq!(next.block_on(soon()), Ok(()));
    }
}
