//! `lease`: the atomic script, and tokens of hot keys that an instance takes ahead and spends by itself.
//!
//! A key that is asked for often is charged, now and then, by a command that takes tokens ahead with the charge
//! (`algorithm/lease.rs` has the law of it). Until these are spent or the lease ends, requests with that key alone are
//! answered here. All others ask exactly: those of cold keys and of limits too small to lend from, those with several
//! charges, those of other algorithms, and whoever comes while a command is under way.
//!
//! A lease is spent only before its end, counted on this instance's clock from before the command was sent, so the store
//! never believes it over while it is still spent here. A lease whose reply was lost is never spent. A command settles
//! with the store all that was spent and what is left; what is neither spent nor settled when the lease ends is lost.
//!
//! How much is taken follows demand: as many tokens as were asked for in this period or the last, so it doubles while a
//! key grows hot and is what a period needs after that.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::smallvec;

use super::{Deciding, Fault, Strategy};
use crate::algorithm::{Algorithm, Intent, LeaseAsk, TokenBucket, percent};
use crate::domain::{Charge, Clock, Decision, Key, Outcome, Receipt, Source, Verdict};

mod purse;
#[cfg(test)]
mod tests;

use purse::{Purse, Purses};

/// How long a lease lasts, in microseconds, where no other of the same key says when it ends.
pub const PERIOD_US: u64 = 1_000_000;
/// Fewest tokens that are taken ahead; so many a period make a key hot.
const LEAST: u64 = 8;

/// What the store lends, and its decision on the charge that was sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lent {
    /// The store's time.
    pub now_us: u64,
    /// 0 when the charge was allowed.
    pub retry_after_us: u64,
    /// How the bucket stands with that charge, as if nothing were lent with it.
    pub remaining: u64,
    /// The same.
    pub reset_after_us: u64,
    /// The same.
    pub next_after_us: u64,
    /// Tokens taken ahead.
    pub granted: u64,
    /// When they end, on the store's clock.
    pub until_us: u64,
    /// How long that is from now.
    pub lasts_us: u64,
}

/// A store that lends.
pub trait Lends: Send + Sync + fmt::Debug {
    /// Settles what `ask` reports, charges, and lends if the charge fits.
    ///
    /// # Errors
    ///
    /// A [`Fault`]; after an ambiguous one it may have been charged and lent.
    fn lend<'a>(&'a self, charge: &'a Charge, ask: LeaseAsk) -> Deciding<'a, Lent>;
}

/// Spends what was taken ahead, and asks `inner` for all else.
#[derive(Debug)]
pub struct Lease {
    inner: Arc<dyn Strategy>,
    lender: Arc<dyn Lends>,
    clock: Arc<dyn Clock>,
    /// In percent.
    share: u64,
    purses: Purses,
    tickets: AtomicU64,
}

/// What becomes of a request that no lease paid for at once.
enum Way {
    /// By a lease that came meanwhile.
    Paid(Verdict),
    Borrow(LeaseAsk, u64),
    Exact,
}

impl Lease {
    /// Spends what `lender` lends, at most `share` percent of what is left, on `clock`, which should never step back;
    /// asks `inner`, which is the same store, for all else.
    pub fn new(
        inner: Arc<dyn Strategy>,
        lender: Arc<dyn Lends>,
        clock: Arc<dyn Clock>,
        share: u64,
        hasher: &RandomState,
    ) -> Self {
        Self {
            inner,
            lender,
            clock,
            share,
            purses: Purses::new(hasher),
            tickets: AtomicU64::new(0),
        }
    }

    /// The charge of a request that a lease can pay for.
    fn payable<'a>(&self, charges: &'a [Charge], intent: Intent) -> Option<&'a Charge> {
        let [charge] = charges else { return None };
        let limit = charge.limit();
        let is_payable = charge.is_enforced()
            && intent == Intent::Charge
            && limit.algorithm.name() == TokenBucket.name()
            && percent(limit.quota.capacity(), self.share) >= LEAST;
        is_payable.then_some(charge)
    }

    fn way(&self, charge: &Charge) -> Way {
        let act = |purse: &mut Purse, now_us| self.way_with(purse, charge, now_us);
        let way = self.purses.open(charge, &*self.clock, act);
        way.unwrap_or(Way::Exact)
    }

    fn way_with(&self, purse: &mut Purse, charge: &Charge, now_us: u64) -> Way {
        if let Some(verdict) = purse.pay(charge, now_us) {
            return Way::Paid(verdict);
        }
        if !purse.would_borrow(now_us) {
            return Way::Exact;
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let settled = purse.borrow(charge, ticket, now_us);
        let ask = LeaseAsk {
            epoch_us: settled.epoch_us,
            spent: settled.spent,
            returned: settled.left,
            wanted: purse.wanted(),
            least: LEAST,
            share: self.share,
            period_us: PERIOD_US,
        };
        Way::Borrow(ask, ticket)
    }

    async fn borrow(
        &self,
        charge: &Charge,
        ask: LeaseAsk,
        under_way: UnderWay<'_>,
    ) -> Result<Verdict, Fault> {
        let sent_us = self.clock.now_us();
        let lent = self.lender.lend(charge, ask).await?;
        under_way.ended(&lent, sent_us);
        Ok(verdict(charge, &lent))
    }
}

/// A command under way; when it is dropped without a reply, whatever was lent is not spent.
struct UnderWay<'a> {
    lease: &'a Lease,
    key: &'a Key,
    ticket: u64,
}

impl UnderWay<'_> {
    fn ended(&self, lent: &Lent, sent_us: u64) {
        let told_us = self.lease.clock.now_us();
        self.change(|purse| purse.receive(lent, sent_us, told_us));
    }

    /// Nothing is changed of a purse that was made anew since: the lease is of what was reset.
    fn change(&self, change: impl FnOnce(&mut Purse)) {
        self.lease.purses.change(self.key, |purse| {
            if purse.awaits(self.ticket) {
                change(purse);
            }
        });
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.change(Purse::end);
    }
}

fn verdict(charge: &Charge, lent: &Lent) -> Verdict {
    let outcome = match lent.retry_after_us {
        0 => Outcome::Allowed,
        wait => Outcome::Denied {
            retry_after: Duration::from_micros(wait),
        },
    };
    let decision = Decision {
        outcome,
        limit: charge.limit().quota.capacity(),
        remaining: lent.remaining,
        reset_after: Duration::from_micros(lent.reset_after_us),
        next_after: Duration::from_micros(lent.next_after_us),
        source: Source::Store,
    };
    Verdict {
        admitted: decision.is_allowed(),
        decisions: smallvec![decision],
        now_us: lent.now_us,
    }
}

impl Strategy for Lease {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let Some(charge) = self.payable(charges, intent) else {
            return self.inner.ask(charges, intent);
        };
        match self.way(charge) {
            Way::Paid(verdict) => Deciding::ready(Ok(verdict)),
            Way::Borrow(ask, ticket) => {
                // Made before anything is waited for: whoever drops the future at once has borrowed nothing either.
                let under_way = UnderWay {
                    lease: self,
                    key: charge.key(),
                    ticket,
                };
                Deciding::waiting(self.borrow(charge, ask, under_way))
            }
            Way::Exact => self.inner.ask(charges, intent),
        }
    }

    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        let Some(charge) = self.payable(charges, intent) else {
            return self.inner.ask_at_once(charges, intent);
        };
        let act = |purse: &mut Purse, now_us| {
            purse.count(charge, now_us);
            (purse.pay(charge, now_us), purse.would_borrow(now_us))
        };
        match self.purses.open(charge, &*self.clock, act) {
            Some((Some(verdict), _)) => Some(Ok(verdict)),
            Some((None, true)) => None,
            _ => self.inner.ask_at_once(charges, intent),
        }
    }

    /// What was paid of a lease goes back to the store too: the lease may be over.
    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.inner.give_back(receipts)
    }

    /// Before, so that no lease of the old record is spent; and after, for one may have been lent meanwhile.
    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.purses.forget(key);
        Deciding::waiting(async move {
            let answer = self.inner.reset(key).await;
            self.purses.forget(key);
            answer
        })
    }
}
