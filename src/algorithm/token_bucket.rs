//! Token bucket: a bucket of `capacity` tokens, refilled continuously, lazily computed.
//!
//! **Idea.** Each key has a bucket that starts full. A request takes its cost out or, if the bucket holds less, is
//! denied and takes nothing. The bucket refills at a constant rate up to its capacity. Nothing runs in the
//! background: what was gained since the last step is added at the next.
//!
//! **Formula.** In units ([`Quota::unit`] to a token): `level(now) = min(full, level + (now - last_refill) * gain)`;
//! admitted when `level >= cost * unit`. Only integers, so refilling a -> b -> c equals a -> c.
//!
//! **State.** Four integers: `tokens` (whole tokens) and `last_refill` (microseconds since 1970), as a person would
//! read them, and `fraction / fraction_of`, the part of a token that is on its way. It is absent when full.
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

use std::time::Duration;

use super::{
    Algorithm, CLOCK_TOLERANCE_US, LATEST_US, Notice, Refused, Remembered, Standing, State, Step,
    Taken,
};
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

    fn step(&self, quota: &Quota, remembered: Remembered, now_us: u64, cost: Cost) -> Step {
        let (bucket, notice) = match remembered {
            Remembered::Nothing => (Bucket::full(quota, now_us), None),
            Remembered::Foreign => (Bucket::full(quota, now_us), Some(Notice::ForeignRecord)),
            Remembered::State(state) => match Bucket::read(quota, state) {
                Some(bucket) => (bucket.refilled(now_us), bucket.notice(now_us)),
                None => (Bucket::full(quota, now_us), Some(Notice::ForeignRecord)),
            },
        };
        Step {
            before: bucket.standing(),
            outcome: bucket.take(cost),
            notice,
        }
    }
}

/// A bucket at a time; `level` is in units.
#[derive(Debug, Clone, Copy)]
struct Bucket<'a> {
    quota: &'a Quota,
    level: u64,
    at_us: u64,
}

impl<'a> Bucket<'a> {
    fn full(quota: &'a Quota, now_us: u64) -> Self {
        Self {
            quota,
            level: quota.full(),
            at_us: now_us,
        }
    }

    fn read(
        quota: &'a Quota,
        State([tokens, at_us, fraction, fraction_of, ..]): State,
    ) -> Option<Self> {
        if at_us > LATEST_US || fraction >= fraction_of || fraction_of > Quota::LARGEST_UNIT {
            return None;
        }
        let unit = quota.unit();
        let level = if tokens >= quota.capacity() {
            quota.full()
        } else if fraction_of == unit {
            tokens * unit + fraction
        } else {
            tokens * unit + rescaled(fraction, unit, fraction_of)
        };
        Some(Self {
            quota,
            level,
            at_us,
        })
    }

    fn refilled(self, now_us: u64) -> Self {
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

    fn take(self, cost: Cost) -> Result<Taken, Refused> {
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
            state: left.state(),
            after: left.standing(),
            fresh_at_us: left.fresh_at_us(),
        })
    }

    fn state(&self) -> State {
        let unit = self.quota.unit();
        State::new([self.level / unit, self.at_us, self.level % unit, unit])
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

/// `fraction * unit / fraction_of`, rounded down: the same part of a token, in another unit.
fn rescaled(fraction: u64, unit: u64, fraction_of: u64) -> u64 {
    let scaled = u128::from(fraction) * u128::from(unit) / u128::from(fraction_of);
    u64::try_from(scaled).expect("a fraction below 1 of a unit is below that unit")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const NOON: u64 = 1_762_668_474 * SECOND;

    fn quota(capacity: u64, tokens: u64, period_us: u64) -> Quota {
        Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap()
    }

    fn step(quota: &Quota, remembered: Remembered, now_us: u64, cost: u64) -> Step {
        TokenBucket.step(quota, remembered, now_us, Cost::new(cost).unwrap())
    }

    /// A record in memory that follows every step, as a store would.
    struct Record(Remembered);

    impl Record {
        fn new() -> Self {
            Self(Remembered::Nothing)
        }

        fn charge(&mut self, quota: &Quota, now_us: u64, cost: u64) -> Result<Standing, Duration> {
            match step(quota, self.0, now_us, cost).outcome {
                Ok(taken) => {
                    self.0 = Remembered::State(taken.state);
                    Ok(taken.after)
                }
                Err(refused) => Err(refused.retry_after),
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
        let notice = |back_us| step(&quota, record.0, NOON - back_us, 1).notice;
        assert_eq!(notice(CLOCK_TOLERANCE_US), None);
        assert_eq!(notice(CLOCK_TOLERANCE_US + 1), Some(Notice::ClockBehind));
    }

    #[test]
    fn an_idle_century_fills_the_bucket_and_overflows_nothing() {
        let quota = quota((1 << 53) - 1_001, 1_000, 1);
        let mut record = Record::new();
        record.charge(&quota, NOON, quota.capacity()).unwrap();
        let standing = step(&quota, record.0, NOON + 100 * 365 * 86_400 * SECOND, 1).before;
        assert_eq!(standing.remaining, quota.capacity());
        assert_eq!(
            step(&quota, record.0, u64::MAX, 1).before.remaining,
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
            let step = step(&quota, foreign, NOON, 1);
            assert_eq!(
                (step.before.remaining, step.notice),
                (7, Some(Notice::ForeignRecord))
            );
        }
    }

    #[test]
    fn a_changed_quota_keeps_what_was_used() {
        let mut record = Record::new();
        record.charge(&quota(10, 1, SECOND), NOON, 4).unwrap();
        let standing = |quota| step(&quota, record.0, NOON, 1).before.remaining;
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
            let start = Bucket { level: quota.full() - taken.min(quota.capacity()) * quota.unit(), ..Bucket::full(&quota, NOON) };
            let twice = start.refilled(NOON + a).refilled(NOON + a + b);
            let once = start.refilled(NOON + a + b);
            prop_assert_eq!((twice.level, twice.at_us), (once.level, once.at_us));
        }

        #[test]
        fn admits_at_retry_after_and_not_a_microsecond_before(
            quota in quotas(), drain in 1_u64..1_000, cost in 1_u64..1_000, gap in 0_u64..1_000_000
        ) {
            let (drain, cost) = (drain.min(quota.capacity()), cost.min(quota.capacity()));
            let mut record = Record::new();
            record.charge(&quota, NOON, drain).unwrap();
            let now = NOON + gap;
            if let Err(refused) = step(&quota, record.0, now, cost).outcome {
                let wait = u64::try_from(refused.retry_after.as_micros()).unwrap();
                prop_assert!(step(&quota, record.0, now + wait, cost).outcome.is_ok());
                prop_assert!(step(&quota, record.0, now + wait - 1, cost).outcome.is_err());
            }
        }

        #[test]
        fn the_standing_comes_true(quota in quotas(), drain in 1_u64..1_000, gap in 0_u64..1_000_000) {
            let mut record = Record::new();
            record.charge(&quota, NOON, drain.min(quota.capacity())).unwrap();
            let now = NOON + gap;
            let at = |wait: Duration| {
                let later = now + u64::try_from(wait.as_micros()).unwrap();
                [later.saturating_sub(1).max(now), later].map(|t| step(&quota, record.0, t, 1).before)
            };
            let here = at(Duration::ZERO)[1];
            if here.remaining < quota.capacity() {
                let [just_before, then] = at(here.next_after);
                prop_assert!(then.remaining > here.remaining);
                prop_assert_eq!(just_before.remaining, here.remaining);
            }
            prop_assert_eq!(at(here.reset_after)[1].reset_after, Duration::ZERO);
        }

        /// The law, for all pairs of instants, under a clock that also steps back: time is the latest at which this key
        /// was charged.
        #[test]
        fn never_admits_more_than_capacity_plus_rate_times_time(
            quota in quotas(),
            requests in proptest::collection::vec((-2_000_000_i64..4_000_000, 1_u64..20), 1..60)
        ) {
            let (mut record, mut clock, mut latest) = (Record::new(), NOON, 0);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (move_us, cost) in requests {
                clock = clock.saturating_add_signed(move_us);
                if cost <= quota.capacity() && record.charge(&quota, clock, cost).is_ok() {
                    latest = latest.max(clock);
                    admitted.push((latest, cost));
                }
            }
            for first in 0..admitted.len() {
                let mut sum = 0;
                for &(at, cost) in &admitted[first..] {
                    sum += cost;
                    let allowed = quota.full() + (at - admitted[first].0) * quota.gain();
                    prop_assert!(sum * quota.unit() <= allowed);
                }
            }
        }

        #[test]
        fn a_forgotten_record_decides_as_a_kept_one(
            quota in quotas(),
            requests in proptest::collection::vec((0_u64..3_000_000, 1_u64..20), 1..60)
        ) {
            let (mut kept, mut forgetful, mut now, mut fresh_at) = (Record::new(), Record::new(), NOON, u64::MAX);
            for (gap, cost) in requests {
                now += gap;
                if now >= fresh_at {
                    forgetful = Record::new();
                }
                let cost = cost.min(quota.capacity());
                if let Ok(taken) = step(&quota, forgetful.0, now, cost).outcome {
                    fresh_at = taken.fresh_at_us;
                }
                prop_assert_eq!(kept.charge(&quota, now, cost), forgetful.charge(&quota, now, cost));
            }
        }

        #[test]
        fn alternating_quotas_mint_nothing_and_starve_nobody(
            rates in proptest::collection::vec((1_u64..5_000, 1_u64..100_000_000), 2..5), steps in 1_usize..200
        ) {
            let quotas: Vec<Quota> = rates.iter().map(|&(t, p)| quota(50, t, p)).collect();
            let mut bucket = Bucket { level: 0, ..Bucket::full(&quotas[0], NOON) };
            for turn in 1..steps {
                let quota = &quotas[turn % quotas.len()];
                let next = Bucket::read(quota, bucket.state()).unwrap();
                // The same part of a token, less than one unit of the new quota lost.
                let (old, new) = (u128::from(bucket.level), u128::from(next.level));
                let (old_unit, unit) = (u128::from(bucket.quota.unit()), u128::from(quota.unit()));
                prop_assert!(new * old_unit <= old * unit && (new + 1) * old_unit > old * unit);
                bucket = next.refilled(next.at_us + 1_000);
            }
        }
    }
}
