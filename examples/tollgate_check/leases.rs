//! Denials by leases: what instances hold or have lost nobody else can have, and only so much.
//!
//! The model is a bucket without leases, from which everything that was admitted is taken. Where it has enough for a request
//! that was denied, leases must be why. In each period they keep at most their share of the capacity from others, and what
//! was lost is made good as soon as the model's bucket is full. A second model takes the store's denials at their word: then there
//! was less than was asked for, and what is lent; so what was lost before is not added up there. A denial is wrong if either
//! of them cannot explain it.

use tollgate::Quota;
use tollgate::strategy::lease::PERIOD_US;

use crate::history::Op;

/// How far the time of a request that an instance decided may be off, in microseconds.
const ROUGHLY_US: u64 = 5_000;

/// Denials of requests for which the model's bucket had enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Denials {
    /// Those that leases explain.
    pub(crate) while_lent: u64,
    /// The others.
    pub(crate) wrong: u64,
}

/// A bucket without leases.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// Units in it, of so many at the most.
    level: i128,
    full: i128,
    at_us: u64,
    /// Since when what was lost may be missing.
    since_us: u64,
}

impl Model {
    fn advance(&mut self, now_us: u64, gain: i128) {
        self.level = (self.level + i128::from(now_us - self.at_us) * gain).min(self.full);
        self.at_us = now_us;
        if self.level == self.full {
            self.since_us = now_us;
        }
    }

    /// Whether leases cannot be why there is less than `price`: in each period they keep at most `lent`.
    fn has(&self, price: i128, lent: i128, slack: i128) -> bool {
        let periods = i128::from((self.at_us - self.since_us) / PERIOD_US + 2);
        self.level >= price + lent * periods + slack
    }
}

/// Looks at all requests of one key, with leases of at most `share` percent.
pub(crate) fn denials(quota: &Quota, share: u64, ops: &[Op]) -> Denials {
    let mut ops = ops.to_vec();
    // Those of one call have one time, and an admission that stands before a denial is why there is less.
    ops.sort_unstable_by_key(|op| (op.now_us, !op.admitted));
    let (unit, gain) = (i128::from(quota.unit()), i128::from(quota.gain()));
    let full = i128::from(quota.full());
    let (lent, slack) = (
        full / 100 * i128::from(share),
        i128::from(ROUGHLY_US) * gain,
    );
    let mut found = Denials::default();
    let mut model = Model {
        level: full,
        full,
        at_us: 0,
        since_us: 0,
    };
    let mut told = model;
    for op in ops {
        for model in [&mut model, &mut told] {
            model.advance(op.now_us, gain);
        }
        let price = i128::from(op.cost) * unit;
        if op.admitted {
            model.level -= price;
            told.level -= price;
        } else if model.has(price, lent, slack) || told.has(price, lent, slack) {
            found.wrong += 1;
        } else {
            found.while_lent += u64::from(model.level >= price);
            if !op.alone {
                told.level = told.level.min(price + lent + slack);
                told.since_us = op.now_us;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A request of one token, so many microseconds after the first.
    fn op(now_us: u64, admitted: bool) -> Op {
        let now_us = PERIOD_US + now_us;
        Op {
            key: 0,
            cost: 1,
            invoked_us: now_us,
            returned_us: now_us,
            now_us,
            admitted,
            remaining: 0,
            retry_after_us: 0,
            reset_after_us: 0,
            alone: false,
        }
    }

    /// What is found with leases of 30 % of a thousand tokens, full again within a second.
    fn found(ops: impl IntoIterator<Item = Op>) -> (u64, u64) {
        let quota = Quota::new(1_000, 1_000, Duration::from_secs(1)).unwrap();
        let ops: Vec<Op> = ops.into_iter().collect();
        let Denials { while_lent, wrong } = denials(&quota, 30, &ops);
        (while_lent, wrong)
    }

    fn many(count: u64, at_us: u64, admitted: bool) -> impl Iterator<Item = Op> {
        (0..count).map(move |_| op(at_us, admitted))
    }

    #[test]
    fn who_asks_for_what_there_is_not_is_denied_rightly() {
        assert_eq!(found(many(1_000, 0, true).chain(many(9, 1, false))), (0, 0));
    }

    #[test]
    fn what_is_lent_and_what_was_lost_explain_a_denial() {
        // 600 tokens are two shares, and what a clock may be off is 5.
        assert_eq!(found(many(395, 0, true).chain(many(1, 1, false))), (1, 0));
        assert_eq!(found(many(394, 0, true).chain(many(1, 1, false))), (0, 1));
    }

    /// However long ago the bucket was full.
    #[test]
    fn a_denial_says_what_was_lost_until_then() {
        let spent = (1..9_u64).flat_map(|i| many(900, i * 900_000, true));
        let spent = many(1_000, 0, true).chain(spent);
        let ops: Vec<Op> = spent.chain(many(1, 7_500_000, false)).collect();
        let again =
            |wait_us: u64| found(ops.iter().copied().chain([op(7_500_000 + wait_us, false)]));
        // 605 tokens may have been lent and lost, and be unsure; so many are there after that time, with one in a millisecond.
        let (before, _) = again(1);
        assert_eq!(before, 2);
        assert_eq!(again(206_000), (2, 0));
        assert_eq!(again(307_000), (1, 1));
    }

    /// It denies every other request that it should admit, and so says of the others that there is little.
    #[test]
    fn who_refills_too_slowly_is_found() {
        let empty = many(1_000, 0, true);
        let half = (1..4_000_u64).map(|i| op(i * 1_000, i % 2 == 0));
        let (_, wrong) = found(empty.chain(half));
        assert!(wrong > 100, "{wrong}");
    }
}
