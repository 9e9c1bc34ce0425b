//! A bucket at a time, counted in units: the arithmetic that `tokenbucket` and `gcra` share.

use std::time::Duration;

use super::{
    CLOCK_TOLERANCE_US, Kept, LATEST_US, Notice, Refused, Remembered, Standing, State, Step, Taken,
};
use crate::domain::{Cost, Quota};

/// A bucket of `quota` that held `level` units at `at_us`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'a> {
    pub(super) quota: &'a Quota,
    pub(super) level: u64,
    pub(super) at_us: u64,
}

/// The step of an algorithm that keeps a bucket, which it reads from a state and writes to one.
pub(super) fn step<'a>(
    quota: &'a Quota,
    remembered: Remembered,
    now_us: u64,
    cost: Cost,
    read: impl Fn(&'a Quota, State) -> Option<Bucket<'a>>,
    write: impl Fn(&Bucket<'a>) -> State,
) -> Step {
    let fresh = Bucket {
        quota,
        level: quota.full(),
        at_us: now_us,
    };
    let (bucket, notice) = match remembered {
        Remembered::Nothing => (fresh, None),
        Remembered::Foreign => (fresh, Some(Notice::ForeignRecord)),
        Remembered::State(state) => match read(quota, state) {
            Some(bucket) => (bucket.refilled(now_us), bucket.notice(now_us)),
            None => (fresh, Some(Notice::ForeignRecord)),
        },
    };
    Step {
        before: bucket.standing(),
        outcome: bucket.take(cost, write),
        notice,
    }
}

impl<'a> Bucket<'a> {
    /// A bucket of this quota with so many whole tokens and `fraction / fraction_of` of another, from a record that may
    /// be of another quota. `None` when the numbers cannot be.
    pub(super) fn carried(
        quota: &'a Quota,
        tokens: u64,
        fraction: u64,
        fraction_of: u64,
        at_us: u64,
    ) -> Option<Self> {
        if at_us > LATEST_US || fraction >= fraction_of || fraction_of > Quota::LARGEST {
            return None;
        }
        let unit = quota.unit();
        let level = if tokens >= quota.capacity() {
            quota.full()
        } else if fraction_of == unit {
            tokens * unit + fraction
        } else {
            tokens * unit + mul_div(fraction, unit, fraction_of)
        };
        Some(Self {
            quota,
            level,
            at_us,
        })
    }

    pub(super) fn refilled(self, now_us: u64) -> Self {
        let gained = now_us
            .saturating_sub(self.at_us)
            .saturating_mul(self.quota.gain());
        let level = self.level.saturating_add(gained).min(self.quota.full());
        Self {
            level,
            at_us: self.at_us.max(now_us),
            ..self
        }
    }

    fn notice(&self, now_us: u64) -> Option<Notice> {
        (self.at_us > now_us.saturating_add(CLOCK_TOLERANCE_US)).then_some(Notice::ClockBehind)
    }

    fn take(self, cost: Cost, write: impl Fn(&Self) -> State) -> Result<Taken, Refused> {
        let price = cost.get() * self.quota.unit();
        if self.level < price {
            return Err(Refused {
                retry_after: self.time_to_gain(price - self.level),
            });
        }
        let left = Self {
            level: self.level - price,
            ..self
        };
        Ok(Taken {
            kept: left.kept(write),
            after: left.standing(),
        })
    }

    fn kept(&self, write: impl Fn(&Self) -> State) -> Kept {
        Kept {
            state: write(self),
            fresh_at_us: self.fresh_at_us(),
        }
    }

    /// The bucket as if so many tokens had not been charged at `charged_at_us`, as far as that is sure.
    ///
    /// A bucket that was full since would have gained less without the charge, so what is given back loses its worth at
    /// the refill rate from the charge to the last one: it never adds to what the law admits, and it is exact where
    /// nobody was charged since.
    pub(super) fn credited(
        self,
        charged_at_us: u64,
        tokens: Cost,
        write: impl Fn(&Self) -> State,
    ) -> Kept {
        let faded = self
            .at_us
            .saturating_sub(charged_at_us)
            .saturating_mul(self.quota.gain());
        let worth = tokens
            .get()
            .saturating_mul(self.quota.unit())
            .saturating_sub(faded);
        let level = self.level.saturating_add(worth).min(self.quota.full());
        Self { level, ..self }.kept(write)
    }

    fn standing(&self) -> Standing {
        let (full, unit) = (self.quota.full(), self.quota.unit());
        let to_next = if self.level == full {
            0
        } else {
            unit - self.level % unit
        };
        Standing {
            remaining: self.level / unit,
            reset_after: self.time_to_gain(full - self.level),
            next_after: self.time_to_gain(to_next),
        }
    }

    fn fresh_at_us(&self) -> u64 {
        self.at_us
            .saturating_add((self.quota.full() - self.level).div_ceil(self.quota.gain()))
    }

    fn time_to_gain(&self, units: u64) -> Duration {
        Duration::from_micros(units.div_ceil(self.quota.gain()))
    }
}

/// `a * b / c`, rounded down, for `a <= c`.
pub(super) fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    let quotient = u128::from(a) * u128::from(b) / u128::from(c);
    u64::try_from(quotient).expect("at most b, because a is at most c")
}
