//! What stands for a key in tables of this process: 128 bits of a keyed hash.
//!
//! So an entry takes the same room for every key, and is found without following a pointer. SipHash-1-3 (Aumasson and
//! Bernstein, "SipHash: a fast short-input PRF", 2012) under a key that is drawn at the start: nobody outside can choose keys
//! that collide, and of a million keys two share a bucket with a chance of 10^-27.

use std::hash::{BuildHasher, RandomState};

use siphasher::sip128::SipHasher13;

use crate::domain::Key;

/// What stands for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Spreads keys over shards.
    high: u64,
    /// Spreads keys within a shard.
    low: u64,
}

impl Tag {
    /// Stands for nobody; nothing is found by it.
    pub(super) const NONE: Self = Self { high: 0, low: 0 };

    /// A number below `count`, which is 1 or more: the share of `high` in all it could be, of that count.
    pub(super) fn spread(self, count: usize) -> usize {
        let share = (u128::from(self.high) * count as u128) >> u64::BITS;
        usize::try_from(share).expect("below the count")
    }

    /// Spreads keys within a shard.
    pub(super) fn hash(self) -> u64 {
        self.low
    }
}

/// Makes tags of keys.
#[derive(Debug)]
pub(super) struct Tagger(SipHasher13);

impl Tagger {
    /// Draws its key from `hasher`.
    pub(super) fn new(hasher: &RandomState) -> Self {
        Self(SipHasher13::new_with_keys(
            hasher.hash_one(0),
            hasher.hash_one(1),
        ))
    }

    pub(super) fn tag(&self, key: &Key) -> Tag {
        let hash = self.0.hash(key.as_str().as_bytes());
        Tag {
            high: hash.h1,
            low: hash.h2,
        }
    }
}
