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

use super::{Deciding, Fault, Strategy, check};
use crate::algorithm::{Notice, Remembered, State, judge};
use crate::domain::{Charge, Clock, Key, Limit, Verdict};

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

    fn decide_now(&self, charges: &[Charge]) -> Result<Verdict, Fault> {
        check(charges)?;
        let places: SmallVec<[usize; 1]> = charges
            .iter()
            .map(|charge| self.shard_of(charge.key()))
            .collect();
        let mut order = places.clone();
        order.sort_unstable();
        order.dedup();
        let mut held: SmallVec<[MutexGuard<'_, Shard>; 1]> =
            order.iter().map(|&i| lock(&self.shards[i])).collect();
        // Locked in ascending order, found again by their place in it.
        let guard_of = |charge: usize| {
            order
                .binary_search(&places[charge])
                .expect("every shard of a charge is held")
        };

        // Read under the locks: whoever held them before has then read an earlier time.
        let now_us = self.clock.now_us();
        let seats: SmallVec<[Seat; 1]> = charges
            .iter()
            .enumerate()
            .map(|(i, charge)| held[guard_of(i)].seat(charge.key(), now_us))
            .collect();
        let mut overflow = seats
            .contains(&Seat::Overflow)
            .then(|| self.overflow(charges, &seats))
            .transpose()?;

        let remembered = |i: usize| match (seats[i], &overflow) {
            (Seat::Overflow, Some(overflow)) => overflow.get(charges[i].limit(), now_us),
            _ => held[guard_of(i)].get(charges[i].key(), now_us),
        };
        let judged = judge(charges, remembered, now_us);
        for write in &judged.writes {
            let charge = &charges[write.charge];
            let record = Record {
                state: write.state,
                fresh_at_us: write.fresh_at_us,
            };
            match (seats[write.charge], &mut overflow) {
                (Seat::Overflow, Some(overflow)) => overflow.set(charge.limit(), record),
                _ => held[guard_of(write.charge)].set(charge.key(), record),
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

    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        Deciding::ready(self.decide_now(charges))
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

#[derive(Debug, Clone, Copy)]
struct Record {
    state: State,
    fresh_at_us: u64,
}

impl Record {
    fn is_live(&self, now_us: u64) -> bool {
        now_us < self.fresh_at_us
    }
}

fn live(record: Option<&Record>, now_us: u64) -> Remembered {
    record
        .filter(|record| record.is_live(now_us))
        .map_or(Remembered::Nothing, |record| {
            Remembered::State(record.state)
        })
}

#[derive(Debug)]
struct Shard {
    room: usize,
    records: HashMap<Key, Record>,
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

    fn set(&mut self, key: &Key, record: Record) {
        if self.records.insert(key.clone(), record).is_none() {
            self.by_expiry
                .push(Reverse((record.fresh_at_us, key.clone())));
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
            if record.get().is_live(now_us) {
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
struct Overflow(Vec<(Limit, Record)>);

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

    fn set(&mut self, limit: Limit, record: Record) {
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
            .decide_now(&[charge(name, capacity)])
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
        assert_eq!(memory.decide_now(&both), Err(Fault::TableFull));
    }
}
