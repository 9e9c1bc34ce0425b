//! What a request is told.

use super::key_part::Part;
use super::rule::{Limiting, Rule};
use super::rule_set::{Found, Reading};
use crate::domain::{Charge, CostAboveCapacity, Decision, Verdict};

/// What a request is told, and by which rules.
#[derive(Debug)]
pub struct Answer {
    /// Whether it may pass.
    pub ruling: Ruling,
    reading: Reading,
}

/// Whether a request may pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The limits were asked: admitted or denied, with the numbers.
    Decided(Verdict),
    /// Nothing was counted, and it passes: no limit applies, or the store could not be asked and all that apply say
    /// `allow`.
    Unlimited,
    /// The store could not be asked and the policy is to refuse.
    Unavailable,
    /// The cost is above the capacity of a limit: it can never pass, so no wait is named.
    Inadmissible {
        /// The rule, by its place.
        rule: usize,
        /// The cost and the capacity.
        error: CostAboveCapacity,
    },
    /// A rule refuses such requests.
    Banned {
        /// The rule, by its place.
        rule: usize,
    },
    /// A part of a rule's key is absent, and the rule refuses such requests.
    KeyAbsent {
        /// The rule, by its place.
        rule: usize,
        /// The part, by its place.
        part: usize,
    },
}

/// What one rule decided.
#[derive(Debug, Clone, Copy)]
pub struct Ruled<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What was to be charged.
    pub charge: &'a Charge,
    /// What its limit said.
    pub decision: &'a Decision,
}

impl Answer {
    pub(super) fn new(reading: Reading, ruling: Ruling) -> Self {
        Self { ruling, reading }
    }

    /// Counts what each rule said.
    pub(super) fn count(&self) {
        let counts = self.reading.set.counts();
        for (place, ruled) in self.by_place() {
            counts[place].add(ruled.decision.is_allowed());
        }
    }

    /// The rule at that place.
    pub fn rule(&self, place: usize) -> &Rule {
        &self.reading.set.rules()[place]
    }

    /// The part at that place of that rule's key.
    pub fn part(&self, rule: usize, part: usize) -> Option<&Part> {
        let key = self.rule(rule).limiting().map(|Limiting { key, .. }| key)?;
        key.get(part)
    }

    /// What was read of the rules.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// What each rule said that was asked, in their order.
    pub fn all(&self) -> impl Iterator<Item = Ruled<'_>> {
        let decisions = match &self.ruling {
            Ruling::Decided(verdict) => verdict.decisions.as_slice(),
            _ => &[],
        };
        let Reading { set, found } = &self.reading;
        let Found { rules, charges, .. } = found;
        let asked = rules.iter().zip(charges).zip(decisions);
        asked.map(|((&i, charge), decision)| Ruled {
            rule: &set.rules()[i],
            charge,
            decision,
        })
    }

    /// The same, each with the place of its rule.
    pub fn by_place(&self) -> impl Iterator<Item = (usize, Ruled<'_>)> {
        self.reading.found.rules.iter().copied().zip(self.all())
    }

    /// What each enforced rule said that was asked, in their order.
    pub fn enforced(&self) -> impl Iterator<Item = Ruled<'_>> {
        self.all().filter(|ruled| ruled.charge.is_enforced())
    }

    /// The rules in shadow that would have denied the request.
    pub fn shadow_denials(&self) -> impl Iterator<Item = Ruled<'_>> {
        let observed = self.all().filter(|ruled| !ruled.charge.is_enforced());
        observed.filter(|ruled| !ruled.decision.is_allowed())
    }
}
