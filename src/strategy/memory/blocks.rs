//! The records of a shard, one after the other in blocks, so that growing moves none and wastes little.
//!
//! A block knows a time before which all of its records surely live. Which are dead is looked at only to make room, in the
//! whole block that is due first.

use std::collections::BTreeSet;

use super::record::Record;
use crate::algorithm::Kept;
use crate::strategy::tag::Tag;

/// Records to a block.
const BLOCK: u32 = 128;

#[derive(Debug)]
struct Block {
    records: Box<[Record; BLOCK as usize]>,
    /// None of its records is past its time before this; in `due`, unless it has none.
    due_us: u64,
}

/// Records, found by their place.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// Places that have no record.
    free: Vec<u32>,
    due: BTreeSet<(u64, u32)>,
}

impl Blocks {
    pub(super) fn get(&self, place: u32) -> &Record {
        let (number, i) = split(place);
        &self.blocks[number].records[i]
    }

    /// Keeps that of a key there.
    pub(super) fn set(&mut self, place: u32, tag: Tag, kept: &Kept) {
        let (number, i) = split(place);
        let block = &mut self.blocks[number];
        block.records[i].keep(tag, kept);
        if kept.fresh_at_us < block.due_us {
            self.falls_due(place / BLOCK, kept.fresh_at_us);
        }
    }

    /// Keeps it where no record is, and says where.
    pub(super) fn insert(&mut self, tag: Tag, kept: &Kept) -> u32 {
        if self.free.is_empty() {
            self.grow();
        }
        let place = self.free.pop().expect("a block has places");
        self.set(place, tag, kept);
        place
    }

    /// Removes what is past its time from the block that is due first, telling of each. Whether any was due.
    pub(super) fn sweep(&mut self, now_us: u64, mut removed: impl FnMut(Tag, u32)) -> bool {
        let first = self.due.first().copied();
        let Some((_, number)) = first.filter(|(due_us, _)| *due_us <= now_us) else {
            return false;
        };
        let mut next_us = u64::MAX;
        let records = self.blocks[number as usize].records.iter_mut();
        for (place, record) in (number * BLOCK..).zip(records) {
            if record.is_vacant() {
                continue;
            }
            if now_us < record.fresh_at_us() {
                next_us = next_us.min(record.fresh_at_us());
                continue;
            }
            removed(record.tag, place);
            *record = Record::VACANT;
            self.free.push(place);
        }
        self.falls_due(number, next_us);
        true
    }

    #[cold]
    fn falls_due(&mut self, number: u32, due_us: u64) {
        let block = &mut self.blocks[number as usize];
        self.due.remove(&(block.due_us, number));
        block.due_us = due_us;
        if due_us < u64::MAX {
            self.due.insert((due_us, number));
        }
    }

    #[cold]
    fn grow(&mut self) {
        let number = u32::try_from(self.blocks.len()).expect("fewer blocks than places");
        // The lowest is taken first.
        self.free
            .extend((number * BLOCK..(number + 1) * BLOCK).rev());
        self.blocks.push(Block {
            records: Box::new([Record::VACANT; BLOCK as usize]),
            due_us: u64::MAX,
        });
    }
}

/// The block of a place, and where in it that is.
fn split(place: u32) -> (usize, usize) {
    ((place / BLOCK) as usize, (place % BLOCK) as usize)
}
