//! A stretch of time with a limit: what `fixedwindow` and `slidingwindow` share.

use super::{CLOCK_TOLERANCE_US, LATEST_US, Notice, Remembered, State};
use crate::domain::Quota;

/// A window that starts at `start_us` (microseconds since 1970) and is `length_us` long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start_us: u64,
    pub(super) limit: u64,
    pub(super) length_us: u64,
}

impl Window {
    /// A window of a record; `None` when the numbers cannot be.
    pub(super) fn new(start_us: u64, limit: u64, length_us: u64) -> Option<Self> {
        let possible = start_us <= LATEST_US
            && (1..=Quota::LARGEST).contains(&limit)
            && (1..=Quota::LONGEST_FILL_US).contains(&length_us);
        possible.then_some(Self {
            start_us,
            limit,
            length_us,
        })
    }

    /// The window of that quota around `now_us`, aligned to 1970.
    pub(super) fn aligned(quota: &Quota, now_us: u64) -> Self {
        let length_us = quota.fill_time_us();
        Self {
            start_us: now_us - now_us % length_us,
            limit: quota.capacity(),
            length_us,
        }
    }

    /// The same window under the current quota: the lower limit holds until it ends.
    pub(super) fn under(self, quota: &Quota) -> Self {
        Self {
            limit: self.limit.min(quota.capacity()),
            ..self
        }
    }

    pub(super) fn contains(&self, at_us: u64) -> bool {
        (self.start_us..self.end_us()).contains(&at_us)
    }

    pub(super) fn end_us(&self) -> u64 {
        self.start_us.saturating_add(self.length_us)
    }
}

/// What a record holds, by `parse`, and what an operator should hear of it.
pub(super) fn read<T>(
    remembered: &Remembered,
    now_us: u64,
    parse: impl Fn(State) -> Option<(Window, T)>,
) -> (Option<(Window, T)>, Option<Notice>) {
    match remembered {
        Remembered::Nothing => (None, None),
        Remembered::Foreign => (None, Some(Notice::ForeignRecord)),
        Remembered::State(state) => match parse(*state) {
            Some((window, rest)) => {
                let behind = window.start_us > now_us.saturating_add(CLOCK_TOLERANCE_US);
                (Some((window, rest)), behind.then_some(Notice::ClockBehind))
            }
            None => (None, Some(Notice::ForeignRecord)),
        },
    }
}
