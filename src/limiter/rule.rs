//! Which requests are counted together, and under which limit.

use std::collections::HashMap;

use super::call::Call;
use super::key_part::{Absent, Part};
use super::matching::{Conditions, Facts, Match};
use crate::algorithm::TokenBucket;
use crate::domain::{Cost, Identity, Limit, OnStoreError, Quota, RuleName};

/// Requests that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called, in keys, headers and answers.
    pub name: RuleName,
    /// Which requests it is for.
    pub matches: Match,
    /// What it does with them.
    pub effect: Effect,
    /// Whether it is followed, only watched, or left out.
    pub mode: RuleMode,
}

/// What a rule does with its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// They are counted under a limit.
    Limit(Box<Limiting>),
    /// No rule below applies to them.
    Exempt,
    /// They are refused with 403, and charged nothing.
    Deny,
}

/// Whether a rule is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleMode {
    /// It is followed.
    Enforce,
    /// It counts in buckets of its own and refuses nothing; what it would have refused is told.
    Shadow,
    /// As if it were not there.
    Off,
}

impl RuleMode {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Shadow, Self::Off];

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// How requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limiting {
    /// By what they are counted together; without a part, all of them.
    pub key: Vec<Part>,
    /// What is done about a request that lacks a part.
    pub absent: Absent,
    /// How much is allowed.
    pub limit: Limit,
    /// Other limits for some.
    pub overrides: Overrides,
    /// Tokens that each request takes.
    pub cost: Costs,
    /// What a request is answered when the store cannot decide.
    pub on_store_error: OnStoreError,
}

/// Tokens by what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// The first whose conditions hold counts.
    pub cases: Vec<(Conditions, Cost)>,
    /// What every other request takes.
    pub otherwise: Cost,
}

impl Costs {
    /// The same for every request.
    pub fn fixed(cost: Cost) -> Self {
        Self {
            cases: Vec::new(),
            otherwise: cost,
        }
    }

    /// The most that any request can take.
    pub fn most(&self) -> Cost {
        let costs = self.cases.iter().map(|(_, cost)| *cost);
        costs.fold(self.otherwise, Cost::max)
    }

    pub(super) fn of(&self, facts: &Facts<'_>) -> Cost {
        let mut cases = self.cases.iter();
        let case = cases.find(|(conditions, _)| conditions.hold(facts));
        case.map_or(self.otherwise, |(_, cost)| *cost)
    }
}

/// Limits for some instead of the rule's own: by the exact key, else by a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// By the identity that is counted.
    pub by_key: HashMap<Identity, Limit>,
    /// The header in which a trusted proxy names the client's plan, in lower case.
    pub plan_header: Option<Box<str>>,
    /// By the plan.
    pub by_plan: HashMap<Box<str>, Limit>,
}

impl Overrides {
    /// The limit of that client and of the plan that a trusted proxy says it has.
    pub(super) fn of(&self, who: &Identity, call: &Call<'_>) -> Option<Limit> {
        if let Some(limit) = self.by_key.get(who) {
            return Some(*limit);
        }
        let header = self.plan_header.as_deref()?;
        let plan = call
            .fields
            .first(header)
            .filter(|_| call.from_trusted_proxy);
        self.by_plan.get(std::str::from_utf8(plan?).ok()?).copied()
    }
}

impl Rule {
    /// The rule of a service without a rules file: named `default`, by client address, one token a request.
    pub fn default_of(limit: Limit) -> Self {
        let limiting = Limiting {
            key: vec![Part::Ip],
            absent: Absent::Address,
            limit,
            overrides: Overrides::default(),
            cost: Costs::fixed(Cost::MIN),
            on_store_error: OnStoreError::Local,
        };
        Self {
            name: RuleName::default_rule(),
            matches: Match::default(),
            effect: Effect::Limit(Box::new(limiting)),
            mode: RuleMode::Enforce,
        }
    }

    /// A rule named `default` that counts by token bucket, one token a request.
    pub fn token_bucket(quota: Quota) -> Self {
        Self::default_of(Limit {
            algorithm: &TokenBucket,
            quota,
        })
    }

    /// How it counts; `None` if it does not.
    pub fn limiting(&self) -> Option<&Limiting> {
        match &self.effect {
            Effect::Limit(limiting) => Some(limiting),
            Effect::Exempt | Effect::Deny => None,
        }
    }

    /// The same rule, with another answer for when the store cannot decide.
    #[must_use]
    pub fn on_store_error(mut self, policy: OnStoreError) -> Self {
        if let Effect::Limit(limiting) = &mut self.effect {
            limiting.on_store_error = policy;
        }
        self
    }
}
