//! Whether one limit leaves another nothing to deny.

use crate::domain::{Limit, OnStoreError};
use crate::limiter::rules_file::limit::is_windowed;
use crate::limiter::{Absent, Limiting, Part};

/// Whether whatever passes `tight` passes `loose` too, if both count the same requests: `loose` never denies anything
/// that `tight` does not.
///
/// A bucket, and a sliding window, let pass at most `burst + rate * t` in any time `t` (docs/exactness.md), a fixed window
/// up to twice its count around a boundary. A bucket is outdone by what has no more of either; a window by what lets
/// pass no more than its count in its own length.
pub(super) fn outdoes(tight: &Limit, loose: &Limit) -> bool {
    let same_window = is_windowed(tight.algorithm)
        && tight.algorithm.name() == loose.algorithm.name()
        && tight.quota.fill_time_us() == loose.quota.fill_time_us();
    let most = Envelope::of(tight);
    let capacity = u128::from(loose.quota.capacity());
    if same_window {
        tight.quota.capacity() <= loose.quota.capacity()
    } else if is_windowed(loose.algorithm) {
        let window = u128::from(loose.quota.fill_time_us());
        (most.burst * most.per) + most.tokens * window <= capacity * most.per
    } else {
        let (gain, unit) = (
            u128::from(loose.quota.gain()),
            u128::from(loose.quota.unit()),
        );
        most.burst <= capacity && most.tokens * unit <= gain * most.per
    }
}

/// The most that passes in a time `t`: `burst + tokens / per * t`, in microseconds.
struct Envelope {
    burst: u128,
    tokens: u128,
    per: u128,
}

impl Envelope {
    fn of(limit: &Limit) -> Self {
        let quota = &limit.quota;
        let capacity = u128::from(quota.capacity());
        let window = u128::from(quota.fill_time_us());
        match limit.algorithm.name() {
            "slidingwindow" => Self {
                burst: capacity,
                tokens: capacity,
                per: window,
            },
            "fixedwindow" => Self {
                burst: 2 * capacity,
                tokens: capacity,
                per: window,
            },
            _ => Self {
                burst: capacity,
                tokens: quota.gain().into(),
                per: quota.unit().into(),
            },
        }
    }
}

/// The same of two rules that are for the same requests: `tight` counts them in buckets of at least the same requests,
/// each for at least the same cost.
pub(super) fn outdoes_rule(tight: &Limiting, loose: &Limiting) -> bool {
    let least = tight.cost.cases.iter().map(|(_, cost)| *cost);
    let least = least.fold(tight.cost.otherwise, Ord::min);
    let costs = tight.cost == loose.cost || least >= loose.cost.most();
    let for_nobody_else = tight.overrides.by_key.is_empty() && tight.overrides.by_plan.is_empty();
    // What happens while the store fails is another question: a rule may be there for that.
    let in_outages =
        tight.on_store_error == loose.on_store_error || loose.on_store_error == OnStoreError::Allow;
    costs
        && for_nobody_else
        && in_outages
        && counts_wider(tight, loose)
        && limits(loose).all(|limit| outdoes(&tight.limit, limit))
}

/// Whether requests in one bucket of `narrow` are in one bucket of `wide`.
fn counts_wider(wide: &Limiting, narrow: &Limiting) -> bool {
    let mut parts = wide.key.iter();
    let may_lack = |part: &Part| part.is_secret() || matches!(part, Part::Host);
    let skips = wide.absent == Absent::Skip
        && narrow.absent != Absent::Skip
        && wide.key.iter().any(may_lack);
    !skips && parts.all(|part| matches!(part, Part::Constant(_)) || narrow.key.contains(part))
}

/// Every limit of a rule: its own, and those of its overrides.
pub(super) fn limits(limiting: &Limiting) -> impl Iterator<Item = &Limit> {
    let overrides = &limiting.overrides;
    let others = overrides.by_key.values().chain(overrides.by_plan.values());
    std::iter::once(&limiting.limit).chain(others)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::limit::parse;
    use super::*;
    use crate::algorithm::{ALL, Algorithm, Remembered};
    use crate::domain::{Cost, Quota};

    fn limit(algorithm: usize, text: &str, burst: Option<u64>) -> Limit {
        let rate = parse(text).unwrap();
        let algorithm = ALL[algorithm];
        let burst = burst
            .filter(|_| !is_windowed(algorithm))
            .unwrap_or(rate.tokens);
        let quota = Quota::new(burst, rate.tokens, rate.period).unwrap();
        Limit { algorithm, quota }
    }

    #[test]
    fn five_a_minute_outdoes_a_thousand_an_hour_and_two_tiers_do_not() {
        for (tight, loose, expected) in [
            ("5/min", "1000/hour", true),
            ("1000/hour", "5/min", false),
            ("10/s", "1000/hour", false),
            ("1000/hour", "10/s", false),
            ("5/min", "5/min", true),
        ] {
            for algorithm in 0..ALL.len() {
                let (tight, loose) = (limit(algorithm, tight, None), limit(algorithm, loose, None));
                assert_eq!(outdoes(&tight, &loose), expected, "{tight:?} {loose:?}");
            }
        }
    }

    /// What one limit says of requests at these times, if only those that both let pass are charged.
    struct Counting<'a>(&'a Limit, Remembered);

    impl Counting<'_> {
        fn step(&self, now_us: u64) -> Option<Remembered> {
            let algorithm: &dyn Algorithm = self.0.algorithm;
            let step = algorithm.step(&self.0.quota, &self.1, now_us, Cost::MIN);
            step.outcome
                .ok()
                .map(|taken| Remembered::State(taken.kept.state))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn what_is_outdone_never_denies(
            (tight_is, loose_is) in (0..ALL.len(), 0..ALL.len()),
            (tight, loose) in ("[1-9]/[1-4]s", "[1-9][0-9]?/[1-9]s"),
            burst in proptest::option::of(1_u64..20),
            waits in proptest::collection::vec(0_u64..1_500_000, 1..200),
        ) {
            let (tight, loose) = (limit(tight_is, &tight, burst), limit(loose_is, &loose, burst));
            if outdoes(&tight, &loose) {
                let mut pair = (Counting(&tight, Remembered::Nothing), Counting(&loose, Remembered::Nothing));
                let mut now_us = 1_000_000_000_000;
                for wait in waits {
                    now_us += wait;
                    let (by_tight, by_loose) = (pair.0.step(now_us), pair.1.step(now_us));
                    if let Some(by_tight) = by_tight {
                        prop_assert!(by_loose.is_some(), "{tight:?} {loose:?} at {now_us}");
                        (pair.0.1, pair.1.1) = (by_tight, by_loose.unwrap());
                    }
                }
            }
        }
    }
}
