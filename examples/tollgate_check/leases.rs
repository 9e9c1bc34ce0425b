//! Denials by leases: what instances hold or have lost nobody else can have, and only so much.
//!
//! The model is a bucket without leases, from which everything that was admitted is taken. Where it has enough for a request
//! that was denied, leases must be why. In each period they keep at most their share of the capacity from others, and what
//! was lost is made good as soon as the model's bucket is full.

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

/// Looks at all requests of one key, with leases of at most `share` percent.
pub(crate) fn denials(quota: &Quota, share: u64, ops: &[Op]) -> Denials {
    let mut ops = ops.to_vec();
    ops.sort_unstable_by_key(|op| (op.now_us, op.admitted));
    let (unit, gain) = (i128::from(quota.unit()), i128::from(quota.gain()));
    let full = i128::from(quota.full());
    let mut found = Denials::default();
    let (mut level, mut at_us, mut full_us) = (full, 0, 0);
    for op in ops {
        level = (level + i128::from(op.now_us - at_us) * gain).min(full);
        at_us = op.now_us;
        if level == full {
            full_us = at_us;
        }
        let price = i128::from(op.cost) * unit;
        if op.admitted {
            level -= price;
        } else if level >= price {
            let periods = i128::from((at_us - full_us) / PERIOD_US + 2);
            let kept = full / 100 * i128::from(share) * periods;
            let slack = i128::from(ROUGHLY_US) * gain;
            if level < price + kept + slack {
                found.while_lent += 1;
            } else {
                found.wrong += 1;
            }
        }
    }
    found
}
