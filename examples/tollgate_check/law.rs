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
