//! One rule, and `defaults`.

use super::findings::{Place, Report};
use super::lists::Lists;
use super::members::{Members, only_true, text, word};
use super::overrides::Owner;
use super::tree::Node;
use super::{Basis, conditions, cost, key, limit, overrides};
use crate::algorithm::{self, Algorithm};
use crate::domain::{Cost, OnStoreError, RuleName};
use crate::limiter::{Absent, Costs, Effect, Limiting, Match, Overrides, Part, Rule, RuleMode};

/// Members of every rule, of rules with a limit only, and of rules that end the reading.
const COMMON: [&str; 3] = ["name", "match", "mode"];
const LIMITING: [&str; 9] = [
    "limit",
    "burst",
    "key",
    "absent",
    "algorithm",
    "cost",
    "on_store_error",
    "overrides",
    "plan_header",
];
const ENDING: [&str; 2] = ["exempt", "deny"];

/// What rules have that do not say it themselves.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    algorithm: &'static dyn Algorithm,
    mode: RuleMode,
    on_store_error: OnStoreError,
    absent: Absent,
    key: Vec<Part>,
    ipv6_prefix: u8,
}

/// A rule, and where its members stand.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) rule: Rule,
    pub(super) name: Place,
    /// Where the limit, the key and the cost stand; where they do not, the name.
    pub(super) limit: Place,
    pub(super) key: Place,
    pub(super) cost: Place,
}

impl Defaults {
    pub(super) fn of(basis: &Basis) -> Self {
        Self {
            algorithm: basis.algorithm,
            mode: basis.mode,
            on_store_error: basis.on_store_error,
            absent: Absent::Address,
            key: vec![Part::Ip],
            ipv6_prefix: basis.ipv6_prefix,
        }
    }

    /// Those of the file on top of these. Problems are reported.
    pub(super) fn read(mut self, node: &Node, report: &mut Report) -> Self {
        let known = ["algorithm", "mode", "on_store_error", "absent", "key"];
        if let Some(members) = Members::of(node, "`defaults`", &known, report) {
            let own = self.clone();
            self.algorithm = own.algorithm(&members, report).unwrap_or(self.algorithm);
            self.mode = own.mode(&members, report).unwrap_or(self.mode);
            self.on_store_error = own
                .on_store_error(&members, report)
                .unwrap_or(self.on_store_error);
            self.absent = own.absent(&members, report).unwrap_or(self.absent);
            self.key = own.key(&members, report).unwrap_or(self.key);
        }
        self
    }

    fn algorithm(
        &self,
        members: &Members<'_>,
        report: &mut Report,
    ) -> Option<&'static dyn Algorithm> {
        members
            .get("algorithm")
            .map_or(Some(self.algorithm), |node| {
                word(node, algorithm::ALL, Algorithm::name, report)
            })
    }

    fn mode(&self, members: &Members<'_>, report: &mut Report) -> Option<RuleMode> {
        members.get("mode").map_or(Some(self.mode), |node| {
            word(node, &RuleMode::ALL, RuleMode::name, report)
        })
    }

    fn on_store_error(&self, members: &Members<'_>, report: &mut Report) -> Option<OnStoreError> {
        members
            .get("on_store_error")
            .map_or(Some(self.on_store_error), |node| {
                word(node, &OnStoreError::ALL, OnStoreError::name, report)
            })
    }

    fn absent(&self, members: &Members<'_>, report: &mut Report) -> Option<Absent> {
        members.get("absent").map_or(Some(self.absent), |node| {
            word(node, &Absent::ALL, Absent::name, report)
        })
    }

    fn key(&self, members: &Members<'_>, report: &mut Report) -> Option<Vec<Part>> {
        members
            .get("key")
            .map_or_else(|| Some(self.key.clone()), |node| key::read(node, report))
    }
}

/// The place and the text of a rule's name.
pub(super) fn name(members: &Members<'_>, report: &mut Report) -> Option<(Place, RuleName)> {
    let Some(node) = members.get("name") else {
        report.error(members.place, "a rule without `name`");
        return None;
    };
    let given = text(node, "a name", report)?;
    match RuleName::new(given) {
        Ok(name) => Some((node.place, name)),
        Err(_) => {
            node.is_not(
                "a name: 1 to 64 of a-z, 0-9, _ and -, the first one a letter",
                report,
            );
            None
        }
    }
}

/// The members of a rule, if it is one.
pub(super) fn members<'a>(node: &'a Node, report: &mut Report) -> Option<Members<'a>> {
    let known = [&COMMON[..], &LIMITING[..], &ENDING[..]].concat();
    Members::of(node, "a rule", &known, report)
}

/// Reads a rule from its members. Every problem in it is reported.
pub(super) fn read(
    members: &Members<'_>,
    name: Option<(Place, RuleName)>,
    defaults: &Defaults,
    lists: &mut Lists,
    report: &mut Report,
) -> Option<Placed> {
    let matches = members.get("match").map_or_else(
        || Some(Match::default()),
        |node| conditions::read_match(node, lists, report),
    );
    let mode = defaults.mode(members, report);
    let effect = match ending(members, report) {
        None => limiting(members, defaults, lists, report)
            .map(|limiting| Effect::Limit(Box::new(limiting))),
        Some(ending) => ending,
    };
    let (place, name) = name?;
    let at = |member: &str| members.get(member).map_or(place, |node| node.place);
    let (effect, mode) = (effect?, mode?);
    Some(Placed {
        name: place,
        limit: at("limit"),
        key: at("key"),
        cost: at("cost"),
        rule: Rule {
            mode: effective(mode, &effect, members, report)?,
            name,
            matches: matches?,
            effect,
        },
    })
}

/// The mode of a rule: an exemption refuses nothing, so there is nothing to try in shadow.
fn effective(
    mode: RuleMode,
    effect: &Effect,
    members: &Members<'_>,
    report: &mut Report,
) -> Option<RuleMode> {
    match (effect, mode, members.get("mode")) {
        (Effect::Exempt, RuleMode::Shadow, Some(node)) => {
            node.is_not(
                "a mode of an exemption, which is `enforce` or `off`: it refuses nothing",
                report,
            );
            None
        }
        (Effect::Exempt, RuleMode::Shadow, None) => Some(RuleMode::Enforce),
        _ => Some(mode),
    }
}

/// What a rule with `exempt` or `deny` does; `None` within if it has members that it cannot have.
fn ending(members: &Members<'_>, report: &mut Report) -> Option<Option<Effect>> {
    let (exempt, deny) = (members.get("exempt"), members.get("deny"));
    let (word, effect, node) = match (exempt, deny) {
        (None, None) => return None,
        (Some(_), Some(deny)) => {
            report.error(deny.place, "a rule has `exempt` or `deny`, not both");
            return Some(None);
        }
        (Some(node), None) => ("exempt", Effect::Exempt, node),
        (None, Some(node)) => ("deny", Effect::Deny, node),
    };
    let mut effect = only_true(node, report).map(|()| effect);
    for (name, _) in members.iter() {
        if LIMITING.contains(&&*name.text) {
            let message = format!(
                "a rule with `{word}` has no `{}`: it counts nothing",
                name.text
            );
            report.error(name.place, message);
            effect = None;
        }
    }
    Some(effect)
}

fn limiting(
    members: &Members<'_>,
    defaults: &Defaults,
    lists: &mut Lists,
    report: &mut Report,
) -> Option<Limiting> {
    let algorithm = defaults.algorithm(members, report);
    // Problems of the limit are told even if it is not known how it is to be counted.
    let assumed = algorithm.unwrap_or(defaults.algorithm);
    let limit = match members.get("limit") {
        Some(limit) => limit::read(limit, members.get("burst"), assumed, report),
        None => {
            let place = members.place_of("name").unwrap_or(members.place);
            report.error(
                place,
                "a rule without `limit`: it has one, or `exempt: true`, or `deny: true`",
            );
            None
        }
    };
    let key = defaults.key(members, report);
    let absent = defaults.absent(members, report);
    let on_store_error = defaults.on_store_error(members, report);
    let cost = members.get("cost").map_or_else(
        || Some(Costs::fixed(Cost::MIN)),
        |node| cost::read(node, lists, report),
    );
    let owner = Owner {
        key: key.as_deref(),
        algorithm: assumed,
        ipv6_prefix: defaults.ipv6_prefix,
    };
    let overrides: Option<Overrides> = overrides::read(members, &owner, lists, report);
    algorithm?;
    Some(Limiting {
        limit: limit?,
        absent: absent?,
        on_store_error: on_store_error?,
        cost: cost?,
        overrides: overrides?,
        key: key?,
    })
}
