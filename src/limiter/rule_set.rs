//! All rules of one version, and what they say of a request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::Guard;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::answer::Ruling;
use super::call::Call;
use super::index::Index;
use super::key_part::{Absent, Part};
use super::matching::{Facts, Mismatch};
use super::rule::{Effect, Limiting, Rule, RuleMode};
use crate::domain::{Charge, Identity, Key, OnStoreError};
use crate::strategy::MAX_CHARGES;

/// Which rules are in force: the first 12 hex digits of the SHA-256 of what they were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 6]);

impl Version {
    /// The version of that content.
    pub fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let mut version = [0; 6];
        version.copy_from_slice(&digest[..6]);
        Self(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// All rules of one version, in the order in which they are read.
#[derive(Debug)]
pub struct RuleSet {
    rules: Box<[Rule]>,
    counts: Box<[Counts]>,
    index: Index,
    version: Version,
}

/// What one rule did since it is in force.
#[derive(Debug, Default)]
pub struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
}

impl Counts {
    /// Requests for which its limit had room.
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Requests for which it had none: denied, or in shadow, what would have been.
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, allowed: bool) {
        let count = if allowed { &self.allowed } else { &self.denied };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// How keys are written.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) prefix: Box<str>,
    pub(super) ipv6_prefix: u8,
}

/// What the rules say of one request, before any bucket was looked at.
#[derive(Debug)]
pub struct Reading {
    /// The rules that were read.
    pub(super) set: Guard<Arc<RuleSet>>,
    pub(super) found: Found,
}

/// What of them applies.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is to be charged.
    pub(super) charges: SmallVec<[Charge; 1]>,
    /// The rule of each charge, by its place.
    pub(super) rules: SmallVec<[usize; 1]>,
    /// Why it is refused without asking the store.
    refusal: Option<Ruling>,
    cut_off: bool,
}

/// How far a rule got with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applies<'a> {
    /// It is for other requests.
    No(Mismatch<'a>),
    /// It is left out.
    Off,
    /// An exemption above ended the reading.
    NotRead,
    /// The request lacks a part of its key, so it does not apply.
    Skipped(&'a Part),
    /// It applies.
    Yes,
}

impl RuleSet {
    /// These rules, of that version.
    pub fn new(rules: Vec<Rule>, version: Version) -> Self {
        Self {
            counts: rules.iter().map(|_| Counts::default()).collect(),
            index: Index::of(&rules),
            rules: rules.into(),
            version,
        }
    }

    /// One rule, that no file gave.
    pub fn of_one(rule: Rule) -> Self {
        let version = Version::of(format!("{rule:?}").as_bytes());
        Self::new(vec![rule], version)
    }

    /// Which version this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What each rule did since this version is in force, in their order.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }

    /// Whether some request is refused while the store cannot decide.
    pub fn needs_store(&self) -> bool {
        let enforced = self
            .rules
            .iter()
            .filter(|rule| rule.mode == RuleMode::Enforce);
        let mut limits = enforced.filter_map(Rule::limiting);
        limits.any(|limiting| limiting.on_store_error == OnStoreError::Deny)
    }

    /// Reads the rules from top to bottom.
    pub(super) fn read(set: Guard<Arc<Self>>, call: &Call<'_>, keys: &Keys) -> Reading {
        let facts = Facts::of(*call);
        let mut found = Found::default();
        for &i in set.index.candidates(&facts.path) {
            let rule = &set.rules[i];
            if rule.mode == RuleMode::Off || rule.mismatch(&facts).is_some() {
                continue;
            }
            match &rule.effect {
                Effect::Limit(limiting) => found.charge(&set, i, limiting, &facts, keys),
                Effect::Deny if rule.mode == RuleMode::Shadow => set.counts[i].add(false),
                Effect::Deny => found.refuse(Ruling::Banned { rule: i }),
                Effect::Exempt => {}
            }
            if rule.ends_the_reading() {
                break;
            }
        }
        Reading { set, found }
    }

    /// What each rule is to a request, in their order: what [`read`](Self::read) acts on, told.
    pub(super) fn explain(&self, call: &Call<'_>, keys: &Keys) -> Vec<Applies<'_>> {
        let facts = Facts::of(*call);
        let mut ended = false;
        let applies = self.rules.iter().map(|rule| {
            if ended {
                return Applies::NotRead;
            }
            if rule.mode == RuleMode::Off {
                return Applies::Off;
            }
            if let Some(mismatch) = rule.mismatch(&facts) {
                return Applies::No(mismatch);
            }
            let Some(limiting) = rule.limiting() else {
                ended = rule.ends_the_reading();
                return Applies::Yes;
            };
            match limiting.identity(&facts, keys) {
                Who::Skip(part) => Applies::Skipped(&limiting.key[part]),
                Who::Known(_) | Who::Refuse(_) => Applies::Yes,
            }
        });
        applies.collect()
    }
}

impl Rule {
    /// Whether no rule below it applies to its requests. A ban that is only tried hides none.
    fn ends_the_reading(&self) -> bool {
        match self.effect {
            Effect::Exempt => true,
            Effect::Deny => self.mode == RuleMode::Enforce,
            Effect::Limit(_) => false,
        }
    }

    /// Why a request is not meant; `None` if it is.
    fn mismatch(&self, facts: &Facts<'_>) -> Option<Mismatch<'_>> {
        // A browser that is refused the question cannot ask it: only who names OPTIONS wants it counted.
        let spared = facts.is_preflight && self.limiting().is_some();
        if spared && !self.matches.names_method("OPTIONS") {
            return Some(Mismatch::Preflight);
        }
        self.matches.mismatch(facts)
    }
}

/// Who is counted.
enum Who {
    Known(Identity),
    /// This part is absent, so the rule does not apply.
    Skip(usize),
    /// This part is absent, so the request is refused.
    Refuse(usize),
}

impl Limiting {
    fn identity(&self, facts: &Facts<'_>, keys: &Keys) -> Who {
        let mut who = Identity::new();
        for (i, part) in self.key.iter().enumerate() {
            who = match part.add_to(who, facts, keys.ipv6_prefix) {
                Ok(who) => who,
                Err(who) => match self.absent {
                    Absent::Address => who.with_ip(facts.call.client, keys.ipv6_prefix),
                    Absent::Skip => return Who::Skip(i),
                    Absent::Deny => return Who::Refuse(i),
                },
            };
        }
        Who::Known(who)
    }
}

impl Reading {
    /// What the request is charged, if it is admitted.
    pub fn charges(&self) -> &[Charge] {
        &self.found.charges
    }

    /// What is to be charged, each with the place of its rule.
    pub fn asked(&self) -> impl Iterator<Item = (usize, &Charge)> {
        let Found { rules, charges, .. } = &self.found;
        rules.iter().copied().zip(charges)
    }

    /// Whether the request is refused without asking the store.
    pub fn is_refused(&self) -> bool {
        self.found.refusal.is_some()
    }

    /// What can be said without asking the store.
    pub(super) fn settled(&mut self) -> Option<Ruling> {
        let unlimited = self.charges().is_empty().then_some(Ruling::Unlimited);
        self.found.refusal.take().or(unlimited)
    }

    /// Whether more rules apply than a request can have charges: the first ones count.
    pub(super) fn is_cut_off(&self) -> bool {
        self.found.cut_off
    }

    /// The same, to be kept for long: each thread has a few places only in which rules can be read without counting
    /// who does.
    pub(super) fn kept(mut self) -> Self {
        self.set = Guard::from_inner(Guard::into_inner(self.set));
        self
    }
}

impl Found {
    fn charge(
        &mut self,
        set: &RuleSet,
        i: usize,
        limiting: &Limiting,
        facts: &Facts<'_>,
        keys: &Keys,
    ) {
        let rule = &set.rules[i];
        let enforced = rule.mode == RuleMode::Enforce;
        let who = match limiting.identity(facts, keys) {
            Who::Known(who) => who,
            Who::Refuse(part) if enforced => {
                return self.refuse(Ruling::KeyAbsent { rule: i, part });
            }
            Who::Refuse(_) => return set.counts[i].add(false),
            Who::Skip(_) => return,
        };
        let limit = limiting
            .overrides
            .of(&who, &facts.call)
            .unwrap_or(limiting.limit);
        let key = Key::new(&keys.prefix, limit.algorithm, &rule.name, &who);
        match Charge::new(key, limit, limiting.cost.of(facts)) {
            Ok(charge) => {
                let charge = charge.with_on_store_error(limiting.on_store_error);
                self.add(i, if enforced { charge } else { charge.observed() });
            }
            Err(error) if enforced => self.refuse(Ruling::Inadmissible { rule: i, error }),
            Err(_) => set.counts[i].add(false),
        }
    }

    /// Of too many charges the first count; but what is only tried makes room for what is in force.
    fn add(&mut self, rule: usize, charge: Charge) {
        if self.charges.len() == MAX_CHARGES {
            self.cut_off = true;
            let tried = self.charges.iter().rposition(|other| !other.is_enforced());
            let Some(tried) = tried.filter(|_| charge.is_enforced()) else {
                return;
            };
            self.charges.remove(tried);
            self.rules.remove(tried);
        }
        self.charges.push(charge);
        self.rules.push(rule);
    }

    /// The first refusal stands, but a ban comes before all others.
    fn refuse(&mut self, refusal: Ruling) {
        if self.refusal.is_none() || matches!(refusal, Ruling::Banned { .. }) {
            self.refusal = Some(refusal);
        }
    }
}
