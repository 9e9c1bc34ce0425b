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
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::smallvec;

use super::{Deciding, Fault, Strategy};
use crate::algorithm::{Algorithm, Intent, LeaseAsk, TokenBucket, percent};
use crate::domain::{Charge, Clock, Decision, Key, Limit, Outcome, Receipt, Source, Verdict};

/// How long a lease lasts, in microseconds, where no other of the same key says when it ends.
pub const PERIOD_US: u64 = 1_000_000;
/// Fewest tokens that are taken ahead; so many a period make a key hot.
const LEAST: u64 = 8;
/// How long a key is asked for exactly after nothing was lent, in microseconds.
const REST_US: u64 = PERIOD_US / 10;
/// A lease ends here by this part of its time earlier than there: two clocks never run alike.
const CLOCK_MARGIN: u64 = 100;
/// Most keys whose demand is known; those of more ask exactly.
const MOST_KEYS: usize = 65_536;
const SHARDS: usize = 64;
/// How often a full shard is looked through for keys that are cold, in microseconds.
const SWEEP_EVERY_US: u64 = PERIOD_US;

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
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    tickets: AtomicU64,
}

/// The keys of one lock.
#[derive(Debug, Default)]
struct Shard {
    purses: HashTable<Purse>,
    swept_us: u64,
}

/// What is known of one key here.
#[derive(Debug)]
struct Purse {
    key: Key,
    limit: Limit,
    demand: Demand,
    held: Option<Held>,
    /// The command under way, if any.
    ticket: Option<u64>,
    /// When something may be borrowed again.
    rests_until_us: u64,
}

/// A lease.
#[derive(Debug, Clone, Copy)]
struct Held {
    epoch_us: u64,
    /// When it ends, on this instance's clock.
    until_us: u64,
    left: u64,
    /// Since the last report.
    spent: u64,
    /// When it was told, on this instance's clock and on the store's.
    told_us: u64,
    store_us: u64,
    /// What the store had besides.
    besides: u64,
}

/// Tokens that were asked for.
#[derive(Debug, Default)]
struct Demand {
    since_us: u64,
    asked: u64,
    before: u64,
}

impl Demand {
    /// Counts tokens; tells how many a period may need.
    fn count(&mut self, tokens: u64, now_us: u64) -> u64 {
        let elapsed_us = now_us.saturating_sub(self.since_us);
        if elapsed_us >= PERIOD_US {
            self.before = if elapsed_us < 2 * PERIOD_US {
                self.asked
            } else {
                0
            };
            (self.since_us, self.asked) = (now_us, 0);
        }
        self.asked = self.asked.saturating_add(tokens);
        self.asked.max(self.before)
    }
}

/// What becomes of a request.
enum Way {
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
        hasher: RandomState,
    ) -> Self {
        Self {
            inner,
            lender,
            clock,
            share,
            hasher,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tickets: AtomicU64::new(0),
        }
    }

    fn way(&self, charge: &Charge) -> Way {
        let limit = charge.limit();
        let is_lent_from = limit.algorithm.name() == TokenBucket.name()
            && percent(limit.quota.capacity(), self.share) >= LEAST;
        if !is_lent_from {
            return Way::Exact;
        }
        let hash = self.hasher.hash_one(charge.key());
        let mut shard = self.shard(hash);
        let now_us = self.clock.now_us();
        let Some(purse) = shard.purse(hash, charge, now_us, &self.hasher) else {
            return Way::Exact;
        };
        let wanted = purse.demand.count(charge.cost().get(), now_us);
        if let Some(verdict) = purse.pay(charge, now_us) {
            return Way::Paid(verdict);
        }
        if wanted < LEAST || purse.ticket.is_some() || now_us < purse.rests_until_us {
            return Way::Exact;
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        purse.ticket = Some(ticket);
        purse.limit = limit;
        let (epoch_us, spent, returned) = purse.held.take().map_or((0, 0, 0), |held| {
            // What has ended here was neither spent since nor may come back: the store will drop it.
            let returned = if now_us < held.until_us { held.left } else { 0 };
            (held.epoch_us, held.spent, returned)
        });
        let ask = LeaseAsk {
            epoch_us,
            spent,
            returned,
            wanted,
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

    /// Lets somebody change what is known of a key, if anything is.
    fn change<T>(&self, key: &Key, change: impl FnOnce(&mut Purse) -> T) -> Option<T> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        shard
            .purses
            .find_mut(hash, |purse| purse.key == *key)
            .map(change)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table within takes the lowest and the highest bits.
        let place = (hash >> 32) % SHARDS as u64;
        let place = usize::try_from(place).expect("below the number of shards");
        self.shards[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// The purse of a key; `None` when there is no room for a new one.
    fn purse(
        &mut self,
        hash: u64,
        charge: &Charge,
        now_us: u64,
        hasher: &RandomState,
    ) -> Option<&mut Purse> {
        let is_of = |purse: &Purse| purse.key == *charge.key();
        let room = MOST_KEYS / SHARDS;
        if self.purses.len() >= room {
            if now_us >= self.swept_us.saturating_add(SWEEP_EVERY_US) {
                self.swept_us = now_us;
                self.purses.retain(|purse| !purse.is_idle(now_us));
            }
            if self.purses.len() >= room {
                return self.purses.find_mut(hash, is_of);
            }
        }
        let rehash = |purse: &Purse| hasher.hash_one(&purse.key);
        Some(match self.purses.entry(hash, is_of, rehash) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Purse::of(charge, now_us)).into_mut(),
        })
    }
}

impl Purse {
    fn of(charge: &Charge, now_us: u64) -> Self {
        Self {
            key: charge.key().clone(),
            limit: charge.limit(),
            demand: Demand {
                since_us: now_us,
                ..Demand::default()
            },
            held: None,
            ticket: None,
            rests_until_us: 0,
        }
    }

    /// Pays of the lease, if that still runs and holds enough.
    fn pay(&mut self, charge: &Charge, now_us: u64) -> Option<Verdict> {
        let cost = charge.cost().get();
        let held = self.held.as_mut().filter(|held| {
            now_us < held.until_us && cost <= held.left && self.limit == charge.limit()
        })?;
        held.left -= cost;
        held.spent += cost;
        let quota = self.limit.quota;
        let remaining = held.besides.saturating_add(held.left).min(quota.capacity());
        let gained = |tokens: u64| {
            Duration::from_micros(tokens.saturating_mul(quota.unit()).div_ceil(quota.gain()))
        };
        let elapsed_us = now_us.saturating_sub(held.told_us);
        Some(Verdict {
            decisions: smallvec![Decision {
                outcome: Outcome::Allowed,
                limit: quota.capacity(),
                remaining,
                reset_after: gained(quota.capacity() - remaining),
                next_after: gained(1),
                source: Source::Lease,
            }],
            admitted: true,
            now_us: held.store_us.saturating_add(elapsed_us),
        })
    }

    /// Whether forgetting it loses nothing.
    fn is_idle(&self, now_us: u64) -> bool {
        let is_cold = now_us.saturating_sub(self.demand.since_us) >= 2 * PERIOD_US;
        let holds = self.held.is_some_and(|held| now_us < held.until_us);
        is_cold && !holds && self.ticket.is_none()
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
        let lasts_us = lent.lasts_us - lent.lasts_us.div_ceil(CLOCK_MARGIN);
        self.change(|purse| {
            if lent.granted == 0 {
                purse.rests_until_us = told_us.saturating_add(REST_US);
                return;
            }
            purse.held = Some(Held {
                epoch_us: lent.until_us,
                until_us: sent_us.saturating_add(lasts_us),
                left: lent.granted,
                spent: 0,
                told_us,
                store_us: lent.now_us,
                besides: lent.remaining.saturating_sub(lent.granted),
            });
        });
    }

    /// Nothing is changed of a purse that was made anew since: the lease is of what was reset.
    fn change(&self, change: impl FnOnce(&mut Purse)) {
        self.lease.change(self.key, |purse| {
            if purse.ticket == Some(self.ticket) {
                change(purse);
            }
        });
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.change(|purse| purse.ticket = None);
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
        let [charge] = charges else {
            return self.inner.ask(charges, intent);
        };
        if !charge.is_enforced() || intent != Intent::Charge {
            return self.inner.ask(charges, intent);
        }
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

    /// What was paid of a lease goes back to the store too: the lease may be over.
    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.inner.give_back(receipts)
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        if let Ok(known) = shard.purses.find_entry(hash, |purse| purse.key == *key) {
            known.remove();
        }
        drop(shard);
        self.inner.reset(key)
    }
}

#[cfg(test)]
mod tests;
