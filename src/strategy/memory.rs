//! `memory`: the buckets live in this process; the default where no Redis is configured.
//!
//! The table is bounded. Expired records go first; a record that still limits somebody is never evicted, for that would
//! admit its key anew. When a shard is full of live records, unknown keys share one overflow bucket per limit.
//!
//! Records stand in shards, each behind a lock that is held for one request without waiting for anything. A request with
//! several keys locks its shards in ascending order, so that requests cannot wait for each other in a circle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, hash_map};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tracing::warn;

use super::{Deciding, Fault, Strategy};
use crate::algorithm::{Intent, Kept, Notice, Remembered, judge};
use crate::domain::{Charge, Clock, Cost, Key, Limit, Receipt, Verdict};

/// Fewest records to a shard; below twice that there is one shard only.
const SHARD_RECORDS: usize = 4096;
/// Most shards.
const MAX_SHARDS: usize = 64;
/// Records past their time that one new record makes room for, so that the dead never pile up.
const SWEEP: usize = 2;

/// Buckets in this process.
#[derive(Debug)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    overflow: Mutex<Overflow>,
    told_full: AtomicBool,
    told_behind: AtomicBool,
}

impl Memory {
    /// An empty table of at most `max_keys` records (at least 1), on `clock`, which should never step back.
    pub fn new(max_keys: usize, clock: Arc<dyn Clock>, hasher: RandomState) -> Self {
        let shards = (max_keys / SHARD_RECORDS).clamp(1, MAX_SHARDS);
        let room = (max_keys / shards).max(1);
        Self {
            clock,
            hasher,
            shards: (0..shards).map(|_| Mutex::new(Shard::new(room))).collect(),
            overflow: Mutex::default(),
            told_full: AtomicBool::new(false),
            told_behind: AtomicBool::new(false),
        }
    }

    /// Records in the table, the dead that were not swept yet among them.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).records.len())
            .sum()
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
        let mut shard = lock(&self.shards[self.shard_of(key)]);
        let Some(used) = Cost::new(used) else {
            return shard.forget(key);
        };
        let now_us = self.clock.now_us();
        let step = limit
            .algorithm
            .step(&limit.quota, Remembered::Nothing, now_us, used);
        if let Ok(taken) = step.outcome
            && shard.seat(key, now_us) == Seat::Own
        {
            shard.set(key, taken.kept);
        }
    }

    /// Makes the next request of this key find a full bucket.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.shards[self.shard_of(key)]).forget(key);
    }

    /// Keeps the record of this key until then at least: for who may ask for it under a larger quota later.
    pub(super) fn hold(&self, key: &Key, until_us: u64) {
        if let Some(record) = lock(&self.shards[self.shard_of(key)]).records.get_mut(key) {
            record.fresh_at_us = record.fresh_at_us.max(until_us);
        }
    }

    /// Gives back what one receipt says.
    pub(super) fn credit(&self, receipt: &Receipt) {
        let mut shard = lock(&self.shards[self.shard_of(&receipt.key)]);
        shard.credit(receipt, self.clock.now_us());
    }

    /// Decides at once: nothing here is waited for.
    pub(super) fn ask_now(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let places: SmallVec<[usize; 1]> = charges
            .iter()
            .map(|charge| self.shard_of(charge.key()))
            .collect();
        let mut held = Held::of(&self.shards, &places);
        // Read under the locks: whoever held them before has then read an earlier time.
        let now_us = self.clock.now_us();
        let seats: SmallVec<[Seat; 1]> = charges
            .iter()
            .enumerate()
            .map(|(i, charge)| held.shard(places[i]).seat(charge.key(), now_us))
            .collect();
        let mut overflow = seats
            .contains(&Seat::Overflow)
            .then(|| self.overflow(charges, &seats))
            .transpose()?;

        let remembered: SmallVec<[Remembered; 1]> = (0..charges.len())
            .map(|i| match (seats[i], &overflow) {
                (Seat::Overflow, Some(overflow)) => overflow.get(charges[i].limit(), now_us),
                _ => held.shard(places[i]).get(charges[i].key(), now_us),
            })
            .collect();
        let judged = judge(charges, intent, |i| remembered[i], now_us);
        for write in &judged.writes {
            let charge = &charges[write.charge];
            match (seats[write.charge], &mut overflow) {
                (Seat::Overflow, Some(overflow)) => overflow.set(charge.limit(), write.kept),
                _ => held
                    .shard(places[write.charge])
                    .set(charge.key(), write.kept),
            }
        }
        if judged.notices.contains(&Notice::ClockBehind)
            && !self.told_behind.swap(true, Ordering::Relaxed)
        {
            warn!(
                "this instance's clock stepped back: buckets stand still until it is past their last use again"
            );
        }
        Ok(judged.verdict)
    }

    fn shard_of(&self, key: &Key) -> usize {
        if self.shards.len() == 1 {
            return 0;
        }
        let shards = self.shards.len() as u64;
        usize::try_from(self.hasher.hash_one(key) % shards).expect("below the number of shards")
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
        let mut limits: SmallVec<[Limit; 1]> = SmallVec::new();
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

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        let places: SmallVec<[usize; 1]> = receipts
            .iter()
            .map(|receipt| self.shard_of(&receipt.key))
            .collect();
        let mut held = Held::of(&self.shards, &places);
        let now_us = self.clock.now_us();
        for (receipt, place) in receipts.iter().zip(places) {
            held.shard(place).credit(receipt, now_us);
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
    places: SmallVec<[usize; 1]>,
    guards: SmallVec<[MutexGuard<'a, Shard>; 1]>,
}

impl<'a> Held<'a> {
    fn of(shards: &'a [Mutex<Shard>], places: &[usize]) -> Self {
        let mut places = SmallVec::from_slice(places);
        places.sort_unstable();
        places.dedup();
        let guards = places.iter().map(|&place| lock(&shards[place])).collect();
        Self { places, guards }
    }

    fn shard(&mut self, place: usize) -> &mut Shard {
        let i = self
            .places
            .binary_search(&place)
            .expect("every shard of a request is held");
        &mut self.guards[i]
    }
}

/// A lock whose holder panicked is still good: a table is changed only after everything was decided.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a charge is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// In its key's own record, there or still to be made.
    Own,
    /// In the overflow bucket of its limit.
    Overflow,
}

fn live(record: Option<&Kept>, now_us: u64) -> Remembered {
    match record {
        Some(record) if now_us < record.fresh_at_us => Remembered::State(record.state),
        _ => Remembered::Nothing,
    }
}

#[derive(Debug)]
struct Shard {
    room: usize,
    records: HashMap<Key, Kept>,
    /// One entry a record, with a time before which it is surely live. Looked at only to make room.
    by_expiry: BinaryHeap<Reverse<(u64, Key)>>,
}

impl Shard {
    fn new(room: usize) -> Self {
        Self {
            room,
            records: HashMap::new(),
            by_expiry: BinaryHeap::new(),
        }
    }

    fn seat(&mut self, key: &Key, now_us: u64) -> Seat {
        if self.records.contains_key(key) {
            return Seat::Own;
        }
        self.sweep(now_us, SWEEP);
        if self.records.len() < self.room {
            Seat::Own
        } else {
            Seat::Overflow
        }
    }

    fn get(&self, key: &Key, now_us: u64) -> Remembered {
        live(self.records.get(key), now_us)
    }

    fn set(&mut self, key: &Key, record: Kept) {
        if self.records.insert(key.clone(), record).is_none() {
            self.by_expiry
                .push(Reverse((record.fresh_at_us, key.clone())));
        }
    }

    fn credit(&mut self, receipt: &Receipt, now_us: u64) {
        let Some(record) = self
            .records
            .get_mut(&receipt.key)
            .filter(|record| now_us < record.fresh_at_us)
        else {
            return;
        };
        let Receipt {
            limit,
            tokens,
            charged_at_us,
            ..
        } = receipt;
        let credited =
            limit
                .algorithm
                .credit(&limit.quota, record.state, now_us, *charged_at_us, *tokens);
        *record = credited.unwrap_or(*record);
    }

    /// Makes a record as good as fresh; it stays until it is swept, for it has an entry in `by_expiry`.
    fn forget(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key) {
            record.fresh_at_us = 0;
        }
    }

    /// Removes up to `most` records that are past their time.
    fn sweep(&mut self, now_us: u64, most: usize) {
        let mut removed = 0;
        while removed < most
            && self
                .by_expiry
                .peek()
                .is_some_and(|Reverse((earliest, _))| *earliest <= now_us)
        {
            let Some(Reverse((_, key))) = self.by_expiry.pop() else {
                return;
            };
            let hash_map::Entry::Occupied(record) = self.records.entry(key) else {
                continue;
            };
            if now_us < record.get().fresh_at_us {
                let later = record.get().fresh_at_us;
                self.by_expiry.push(Reverse((later, record.key().clone())));
            } else {
                record.remove();
                removed += 1;
            }
        }
    }
}

/// One bucket for each limit that overflowed; as many as there are limits at the most.
#[derive(Debug, Default)]
struct Overflow(Vec<(Limit, Kept)>);

impl Overflow {
    fn get(&self, limit: Limit, now_us: u64) -> Remembered {
        live(
            self.0
                .iter()
                .find(|(of, _)| *of == limit)
                .map(|(_, record)| record),
            now_us,
        )
    }

    fn set(&mut self, limit: Limit, record: Kept) {
        match self.0.iter_mut().find(|(of, _)| *of == limit) {
            Some((_, kept)) => *kept = record,
            None => self.0.push((limit, record)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::TokenBucket;
    use crate::domain::{Cost, Identity, ManualClock, Quota, RuleName};

    const NOON: u64 = 1_762_668_474_000_000;

    fn charge(name: &str, capacity: u64) -> Charge {
        let key = Key::new(
            "t:",
            &TokenBucket,
            &RuleName::default_rule(),
            &Identity::new().with_part(name.as_bytes()),
        );
        let quota = Quota::new(capacity, 1, Duration::from_secs(1)).unwrap();
        Charge::new(
            key,
            Limit {
                algorithm: &TokenBucket,
                quota,
            },
            Cost::MIN,
        )
        .unwrap()
    }

    fn table(max_keys: usize) -> (Memory, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at_us(NOON));
        (
            Memory::new(max_keys, clock.clone(), RandomState::new()),
            clock,
        )
    }

    fn admits(memory: &Memory, name: &str, capacity: u64) -> bool {
        memory
            .ask_now(&[charge(name, capacity)], Intent::Charge)
            .unwrap()
            .admitted
    }

    #[test]
    fn unknown_keys_share_one_bucket_when_the_table_is_full() {
        let (memory, _) = table(3);
        for name in ["a", "b", "c"] {
            assert!(admits(&memory, name, 2));
        }
        let admitted = (0..50)
            .filter(|i| admits(&memory, &format!("newcomer-{i}"), 2))
            .count();
        assert_eq!(admitted, 2, "one overflow bucket of that limit");
        assert!(
            admits(&memory, "other-limit", 5),
            "another limit overflows into a bucket of its own"
        );
        assert!(
            admits(&memory, "a", 2) && !admits(&memory, "a", 2),
            "a known key keeps its own"
        );
        assert_eq!(memory.len(), 3);
    }

    #[test]
    fn a_key_that_is_limited_is_never_evicted_to_admit_it_anew() {
        let (memory, clock) = table(2);
        assert!(admits(&memory, "drained", 1));
        for i in 0..100 {
            admits(&memory, &format!("flood-{i}"), 1);
            assert!(!admits(&memory, "drained", 1));
        }
        clock.advance(Duration::from_secs(1));
        assert!(admits(&memory, "drained", 1));
    }

    #[test]
    fn expired_records_make_room_first() {
        let (memory, clock) = table(100);
        for i in 0..100 {
            assert!(admits(&memory, &format!("early-{i}"), 1));
        }
        // Half of them are used again and so live longer than their first expiry.
        clock.advance(Duration::from_secs(1));
        for i in 0..50 {
            assert!(admits(&memory, &format!("early-{i}"), 1));
        }
        for i in 0..50 {
            assert!(admits(&memory, &format!("late-{i}"), 1));
        }
        assert_eq!(memory.len(), 100);
        assert!(
            (0..50).all(|i| !admits(&memory, &format!("early-{i}"), 1)),
            "the live ones are all still there"
        );
        assert!(
            (0..50).all(|i| !admits(&memory, &format!("late-{i}"), 1)),
            "and so are the new ones"
        );
    }

    #[test]
    fn the_dead_do_not_pile_up() {
        let (memory, clock) = table(1_000_000);
        for i in 0..10_000 {
            assert!(admits(&memory, &format!("visitor-{i}"), 1));
            clock.advance(Duration::from_millis(10));
        }
        assert!(memory.len() < 10_000 / 2, "{}", memory.len());
    }

    #[test]
    fn two_charges_cannot_share_the_overflow_bucket() {
        let (memory, _) = table(1);
        assert!(admits(&memory, "a", 2));
        let both = [charge("b", 2), charge("c", 2)];
        assert_eq!(memory.ask_now(&both, Intent::Charge), Err(Fault::TableFull));
    }
}
