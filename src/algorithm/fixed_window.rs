//! Fixed window: a counter for each aligned stretch of time.
//!
//! **Idea.** Time is cut into windows of one length, aligned to 1970-01-01 00:00 UTC. A request is admitted while the
//! window's count stays within the limit; the next window starts at nothing.
//!
//! **Formula.** With limit = capacity and W = the time in which the capacity is refilled (microseconds, rounded up):
//! `window = now - now mod W`; admitted when `count + cost <= limit`.
//!
//! **State.** Four integers: `window` (its start, microseconds since 1970), `count`, `limit` and `length` (W).
//!
//! **Cost.** O(1) in time and space per key.
//!
//! **Over-admission.** None within a window: at most its limit. Two bursts around a boundary are up to twice the limit at
//! once; where that hurts, take `slidingwindow`. A window that has begun keeps its length and the lower of its limit and
//! the current one, so a changed quota adds nothing at once and holds in full from the next window on. A clock that steps
//! back counts in the record's window until it is past its start again.
//!
//! **Source.** The counter of RFC 6585's example and of most gateways; A. Tanenbaum describes the window in "Computer
//! Networks".

use super::window::{self, Window};
use super::{Algorithm, Kept, Notice, Refused, Remembered, Standing, State, Step, Taken};
use crate::domain::{Cost, Quota};

/// Aligned windows; see the module for its law.
#[derive(Debug, Clone, Copy)]
pub struct FixedWindow;

impl Algorithm for FixedWindow {
    fn name(&self) -> &'static str {
        "fixedwindow"
    }

    fn fields(&self) -> &'static [&'static str] {
        &["window", "count", "limit", "length"]
    }

    fn step(&self, quota: &Quota, remembered: &Remembered, now_us: u64, cost: Cost) -> Step {
        let (counter, notice) = counter_at(quota, remembered, now_us);
        Step {
            outcome: counter.take(cost),
            notice,
        }
    }

    fn standing(&self, quota: &Quota, remembered: &Remembered, now_us: u64) -> Standing {
        counter_at(quota, remembered, now_us).0.standing()
    }

    fn credit(
        &self,
        quota: &Quota,
        state: State,
        now_us: u64,
        charged_at_us: u64,
        tokens: Cost,
    ) -> Option<Kept> {
        let counter = Counter::of(quota, parse(state)?, now_us)?;
        let count = counter.count.saturating_sub(tokens.get());
        counter
            .window
            .contains(charged_at_us)
            .then(|| Counter { count, ..counter }.kept())
    }
}

fn counter_at<'a>(
    quota: &'a Quota,
    remembered: &Remembered,
    now_us: u64,
) -> (Counter<'a>, Option<Notice>) {
    let (record, notice) = window::read(remembered, now_us, parse);
    let counter = record.and_then(|record| Counter::of(quota, record, now_us));
    let fresh = || Counter {
        quota,
        window: Window::aligned(quota, now_us),
        count: 0,
        now_us,
    };
    (counter.unwrap_or_else(fresh), notice)
}

fn parse(State([start_us, count, limit, length_us, ..]): State) -> Option<(Window, u64)> {
    Window::new(start_us, limit, length_us).map(|window| (window, count))
}

#[derive(Debug, Clone, Copy)]
struct Counter<'a> {
    quota: &'a Quota,
    window: Window,
    count: u64,
    now_us: u64,
}

impl<'a> Counter<'a> {
    /// The counter of a record; `None` once its window is over.
    fn of(quota: &'a Quota, (window, count): (Window, u64), now_us: u64) -> Option<Self> {
        let now_us = now_us.max(window.start_us);
        (now_us < window.end_us()).then(|| Self {
            quota,
            window: window.under(quota),
            count,
            now_us,
        })
    }

    fn kept(&self) -> Kept {
        let Window {
            start_us,
            limit,
            length_us,
        } = self.window;
        let fresh_at_us = if self.count > 0 {
            self.window.end_us()
        } else {
            self.now_us
        };
        Kept {
            state: State::new([start_us, self.count, limit, length_us]),
            fresh_at_us,
        }
    }

    fn take(self, cost: Cost) -> Result<Taken, Refused> {
        if cost.get() > self.remaining() {
            return Err(Refused {
                retry_after_us: self.left_us(),
                before: self.standing(),
            });
        }
        let after = Self {
            count: self.count + cost.get(),
            ..self
        };
        Ok(Taken {
            kept: after.kept(),
            after: after.standing(),
        })
    }

    fn remaining(&self) -> u64 {
        self.window.limit.saturating_sub(self.count)
    }

    fn standing(&self) -> Standing {
        let wait = |needed: bool| {
            if needed { self.left_us() } else { 0 }
        };
        let remaining = self.remaining();
        Standing {
            remaining,
            reset_after_us: wait(self.count > 0),
            next_after_us: wait(remaining < self.quota.capacity()),
        }
    }

    fn left_us(&self) -> u64 {
        self.window.end_us() - self.now_us
    }
}
