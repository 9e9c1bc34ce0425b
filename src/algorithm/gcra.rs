//! GCRA, the generic cell rate algorithm: the law of the token bucket, remembered as one moment.
//!
//! **Idea.** For each key stands the *theoretical arrival time* (TAT): when a bucket that was used so far would be full
//! again. A request moves it ahead by the time in which its cost is refilled, and is denied if it would then lie further
//! ahead than an empty bucket takes to fill. The arithmetic is the token bucket's: what is missing is `TAT - now` long.
//!
//! **Formula.** `TAT' = max(TAT, now) + cost * unit / gain`; admitted when `TAT' - now <= full / gain`. The TAT is whole
//! microseconds and an exact remainder: `missing = (TAT - at) * gain + tat_fraction` units.
//!
//! **State.** Six integers: `tat` (microseconds since 1970), `tat_fraction`, `at` (the time of the last charge, so that a
//! clock that steps back changes nothing), and the quota under which they stand: `capacity`, `gain`, `unit`.
//!
//! **Cost.** O(1) in time and space per key.
//!
//! **Over-admission.** None: at most `capacity + rate * (t2 - t1)` between any t1 < t2; on the same history it decides as
//! `tokenbucket` does. A changed quota keeps the tokens that were left: the record knows the quota it was written under.
//!
//! **Source.** ITU-T I.371 and ATM Forum TM 4.0 (virtual scheduling); exactness by the remainder is ours.

use super::bucket::{Bucket, bucket_at, step};
use super::{Algorithm, Kept, Remembered, Standing, State, Step};
use crate::domain::{Cost, Quota};

/// The generic cell rate algorithm; see the module for its law.
#[derive(Debug, Clone, Copy)]
pub struct Gcra;

impl Algorithm for Gcra {
    fn name(&self) -> &'static str {
        "gcra"
    }

    fn fields(&self) -> &'static [&'static str] {
        &["tat", "tat_fraction", "at", "capacity", "gain", "unit"]
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

fn read(
    quota: &Quota,
    State([tat, tat_fraction, at_us, capacity, gain, unit]): State,
) -> Option<Bucket<'_>> {
    let full = capacity
        .checked_mul(unit)
        .filter(|full| *full <= State::LARGEST)?;
    let missing = tat
        .checked_sub(at_us)?
        .checked_mul(gain)?
        .checked_add(tat_fraction)?;
    if tat_fraction >= gain || unit == 0 {
        return None;
    }
    let level = full.checked_sub(missing)?;
    Bucket::carried(quota, level / unit, level % unit, unit, at_us)
}

fn write(bucket: &Bucket<'_>) -> State {
    let quota = bucket.quota;
    let missing = quota.full() - bucket.level;
    let tat = bucket.at_us.saturating_add(missing / quota.gain());
    State::new([
        tat,
        missing % quota.gain(),
        bucket.at_us,
        quota.capacity(),
        quota.gain(),
        quota.unit(),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::algorithm::TokenBucket;

    const NOON: u64 = 1_762_668_474_000_000;

    proptest! {
        /// On any history, under any clock and through changes of the quota.
        #[test]
        fn decides_as_the_token_bucket_does(
            quotas in proptest::collection::vec((1_u64..100, 1_u64..5_000, 1_u64..100_000_000), 1..3),
            requests in proptest::collection::vec((-2_000_000_i64..6_000_000, 1_u64..20, 0_usize..3), 1..80)
        ) {
            let quotas: Vec<Quota> =
                quotas.iter().map(|&(c, t, p)| Quota::new(c, t, Duration::from_micros(p)).unwrap()).collect();
            let (mut bucket, mut cells) = (Remembered::Nothing, Remembered::Nothing);
            let mut clock = NOON;
            for (move_us, cost, which) in requests {
                clock = clock.saturating_add_signed(move_us);
                let quota = quotas[which % quotas.len()];
                let cost = Cost::new(cost.min(quota.capacity())).unwrap();
                let a = TokenBucket.step(&quota, &bucket, clock, cost);
                let b = Gcra.step(&quota, &cells, clock, cost);
                prop_assert_eq!(
                    TokenBucket.standing(&quota, &bucket, clock), Gcra.standing(&quota, &cells, clock)
                );
                prop_assert_eq!(a.notice, b.notice);
                match (a.outcome, b.outcome) {
                    (Ok(a), Ok(b)) => {
                        prop_assert_eq!((a.after, a.kept.fresh_at_us), (b.after, b.kept.fresh_at_us));
                        (bucket, cells) = (Remembered::State(a.kept.state), Remembered::State(b.kept.state));
                    }
                    (a, b) => prop_assert_eq!(a.err(), b.err()),
                }
            }
        }
    }
}
