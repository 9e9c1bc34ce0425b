//! The law of each algorithm over all pairs of instants, in O(n log n).

use tollgate::Quota;

use crate::history::Op;

/// Tokens that were admitted above the law, at the worst pair of instants (0: the law holds).
///
/// `ops` are the admitted requests of one key. For `tokenbucket`, `gcra` and `slidingwindow` the law is that between any
/// t1 < t2 at most `capacity + rate * (t2 - t1)` tokens are admitted; for `fixedwindow`, at most the capacity in each window.
pub(crate) fn excess(algorithm: &str, quota: &Quota, ops: &[Op]) -> u64 {
    let mut admitted: Vec<(u64, u64)> = ops.iter().map(|op| (op.now_us, op.cost)).collect();
    admitted.sort_unstable();
    if algorithm == "fixedwindow" {
        excess_in_windows(quota, &admitted)
    } else {
        excess_between(quota, &admitted)
    }
}

/// The same where an instance decides by itself and knows the store's time only roughly: tokens that were surely admitted
/// above the law of a bucket, wherever between its beginning and its end each request was decided.
///
/// For each interval the requests that lie in it altogether: from the last beginning to the first, while a tree over the
/// ends holds what was admitted until each of them less what was gained until then.
pub(crate) fn sure_excess(quota: &Quota, ops: &[Op]) -> u64 {
    let mut admitted: Vec<(u64, u64, u64)> = ops.iter().map(span).collect();
    admitted.sort_unstable_by_key(|(from_us, ..)| std::cmp::Reverse(*from_us));
    let mut ends: Vec<u64> = admitted.iter().map(|(_, to_us, _)| *to_us).collect();
    ends.sort_unstable();
    ends.dedup();
    let (unit, gain) = (i128::from(quota.unit()), i128::from(quota.gain()));
    let mut sums = Sums::new(ends.len());
    let mut is_met = vec![false; ends.len()];
    let mut worst = 0;
    for (from_us, to_us, cost) in admitted {
        let end = ends.partition_point(|other| *other < to_us);
        if !std::mem::replace(&mut is_met[end], true) {
            sums.add(end, end + 1, -i128::from(to_us) * gain - UNMET);
        }
        sums.add(end, ends.len(), i128::from(cost) * unit);
        let most = sums.most() + i128::from(from_us) * gain;
        worst = worst.max(most - i128::from(quota.full()));
    }
    u64::try_from((worst + unit - 1) / unit).unwrap_or(u64::MAX)
}

/// When it can have been decided, and its cost.
fn span(op: &Op) -> (u64, u64, u64) {
    if op.alone {
        (op.invoked_us, op.returned_us, op.cost)
    } else {
        (op.now_us, op.now_us, op.cost)
    }
}

/// What stands at an end that no request has met yet: far below any sum.
const UNMET: i128 = i128::MIN / 4;

/// Numbers, of which a range can be raised and the largest told.
struct Sums {
    /// A binary tree in an array: what was added to all below, and the largest below with that.
    added: Vec<i128>,
    most: Vec<i128>,
    leaves: usize,
}

impl Sums {
    fn new(len: usize) -> Self {
        let leaves = len.next_power_of_two();
        Self {
            added: vec![0; 2 * leaves],
            most: vec![UNMET; 2 * leaves],
            leaves,
        }
    }

    fn most(&self) -> i128 {
        self.most[1]
    }

    fn add(&mut self, from: usize, to: usize, value: i128) {
        self.add_below(1, 0, self.leaves, (from, to), value);
    }

    fn add_below(
        &mut self,
        node: usize,
        first: usize,
        len: usize,
        range: (usize, usize),
        value: i128,
    ) {
        if range.1 <= first || first + len <= range.0 {
            return;
        }
        if range.0 <= first && first + len <= range.1 {
            self.added[node] += value;
            self.most[node] += value;
            return;
        }
        let half = len / 2;
        self.add_below(2 * node, first, half, range, value);
        self.add_below(2 * node + 1, first + half, half, range, value);
        self.most[node] = self.most[2 * node].max(self.most[2 * node + 1]) + self.added[node];
    }
}

/// In units: for each instant, the sum so far less what was gained so far, against the lowest of it before.
fn excess_between(quota: &Quota, admitted: &[(u64, u64)]) -> u64 {
    let (unit, gain) = (i128::from(quota.unit()), i128::from(quota.gain()));
    let (mut sum, mut lowest, mut worst) = (0_i128, i128::MAX, 0_i128);
    for &(at_us, cost) in admitted {
        let gained = i128::from(at_us) * gain;
        lowest = lowest.min(sum - gained);
        sum += i128::from(cost) * unit;
        worst = worst.max(sum - gained - lowest - i128::from(quota.full()));
    }
    u64::try_from((worst + unit - 1) / unit).unwrap_or(u64::MAX)
}

fn excess_in_windows(quota: &Quota, admitted: &[(u64, u64)]) -> u64 {
    let window = |at_us: u64| at_us / quota.fill_time_us();
    let windows = admitted.chunk_by(|a, b| window(a.0) == window(b.0));
    let sums = windows.map(|ops| ops.iter().map(|(_, cost)| cost).sum::<u64>());
    sums.map(|sum| sum.saturating_sub(quota.capacity()))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// The law as it is written: every pair of instants.
    fn naive(quota: &Quota, admitted: &[(u64, u64)]) -> u64 {
        let mut worst = 0;
        for (i, (from, _)) in admitted.iter().enumerate() {
            for (to, _) in &admitted[i..] {
                let between = admitted.iter().filter(|(at, _)| from <= at && at <= to);
                let sum: u64 = between.map(|(_, cost)| cost * quota.unit()).sum();
                let excess = sum.saturating_sub(quota.full() + (to - from) * quota.gain());
                worst = worst.max(excess.div_ceil(quota.unit()));
            }
        }
        worst
    }

    proptest! {
        #[test]
        fn what_is_surely_above_is_what_the_naive_check_finds(
            capacity in 1_u64..10, tokens in 1_u64..10, period in 1_u64..50,
            spans in proptest::collection::vec((0_u64..200, 0_u64..20, 1_u64..5), 0..30)
        ) {
            let quota = Quota::new(capacity, tokens, Duration::from_micros(period)).unwrap();
            let op = |&(from, lasts, cost): &(u64, u64, u64)| Op {
                key: 0, cost, invoked_us: from, returned_us: from + lasts, now_us: from, admitted: true,
                remaining: 0, retry_after_us: 0, reset_after_us: 0, alone: true,
            };
            let ops: Vec<Op> = spans.iter().map(op).collect();
            let mut worst = 0;
            for from in ops.iter().map(|op| op.invoked_us) {
                for to in ops.iter().map(|op| op.returned_us).filter(|to| *to >= from) {
                    let within = ops.iter().filter(|op| from <= op.invoked_us && op.returned_us <= to);
                    let sum: u64 = within.map(|op| op.cost * quota.unit()).sum();
                    worst = worst.max(sum.saturating_sub(quota.full() + (to - from) * quota.gain()).div_ceil(quota.unit()));
                }
            }
            prop_assert_eq!(sure_excess(&quota, &ops), worst);
        }

        #[test]
        fn the_fast_check_finds_what_the_naive_one_finds(
            capacity in 1_u64..10, tokens in 1_u64..10, period in 1_u64..50,
            mut admitted in proptest::collection::vec((0_u64..200, 1_u64..5), 0..30)
        ) {
            let quota = Quota::new(capacity, tokens, Duration::from_micros(period)).unwrap();
            admitted.sort_unstable();
            prop_assert_eq!(excess_between(&quota, &admitted), naive(&quota, &admitted));
        }
    }
}
