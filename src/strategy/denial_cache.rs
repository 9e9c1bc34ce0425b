//! Remembers what the store denied, so that a flood from one client costs it a command or two per refilled token.
//!
//! What the store says of a bucket is an upper bound on it until the next token is there: others can only take from it.
//! So the same cost under the same limit is denied here, with the store's own numbers, until that time, counted from when
//! the command was *sent*; the waits that are told count from when the answer *came*, so that who waits them is admitted.
//! An admitted request that took the last tokens says as much about the next one.
//!
//! When the time has come, one request at a time asks the store. What it hears is true of those that wait behind it.
//!
//! A reset or a give-back by this instance drops what was remembered, and another quota does not match it. Nothing is
//! remembered for longer than a second (settable): so long can such a change elsewhere go unnoticed. Only requests with
//! a single charge are denied here: those with more need the store's numbers on the others.

use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use super::tag::{Tag, Tagger};
use super::{Deciding, Fault, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Clock, Cost, Decision, Key, Limit, Outcome, Receipt, Source, Verdict};

#[cfg(test)]
mod tests;

/// Most keys with a denial that are remembered.
const MOST_KEYS: usize = 65_536;
const SHARDS: usize = 16;
/// Most costs of one key that are remembered.
const MOST_COSTS: usize = 4;
/// The dead are looked for at most this often, in microseconds, in each shard.
const SWEEP_EVERY_US: u64 = 100_000;

/// A strategy that remembers denials.
#[derive(Debug)]
pub struct DenialCache {
    inner: Arc<dyn Strategy>,
    clock: Arc<dyn Clock>,
    longest_us: u64,
    tagger: Tagger,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    gates: HashTable<(Tag, Arc<Gate>)>,
    /// Counts resets and give-backs: what was asked before one and answered after it is not remembered.
    changes: u64,
    swept_us: u64,
}

/// A key that was denied, and whose turn it is to ask again.
#[derive(Debug, Default)]
struct Gate {
    turn: tokio::sync::Mutex<()>,
    /// Nobody need wait for a turn any more.
    open: AtomicBool,
    denials: Mutex<SmallVec<[Denial; 1]>>,
}

/// What the store said of one cost.
#[derive(Debug, Clone, Copy)]
struct Denial {
    limit: Limit,
    cost: Cost,
    /// Until when it is surely denied, on this instance's clock.
    until_us: u64,
    /// When the answer came, on this instance's clock and on the store's.
    told_us: u64,
    store_us: u64,
    /// The decision at that time.
    decision: Decision,
}

impl Denial {
    /// What `verdict`, which was asked for at `sent_us` and just came, says about the next request of the same cost.
    fn learned(
        charge: &Charge,
        verdict: &Verdict,
        sent_us: u64,
        clock: &dyn Clock,
        longest_us: u64,
    ) -> Option<Self> {
        let mut decision = *verdict.decisions.first()?;
        let next_after = decision.next_after;
        if decision.is_allowed() {
            if charge.cost().get() != decision.remaining + 1 {
                return None;
            }
            decision.outcome = Outcome::Denied {
                retry_after: next_after,
            };
        }
        let lasts = micros(next_after.min(decision.retry_after()?)).min(longest_us);
        decision.source = Source::Cache;
        Some(Self {
            limit: charge.limit(),
            cost: charge.cost(),
            until_us: sent_us.saturating_add(lasts),
            told_us: clock.now_us(),
            store_us: verdict.now_us,
            decision,
        })
    }

    fn verdict(&self, now_us: u64) -> Verdict {
        let elapsed_us = now_us.saturating_sub(self.told_us);
        let elapsed = Duration::from_micros(elapsed_us);
        let Decision {
            reset_after,
            next_after,
            ..
        } = self.decision;
        let retry_after = self.decision.retry_after().unwrap_or(next_after);
        let decision = Decision {
            outcome: Outcome::Denied {
                retry_after: retry_after.saturating_sub(elapsed),
            },
            reset_after: reset_after.saturating_sub(elapsed),
            next_after: next_after.saturating_sub(elapsed),
            ..self.decision
        };
        Verdict {
            decisions: smallvec![decision],
            admitted: false,
            now_us: self.store_us.saturating_add(elapsed_us),
        }
    }
}

impl Gate {
    fn denied(&self, charge: &Charge, now_us: u64) -> Option<Verdict> {
        let denials = lock(&self.denials);
        let denial = denials.iter().find(|denial| {
            denial.cost == charge.cost()
                && denial.limit == charge.limit()
                && now_us < denial.until_us
        });
        denial.map(|denial| denial.verdict(now_us))
    }

    /// Remembers what was said of one cost; of the others too, unless the record has `changed` since.
    fn remember(&self, denial: Denial, changed: bool) {
        let mut denials = lock(&self.denials);
        denials
            .retain(|other| !changed && other.limit == denial.limit && other.cost != denial.cost);
        if denials.len() >= MOST_COSTS {
            denials.remove(0);
        }
        denials.push(denial);
    }

    fn is_dead(&self, now_us: u64) -> bool {
        lock(&self.denials)
            .iter()
            .all(|denial| denial.until_us <= now_us)
    }
}

impl DenialCache {
    /// Remembers what `inner` denies, for `longest` at the most, on `clock`, which should never step back.
    pub fn new(
        inner: Arc<dyn Strategy>,
        clock: Arc<dyn Clock>,
        longest: Duration,
        hasher: &RandomState,
    ) -> Self {
        Self {
            inner,
            clock,
            longest_us: micros(longest),
            tagger: Tagger::new(hasher),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    async fn ask_in_turn(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let (shard, tag) = self.place_of(charges[0].key());
        let gate = lock(shard).gate(tag).cloned();
        let mut turn = None;
        if let Some(gate) = &gate {
            turn = Some(gate.turn.lock().await);
            if let Some(verdict) = gate.denied(&charges[0], self.clock.now_us()) {
                return Ok(verdict);
            }
            if gate.open.load(Ordering::Relaxed) {
                turn = None;
            }
        }
        let sent_us = self.clock.now_us();
        let changes = lock(shard).changes;
        let verdict = self.inner.ask(charges, intent).await?;
        if !verdict.admitted || intent == Intent::Charge {
            let denial = Denial::learned(
                &charges[0],
                &verdict,
                sent_us,
                &*self.clock,
                self.longest_us,
            );
            let mut shard = lock(shard);
            match denial {
                Some(denial) if shard.changes == changes => {
                    shard.remember(tag, denial, verdict.admitted);
                }
                None if verdict.admitted => shard.forget(tag),
                _ => {}
            }
        }
        drop(turn);
        Ok(verdict)
    }

    /// The store's record of this key changes in another way than by a charge.
    fn changed(&self, key: &Key) {
        let (shard, tag) = self.place_of(key);
        let mut shard = lock(shard);
        shard.changes += 1;
        shard.forget(tag);
    }

    fn place_of(&self, key: &Key) -> (&Mutex<Shard>, Tag) {
        let tag = self.tagger.tag(key);
        (&self.shards[tag.spread(SHARDS)], tag)
    }
}

impl Shard {
    fn gate(&self, tag: Tag) -> Option<&Arc<Gate>> {
        let gate = self.gates.find(tag.hash(), |(other, _)| *other == tag);
        gate.map(|(_, gate)| gate)
    }

    /// Remembers it if there is room for its key.
    fn remember(&mut self, tag: Tag, denial: Denial, changed: bool) {
        let now_us = denial.told_us;
        if let Some(gate) = self.gate(tag) {
            return gate.remember(denial, changed);
        }
        let room = MOST_KEYS / SHARDS;
        if self.gates.len() >= room && now_us >= self.swept_us.saturating_add(SWEEP_EVERY_US) {
            self.swept_us = now_us;
            self.gates.retain(|(_, gate)| !gate.is_dead(now_us));
        }
        if self.gates.len() < room {
            let gate = Arc::new(Gate::default());
            gate.remember(denial, changed);
            let hash_of = |(tag, _): &(Tag, _)| tag.hash();
            self.gates.insert_unique(tag.hash(), (tag, gate), hash_of);
        }
    }

    /// Forgets a key; who waits for a turn need not.
    fn forget(&mut self, tag: Tag) {
        let known = self
            .gates
            .find_entry(tag.hash(), |(other, _)| *other == tag);
        if let Ok(known) = known {
            let ((_, gate), _) = known.remove();
            gate.open.store(true, Ordering::Relaxed);
        }
    }
}

impl Strategy for DenialCache {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        match remembered(charges, intent) {
            Some(_) => Deciding::waiting(self.ask_in_turn(charges, intent)),
            None => self.inner.ask(charges, intent),
        }
    }

    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        let charge = remembered(charges, intent)?;
        let (shard, tag) = self.place_of(charge.key());
        let shard = lock(shard);
        shard.gate(tag)?.denied(charge, self.clock.now_us()).map(Ok)
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        Deciding::waiting(async move {
            let keys: Vec<Key> = receipts.iter().map(|receipt| receipt.key.clone()).collect();
            let answer = self.inner.give_back(receipts).await;
            keys.iter().for_each(|key| self.changed(key));
            answer
        })
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(async move {
            let answer = self.inner.reset(key).await;
            self.changed(key);
            answer
        })
    }
}

/// The charge of a request of which a denial is remembered.
fn remembered(charges: &[Charge], intent: Intent) -> Option<&Charge> {
    match charges {
        [charge] if charge.is_enforced() && intent != Intent::Debit => Some(charge),
        _ => None,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
