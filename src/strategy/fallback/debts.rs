//! What this instance owes the store, and what became of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::domain::{Charge, Key, Limit, Receipt};

/// Most keys whose local charges are remembered for the store.
pub(super) const MOST_DEBTS: usize = 100_000;

/// What was written back since it was told, over however many tries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) keys: u64,
    pub(super) tokens: u64,
    /// Tokens that will never be written back, of all times.
    pub(super) lost: u64,
}

/// Tokens that were spent without the store, by key.
#[derive(Debug, Default)]
pub(super) struct Debts {
    pub(super) by_key: HashMap<Key, (Limit, u64)>,
    /// Tokens that will never be written back.
    pub(super) lost: u64,
    /// What was written back since it was told; its `lost` is what was told.
    settled: Settled,
}

impl Debts {
    pub(super) fn add(&mut self, charge: &Charge) {
        let tokens = charge.cost().get();
        let full = self.by_key.len() >= MOST_DEBTS;
        match self.by_key.entry(charge.key().clone()) {
            Entry::Occupied(mut debt) if debt.get().0 == charge.limit() => {
                debt.get_mut().1 += tokens;
            }
            Entry::Occupied(mut debt) => {
                self.lost += debt.insert((charge.limit(), tokens)).1;
            }
            Entry::Vacant(_) if full => self.lost += tokens,
            Entry::Vacant(place) => {
                place.insert((charge.limit(), tokens));
            }
        }
    }

    pub(super) fn subtract(&mut self, receipt: &Receipt) {
        let Entry::Occupied(mut debt) = self.by_key.entry(receipt.key.clone()) else {
            return;
        };
        let (limit, tokens) = debt.get_mut();
        if *limit == receipt.limit {
            *tokens = tokens.saturating_sub(receipt.tokens.get());
            if *tokens == 0 {
                debt.remove();
            }
        }
    }

    pub(super) fn of(&self, key: &Key) -> u64 {
        self.by_key.get(key).map_or(0, |(_, tokens)| *tokens)
    }

    pub(super) fn was_written_back(&mut self, tokens: u64) {
        self.settled.keys += 1;
        self.settled.tokens += tokens;
    }

    /// What is news since it was told the last time.
    pub(super) fn news(&mut self) -> Option<Settled> {
        let lost = self.lost;
        let nothing = Settled {
            lost,
            ..Settled::default()
        };
        let settled = std::mem::replace(&mut self.settled, nothing);
        (settled != nothing).then_some(Settled { lost, ..settled })
    }
}
