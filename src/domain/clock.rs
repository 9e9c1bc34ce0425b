//! Time as a parameter: whoever needs the time is handed a clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells the time, in microseconds since 1970-01-01 00:00 UTC.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now_us(&self) -> u64;
}

/// A clock that moves only when told to, for tests and simulations.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Clock, ManualClock};
///
/// let clock = ManualClock::at_us(1_000_000);
/// clock.advance(Duration::from_millis(5));
/// assert_eq!(clock.now_us(), 1_005_000);
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now_us`.
    pub fn at_us(now_us: u64) -> Self {
        Self(AtomicU64::new(now_us))
    }

    /// Moves the clock forward; what is finer than a microsecond is dropped.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(by_us, Ordering::SeqCst);
    }

    /// Sets the clock, backwards too.
    pub fn set_us(&self, now_us: u64) {
        self.0.store(now_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
