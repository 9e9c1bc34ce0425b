//! How a limit decides: pure functions of what was remembered, the time and the cost.
//!
//! Each algorithm is two files that compute the same integers: `name.rs` for the strategies that decide in this
//! process and `name.lua`, its twin, for the script that decides inside Redis.

mod bucket;
mod fixed_window;
mod gcra;
mod judge;
#[cfg(test)]
mod laws;
mod lease;
mod sliding_window;
mod state;
mod token_bucket;
mod window;

use std::fmt;

use crate::domain::{Cost, Quota};

pub use fixed_window::FixedWindow;
pub use gcra::Gcra;
pub use judge::{Intent, Judgement, Write, judge, judge_one};
pub(crate) use lease::percent;
pub use lease::{LeaseAsk, Lending, lend};
pub use sliding_window::SlidingWindow;
pub use state::{MAX_FIELDS, State};
pub use token_bucket::TokenBucket;

/// Every algorithm.
pub const ALL: &[&dyn Algorithm] = &[&TokenBucket, &Gcra, &SlidingWindow, &FixedWindow];

/// The Lua twins of [`ALL`], one after the other: the head of the script that runs inside Redis.
///
/// Each algorithm is a chunk that sets `algorithms.<name>` to a table of functions, these among them:
///
/// | function | takes | returns |
/// | --- | --- | --- |
/// | `read(key)` | the key of a record | its fields as a table of strings, or a table with `err` |
/// | `step(record, now, cost, capacity, gain, unit)` | those fields, microseconds, tokens, the [`Quota`] | `retry_after` (0 if the cost is taken); how the bucket stands then: `remaining, reset_after, next_after`; `notice`; if it is taken also `fresh_at` and the new fields |
/// | `write(key, record, ...)` | the fields as they were read; the new ones, of which those that differ are written | what HSET replies, or a table with `err` |
/// | `credit(record, now, charged_at, tokens, capacity, gain, unit)` | the same, the time of the charge | `fresh_at`, the new fields; nothing if there is nothing to credit |
pub const LUA: &str = concat!(
    include_str!("bucket.lua"),
    include_str!("window.lua"),
    "makers.tokenbucket = function()\n",
    include_str!("token_bucket.lua"),
    "end\nmakers.gcra = function()\n",
    include_str!("gcra.lua"),
    "end\nmakers.slidingwindow = function()\n",
    include_str!("sliding_window.lua"),
    "end\nmakers.fixedwindow = function()\n",
    include_str!("fixed_window.lua"),
    "end\n",
);

/// The algorithm of that name.
pub fn named(name: &str) -> Option<&'static dyn Algorithm> {
    ALL.iter()
        .copied()
        .find(|algorithm| algorithm.name() == name)
}

/// Decides one charge from what was remembered of its key: a pure function.
pub trait Algorithm: Send + Sync + fmt::Debug {
    /// The word by which it is chosen, such as `tokenbucket`.
    fn name(&self) -> &'static str;

    /// The names of the integers that it remembers, at most [`MAX_FIELDS`], in the order of a [`State`].
    fn fields(&self) -> &'static [&'static str];

    /// The names of those that a record may lack, behind [`fields`](Self::fields); then they are 0. No step changes them.
    fn optional_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// What happens if `cost` tokens are asked for at `now_us` (microseconds since 1970).
    ///
    /// `None` and a state that is not this algorithm's are a fresh record. `cost` is at most the capacity.
    fn step(&self, quota: &Quota, remembered: &Remembered, now_us: u64, cost: Cost) -> Step;

    /// How the record stands at `now_us` with nothing charged.
    fn standing(&self, quota: &Quota, remembered: &Remembered, now_us: u64) -> Standing;

    /// Credits `tokens` that were charged at `charged_at_us` to the record that was charged, never above the capacity.
    ///
    /// `None` when there is nothing to credit: the record is not this algorithm's, or what was charged is forgotten.
    fn credit(
        &self,
        quota: &Quota,
        state: State,
        now_us: u64,
        charged_at_us: u64,
        tokens: Cost,
    ) -> Option<Kept>;
}

/// What the store held under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing: a fresh record.
    Nothing,
    /// Something that is not ours, such as a record of another limiter: counts as fresh and is replaced.
    Foreign,
    /// The integers that an algorithm left behind.
    State(State),
}

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whole tokens left. At most the capacity.
    pub remaining: u64,
    /// Microseconds until it equals a fresh record if nobody takes tokens.
    pub reset_after_us: u64,
    /// Microseconds until `remaining` is one more; 0 when the record is as good as fresh.
    pub next_after_us: u64,
}

/// What one charge does to one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What charging does, or why it cannot.
    pub outcome: Result<Taken, Refused>,
    /// Something an operator should hear of once.
    pub notice: Option<Notice>,
}

/// A record to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What to remember.
    pub state: State,
    /// When the record will equal a fresh one and may be forgotten, in microseconds since 1970.
    pub fresh_at_us: u64,
}

/// The record after the cost was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// What to remember.
    pub kept: Kept,
    /// How the record then stands.
    pub after: Standing,
}

/// The cost does not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Shortest wait after which the same cost fits if nobody takes tokens meanwhile, in microseconds. At least 1.
    pub retry_after_us: u64,
    /// How the record stands, of which nothing was taken.
    pub before: Standing,
}

/// What an operator should hear of once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The key held a record that is not ours; it counts as fresh.
    ForeignRecord,
    /// The record is from a time more than [`CLOCK_TOLERANCE_US`] ahead of the store's clock: the clock stepped
    /// back, and the record stands still until the clock is past it again.
    ClockBehind,
}

/// Longest time for which tokens of a record may be lent, in microseconds: 1 minute. A record that says more is believed
/// to lend nothing.
pub const LONGEST_LEASE_US: u64 = 60_000_000;

/// How far a clock may step back without a [`Notice`], in microseconds: 1 s.
pub const CLOCK_TOLERANCE_US: u64 = 1_000_000;

/// Latest time that a record may carry, in microseconds since 1970: 2^52, in the year 2112. With the longest fill time
/// on top it stays below 2^53.
pub const LATEST_US: u64 = 1 << 52;

impl Notice {
    /// The number by which the Lua twins name it; 0 is none.
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::ForeignRecord),
            2 => Some(Self::ClockBehind),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_has_a_lua_twin_and_fits_a_state() {
        for algorithm in ALL {
            for table in ["makers", "algorithms"] {
                assert!(
                    LUA.contains(&format!("{table}.{} = ", algorithm.name())),
                    "{algorithm:?}"
                );
            }
            assert!(
                (1..=MAX_FIELDS)
                    .contains(&(algorithm.fields().len() + algorithm.optional_fields().len())),
                "{algorithm:?}"
            );
            assert_eq!(
                named(algorithm.name()).map(Algorithm::name),
                Some(algorithm.name())
            );
        }
    }
}
