//! A part of the table, behind one lock.
//!
//! Records stand one after the other in blocks, so that growing moves none and wastes little; a table of their places finds
//! them by tag. A heap has one entry a record, with a time before which it is surely live, and is looked at only to make
//! room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashTable;

use super::live;
use super::tag::Tag;
use crate::algorithm::{Kept, Remembered};
use crate::domain::Receipt;

/// Records to a block.
const BLOCK: usize = 128;
/// Records past their time that one new record makes room for, so that the dead never pile up.
const SWEEP: usize = 2;

/// Where a key is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// In its record, which stands there.
    Own(u32),
    /// In a record of its own, still to be made.
    New,
    /// In the overflow bucket of its limit.
    Overflow,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    tag: Tag,
    kept: Kept,
}

/// A part of the table.
#[derive(Debug)]
pub(super) struct Shard {
    room: usize,
    places: HashTable<u32>,
    blocks: Vec<Vec<Record>>,
    /// Places that were left.
    free: Vec<u32>,
    by_expiry: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Shard {
    /// An empty one with room for so many records.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room: room.min(u32::MAX as usize),
            places: HashTable::new(),
            blocks: Vec::new(),
            free: Vec::new(),
            by_expiry: BinaryHeap::new(),
        }
    }

    /// Records in it, the dead that were not swept yet among them.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Where that key is counted; for a new one, some of the dead make room. Places found before may then be others'.
    pub(super) fn seat(&mut self, tag: Tag, now_us: u64) -> Seat {
        if let Some(place) = self.place_of(tag) {
            return Seat::Own(place);
        }
        self.sweep(now_us, SWEEP);
        self.seat_as_it_is(tag)
    }

    /// Where that key is counted, if nobody makes room.
    pub(super) fn seat_as_it_is(&self, tag: Tag) -> Seat {
        match self.place_of(tag) {
            Some(place) => Seat::Own(place),
            None if self.len() < self.room => Seat::New,
            None => Seat::Overflow,
        }
    }

    pub(super) fn get(&self, seat: Seat, now_us: u64) -> Remembered {
        match seat {
            Seat::Own(place) => live(Some(&self.record(place).kept), now_us),
            Seat::New | Seat::Overflow => Remembered::Nothing,
        }
    }

    /// Remembers that in a seat of this shard; one in the overflow is not this shard's.
    pub(super) fn set(&mut self, seat: Seat, tag: Tag, kept: Kept) {
        match seat {
            Seat::Own(place) => self.record_mut(place).kept = kept,
            Seat::New => self.insert(Record { tag, kept }),
            Seat::Overflow => {}
        }
    }

    /// What is kept of that key, dead or alive.
    pub(super) fn find(&mut self, tag: Tag) -> Option<&mut Kept> {
        let place = self.place_of(tag)?;
        Some(&mut self.record_mut(place).kept)
    }

    pub(super) fn credit(&mut self, tag: Tag, receipt: &Receipt, now_us: u64) {
        let Some(kept) = self.find(tag).filter(|kept| now_us < kept.fresh_at_us) else {
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
                .credit(&limit.quota, kept.state, now_us, *charged_at_us, *tokens);
        *kept = credited.unwrap_or(*kept);
    }

    /// Makes a record as good as fresh; it stays until it is swept, for it has an entry in `by_expiry`.
    pub(super) fn forget(&mut self, tag: Tag) {
        if let Some(kept) = self.find(tag) {
            kept.fresh_at_us = 0;
        }
    }

    fn place_of(&self, tag: Tag) -> Option<u32> {
        let is_its = |place: &u32| self.record(*place).tag == tag;
        self.places.find(tag.hash(), is_its).copied()
    }

    fn record(&self, place: u32) -> &Record {
        let place = place as usize;
        &self.blocks[place / BLOCK][place % BLOCK]
    }

    fn record_mut(&mut self, place: u32) -> &mut Record {
        let place = place as usize;
        &mut self.blocks[place / BLOCK][place % BLOCK]
    }

    fn insert(&mut self, record: Record) {
        let place = match self.free.pop() {
            Some(place) => {
                *self.record_mut(place) = record;
                place
            }
            None => self.append(record),
        };
        let Self { places, blocks, .. } = self;
        let hash_of = |place: &u32| {
            let place = *place as usize;
            blocks[place / BLOCK][place % BLOCK].tag.hash()
        };
        places.insert_unique(record.tag.hash(), place, hash_of);
        if self.by_expiry.len() == self.by_expiry.capacity() {
            // By a fourth instead of by as much again.
            self.by_expiry
                .reserve_exact(BLOCK.max(self.by_expiry.len() / 4));
        }
        self.by_expiry
            .push(Reverse((record.kept.fresh_at_us, place)));
    }

    fn append(&mut self, record: Record) -> u32 {
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let last = self.blocks.len() - 1;
        let place = last * BLOCK + self.blocks[last].len();
        self.blocks[last].push(record);
        u32::try_from(place).expect("a shard has room for fewer")
    }

    /// Removes up to `most` records that are past their time.
    fn sweep(&mut self, now_us: u64, most: usize) {
        let mut removed = 0;
        while removed < most {
            let due = self.by_expiry.peek();
            let Some(&Reverse((_, place))) = due.filter(|due| due.0.0 <= now_us) else {
                return;
            };
            self.by_expiry.pop();
            let Record { tag, kept } = *self.record(place);
            if now_us < kept.fresh_at_us {
                self.by_expiry.push(Reverse((kept.fresh_at_us, place)));
                continue;
            }
            if let Ok(entry) = self.places.find_entry(tag.hash(), |other| *other == place) {
                entry.remove();
            }
            self.free.push(place);
            removed += 1;
        }
    }
}
