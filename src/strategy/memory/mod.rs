//! `memory`: the buckets live in this process; the default where no Redis is configured.
//!
//! The table is bounded. Expired records go first; a record that still limits somebody is never evicted, for that would
//! admit its key anew. When a shard is full of live records, unknown keys share one overflow bucket per limit.
//!
//! Records stand in shards, each behind a lock that is held for one request without waiting for anything. A request with
//! several keys locks its shards in ascending order, so that requests cannot wait for each other in a circle.

mod blocks;
mod overflow;
mod record;
mod shard;
#[cfg(test)]
mod tests;

use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::{SmallVec, smallvec};
use tracing::warn;

use super::tag::{Tag, Tagger};
use super::{Deciding, Fault, Strategy};
use crate::algorithm::{Intent, Kept, Notice, Remembered, judge, judge_one};
use crate::domain::{Charge, Clock, Cost, FEW_CHARGES, Key, Limit, Receipt, Verdict};

use overflow::Overflow;
use shard::{Seat, Shard};

/// Fewest records to a shard; below twice that there is one shard only.
const SHARD_RECORDS: usize = 4096;
/// Most shards.
const MAX_SHARDS: usize = 64;

/// Buckets in this process.
#[derive(Debug)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    tagger: Tagger,
    shards: Box<[Part]>,
    overflow: Mutex<Overflow>,
    told_full: AtomicBool,
    told_behind: AtomicBool,
}

/// A shard in cache lines of its own, so that whoever locks its neighbour does not take them away.
#[derive(Debug)]
#[repr(align(128))]
struct Part(Mutex<Shard>);

/// Where a key's record is looked for.
#[derive(Debug, Clone, Copy)]
struct Place {
    tag: Tag,
    shard: usize,
}

impl Memory {
    /// An empty table of at most `max_keys` records (at least 1), on `clock`, which should never step back. `hasher`
    /// spreads the keys, so that nobody can choose colliding ones.
    pub fn new(max_keys: usize, clock: Arc<dyn Clock>, hasher: &RandomState) -> Self {
        let shards = (max_keys / SHARD_RECORDS).clamp(1, MAX_SHARDS);
        let room = (max_keys / shards).max(1);
        Self {
            clock,
            tagger: Tagger::new(hasher),
            shards: (0..shards)
                .map(|_| Part(Mutex::new(Shard::new(room))))
                .collect(),
            overflow: Mutex::default(),
            told_full: AtomicBool::new(false),
            told_behind: AtomicBool::new(false),
        }
    }

    /// Records in the table, the dead that were not swept yet among them.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|part| lock(&part.0).len()).sum()
    }

    /// Whether the table holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time by which records are kept.
    pub(super) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Remembers that so many tokens of this key are left now, whatever was remembered of it.
    ///
    /// A new key in a full table is not remembered.
    pub(super) fn learn(&self, key: &Key, limit: Limit, remaining: u64) {
        let used = limit.quota.capacity().saturating_sub(remaining);
        let (mut shard, tag) = self.shard(key);
        let Some(used) = Cost::new(used) else {
            return shard.forget(tag);
        };
        let now_us = self.clock.now_us();
        let step = limit
            .algorithm
            .step(&limit.quota, &Remembered::Nothing, now_us, used);
        if let Ok(taken) = step.outcome {
            let seat = shard.seat(tag, now_us);
            shard.set(seat, tag, &taken.kept);
        }
    }

    /// Makes the next request of this key find a full bucket.
    pub(super) fn forget(&self, key: &Key) {
        let (mut shard, tag) = self.shard(key);
        shard.forget(tag);
    }

    /// Keeps the record of this key until then at least: for who may ask for it under a larger quota later.
    pub(super) fn hold(&self, key: &Key, until_us: u64) {
        let (mut shard, tag) = self.shard(key);
        shard.hold(tag, until_us);
    }

    /// Gives back what one receipt says.
    pub(super) fn credit(&self, receipt: &Receipt) {
        let (mut shard, tag) = self.shard(&receipt.key);
        shard.credit(tag, receipt, self.clock.now_us());
    }

    /// Decides at once: nothing here is waited for.
    pub(super) fn ask_now(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        match charges {
            [charge] => self.ask_one(charge, intent),
            _ => self.ask_several(charges, intent),
        }
    }

    /// A straight way for what most requests are: one charge, which finds a place.
    fn ask_one(&self, charge: &Charge, intent: Intent) -> Result<Verdict, Fault> {
        let (mut shard, tag) = self.shard(charge.key());
        // Read under the lock: whoever held it before has then read an earlier time.
        let now_us = self.clock.now_us();
        let seat = shard.seat(tag, now_us);
        if seat == Seat::Overflow {
            drop(shard);
            return self.ask_several(std::slice::from_ref(charge), intent);
        }
        let remembered = shard.get(seat, now_us);
        let (verdict, notice) = judge_one(charge, intent, &remembered, now_us, |kept| {
            shard.set(seat, tag, kept);
        });
        self.tell(notice);
        Ok(verdict)
    }

    fn ask_several(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let places: SmallVec<[Place; FEW_CHARGES]> = charges
            .iter()
            .map(|charge| self.place(charge.key()))
            .collect();
        let mut held = Held::of(&self.shards, &places);
        // Read under the locks: whoever held them before has then read an earlier time.
        let now_us = self.clock.now_us();
        let seats = held.seats(&places, now_us);
        let mut overflow = seats
            .contains(&Seat::Overflow)
            .then(|| self.overflow(charges, &seats))
            .transpose()?;

        let remembered: SmallVec<[Remembered; FEW_CHARGES]> = (0..charges.len())
            .map(|i| match (seats[i], &overflow) {
                (Seat::Overflow, Some(overflow)) => overflow.get(charges[i].limit(), now_us),
                (seat, _) => held.shard(places[i]).get(seat, now_us),
            })
            .collect();
        let judged = judge(charges, intent, |i| remembered[i], now_us);
        for write in &judged.writes {
            let place = places[write.charge];
            match (seats[write.charge], &mut overflow) {
                (Seat::Overflow, Some(overflow)) => {
                    overflow.set(charges[write.charge].limit(), write.kept);
                }
                (seat, _) => held.shard(place).set(seat, place.tag, &write.kept),
            }
        }
        judged
            .notices
            .iter()
            .for_each(|notice| self.tell(Some(*notice)));
        Ok(judged.verdict)
    }

    fn tell(&self, notice: Option<Notice>) {
        if notice == Some(Notice::ClockBehind) && !self.told_behind.swap(true, Ordering::Relaxed) {
            warn!(
                "this instance's clock stepped back: buckets stand still until it is past their last use again"
            );
        }
    }

    fn place(&self, key: &Key) -> Place {
        let tag = self.tagger.tag(key);
        let shard = tag.spread(self.shards.len());
        Place { tag, shard }
    }

    fn shard(&self, key: &Key) -> (MutexGuard<'_, Shard>, Tag) {
        let Place { tag, shard } = self.place(key);
        (lock(&self.shards[shard].0), tag)
    }

    /// The overflow buckets, locked after every shard. Two charges cannot share one.
    fn overflow(
        &self,
        charges: &[Charge],
        seats: &[Seat],
    ) -> Result<MutexGuard<'_, Overflow>, Fault> {
        if !self.told_full.swap(true, Ordering::Relaxed) {
            warn!(
                "the table of keys is full: unknown clients share one overflow bucket; raise LIMITER_MAX_KEYS"
            );
        }
        let mut limits: SmallVec<[Limit; FEW_CHARGES]> = SmallVec::new();
        for (charge, _) in charges
            .iter()
            .zip(seats)
            .filter(|(_, seat)| **seat == Seat::Overflow)
        {
            if limits.contains(&charge.limit()) {
                return Err(Fault::TableFull);
            }
            limits.push(charge.limit());
        }
        Ok(lock(&self.overflow))
    }
}

impl Strategy for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        Deciding::ready(self.ask_now(charges, intent))
    }

    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        Some(self.ask_now(charges, intent))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        let places: SmallVec<[Place; FEW_CHARGES]> = receipts
            .iter()
            .map(|receipt| self.place(&receipt.key))
            .collect();
        let mut held = Held::of(&self.shards, &places);
        let now_us = self.clock.now_us();
        for (receipt, place) in receipts.iter().zip(places) {
            held.shard(place).credit(place.tag, receipt, now_us);
        }
        Deciding::ready(Ok(()))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Self::forget(self, key);
        Deciding::ready(Ok(()))
    }
}

/// Some shards, locked in ascending order and found again by their number.
struct Held<'a> {
    numbers: SmallVec<[usize; FEW_CHARGES]>,
    guards: SmallVec<[MutexGuard<'a, Shard>; FEW_CHARGES]>,
}

impl<'a> Held<'a> {
    fn of(shards: &'a [Part], places: &[Place]) -> Self {
        let mut numbers: SmallVec<[usize; FEW_CHARGES]> =
            places.iter().map(|place| place.shard).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guards = numbers
            .iter()
            .map(|&number| lock(&shards[number].0))
            .collect();
        Self { numbers, guards }
    }

    fn shard(&mut self, place: Place) -> &mut Shard {
        let i = self
            .numbers
            .binary_search(&place.shard)
            .expect("every shard of a request is held");
        &mut self.guards[i]
    }

    /// Where each is counted.
    fn seats(&mut self, places: &[Place], now_us: u64) -> SmallVec<[Seat; FEW_CHARGES]> {
        if let &[place] = places {
            return smallvec![self.shard(place).seat(place.tag, now_us)];
        }
        // Room for a new one is made by removing others, perhaps one that was found before.
        for &place in places {
            self.shard(place).seat(place.tag, now_us);
        }
        let found = |&place: &Place| self.shard(place).seat_as_it_is(place.tag);
        places.iter().map(found).collect()
    }
}

/// A lock whose holder panicked is still good: a table is changed only after everything was decided.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live(record: Option<&Kept>, now_us: u64) -> Remembered {
    match record {
        Some(record) if now_us < record.fresh_at_us => Remembered::State(record.state),
        _ => Remembered::Nothing,
    }
}
