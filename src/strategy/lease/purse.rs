//! What an instance knows of the keys that it is asked for: how often, and what it took ahead of them.

use std::hash::RandomState;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::smallvec;

use super::{LEAST, Lent, PERIOD_US};
use crate::domain::{Charge, Clock, Decision, Key, Limit, Outcome, Source, Verdict};
use crate::strategy::tag::{Tag, Tagger};

/// Most keys that are known; others are asked exactly.
pub(super) const MOST_KEYS: usize = 65_536;
const SHARDS: usize = 64;
/// How often a full shard is looked through for keys that are cold, in microseconds.
const SWEEP_EVERY_US: u64 = PERIOD_US;
/// How long a key is asked for exactly after nothing was lent, in microseconds: so long, or until the charge that was
/// denied with it would fit, but no longer than a period.
const REST_US: u64 = PERIOD_US / 10;
/// A lease ends here by this part of its time earlier than there: two clocks never run alike.
const CLOCK_MARGIN: u64 = 100;

/// The purses of all keys, behind a few locks.
#[derive(Debug)]
pub(super) struct Purses {
    tagger: Tagger,
    shards: Box<[Mutex<Shard>]>,
}

/// The keys of one lock.
#[derive(Debug, Default)]
struct Shard {
    purses: HashTable<Purse>,
    swept_us: u64,
}

/// What is known of one key.
#[derive(Debug)]
pub(super) struct Purse {
    tag: Tag,
    limit: Limit,
    demand: Demand,
    held: Option<Held>,
    /// The command under way, if any.
    ticket: Option<u64>,
    /// When something may be borrowed again.
    rests_until_us: u64,
}

/// A lease.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// When it ends, on the store's clock.
    pub(super) epoch_us: u64,
    /// The same on this instance's.
    until_us: u64,
    pub(super) left: u64,
    pub(super) spent: u64,
    /// When it was told, on this instance's clock and on the store's.
    told_us: u64,
    store_us: u64,
    /// What the store had besides.
    besides: u64,
}

/// Tokens that were asked for.
#[derive(Debug)]
struct Demand {
    since_us: u64,
    asked: u64,
    before: u64,
}

impl Purses {
    /// Of no key yet; `hasher` spreads them, so that nobody can choose colliding ones.
    pub(super) fn new(hasher: &RandomState) -> Self {
        Self {
            tagger: Tagger::new(hasher),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Lets somebody act on the purse of a charge's key, a new one if there is none; `None` when there is no room for it.
    pub(super) fn open<T>(
        &self,
        charge: &Charge,
        clock: &dyn Clock,
        act: impl FnOnce(&mut Purse, u64) -> T,
    ) -> Option<T> {
        let (mut shard, tag) = self.shard(charge.key());
        // Read under the lock: nothing is spent by a time from before somebody else's turn.
        let now_us = clock.now_us();
        let purse = shard.purse(tag, charge, now_us)?;
        Some(act(purse, now_us))
    }

    /// Lets somebody change the purse of a key, if there is one.
    pub(super) fn change(&self, key: &Key, change: impl FnOnce(&mut Purse)) {
        let (mut shard, tag) = self.shard(key);
        if let Some(purse) = shard.purses.find_mut(tag.hash(), |purse| purse.tag == tag) {
            change(purse);
        }
    }

    /// Forgets a key, and what is held of it.
    pub(super) fn forget(&self, key: &Key) {
        let (mut shard, tag) = self.shard(key);
        let known = shard
            .purses
            .find_entry(tag.hash(), |purse| purse.tag == tag);
        if let Ok(known) = known {
            known.remove();
        }
    }

    /// How many keys are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).purses.len()).sum()
    }

    fn shard(&self, key: &Key) -> (MutexGuard<'_, Shard>, Tag) {
        let tag = self.tagger.tag(key);
        (lock(&self.shards[tag.spread(SHARDS)]), tag)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// The purse of a key; `None` when there is no room for a new one.
    fn purse(&mut self, tag: Tag, charge: &Charge, now_us: u64) -> Option<&mut Purse> {
        let is_of = |purse: &Purse| purse.tag == tag;
        let room = MOST_KEYS / SHARDS;
        if self.purses.len() >= room {
            if now_us >= self.swept_us.saturating_add(SWEEP_EVERY_US) {
                self.swept_us = now_us;
                self.purses.retain(|purse| !purse.is_idle(now_us));
            }
            if self.purses.len() >= room {
                return self.purses.find_mut(tag.hash(), is_of);
            }
        }
        let hash_of = |purse: &Purse| purse.tag.hash();
        Some(match self.purses.entry(tag.hash(), is_of, hash_of) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Purse::of(tag, charge, now_us)).into_mut(),
        })
    }
}

impl Purse {
    fn of(tag: Tag, charge: &Charge, now_us: u64) -> Self {
        Self {
            tag,
            limit: charge.limit(),
            demand: Demand {
                since_us: now_us,
                asked: 0,
                before: 0,
            },
            held: None,
            ticket: None,
            rests_until_us: 0,
        }
    }

    /// Counts what is asked for.
    pub(super) fn count(&mut self, charge: &Charge, now_us: u64) {
        self.demand.count(charge.cost().get(), now_us);
    }

    /// How many tokens a period may need.
    pub(super) fn wanted(&self) -> u64 {
        self.demand.asked.max(self.demand.before)
    }

    /// Whether the key is hot, nobody borrows just now, and something may be lent.
    pub(super) fn would_borrow(&self, now_us: u64) -> bool {
        self.wanted() >= LEAST && self.ticket.is_none() && self.rests_until_us <= now_us
    }

    /// Begins a command with that ticket, for that charge; tells what it settles. What has ended is not left: the store
    /// will drop it.
    pub(super) fn borrow(&mut self, charge: &Charge, ticket: u64, now_us: u64) -> Held {
        self.ticket = Some(ticket);
        self.limit = charge.limit();
        let mut settled = self.held.take().unwrap_or_default();
        if settled.until_us <= now_us {
            settled.left = 0;
        }
        settled
    }

    /// Whether the command with that ticket is the one under way.
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.ticket == Some(ticket)
    }

    /// Takes what a command brought that was sent and answered at these times.
    pub(super) fn receive(&mut self, lent: &Lent, sent_us: u64, told_us: u64) {
        if lent.granted == 0 {
            let rest_us = lent.retry_after_us.clamp(REST_US, PERIOD_US);
            self.rests_until_us = told_us.saturating_add(rest_us);
            return;
        }
        let lasts_us = lent.lasts_us - lent.lasts_us.div_ceil(CLOCK_MARGIN);
        self.held = Some(Held {
            epoch_us: lent.until_us,
            until_us: sent_us.saturating_add(lasts_us),
            left: lent.granted,
            spent: 0,
            told_us,
            store_us: lent.now_us,
            besides: lent.remaining.saturating_sub(lent.granted),
        });
    }

    /// The command is over, whatever came of it.
    pub(super) fn end(&mut self) {
        self.ticket = None;
    }

    /// Pays of the lease, if that still runs and holds enough.
    pub(super) fn pay(&mut self, charge: &Charge, now_us: u64) -> Option<Verdict> {
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

impl Demand {
    fn count(&mut self, tokens: u64, now_us: u64) {
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
    }
}
