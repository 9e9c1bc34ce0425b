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
    match at_once(strategy, charges, intent) {
        Some(answer) => Deciding::ready(answer),
        None => later(strategy, charges, intent),
    }
}

/// The same where nobody needs to be waited for.
pub(super) fn at_once<S: Strategy + ?Sized>(
    strategy: &S,
    charges: &[Charge],
    intent: Intent,
) -> Option<Result<Verdict, Fault>> {
    if is_plain(charges) {
        strategy.ask_at_once(charges, intent)
    } else {
        None
    }
}

/// The same for whom that had no answer.
pub(super) fn later<'a, S: Strategy + ?Sized>(
    strategy: &'a S,
    charges: &'a [Charge],
    intent: Intent,
) -> Deciding<'a> {
    if is_plain(charges) {
        return strategy.ask(charges, intent);
    }
    if charges.is_empty() || charges.len() > MAX_CHARGES {
        let given = charges.len();
        return Deciding::ready(Err(Fault::Malformed(format!(
            "{given} charges: 1 to {MAX_CHARGES} are allowed"
        ))));
    }
    match Merged::of(charges) {
        Ok(merged) => Deciding::waiting(async move {
            let verdict = asked(strategy, &merged.charges, intent).await?;
            Ok(merged.spread(verdict))
        }),
        Err(fault) => Deciding::ready(Err(fault)),
    }
}

/// Whether a strategy can be asked as it is: few enough charges, whose keys all differ.
fn is_plain(charges: &[Charge]) -> bool {
    let is_first = |(i, charge): (usize, &Charge)| {
        let mut before = charges[..i].iter();
        before.all(|other| other.key() != charge.key())
    };
    match charges {
        [_] => true,
        _ => (2..=MAX_CHARGES).contains(&charges.len()) && charges.iter().enumerate().all(is_first),
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
