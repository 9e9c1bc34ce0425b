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
    let step = TokenBucket.step(quota, settled, now_us, cost);
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
