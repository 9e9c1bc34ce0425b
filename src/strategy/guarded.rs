//! Bounded waiting: one deadline around everything that a decision waits for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep};

use super::alarms::{Alarm, Alarms, TooLate};
use super::{Deciding, Fault, Remedy, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Key, Receipt, Verdict};

/// Longest pause before the same request is sent again the first time; it doubles with each try, so many times.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const PAUSE_DOUBLINGS: u32 = 3;

/// A strategy that gives up after a fixed time: turn, pool, connect and command together.
///
/// A fault that passes by itself and surely was not executed is tried again within that time.
#[derive(Debug)]
pub struct Deadline {
    inner: Arc<dyn Strategy>,
    alarms: Alarms,
    jitter: Mutex<fastrand::Rng>,
}

impl Deadline {
    /// Gives `inner` at most `after` for each decision; `seed` is where the jitter starts. All that ask it must be of one
    /// tokio runtime.
    pub fn new(inner: Arc<dyn Strategy>, after: Duration, seed: u64) -> Self {
        Self {
            inner,
            alarms: Alarms::new(after),
            jitter: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    fn within<'a, T: Send + Unpin + 'a>(
        &'a self,
        deciding: impl Future<Output = Result<T, Fault>> + Send + 'a,
    ) -> Deciding<'a, T> {
        Deciding::waiting(Bounded {
            deciding: Some(deciding),
            alarm: Alarm::new(&self.alarms),
            after: self.alarms.after(),
        })
    }

    /// Asks until the answer is no fault that passes by itself, or a pause would outlast the deadline.
    fn persisting<'a, T: Send + Unpin + 'a>(
        &'a self,
        ask: impl Fn() -> Deciding<'a, T> + Send + 'a,
    ) -> Deciding<'a, T> {
        self.within(async move {
            let give_up = Instant::now() + self.alarms.after();
            for tries in 0.. {
                let answer = ask().await;
                let Err(fault) = &answer else { return answer };
                let pause = self.pause(tries);
                if fault.remedy() != Remedy::TryAgain || Instant::now() + pause >= give_up {
                    return answer;
                }
                // In a box, because it is rare, and every future that holds a timer must begin at a multiple of 128 bytes.
                Box::pin(sleep(pause)).await;
            }
            Err(Fault::Timeout(self.alarms.after()))
        })
    }

    fn pause(&self, tries: u32) -> Duration {
        let longest = FIRST_PAUSE * (1 << tries.min(PAUSE_DOUBLINGS));
        let mut jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
        longest.mul_f64(0.5 + jitter.f64() / 2.0)
    }
}

pin_project! {
    /// A decision that may come too late. Not an async block, which would keep room for it twice.
    struct Bounded<'a, F> {
        #[pin]
        deciding: Option<F>,
        alarm: Alarm<&'a Alarms>,
        after: Duration,
    }
}

impl<T, F: Future<Output = Result<T, Fault>>> Future for Bounded<'_, F> {
    type Output = Result<T, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let deciding = this.deciding.as_mut().as_pin_mut();
        let deciding = deciding.expect("not polled after it resolved");
        let answer = ready!(this.alarm.poll_before(deciding, cx));
        // Whatever it holds others may wait for.
        this.deciding.set(None);
        Poll::Ready(answer.unwrap_or_else(|TooLate| Err(Fault::Timeout(*this.after))))
    }
}

impl Strategy for Deadline {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        self.persisting(move || self.inner.ask(charges, intent))
    }

    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        self.inner.ask_at_once(charges, intent)
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.within(self.inner.give_back(receipts))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.persisting(move || self.inner.reset(key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::domain::{Identity, RuleName};

    const AFTER: Duration = Duration::from_millis(50);

    /// Answers a reset with this fault the first so many times.
    #[derive(Debug)]
    struct Failing(Fault, AtomicU32);

    impl Strategy for Failing {
        fn name(&self) -> &'static str {
            "failing"
        }

        fn ask<'a>(&'a self, _: &'a [Charge], _: Intent) -> Deciding<'a> {
            Deciding::ready(Err(self.0.clone()))
        }

        fn give_back(&self, _: Vec<Receipt>) -> Deciding<'_, ()> {
            Deciding::waiting(std::future::pending())
        }

        fn reset<'a>(&'a self, _: &'a Key) -> Deciding<'a, ()> {
            let left = self.1.load(Ordering::Relaxed);
            self.1.store(left.saturating_sub(1), Ordering::Relaxed);
            Deciding::ready(if left == 0 {
                Ok(())
            } else {
                Err(self.0.clone())
            })
        }
    }

    fn failing(code: &str, times: u32) -> (Deadline, Fault) {
        let (code, message) = (code.to_owned(), String::new());
        let fault = Fault::Refused { code, message };
        let inner = Failing(fault.clone(), AtomicU32::new(times));
        (Deadline::new(Arc::new(inner), AFTER, 42), fault)
    }

    fn key() -> Key {
        let name = RuleName::default_rule();
        Key::new(
            "t:",
            &crate::algorithm::TokenBucket,
            &name,
            &Identity::new(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let started = Instant::now();
        let fault = failing("ERR", 0).0.give_back(Vec::new()).await;
        assert_eq!(
            (fault, started.elapsed()),
            (Err(Fault::Timeout(AFTER)), AFTER)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_late_is_dropped_at_once() {
        let (deadline, _) = failing("ERR", 0);
        let held = Arc::new(());
        let holding = held.clone();
        let mut late = deadline.within(async move {
            let _holding = holding;
            std::future::pending().await
        });
        assert_eq!((&mut late).await, Err::<(), _>(Fault::Timeout(AFTER)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_again_what_passes_by_itself_within_the_deadline() {
        let (deadline, _) = failing("LOADING", 3);
        assert_eq!(deadline.reset(&key()).await, Ok(()));
        let (deadline, fault) = failing("LOADING", u32::MAX);
        let started = Instant::now();
        assert_eq!(
            deadline.reset(&key()).await,
            Err(fault),
            "the fault itself, not a timeout"
        );
        assert!(started.elapsed() < AFTER && started.elapsed() > AFTER / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn never_tries_again_what_does_not_pass_or_may_have_been_executed() {
        for code in ["READONLY", "OOM", "ERR", "WRONGTYPE"] {
            let (deadline, fault) = failing(code, 1);
            assert_eq!(deadline.reset(&key()).await, Err(fault), "{code}");
        }
    }
}
