//! Sliding window: two fixed windows, the older one weighted by how much of it is still in sight.
//!
//! **Idea.** What was admitted in the last W is estimated from two counters: all of the current window and the part of the
//! previous one that a window of length W, ending now, still overlaps. The estimate is exact in integers and takes the
//! previous window's requests as spread evenly.
//!
//! **Formula.** With limit = capacity, W = the time in which the capacity is refilled (microseconds, rounded up) and e the
//! time since the current window began: admitted when `previous * (W - e) + (current + cost) * W <= limit * W`.
//!
//! **State.** Five integers: `window` (the current one's start, microseconds since 1970), `previous`, `current`, `limit`
//! and `length` (W). Windows are aligned to 1970 until a changed W makes one begin where the last one ends.
//!
//! **Cost.** O(1) in time and space per key.
//!
//! **Over-admission.** None: at most `capacity + rate * (t2 - t1)` between any t1 < t2, and so up to twice the capacity
//! within W, when a burst at the end of a window is followed by its decay. A window that has begun keeps its length and
//! the lower of its limit and the current one, so a changed quota adds nothing at once. A clock that steps back counts at
//! the start of the record's window until it is past it again, and within it gives the past more weight, never less.
//!
//! **Source.** The "approximate sliding window" of Cloudflare's rate limiting ("How we built rate limiting capable of
//! scaling to millions of domains", 2017), in exact integers.

use super::bucket::mul_div;
use super::window::{self, Window};
use super::{Algorithm, Kept, Notice, Refused, Remembered, Standing, State, Step, Taken};
use crate::domain::{Cost, Quota};

/// Two weighted windows; see the module for its law.
#[derive(Debug, Clone, Copy)]
pub struct SlidingWindow;

impl Algorithm for SlidingWindow {
    fn name(&self) -> &'static str {
        "slidingwindow"
    }

    fn fields(&self) -> &'static [&'static str] {
        &["window", "previous", "current", "limit", "length"]
    }

    fn step(&self, quota: &Quota, remembered: &Remembered, now_us: u64, cost: Cost) -> Step {
        let (counters, notice) = counters_at(quota, remembered, now_us);
        Step {
            outcome: counters.take(cost),
            notice,
        }
    }

    fn standing(&self, quota: &Quota, remembered: &Remembered, now_us: u64) -> Standing {
        counters_at(quota, remembered, now_us).0.standing()
    }

    fn credit(
        &self,
        quota: &Quota,
        state: State,
        now_us: u64,
        charged_at_us: u64,
        tokens: Cost,
    ) -> Option<Kept> {
        let counters = Counters::of(quota, parse(state)?, now_us)?;
        let Counters {
            window,
            previous,
            current,
            ..
        } = counters;
        let before_us = window.start_us.saturating_sub(quota.fill_time_us())..window.start_us;
        if window.contains(charged_at_us) {
            Some(
                Counters {
                    current: current.saturating_sub(tokens.get()),
                    ..counters
                }
                .kept(),
            )
        } else if before_us.contains(&charged_at_us) {
            Some(
                Counters {
                    previous: previous.saturating_sub(tokens.get()),
                    ..counters
                }
                .kept(),
            )
        } else {
            None
        }
    }
}

fn counters_at<'a>(
    quota: &'a Quota,
    remembered: &Remembered,
    now_us: u64,
) -> (Counters<'a>, Option<Notice>) {
    let (record, notice) = window::read(remembered, now_us, parse);
    let counters = record.and_then(|record| Counters::of(quota, record, now_us));
    let fresh = || Counters {
        quota,
        window: Window::aligned(quota, now_us),
        previous: 0,
        current: 0,
        now_us,
    };
    (counters.unwrap_or_else(fresh), notice)
}

fn parse(
    State([start_us, previous, current, limit, length_us, _]): State,
) -> Option<(Window, (u64, u64))> {
    let window = Window::new(start_us, limit, length_us)?;
    (previous <= Quota::LARGEST && current <= Quota::LARGEST)
        .then_some((window, (previous, current)))
}

#[derive(Debug, Clone, Copy)]
struct Counters<'a> {
    quota: &'a Quota,
    window: Window,
    previous: u64,
    current: u64,
    now_us: u64,
}

impl<'a> Counters<'a> {
    /// The counters of a record in the window that `now_us` lies in; `None` once nothing that was counted is in sight.
    fn of(
        quota: &'a Quota,
        (window, (previous, current)): (Window, (u64, u64)),
        now_us: u64,
    ) -> Option<Self> {
        let now_us = now_us.max(window.start_us);
        if now_us < window.end_us() {
            return Some(Self {
                quota,
                window: window.under(quota),
                previous,
                current,
                now_us,
            });
        }
        let next = Window {
            start_us: window.end_us(),
            limit: quota.capacity(),
            length_us: quota.fill_time_us(),
        };
        (now_us < next.end_us()).then_some(Self {
            quota,
            window: next,
            previous: current,
            current: 0,
            now_us,
        })
    }

    fn kept(&self) -> Kept {
        let Window {
            start_us,
            limit,
            length_us,
        } = self.window;
        Kept {
            state: State::new([start_us, self.previous, self.current, limit, length_us]),
            fresh_at_us: self.forgotten_at_us(),
        }
    }

    fn take(self, cost: Cost) -> Result<Taken, Refused> {
        if cost.get() > self.remaining() {
            return Err(Refused {
                retry_after_us: self.us_until_room_for(cost.get()),
                before: self.standing(),
            });
        }
        let after = Self {
            current: self.current + cost.get(),
            ..self
        };
        Ok(Taken {
            kept: after.kept(),
            after: after.standing(),
        })
    }

    /// Whole tokens left: the limit less the current count and what is in sight of the previous one, rounded up.
    fn remaining(&self) -> u64 {
        let seen = weighted_up(
            self.previous,
            self.window.end_us() - self.now_us,
            self.window.length_us,
        );
        self.window
            .limit
            .saturating_sub(self.current)
            .saturating_sub(seen)
    }

    fn standing(&self) -> Standing {
        let remaining = self.remaining();
        let next_after_us = if remaining < self.quota.capacity() {
            self.us_until_room_for(remaining + 1)
        } else {
            0
        };
        let reset_after_us = self.forgotten_at_us() - self.now_us;
        Standing {
            remaining,
            reset_after_us,
            next_after_us,
        }
    }

    /// When nothing of what was counted is in sight any more.
    fn forgotten_at_us(&self) -> u64 {
        match (self.previous, self.current) {
            (0, 0) => self.now_us,
            (_, 0) => self.window.end_us(),
            _ => self
                .window
                .end_us()
                .saturating_add(self.quota.fill_time_us()),
        }
    }

    /// The shortest wait until `tokens` (more than remain, at most the capacity) are left, in microseconds.
    fn us_until_room_for(&self, tokens: u64) -> u64 {
        let end_us = self.window.end_us();
        let at_us = match self.window.limit.checked_sub(self.current + tokens) {
            // In this window, once so little of the previous one is in sight.
            Some(room) => end_us - mul_div(room, self.window.length_us, self.previous),
            // In the next, of the current quota, once so little of this one is.
            None => {
                let (room, length_us) = (self.quota.capacity() - tokens, self.quota.fill_time_us());
                let in_sight_us = if room >= self.current {
                    length_us
                } else {
                    mul_div(room, length_us, self.current)
                };
                end_us + (length_us - in_sight_us)
            }
        };
        at_us - self.now_us
    }
}

/// `count * part / whole`, rounded up, for `part <= whole`.
fn weighted_up(count: u64, part: u64, whole: u64) -> u64 {
    count - mul_div(whole - part, count, whole)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const NOON: u64 = 1_762_668_470 * SECOND;

    fn after(quota: &Quota, charges: &[(u64, u64)]) -> Remembered {
        charges
            .iter()
            .fold(Remembered::Nothing, |record, &(at, cost)| {
                let step = SlidingWindow.step(quota, &record, NOON + at, Cost::new(cost).unwrap());
                Remembered::State(step.outcome.unwrap().kept.state)
            })
    }

    #[test]
    fn the_previous_window_fades() {
        let quota = Quota::new(10, 10, Duration::from_secs(10)).unwrap();
        let record = after(&quota, &[(9 * SECOND, 10)]);
        let remaining = |at| SlidingWindow.standing(&quota, &record, NOON + at).remaining;
        assert_eq!(remaining(9 * SECOND), 0);
        assert_eq!(remaining(10 * SECOND), 0);
        assert_eq!(remaining(11 * SECOND - 1), 0);
        assert_eq!(remaining(11 * SECOND), 1);
        assert_eq!(remaining(15 * SECOND), 5);
        assert_eq!(remaining(20 * SECOND), 10);
    }

    #[test]
    fn the_weight_rounds_up_exactly() {
        assert_eq!(weighted_up(10, 10, 10), 10);
        assert_eq!(weighted_up(10, 1, 10), 1);
        assert_eq!(weighted_up(3, 1, 10), 1);
        assert_eq!(weighted_up(3, 0, 10), 0);
        assert_eq!(weighted_up(0, 7, 10), 0);
    }

    #[test]
    fn a_million_a_day_fits() {
        let quota = Quota::new(1_000_000, 1_000_000, Duration::from_secs(86_400)).unwrap();
        let record = after(&quota, &[(0, 999_999)]);
        let step = SlidingWindow.step(
            &quota,
            &record,
            NOON + 86_400 * SECOND,
            Cost::new(1_000_000).unwrap(),
        );
        assert!(step.outcome.is_err());
    }
}
