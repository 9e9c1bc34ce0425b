//! How much a limit allows: a capacity and a refill rate, in numbers that stay exact.

use std::time::Duration;

/// Largest integer that a Lua number (an IEEE 754 double) holds exactly, plus one: 2^53.
const EXACT: u128 = 1 << 53;

/// The most tokens a bucket holds and how fast it refills; zero cannot be represented.
///
/// A rate of `tokens` per `period` is kept in lowest terms as `gain / unit` tokens per microsecond. A bucket
/// counts in *units*: one token is [`unit`](Self::unit) units and every microsecond adds [`gain`](Self::gain)
/// units, so that refilling is exact in integers whatever the rate.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Quota;
///
/// let quota = Quota::new(100, 10, Duration::from_secs(1))?;
/// assert_eq!(quota.fill_time(), Duration::from_secs(10));
/// assert!(Quota::new(0, 10, Duration::from_secs(1)).is_err());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    capacity: u64,
    gain: u64,
    unit: u64,
}

/// Why a quota was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// A capacity of zero admits nothing, ever.
    #[error("a capacity of 0 admits nothing: it must be at least 1")]
    NoCapacity,
    /// A refill of zero tokens never admits anybody again.
    #[error("a refill of 0 tokens never admits anybody again: it must be above 0")]
    NoRefill,
    /// The period is shorter than one microsecond.
    #[error("a refill period of {0:?} is too short: it must be at least 1 microsecond")]
    PeriodTooShort(Duration),
    /// The arithmetic of this quota would not stay exact.
    #[error(
        "capacity {capacity} at {tokens} tokens per {period:?} cannot be counted exactly: \
         capacity x period / tokens in lowest terms must stay below 2^53; use a lower capacity or a rounder rate"
    )]
    Inexact {
        /// The capacity that was asked for.
        capacity: u64,
        /// The tokens per period that were asked for.
        tokens: u64,
        /// The period that was asked for.
        period: Duration,
    },
    /// The bucket would take more than a hundred years to fill.
    #[error(
        "a bucket of {capacity} at {tokens} tokens per {period:?} takes more than 50 years to fill"
    )]
    TooSlow {
        /// The capacity that was asked for.
        capacity: u64,
        /// The tokens per period that were asked for.
        tokens: u64,
        /// The period that was asked for.
        period: Duration,
    },
}

impl Quota {
    /// Largest capacity and largest number of units in a token, so that long division has room below 2^53.
    pub const LARGEST: u64 = 1 << 50;

    /// Longest time in which an empty bucket may fill: 50 years of 365 days, in microseconds.
    ///
    /// It is below 2^51, so that long division has room below 2^53, and twice it on top of a date of this century is an
    /// exact expiry too.
    pub const LONGEST_FILL_US: u64 = 50 * 365 * 86_400 * 1_000_000;

    /// A bucket of `capacity` tokens that gains `tokens` tokens every `period`, continuously.
    ///
    /// The period counts in whole microseconds; what is finer is dropped.
    ///
    /// # Errors
    ///
    /// When a number is zero, when the bucket takes more than 50 years to fill, and when exact arithmetic on
    /// this quota would leave the integers below 2^53.
    pub fn new(capacity: u64, tokens: u64, period: Duration) -> Result<Self, QuotaError> {
        if capacity == 0 {
            return Err(QuotaError::NoCapacity);
        }
        if tokens == 0 {
            return Err(QuotaError::NoRefill);
        }
        let period_us = period.as_micros();
        if period_us == 0 {
            return Err(QuotaError::PeriodTooShort(period));
        }
        let divisor = gcd(u128::from(tokens), period_us);
        let (gain, unit) = (u128::from(tokens) / divisor, period_us / divisor);
        let exact = u128::from(capacity)
            .checked_mul(unit)
            .filter(|full| {
                full + gain < EXACT
                    && unit <= u128::from(Self::LARGEST)
                    && capacity <= Self::LARGEST
            })
            .ok_or(QuotaError::Inexact {
                capacity,
                tokens,
                period,
            })?;
        if exact.div_ceil(gain) > u128::from(Self::LONGEST_FILL_US) {
            return Err(QuotaError::TooSlow {
                capacity,
                tokens,
                period,
            });
        }
        let (Ok(gain), Ok(unit)) = (u64::try_from(gain), u64::try_from(unit)) else {
            return Err(QuotaError::Inexact {
                capacity,
                tokens,
                period,
            });
        };
        Ok(Self {
            capacity,
            gain,
            unit,
        })
    }

    /// The same rate with another capacity. `None` when that cannot be counted exactly, and for zero.
    #[must_use]
    pub fn holding(&self, capacity: u64) -> Option<Self> {
        let full = u128::from(capacity) * u128::from(self.unit);
        let counts = (1..=Self::LARGEST).contains(&capacity)
            && full + u128::from(self.gain) < EXACT
            && full.div_ceil(u128::from(self.gain)) <= u128::from(Self::LONGEST_FILL_US);
        counts.then_some(Self { capacity, ..*self })
    }

    /// Most tokens that the bucket holds: the largest burst. At least 1.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Units gained in one microsecond. At least 1; shares no divisor with [`unit`](Self::unit).
    pub fn gain(&self) -> u64 {
        self.gain
    }

    /// Units in one token. At least 1, at most 2^50.
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Units in a full bucket. Below 2^53.
    pub fn full(&self) -> u64 {
        self.capacity * self.unit
    }

    /// Time in which an empty bucket becomes full, rounded up to the next microsecond. At most 50 years.
    pub fn fill_time(&self) -> Duration {
        Duration::from_micros(self.fill_time_us())
    }

    /// The same in microseconds.
    pub fn fill_time_us(&self) -> u64 {
        self.full().div_ceil(self.gain)
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn keeps_the_rate_in_lowest_terms() {
        let quota = Quota::new(1_000_000, 1_000_000, Duration::from_secs(86_400)).unwrap();
        assert_eq!((quota.gain(), quota.unit()), (1, 86_400));
    }

    #[test]
    fn refuses_zero() {
        assert_eq!(Quota::new(0, 1, SECOND), Err(QuotaError::NoCapacity));
        assert_eq!(Quota::new(1, 0, SECOND), Err(QuotaError::NoRefill));
        let short = Duration::from_nanos(999);
        assert_eq!(
            Quota::new(1, 1, short),
            Err(QuotaError::PeriodTooShort(short))
        );
    }

    #[test]
    fn accepts_the_last_exact_quota_and_refuses_the_next() {
        let microsecond = Duration::from_micros(1);
        assert!(Quota::new(Quota::LARGEST, 1_000, microsecond).is_ok());
        assert!(matches!(
            Quota::new(Quota::LARGEST + 1, 1_000, microsecond),
            Err(QuotaError::Inexact { .. })
        ));
        // 7 and the period share no divisor, so a full bucket is capacity x period units.
        let period = Duration::from_micros(1 << 20);
        let last = (1 << 33) - 1;
        assert!(Quota::new(last, 7, period).is_ok());
        assert!(matches!(
            Quota::new(last + 1, 7, period),
            Err(QuotaError::Inexact { .. })
        ));
    }

    #[test]
    fn refuses_what_overflows_any_integer() {
        assert!(matches!(
            Quota::new(u64::MAX, 7, YEAR),
            Err(QuotaError::Inexact { .. })
        ));
        assert!(Quota::new(u64::MAX, u64::MAX, Duration::MAX).is_err());
        assert!(Quota::new(1, u64::MAX, Duration::from_micros(1)).is_err());
    }

    #[test]
    fn another_capacity_is_refused_where_a_new_quota_would_be() {
        let quota = Quota::new(10, 1, YEAR).unwrap();
        assert_eq!(quota.holding(50), Quota::new(50, 1, YEAR).ok());
        assert_eq!(quota.holding(7), Quota::new(7, 1, YEAR).ok());
        assert_eq!(
            (quota.holding(51), quota.holding(0), quota.holding(u64::MAX)),
            (None, None, None)
        );
        let last = (1 << 33) - 1;
        let quota = Quota::new(last, 7, Duration::from_micros(1 << 20)).unwrap();
        assert_eq!(
            (quota.holding(last), quota.holding(last + 1)),
            (Some(quota), None)
        );
    }

    #[test]
    fn refuses_a_bucket_that_fills_in_more_than_fifty_years() {
        assert!(Quota::new(50, 1, YEAR).is_ok());
        assert!(matches!(
            Quota::new(51, 1, YEAR),
            Err(QuotaError::TooSlow { .. })
        ));
    }
}
