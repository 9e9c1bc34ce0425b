//! A circuit breaker: after a few faults in a row no request touches the store until probes say that it is well again.
//!
//! Only faults that speak of the store count; contention or a bad record are one key's own. After Nygard, *Release It!*,
//! 2nd edition, chapter 5.

mod machine;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{Deciding, Fault, Scope, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Clock, Key, Receipt, Verdict};

use machine::Machine;
pub use machine::{Pass, State};

/// Says whether the store may be asked.
#[derive(Debug)]
pub struct Breaker {
    clock: Arc<dyn Clock>,
    machine: Mutex<Machine>,
    /// Whether a success would change nothing; read without the lock by every request that goes well.
    calm: AtomicBool,
    /// Whether it is open; read without the lock by every request.
    open: AtomicBool,
    opened: Notify,
    lines: Mutex<Lines>,
}

/// Faults that did not open it are told of at most this often, in microseconds.
const TELL_EVERY_US: u64 = 10_000_000;

/// What was told of single faults.
#[derive(Debug, Default)]
struct Lines {
    told_us: Option<u64>,
    untold: u64,
}

impl Breaker {
    /// A closed breaker on `clock`, which should never step back.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            machine: Mutex::new(Machine::new()),
            calm: AtomicBool::new(true),
            open: AtomicBool::new(false),
            opened: Notify::new(),
            lines: Mutex::default(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// Leave to ask the store; `None` while it is given a rest.
    pub fn pass(&self) -> Option<Pass> {
        self.lock().pass()
    }

    /// What came of asking with that pass.
    pub fn report<T>(&self, pass: Pass, answer: &Result<T, Fault>) {
        match answer {
            Err(fault) if fault.scope() == Scope::Store => {
                let with_connection = matches!(fault, Fault::Lost(_));
                let now_us = self.clock.now_us();
                self.tell(fault, now_us);
                self.change(Some(fault), |machine| {
                    machine.failed(pass, with_connection, now_us);
                });
            }
            Err(_) => {}
            Ok(_) if self.calm.load(Ordering::Relaxed) => {}
            Ok(_) => self.change(None, |machine| machine.succeeded(pass)),
        }
    }

    /// What came of a probe.
    pub fn probed(&self, answer: Result<(), &Fault>) {
        let now_us = self.clock.now_us();
        self.change(answer.err(), |machine| {
            machine.probed(answer.is_ok(), now_us);
        });
    }

    /// Resolves when it opens.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    fn change(&self, fault: Option<&Fault>, change: impl FnOnce(&mut Machine)) {
        let mut machine = self.lock();
        let before = machine.state();
        change(&mut machine);
        let after = machine.state();
        self.calm.store(machine.is_calm(), Ordering::Relaxed);
        self.open.store(after == State::Open, Ordering::Relaxed);
        drop(machine);
        if before == after {
            return;
        }
        match after {
            State::Open => {
                let fault = fault.cloned().unwrap_or(Fault::Resting);
                let advice = fault.advice();
                warn!(%fault, advice, breaker = after.name(), "the store is given a rest");
                self.opened.notify_one();
            }
            State::HalfOpen => info!(
                breaker = after.name(),
                "the store answers probes: it is asked again"
            ),
            State::Closed => info!(breaker = after.name(), "the store decides again"),
        }
    }

    fn tell(&self, fault: &Fault, now_us: u64) {
        debug!(%fault, ambiguous = fault.is_ambiguous(), "no decision");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines
            .told_us
            .is_some_and(|told_us| now_us < told_us.saturating_add(TELL_EVERY_US))
        {
            lines.untold += 1;
            return;
        }
        let (more, advice) = (std::mem::take(&mut lines.untold), fault.advice());
        lines.told_us = Some(now_us);
        warn!(%fault, advice, more, "the store could not decide");
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A strategy that is asked only while its breaker lets requests pass.
#[derive(Debug)]
pub struct Breaking {
    inner: Arc<dyn Strategy>,
    breaker: Arc<Breaker>,
}

impl Breaking {
    /// Asks `inner` as `breaker` allows, and tells it what came of it.
    pub fn new(inner: Arc<dyn Strategy>, breaker: Arc<Breaker>) -> Self {
        Self { inner, breaker }
    }

    fn passed<'a, T: Send + Unpin + 'a>(
        &'a self,
        ask: impl FnOnce() -> Deciding<'a, T>,
    ) -> Deciding<'a, T> {
        let Some(pass) = self.breaker.pass() else {
            return Deciding::ready(Err(Fault::Resting));
        };
        let mut asked = ask();
        Deciding::waiting(async move {
            // Where it is, so that no room is kept for it twice.
            let answer = (&mut asked).await;
            self.breaker.report(pass, &answer);
            answer
        })
    }
}

impl Strategy for Breaking {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let Some(pass) = self.breaker.pass() else {
            return Deciding::ready(Err(Fault::Resting));
        };
        let mut asked = self.inner.ask(charges, intent);
        Deciding::waiting(async move {
            // Where it is, so that no room is kept for it twice.
            let answer = (&mut asked).await;
            // What was remembered of the store, or taken ahead there, says nothing about how it is now.
            if !matches!(&answer, Ok(verdict) if !verdict.is_news()) {
                self.breaker.report(pass, &answer);
            }
            answer
        })
    }

    /// What needs no waiting says nothing about how the store is now.
    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        if self.breaker.open.load(Ordering::Relaxed) {
            return None;
        }
        self.inner.ask_at_once(charges, intent)
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.passed(|| self.inner.give_back(receipts))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.passed(|| self.inner.reset(key))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::algorithm::TokenBucket;
    use crate::domain::{Cost, Identity, Limit, ManualClock, Quota, RuleName};
    use crate::strategy::Memory;
    use machine::FAULTS_TO_OPEN;

    fn charge() -> Charge {
        let (algorithm, identity) = (&TokenBucket, Identity::new());
        let key = Key::new("t:", algorithm, &RuleName::default_rule(), &identity);
        let quota = Quota::new(9, 1, Duration::from_secs(1)).unwrap();
        Charge::new(key, Limit { algorithm, quota }, Cost::MIN).unwrap()
    }

    /// Not even what needs no waiting: whoever decides instead must hear of every request.
    #[test]
    fn an_open_breaker_lets_nothing_through() {
        let clock = Arc::new(ManualClock::at_us(1));
        let memory = Memory::new(9, clock.clone(), &RandomState::new());
        let breaker = Arc::new(Breaker::new(clock));
        let breaking = Breaking::new(Arc::new(memory), breaker.clone());
        let charges = [charge()];
        assert!(
            breaking
                .decide_at_once(&charges)
                .is_some_and(|answer| answer.is_ok())
        );
        let fault = Err::<(), _>(Fault::Unreachable("away".to_owned()));
        for _ in 0..FAULTS_TO_OPEN {
            breaker.report(breaker.pass().unwrap(), &fault);
        }
        assert_eq!(breaking.decide_at_once(&charges), None);
        let decided = pin!(breaking.decide(&charges)).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(decided, Poll::Ready(Err(Fault::Resting)));
    }
}
