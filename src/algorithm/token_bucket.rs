//! Token bucket: a bucket of `capacity` tokens, refilled continuously, lazily computed.
//!
//! **Idea.** Each key has a bucket that starts full. A request takes its cost out or, if the bucket holds less, is
//! denied and takes nothing. The bucket refills at a constant rate up to its capacity. Nothing runs in the
//! background: what was gained since the last step is added at the next.
//!
//! **Formula.** In units ([`Quota::unit`] to a token): `level(now) = min(full, level + (now - last_refill) * gain)`;
//! admitted when `level >= cost * unit`. Only integers, so refilling a -> b -> c equals a -> c.
//!
//! **State.** Four integers, and two while tokens are lent (below): `tokens` (whole tokens) and `last_refill` (microseconds since 1970), as a person would
//! read them, and `fraction / fraction_of`, the part of a token that is on its way. It is absent when full.
//!
//! **Leases.** Instances may take tokens ahead and spend them by themselves. `leased` says how many they may still hold
//! and `lease_until` until when; so long the bucket refills only to `capacity - leased`. Steps leave both as they are until then.
//!
//! **Cost.** O(1) in time and space per key.
//!
//! **Over-admission.** None: between any t1 < t2 at most `capacity + rate * (t2 - t1)` tokens are admitted, so up to
//! twice the capacity within one fill time when a burst follows a rest. The time of a record never moves back: while
//! the clock is behind it, nothing is gained. After a change of the quota the gap counts at the new rate, a lower
//! capacity clamps and a higher one adds nothing at once.
//!
//! **Source.** J. Turner, "New directions in communications (or which way to the information age?)", IEEE
//! Communications Magazine 24(10), 1986; RFC 2697 for the continuous form.

use super::bucket::{Bucket, Lent, bucket_at, step};
use super::{Algorithm, Kept, Remembered, Standing, State, Step};
use crate::domain::{Cost, Quota};

/// The token bucket; see the module for its law.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket;

impl Algorithm for TokenBucket {
    fn name(&self) -> &'static str {
        "tokenbucket"
    }

    fn fields(&self) -> &'static [&'static str] {
        &["tokens", "last_refill", "fraction", "fraction_of"]
    }

    fn optional_fields(&self) -> &'static [&'static str] {
        &["leased", "lease_until"]
    }

    fn step(&self, quota: &Quota, remembered: &Remembered, now_us: u64, cost: Cost) -> Step {
        step(quota, remembered, now_us, cost, read, write)
    }

    fn standing(&self, quota: &Quota, remembered: &Remembered, now_us: u64) -> Standing {
        bucket_at(quota, remembered, now_us, read).0.standing()
    }

    fn credit(
        &self,
        quota: &Quota,
        state: State,
        _: u64,
        charged_at_us: u64,
        tokens: Cost,
    ) -> Option<Kept> {
        read(quota, state).map(|bucket| bucket.credited(charged_at_us, tokens, write))
    }
}

pub(super) fn read(
    quota: &Quota,
    State([tokens, at_us, fraction, fraction_of, leased, until_us]): State,
) -> Option<Bucket<'_>> {
    let bucket = Bucket::carried(quota, tokens, fraction, fraction_of, at_us)?;
    let tokens = leased;
    Some(bucket.lending(Lent { tokens, until_us }))
}

pub(super) fn write(bucket: &Bucket<'_>) -> State {
    let unit = bucket.quota.unit();
    let Lent { tokens, until_us } = bucket.lent;
    let (whole, part) = (bucket.level / unit, bucket.level % unit);
    State([whole, bucket.at_us, part, unit, tokens, until_us])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::algorithm::{CLOCK_TOLERANCE_US, LATEST_US, Notice, Standing};

    const SECOND: u64 = 1_000_000;
    const NOON: u64 = 1_762_668_474 * SECOND;

    fn quota(capacity: u64, tokens: u64, period_us: u64) -> Quota {
        Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap()
    }

    fn full(quota: &Quota) -> Bucket<'_> {
        Bucket {
            quota,
            level: quota.full(),
            at_us: NOON,
            lent: Lent::default(),
        }
    }

    fn step(quota: &Quota, remembered: &Remembered, now_us: u64, cost: u64) -> Step {
        TokenBucket.step(quota, remembered, now_us, Cost::new(cost).unwrap())
    }

    /// A record in memory that follows every step, as a store would.
    struct Record(Remembered);

    impl Record {
        fn new() -> Self {
            Self(Remembered::Nothing)
        }

        fn charge(&mut self, quota: &Quota, now_us: u64, cost: u64) -> Result<Standing, Duration> {
            match step(quota, &self.0, now_us, cost).outcome {
                Ok(taken) => {
                    self.0 = Remembered::State(taken.kept.state);
                    Ok(taken.after)
                }
                Err(refused) => Err(Duration::from_micros(refused.retry_after_us)),
            }
        }
    }

    #[test]
    fn a_fresh_bucket_admits_its_capacity_and_no_more() {
        let quota = quota(5, 1, SECOND);
        let mut record = Record::new();
        for left in (0..5).rev() {
            assert_eq!(record.charge(&quota, NOON, 1).unwrap().remaining, left);
        }
        assert_eq!(record.charge(&quota, NOON, 1), Err(Duration::from_secs(1)));
    }

    #[test]
    fn half_a_token_a_second_is_one_in_two_seconds() {
        let quota = quota(1, 5, 10 * SECOND);
        let mut record = Record::new();
        record.charge(&quota, NOON, 1).unwrap();
        assert_eq!(
            record.charge(&quota, NOON + SECOND, 1),
            Err(Duration::from_secs(1))
        );
        assert!(record.charge(&quota, NOON + 2 * SECOND, 1).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_mints_nothing_and_is_told() {
        let quota = quota(2, 1, SECOND);
        let mut record = Record::new();
        record.charge(&quota, NOON, 2).unwrap();
        for _ in 0..10 {
            assert!(record.charge(&quota, NOON - 30 * SECOND, 1).is_err());
            assert!(record.charge(&quota, NOON, 1).is_err());
        }
        let mut half = Record::new();
        half.charge(&quota, NOON, 1).unwrap();
        half.charge(&quota, NOON - 30 * SECOND, 1).unwrap();
        assert!(
            half.charge(&quota, NOON, 1).is_err(),
            "its time did not move back with the clock"
        );
        let notice = |back_us| step(&quota, &record.0, NOON - back_us, 1).notice;
        assert_eq!(notice(CLOCK_TOLERANCE_US), None);
        assert_eq!(notice(CLOCK_TOLERANCE_US + 1), Some(Notice::ClockBehind));
    }

    #[test]
    fn an_idle_century_fills_the_bucket_and_overflows_nothing() {
        let quota = quota(1 << 50, 1_000, 1);
        let mut record = Record::new();
        record.charge(&quota, NOON, quota.capacity()).unwrap();
        let standing = TokenBucket.standing(&quota, &record.0, NOON + 100 * 365 * 86_400 * SECOND);
        assert_eq!(standing.remaining, quota.capacity());
        assert_eq!(
            TokenBucket.standing(&quota, &record.0, u64::MAX).remaining,
            quota.capacity()
        );
    }

    #[test]
    fn a_record_that_is_not_ours_is_a_full_bucket() {
        let quota = quota(7, 1, SECOND);
        for foreign in [
            Remembered::Foreign,
            Remembered::State(State::new([3, NOON, 5, 5])),
            Remembered::State(State::new([3, NOON, 0, 0])),
            Remembered::State(State::new([3, NOON, 0, (1 << 50) + 1])),
            Remembered::State(State::new([3, LATEST_US + 1, 0, 1])),
        ] {
            let step = step(&quota, &foreign, NOON, 1);
            let remaining = TokenBucket.standing(&quota, &foreign, NOON).remaining;
            assert_eq!((remaining, step.notice), (7, Some(Notice::ForeignRecord)));
        }
    }

    #[test]
    fn a_changed_quota_keeps_what_was_used() {
        let mut record = Record::new();
        record.charge(&quota(10, 1, SECOND), NOON, 4).unwrap();
        let standing = |quota| TokenBucket.standing(&quota, &record.0, NOON).remaining;
        assert_eq!(standing(quota(3, 1, SECOND)), 3, "a lower capacity clamps");
        assert_eq!(
            standing(quota(100, 1, SECOND)),
            6,
            "a higher one adds nothing at once"
        );
        assert_eq!(
            standing(quota(10, 7, 3 * SECOND)),
            6,
            "another rate keeps the level"
        );
    }

    prop_compose! {
        fn quotas()(capacity in 1_u64..1_000, tokens in 1_u64..5_000, period_us in 1_u64..100_000_000) -> Quota {
            quota(capacity, tokens, period_us)
        }
    }

    proptest! {
        #[test]
        fn refilling_twice_equals_refilling_once(
            quota in quotas(), taken in 1_u64..1_000, a in 0_u64..1 << 40, b in 0_u64..1 << 40
        ) {
            let start = Bucket { level: quota.full() - taken.min(quota.capacity()) * quota.unit(), ..full(&quota) };
            let twice = start.refilled(NOON + a).refilled(NOON + a + b);
            let once = start.refilled(NOON + a + b);
            prop_assert_eq!((twice.level, twice.at_us), (once.level, once.at_us));
        }

        #[test]
        fn alternating_quotas_mint_nothing_and_starve_nobody(
            rates in proptest::collection::vec((1_u64..5_000, 1_u64..100_000_000), 2..5), steps in 1_usize..200
        ) {
            let quotas: Vec<Quota> = rates.iter().map(|&(t, p)| quota(50, t, p)).collect();
            let mut bucket = Bucket { level: 0, ..full(&quotas[0]) };
            for turn in 1..steps {
                let quota = &quotas[turn % quotas.len()];
                let next = read(quota, write(&bucket)).unwrap();
                // The same part of a token, less than one unit of the new quota lost.
                let (old, new) = (u128::from(bucket.level), u128::from(next.level));
                let (old_unit, unit) = (u128::from(bucket.quota.unit()), u128::from(quota.unit()));
                prop_assert!(new * old_unit <= old * unit && (new + 1) * old_unit > old * unit);
                bucket = next.refilled(next.at_us + 1_000);
            }
        }
    }
}
