//! A record as it lies in the table: 64 bytes, one line of a processor's cache.
//!
//! What is kept are integers below 2^53, one to a word. The time until when, a seventh, stands in the bits above them.

use crate::algorithm::{Kept, MAX_FIELDS, State};
use crate::strategy::tag::Tag;

/// Bits of an integer.
const BITS: u32 = 53;
/// Bits above it.
const ABOVE: u32 = u64::BITS - BITS;

const _: () = assert!(State::LARGEST == (1 << BITS) - 1);
const _: () = assert!(size_of::<Record>() == 64);

/// What is kept of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Record {
    pub(super) tag: Tag,
    words: [u64; MAX_FIELDS],
}

impl Record {
    /// Where no record is. The time has no bits that high.
    pub(super) const VACANT: Self = Self {
        tag: Tag::NONE,
        words: [u64::MAX; MAX_FIELDS],
    };

    /// Keeps that of this key. A time or an integer that is too large becomes the largest.
    pub(super) fn keep(&mut self, tag: Tag, kept: &Kept) {
        self.tag = tag;
        let mut time = kept.fresh_at_us.min(State::LARGEST);
        for (word, integer) in self.words.iter_mut().zip(kept.state.0) {
            *word = integer.min(State::LARGEST) | time << BITS;
            time >>= ABOVE;
        }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.words[MAX_FIELDS - 1] == u64::MAX
    }

    pub(super) fn fresh_at_us(&self) -> u64 {
        let parts = self.words.iter().rev();
        parts.fold(0, |time, word| time << ABOVE | word >> BITS)
    }

    pub(super) fn state(&self) -> State {
        State(self.words.map(|word| word & State::LARGEST))
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            state: self.state(),
            fresh_at_us: self.fresh_at_us(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_found_again(
            fields in proptest::array::uniform6(0..=State::LARGEST), fresh_at_us in 0..=State::LARGEST,
        ) {
            let kept = Kept { state: State(fields), fresh_at_us };
            let mut record = Record::VACANT;
            record.keep(Tag::NONE, &kept);
            prop_assert_eq!(record.kept(), kept);
            prop_assert!(!record.is_vacant());
        }
    }

    #[test]
    fn what_is_too_large_is_the_largest() {
        let kept = |integer| Kept {
            state: State([integer; MAX_FIELDS]),
            fresh_at_us: integer,
        };
        let mut record = Record::VACANT;
        record.keep(Tag::NONE, &kept(u64::MAX));
        assert_eq!(record.kept(), kept(State::LARGEST));
        assert!(!record.is_vacant());
    }
}
