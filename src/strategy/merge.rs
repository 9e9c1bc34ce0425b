//! The same key twice in one request: charged as the sum.

use smallvec::SmallVec;

use super::{Deciding, Fault, MAX_CHARGES, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Verdict};

/// Asks `strategy` about charges among which a key may stand twice.
pub(super) fn asked<'a, S: Strategy + ?Sized>(
    strategy: &'a S,
    charges: &'a [Charge],
    intent: Intent,
) -> Deciding<'a> {
    if charges.len() == 1 {
        return strategy.ask(charges, intent);
    }
    if charges.is_empty() || charges.len() > MAX_CHARGES {
        let given = charges.len();
        return Deciding::ready(Err(Fault::Malformed(format!(
            "{given} charges: 1 to {MAX_CHARGES} are allowed"
        ))));
    }
    let first = |charge: &Charge| charges.iter().position(|other| other.key() == charge.key());
    if charges
        .iter()
        .enumerate()
        .all(|(i, charge)| first(charge) == Some(i))
    {
        return strategy.ask(charges, intent);
    }
    match Merged::of(charges) {
        Ok(merged) => Deciding::waiting(async move {
            let verdict = strategy.ask(&merged.charges, intent).await?;
            Ok(merged.spread(verdict))
        }),
        Err(fault) => Deciding::ready(Err(fault)),
    }
}

/// Charges whose keys all differ, and which of them each charge of the request became part of.
struct Merged {
    charges: Vec<Charge>,
    places: SmallVec<[usize; MAX_CHARGES]>,
}

impl Merged {
    fn of(charges: &[Charge]) -> Result<Self, Fault> {
        let mut merged = Self {
            charges: Vec::with_capacity(charges.len()),
            places: SmallVec::new(),
        };
        for charge in charges {
            match merged
                .charges
                .iter()
                .position(|other| other.key() == charge.key())
            {
                Some(place) => {
                    merged.charges[place] = merged.charges[place]
                        .clone()
                        .merged(charge)
                        .map_err(Fault::from)?;
                    merged.places.push(place);
                }
                None => {
                    merged.places.push(merged.charges.len());
                    merged.charges.push(charge.clone());
                }
            }
        }
        Ok(merged)
    }

    /// One decision for each charge of the request: that on the sum it became part of.
    fn spread(&self, mut verdict: Verdict) -> Verdict {
        verdict.decisions = self
            .places
            .iter()
            .map(|place| verdict.decisions[*place])
            .collect();
        verdict
    }
}
