//! What every algorithm keeps, whatever the quota, the history and the clock: properties, walked over [`ALL`](super::ALL).

use std::time::Duration;

use proptest::prelude::*;

use super::{ALL, Algorithm, Remembered, Standing, Step};
use crate::domain::{Cost, Quota};

const NOON: u64 = 1_762_668_474_000_000;

/// A record that follows every step, as a store would.
#[derive(Debug, Clone, Copy)]
struct Record {
    algorithm: &'static dyn Algorithm,
    remembered: Remembered,
    fresh_at_us: u64,
}

impl Record {
    fn new(algorithm: &'static dyn Algorithm) -> Self {
        Self {
            algorithm,
            remembered: Remembered::Nothing,
            fresh_at_us: 0,
        }
    }

    fn step(&self, quota: &Quota, now_us: u64, cost: u64) -> Step {
        self.algorithm
            .step(quota, &self.remembered, now_us, Cost::new(cost).unwrap())
    }

    fn standing(&self, quota: &Quota, now_us: u64) -> Standing {
        self.algorithm.standing(quota, &self.remembered, now_us)
    }

    /// The standing afterwards, or microseconds to wait.
    fn charge(&mut self, quota: &Quota, now_us: u64, cost: u64) -> Result<Standing, u64> {
        let taken = self
            .step(quota, now_us, cost)
            .outcome
            .map_err(|refused| refused.retry_after_us)?;
        self.remembered = Remembered::State(taken.kept.state);
        self.fresh_at_us = taken.kept.fresh_at_us;
        Ok(taken.after)
    }
}

fn quotas() -> impl Strategy<Value = Quota> {
    let any = (1_u64..1_000, 1_u64..5_000, 1_u64..100_000_000);
    let small = (1_u64..8, 1_u64..8, 100_000_u64..4_000_000);
    prop_oneof![any, small].prop_map(|(capacity, tokens, period_us)| {
        Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap()
    })
}

fn algorithms() -> impl Strategy<Value = &'static dyn Algorithm> {
    proptest::sample::select(ALL)
}

/// Moves of the clock and costs.
fn requests(back_us: i64) -> impl Strategy<Value = Vec<(i64, u64)>> {
    proptest::collection::vec((-back_us..4_000_000_i64, 1_u64..20), 1..60)
}

/// A record with a history that ends at `NOON` or a little later.
fn used(algorithm: &'static dyn Algorithm, quota: &Quota, history: &[(i64, u64)]) -> (Record, u64) {
    let (mut record, mut now) = (Record::new(algorithm), NOON);
    for &(gap, cost) in history {
        now = now.saturating_add_signed(gap);
        let _ = record.charge(quota, now, cost.min(quota.capacity()));
    }
    (record, now)
}

proptest! {
    #[test]
    fn admits_at_retry_after_and_not_a_microsecond_before(
        algorithm in algorithms(), quota in quotas(), history in requests(0), cost in 1_u64..1_000
    ) {
        let (record, now) = used(algorithm, &quota, &history);
        let cost = cost.min(quota.capacity());
        if let Err(refused) = record.step(&quota, now, cost).outcome {
            prop_assert_eq!(refused.before, record.standing(&quota, now));
            let wait = refused.retry_after_us;
            prop_assert!(wait > 0);
            prop_assert!(record.step(&quota, now + wait, cost).outcome.is_ok());
            prop_assert!(record.step(&quota, now + wait - 1, cost).outcome.is_err());
        }
    }

    #[test]
    fn the_standing_comes_true(algorithm in algorithms(), quota in quotas(), history in requests(0)) {
        let (record, now) = used(algorithm, &quota, &history);
        let at = |later_us| record.standing(&quota, now + later_us);
        let here = at(0);
        prop_assert!(here.remaining <= quota.capacity());
        if here.remaining < quota.capacity() {
            let next = here.next_after_us;
            prop_assert!(at(next).remaining > here.remaining);
            prop_assert_eq!(at(next - 1).remaining, here.remaining);
        }
        let reset = here.reset_after_us;
        prop_assert_eq!(at(reset), Record::new(algorithm).standing(&quota, now + reset));
        if reset > 0 {
            prop_assert!(at(reset - 1).reset_after_us > 0);
        }
    }

    #[test]
    fn what_is_told_after_a_charge_is_what_is_told_before_the_next(
        algorithm in algorithms(), quota in quotas(), history in requests(2_000_000), cost in 1_u64..20
    ) {
        let (mut record, now) = used(algorithm, &quota, &history);
        if let Ok(after) = record.charge(&quota, now, cost.min(quota.capacity())) {
            prop_assert_eq!(record.standing(&quota, now), after);
        }
    }

    /// What is given back counts as never charged: whatever happened since, no more is left than without the charge, and
    /// just as much if it is given back at once.
    #[test]
    fn what_is_given_back_counts_as_never_charged(
        algorithm in algorithms(), quota in quotas(), history in requests(0), cost in 1_u64..20,
        later in requests(0)
    ) {
        let (without, mut now) = used(algorithm, &quota, &history);
        let cost = Cost::new(cost.min(quota.capacity())).unwrap();
        let mut with = without;
        if let Err(wait) = with.charge(&quota, now, cost.get()) {
            now += wait;
            with.charge(&quota, now, cost.get()).unwrap();
        }
        let give_back = |record: &Record, at: u64| {
            let Remembered::State(state) = record.remembered else { unreachable!("it was charged") };
            algorithm.credit(&quota, state, at, now, cost).map_or(record.remembered, |kept| Remembered::State(kept.state))
        };
        let at_once = Record { remembered: give_back(&with, now), ..with };
        prop_assert_eq!(at_once.standing(&quota, now), without.standing(&quota, now));
        let (mut without, mut at) = (without, now);
        for (move_us, cost) in later {
            at = at.saturating_add_signed(move_us);
            let cost = cost.min(quota.capacity());
            // What the charged record admits, the other would have admitted too.
            if with.charge(&quota, at, cost).is_ok() {
                prop_assert!(without.charge(&quota, at, cost).is_ok());
            }
        }
        let given_back = Record { remembered: give_back(&with, at), ..with };
        let left = given_back.standing(&quota, at).remaining;
        prop_assert!(left <= quota.capacity());
        prop_assert!(left <= without.standing(&quota, at).remaining);
    }

    /// Expiry is invisible: a record that is dropped when it is as good as fresh decides as one that is kept.
    #[test]
    fn a_forgotten_record_decides_as_a_kept_one(
        algorithm in algorithms(), quota in quotas(), history in requests(0)
    ) {
        let (mut kept, mut forgetful, mut now) = (Record::new(algorithm), Record::new(algorithm), NOON);
        for (gap, cost) in history {
            now = now.saturating_add_signed(gap);
            if now >= forgetful.fresh_at_us {
                forgetful.remembered = Remembered::Nothing;
            }
            let cost = cost.min(quota.capacity());
            prop_assert_eq!(kept.charge(&quota, now, cost), forgetful.charge(&quota, now, cost));
        }
    }

    /// At most `capacity + rate * (t2 - t1)` for every pair of instants; for `fixedwindow`, at most the capacity in each
    /// window. Under a clock that also steps back, time is the latest at which this key was charged.
    #[test]
    fn the_law_holds(algorithm in algorithms(), quota in quotas(), history in requests(2_000_000)) {
        let (mut record, mut clock, mut latest) = (Record::new(algorithm), NOON, 0);
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (move_us, cost) in history {
            clock = clock.saturating_add_signed(move_us);
            if cost <= quota.capacity() && record.charge(&quota, clock, cost).is_ok() {
                latest = latest.max(clock);
                admitted.push((latest, cost));
            }
        }
        let window = quota.fill_time_us();
        for (i, &(from, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for &(at, cost) in &admitted[i..] {
                if algorithm.name() == "fixedwindow" && at / window > from / window {
                    break;
                }
                sum += cost;
                let time = if algorithm.name() == "fixedwindow" { 0 } else { at - from };
                prop_assert!(sum * quota.unit() <= quota.full() + time * quota.gain());
            }
        }
    }

    /// A changed quota adds nothing at once, and over any changes no more than the largest of them would admit.
    #[test]
    fn a_changed_quota_keeps_what_was_used(
        algorithm in algorithms(), quotas in proptest::collection::vec(quotas(), 2..4),
        history in proptest::collection::vec((0_i64..4_000_000, 1_u64..20, 0_usize..4), 1..60)
    ) {
        let (mut record, mut now) = (Record::new(algorithm), NOON);
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        let mut before = quotas[0];
        for (gap, cost, which) in history {
            now = now.saturating_add_signed(gap);
            let quota = quotas[which % quotas.len()];
            if record.remembered != Remembered::Nothing {
                let (old, new) = (record.standing(&before, now), record.standing(&quota, now));
                let gained_since = record.fresh_at_us <= now || gap > 0;
                if !gained_since {
                    prop_assert!(new.remaining <= old.remaining.min(quota.capacity()));
                }
            }
            if record.charge(&quota, now, cost.min(quota.capacity())).is_ok() {
                admitted.push((now, cost.min(quota.capacity())));
            }
            before = quota;
        }
        let capacity = quotas.iter().map(Quota::capacity).max().unwrap();
        let longest = quotas.iter().map(Quota::fill_time_us).max().unwrap();
        // Tokens that the fastest quota gains in a time, rounded up.
        let gained = |time: u64| {
            quotas.iter().map(|q| (u128::from(time) * u128::from(q.gain())).div_ceil(u128::from(q.unit()))).max().unwrap()
        };
        let bursts = if algorithm.name() == "fixedwindow" { 2 } else { 1 };
        for (i, &(from, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for &(at, cost) in &admitted[i..] {
                sum += u128::from(cost);
                let slack = if bursts == 2 { gained(longest.min(at - from)) } else { 0 };
                prop_assert!(sum <= u128::from(capacity) * bursts + gained(at - from) + slack, "{sum} {}", at - from);
            }
        }
    }
}
