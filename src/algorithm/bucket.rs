//! A bucket at a time, counted in units: the arithmetic that `tokenbucket` and `gcra` share.

use super::{
    CLOCK_TOLERANCE_US, Kept, LATEST_US, LONGEST_LEASE_US, Notice, Refused, Remembered, Standing,
    State, Step, Taken,
};
use crate::domain::{Cost, Quota};

/// A bucket of `quota` that held `level` units at `at_us`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'a> {
    pub(super) quota: &'a Quota,
    pub(super) level: u64,
    pub(super) at_us: u64,
    pub(super) lent: Lent,
}

/// Tokens that instances took ahead, and until when they may be spent. So long the bucket fills only to what they leave
/// of it: else who holds them could spend them on top of a bucket that has filled up meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lent {
    pub(super) tokens: u64,
    pub(super) until_us: u64,
}

/// The step of an algorithm that keeps a bucket, which it reads from a state and writes to one.
pub(super) fn step<'a>(
    quota: &'a Quota,
    remembered: &Remembered,
    now_us: u64,
    cost: Cost,
    read: impl Fn(&'a Quota, State) -> Option<Bucket<'a>>,
    write: impl Fn(&Bucket<'a>) -> State,
) -> Step {
    let (bucket, notice) = bucket_at(quota, remembered, now_us, read);
    let price = cost.get() * quota.unit();
    if bucket.level < price {
        let outcome = Err(bucket.refused(price));
        return Step { outcome, notice };
    }
    let level = bucket.level - price;
    let left = Bucket { level, ..bucket };
    let taken = Taken {
        kept: left.kept(write),
        after: left.standing(),
    };
    Step {
        outcome: Ok(taken),
        notice,
    }
}

/// The bucket of a record at that time, and what an operator should hear of it.
///
/// Inlined, because to hand a bucket over in memory takes longer than what is done with it.
#[inline(always)]
pub(super) fn bucket_at<'a>(
    quota: &'a Quota,
    remembered: &Remembered,
    now_us: u64,
    read: impl Fn(&'a Quota, State) -> Option<Bucket<'a>>,
) -> (Bucket<'a>, Option<Notice>) {
    let fresh = Bucket {
        quota,
        level: quota.full(),
        at_us: now_us,
        lent: Lent::default(),
    };
    match remembered {
        Remembered::Nothing => (fresh, None),
        Remembered::Foreign => (fresh, Some(Notice::ForeignRecord)),
        Remembered::State(state) => match read(quota, *state) {
            Some(bucket) => (bucket.refilled(now_us), bucket.notice(now_us)),
            None => (fresh, Some(Notice::ForeignRecord)),
        },
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
            lent: Lent::default(),
        })
    }

    /// The same bucket with so much lent, if that can be; no fuller than that leaves room for.
    pub(super) fn lending(self, lent: Lent) -> Self {
        if lent.tokens == 0 {
            return self;
        }
        let longest = self.at_us.saturating_add(LONGEST_LEASE_US);
        let is_live = self.at_us < lent.until_us && lent.until_us <= longest;
        let lent = if is_live { lent } else { Lent::default() };
        let bucket = Self { lent, ..self };
        Self {
            level: bucket.level.min(bucket.ceiling()),
            ..bucket
        }
    }

    pub(super) fn refilled(self, now_us: u64) -> Self {
        if self.lent.tokens == 0 {
            return self.gaining(now_us, self.quota.full());
        }
        let lasting = self.gaining(now_us.min(self.lent.until_us), self.ceiling());
        if now_us < self.lent.until_us {
            return lasting;
        }
        let lent = Lent::default();
        Self { lent, ..lasting }.gaining(now_us, self.quota.full())
    }

    fn gaining(self, now_us: u64, most: u64) -> Self {
        let gained = now_us
            .saturating_sub(self.at_us)
            .saturating_mul(self.quota.gain());
        Self {
            level: self.level.saturating_add(gained).min(most),
            at_us: self.at_us.max(now_us),
            ..self
        }
    }

    /// Units that the bucket fills to while tokens are lent.
    pub(super) fn ceiling(&self) -> u64 {
        let lent = self.lent.tokens.min(self.quota.capacity());
        self.quota.full() - lent * self.quota.unit()
    }

    fn notice(&self, now_us: u64) -> Option<Notice> {
        (self.at_us > now_us.saturating_add(CLOCK_TOLERANCE_US)).then_some(Notice::ClockBehind)
    }

    /// Why that price cannot be paid, and how the bucket stands.
    fn refused(&self, price: u64) -> Refused {
        Refused {
            retry_after_us: self.us_to(price),
            before: self.standing(),
        }
    }

    pub(super) fn kept(&self, write: impl Fn(&Self) -> State) -> Kept {
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
        let level = self.level.saturating_add(worth).min(self.ceiling());
        Self { level, ..self }.kept(write)
    }

    #[inline(always)] // As above.
    pub(super) fn standing(&self) -> Standing {
        let (full, unit) = (self.quota.full(), self.quota.unit());
        let remaining = self.level / unit;
        let next = (remaining + 1) * unit;
        Standing {
            remaining,
            reset_after_us: self.us_to(full),
            next_after_us: self.us_to(next.min(full)),
        }
    }

    fn fresh_at_us(&self) -> u64 {
        self.at_us.saturating_add(self.us_to(self.quota.full()))
    }

    /// Microseconds until the bucket has gained up to that level, at most full. What is lent is waited for.
    fn us_to(&self, level: u64) -> u64 {
        let gained = self.us_for(level.saturating_sub(self.level));
        if self.lent.tokens == 0 {
            return gained;
        }
        match level.saturating_sub(self.ceiling()) {
            0 => gained,
            above => gained.max(self.lent.until_us - self.at_us + self.us_for(above)),
        }
    }

    /// Microseconds in which so many units are gained.
    fn us_for(&self, units: u64) -> u64 {
        match self.quota.gain() {
            // Most rates, in lowest terms: no division.
            1 => units,
            gain => units.div_ceil(gain),
        }
    }
}

/// `a * b / c`, rounded down, for `a <= c`.
pub(super) fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    let quotient = u128::from(a) * u128::from(b) / u128::from(c);
    u64::try_from(quotient).expect("at most b, because a is at most c")
}
