//! A part of the table, behind one lock: records, and a table of their places, which finds them by tag.

use hashbrown::HashTable;

use super::blocks::Blocks;
use crate::algorithm::{Kept, Remembered};
use crate::domain::Receipt;
use crate::strategy::tag::Tag;

/// Most records of a shard: their places, and those of their blocks, are numbers of 32 bits.
const MOST_RECORDS: usize = 1 << 31;

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

/// A part of the table.
#[derive(Debug)]
pub(super) struct Shard {
    room: usize,
    places: HashTable<u32>,
    records: Blocks,
}

impl Shard {
    /// An empty one with room for so many records.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room: room.min(MOST_RECORDS),
            places: HashTable::new(),
            records: Blocks::default(),
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
        self.make_room(now_us);
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
            Seat::Own(place) => match self.records.get(place) {
                record if now_us < record.fresh_at_us() => Remembered::State(record.state()),
                _ => Remembered::Nothing,
            },
            Seat::New | Seat::Overflow => Remembered::Nothing,
        }
    }

    /// Remembers that in a seat of this shard; one in the overflow is not this shard's.
    pub(super) fn set(&mut self, seat: Seat, tag: Tag, kept: &Kept) {
        match seat {
            Seat::Own(place) => self.records.set(place, tag, kept),
            Seat::New => self.insert(tag, kept),
            Seat::Overflow => {}
        }
    }

    /// Keeps the record of that key until then at least.
    pub(super) fn hold(&mut self, tag: Tag, until_us: u64) {
        self.keep_until(tag, |fresh_at_us| fresh_at_us.max(until_us));
    }

    /// Makes a record as good as fresh; it is swept like others that are.
    pub(super) fn forget(&mut self, tag: Tag) {
        self.keep_until(tag, |_| 0);
    }

    fn keep_until(&mut self, tag: Tag, until_us: impl FnOnce(u64) -> u64) {
        if let Some((place, mut kept)) = self.find(tag) {
            kept.fresh_at_us = until_us(kept.fresh_at_us);
            self.records.set(place, tag, &kept);
        }
    }

    pub(super) fn credit(&mut self, tag: Tag, receipt: &Receipt, now_us: u64) {
        let found = self.find(tag);
        let Some((place, kept)) = found.filter(|(_, kept)| now_us < kept.fresh_at_us) else {
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
        if let Some(kept) = credited {
            self.set(Seat::Own(place), tag, &kept);
        }
    }

    /// Where the record of that key stands and what is kept in it, dead or alive.
    fn find(&self, tag: Tag) -> Option<(u32, Kept)> {
        let place = self.place_of(tag)?;
        Some((place, self.records.get(place).kept()))
    }

    fn place_of(&self, tag: Tag) -> Option<u32> {
        let is_its = |place: &u32| self.records.get(*place).tag == tag;
        self.places.find(tag.hash(), is_its).copied()
    }

    #[inline(never)]
    fn insert(&mut self, tag: Tag, kept: &Kept) {
        let Self {
            places, records, ..
        } = self;
        let place = records.insert(tag, kept);
        let hash_of = |place: &u32| records.get(*place).tag.hash();
        places.insert_unique(tag.hash(), place, hash_of);
    }

    /// Removes the dead of the block that is due first and, while there is no room, of the next.
    #[inline(never)]
    fn make_room(&mut self, now_us: u64) {
        while self.sweep(now_us) && self.len() >= self.room {}
    }

    fn sweep(&mut self, now_us: u64) -> bool {
        let Self {
            places, records, ..
        } = self;
        records.sweep(now_us, |tag, place| {
            if let Ok(entry) = places.find_entry(tag.hash(), |other| *other == place) {
                entry.remove();
            }
        })
    }
}
