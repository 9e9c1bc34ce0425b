//! Leases: an instance takes tokens of a token bucket ahead, to spend them by itself.
//!
//! **Idea.** What is lent leaves the bucket at once, and until the lease ends the bucket refills only to
//! `capacity - leased`. So level and unspent leases together never exceed the capacity nor grow faster than the rate,
//! and the law of the bucket holds for what all instances spend, wherever they spend it. (Debiting alone would admit
//! `capacity + leased` after an idle time: the bucket fills up while the lease is still unspent.)
//!
//! **Epochs.** All leases of a key end at the same time, `lease_until`, which stands until nothing is lent any more. Who
//! asks again reports what it spent and returns the rest, which counts only within the epoch that it names: what is not
//! reported by its end is lost for those who hold it, and the bucket may fill up again.
//!
//! `strategy/redis/lease.lua` is the twin.

use super::bucket::Lent;
use super::token_bucket::{read, write};
use super::{Algorithm, Kept, Notice, Remembered, State, Step, TokenBucket};
use crate::domain::{Cost, Quota};

/// What an instance tells of its lease and asks for, together with one charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAsk {
    /// When the lease that it reports ends, on the store's clock; 0 when it has none.
    pub epoch_us: u64,
    /// Tokens of it that were spent since the last report.
    pub spent: u64,
    /// Tokens of it that it gives back.
    pub returned: u64,
    /// Tokens that it would like to take ahead.
    pub wanted: u64,
    /// Fewest that are worth taking: with less than these it gets none.
    pub least: u64,
    /// Most that it may get, in percent of what is left; and most that all together may hold, in percent of the capacity.
    pub share: u64,
    /// For how long, in microseconds, where no other lease says when this one ends.
    pub period_us: u64,
}

/// What is lent, and what else became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lending {
    /// The charge, as if nothing were lent with it.
    pub step: Step,
    /// Tokens taken ahead.
    pub granted: u64,
    /// When they end, on the store's clock; 0 when nothing was granted.
    pub until_us: u64,
    /// How long that is from now.
    pub lasts_us: u64,
    /// What to remember; `None` for what was there.
    pub kept: Option<Kept>,
}

/// Settles what is reported, charges `cost` if it fits, and then lends.
pub fn lend(
    quota: &Quota,
    remembered: Remembered,
    now_us: u64,
    cost: Cost,
    ask: &LeaseAsk,
) -> Lending {
    let (settled, is_settled) = settle(quota, remembered, now_us, ask);
    let step = TokenBucket.step(quota, &settled, now_us, cost);
    let refused = Lending {
        step,
        granted: 0,
        until_us: 0,
        lasts_us: 0,
        kept: None,
    };
    let Ok(taken) = step.outcome else {
        let kept = match settled {
            Remembered::State(state) if is_settled => {
                read(quota, state).map(|bucket| bucket.kept(write))
            }
            _ => None,
        };
        return Lending { kept, ..refused };
    };
    let kept = Some(taken.kept);
    let Some(bucket) = read(quota, taken.kept.state) else {
        return Lending { kept, ..refused };
    };
    let mut lent = bucket.lent;
    let whole = bucket.level / quota.unit();
    let granted = ask
        .wanted
        .min(percent(whole, ask.share))
        .min(percent(quota.capacity(), ask.share).saturating_sub(lent.tokens));
    if granted == 0 || granted < ask.least {
        return Lending { kept, ..refused };
    }
    if lent.tokens == 0 {
        lent.until_us = bucket.at_us.saturating_add(ask.period_us);
    }
    let State([tokens, at_us, part, unit, ..]) = taken.kept.state;
    let state = State([
        tokens - granted,
        at_us,
        part,
        unit,
        lent.tokens + granted,
        lent.until_us,
    ]);
    Lending {
        granted,
        until_us: lent.until_us,
        lasts_us: lent.until_us - bucket.at_us,
        kept: read(quota, state).map(|bucket| bucket.kept(write)),
        ..refused
    }
}

/// The record now, with what was reported of the epoch that still runs; and whether anything was.
fn settle(
    quota: &Quota,
    remembered: Remembered,
    now_us: u64,
    ask: &LeaseAsk,
) -> (Remembered, bool) {
    let Remembered::State(state) = remembered else {
        return (remembered, false);
    };
    let Some(mut bucket) = read(quota, state).map(|bucket| bucket.refilled(now_us)) else {
        return (remembered, false);
    };
    let Lent { tokens, until_us } = bucket.lent;
    let settled = tokens.min(ask.spent.saturating_add(ask.returned));
    if settled == 0 || until_us != ask.epoch_us {
        return (remembered, false);
    }
    bucket.lent.tokens = tokens - settled;
    if bucket.lent.tokens == 0 {
        bucket.lent = Lent::default();
    }
    let returned = ask.returned.min(settled).min(quota.capacity()) * quota.unit();
    bucket.level = (bucket.level + returned).min(bucket.ceiling());
    (Remembered::State(write(&bucket)), true)
}

/// So much of a hundred, rounded down; at most all of it.
pub(crate) fn percent(of: u64, share: u64) -> u64 {
    let share = share.min(100);
    of / 100 * share + of % 100 * share / 100
}

impl Lending {
    /// Something an operator should hear of once.
    pub fn notice(&self) -> Option<Notice> {
        self.step.notice
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 1_762_668_474_000_000;

    fn asking(wanted: u64) -> LeaseAsk {
        LeaseAsk {
            epoch_us: 0,
            spent: 0,
            returned: 0,
            wanted,
            least: 1,
            share: 100,
            period_us: 1_000_000,
        }
    }

    fn state(lending: &Lending) -> State {
        lending.kept.unwrap().state
    }

    fn step(quota: &Quota, state: State, now_us: u64, cost: u64) -> Step {
        let cost = Cost::new(cost).unwrap();
        TokenBucket.step(quota, &Remembered::State(state), now_us, cost)
    }

    #[test]
    fn lends_a_share_of_what_is_left_and_no_more_than_that_of_the_capacity_in_all() {
        let quota = Quota::new(1_000, 1, Duration::from_secs(100)).unwrap();
        let ask = LeaseAsk {
            share: 10,
            ..asking(5_000)
        };
        let first = lend(&quota, Remembered::Nothing, NOON, Cost::MIN, &ask);
        assert_eq!((first.granted, first.lasts_us), (99, 1_000_000));
        let of = Remembered::State(state(&first));
        let later = NOON + 400_000;
        let second = lend(&quota, of, later, Cost::MIN, &ask);
        assert_eq!(second.granted, 1, "of 100 in all");
        assert_eq!(
            (second.until_us, second.lasts_us),
            (first.until_us, 600_000)
        );
        let of = Remembered::State(state(&second));
        assert_eq!(lend(&quota, of, later, Cost::MIN, &ask).granted, 0);
    }

    #[test]
    fn what_is_settled_can_be_lent_again() {
        let quota = Quota::new(1_000, 1, Duration::from_secs(100)).unwrap();
        let first = lend(&quota, Remembered::Nothing, NOON, Cost::MIN, &asking(600));
        let of = Remembered::State(state(&first));
        let ask = LeaseAsk {
            epoch_us: first.until_us,
            spent: 500,
            returned: 100,
            ..asking(600)
        };
        let all = Cost::new(499).unwrap();
        let second = lend(&quota, of, NOON + 1, all, &ask);
        assert!(
            second.step.outcome.is_ok(),
            "399 were left and 100 came back"
        );
        let State([tokens, _, _, _, leased, _]) = state(&second);
        assert_eq!((tokens, leased), (0, 0));
        // A report of an epoch that is over counts for nothing.
        let late = LeaseAsk {
            epoch_us: first.until_us + 1,
            ..ask
        };
        let refused = lend(&quota, of, NOON + 1, all, &late);
        assert!(refused.step.outcome.is_err() && refused.kept.is_none());
    }

    prop_compose! {
        /// A bucket of which something is lent, and its record.
        fn lending()(
            capacity in 2_u64..500, tokens in 1_u64..5_000, period_us in 1_000_u64..20_000_000,
            used in 1_u64..500, wanted in 1_u64..500
        ) -> (Quota, State) {
            let quota = Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap();
            let used = Cost::new(used.min(capacity - 1)).unwrap();
            (quota, state(&lend(&quota, Remembered::Nothing, NOON, used, &asking(wanted))))
        }
    }

    proptest! {
        #[test]
        fn waits_are_true_while_tokens_are_lent(
            (quota, state) in lending(), later_us in 0_u64..2_000_000, cost in 1_u64..500
        ) {
            let (now_us, cost) = (NOON + later_us, cost.min(quota.capacity()));
            let asked = step(&quota, state, now_us, cost);
            if let Err(refused) = asked.outcome {
                let then_us = now_us + refused.retry_after_us;
                prop_assert!(step(&quota, state, then_us, cost).outcome.is_ok());
                prop_assert!(step(&quota, state, then_us - 1, cost).outcome.is_err());
            }
            let standing = |then_us| TokenBucket.standing(&quota, &Remembered::State(state), then_us);
            let before = standing(now_us);
            let left = |then_us| standing(then_us).remaining;
            if before.remaining < quota.capacity() {
                let next_us = now_us + before.next_after_us;
                prop_assert!(left(next_us) > before.remaining && left(next_us - 1) == before.remaining);
                let full_us = now_us + before.reset_after_us;
                prop_assert!(left(full_us) == quota.capacity() && left(full_us - 1) < quota.capacity());
            }
        }

        #[test]
        fn a_record_that_lends_is_kept_until_it_equals_a_fresh_one((quota, state) in lending(), cost in 1_u64..500) {
            let cost = cost.min(quota.capacity());
            let kept = read(&quota, state).unwrap().kept(write);
            let fresh_us = kept.fresh_at_us;
            prop_assert_eq!(step(&quota, state, fresh_us, cost).outcome.map(|taken| taken.after),
                TokenBucket.step(&quota, &Remembered::Nothing, fresh_us, Cost::new(cost).unwrap()).outcome.map(|taken| taken.after));
            prop_assert!(TokenBucket.standing(&quota, &Remembered::State(state), fresh_us - 1).remaining < quota.capacity());
        }

        #[test]
        fn refilling_twice_equals_refilling_once_over_the_end_of_a_lease(
            (quota, state) in lending(), a in 0_u64..1_500_000, b in 0_u64..1_500_000
        ) {
            let bucket = read(&quota, state).unwrap();
            let twice = bucket.refilled(NOON + a).refilled(NOON + a + b);
            let once = bucket.refilled(NOON + a + b);
            prop_assert_eq!((twice.level, twice.at_us, twice.lent), (once.level, once.at_us, once.lent));
        }
    }
}
