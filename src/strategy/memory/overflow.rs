//! Where keys are counted that found no room.

use super::live;
use crate::algorithm::{Kept, Remembered};
use crate::domain::Limit;

/// One bucket for each limit that overflowed; as many as there are limits at the most.
#[derive(Debug, Default)]
pub(super) struct Overflow(Vec<(Limit, Kept)>);

impl Overflow {
    pub(super) fn get(&self, limit: Limit, now_us: u64) -> Remembered {
        let record = self.0.iter().find(|(of, _)| *of == limit);
        live(record.map(|(_, record)| record), now_us)
    }

    pub(super) fn set(&mut self, limit: Limit, record: Kept) {
        match self.0.iter_mut().find(|(of, _)| *of == limit) {
            Some((_, kept)) => *kept = record,
            None => self.0.push((limit, record)),
        }
    }
}
