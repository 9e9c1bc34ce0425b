//! Proof of a charge, with which it can be given back once.

use crate::domain::{Charge, Cost, Key, Limit, Source, Verdict};

/// What was charged to one key, and when. It cannot be copied: who gives it back has it no more.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The key that was charged.
    pub key: Key,
    /// The limit under which it was charged.
    pub limit: Limit,
    /// Tokens that were charged.
    pub tokens: Cost,
    /// The store's time of the charge, in microseconds since 1970.
    pub charged_at_us: u64,
    /// Who charged it.
    pub source: Source,
}

impl Verdict {
    /// What was charged of `charges`, which this is the verdict on; nothing, if the request was denied.
    ///
    /// A key that was charged by several of them has one receipt, of their sum.
    pub fn into_receipts(self, charges: &[Charge]) -> Vec<Receipt> {
        let mut receipts: Vec<Receipt> = Vec::new();
        let charged = charges
            .iter()
            .zip(&self.decisions)
            .filter(|(_, decision)| self.admitted && decision.is_allowed())
            .filter(|(_, decision)| decision.source != Source::Nobody);
        for (charge, decision) in charged {
            if let Some(receipt) = receipts
                .iter_mut()
                .find(|receipt| receipt.key == *charge.key())
            {
                receipt.tokens = receipt.tokens.saturating_add(charge.cost().get());
            } else {
                receipts.push(Receipt {
                    key: charge.key().clone(),
                    limit: charge.limit(),
                    tokens: charge.cost(),
                    charged_at_us: self.now_us,
                    source: decision.source,
                });
            }
        }
        receipts
    }
}
