//! What is legal in a rules file, but surely a mistake.

use super::findings::{Place, Report};
use super::outdone::{limits, outdoes_rule};
use super::rule::Placed;
use crate::limiter::covers::Effort;
use crate::limiter::{Effect, Limiting, Part, Rule, RuleMode, Value};
use crate::strategy::MAX_CHARGES;

/// Headers in which addresses are named, by whoever sends them.
const ADDRESS_HEADERS: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip"];

/// Warns of what is surely a mistake in rules that are sound one by one. `list` is where they stand.
pub(super) fn check(list: Place, rules: &[Placed], report: &mut Report) {
    if rules.is_empty() {
        report.warn(list, "no rules: every request passes, unlimited");
    }
    let in_force = rules
        .iter()
        .filter(|placed| placed.rule.mode != RuleMode::Off);
    let mut lint = Lint {
        rules: in_force.collect(),
        effort: Effort::usual(),
    };
    lint.unreachable(report);
    lint.exempt_from_nothing(report);
    lint.too_many(report);
    for i in 0..lint.rules.len() {
        if let Some(limiting) = lint.rules[i].rule.limiting() {
            too_costly(lint.rules[i], limiting, report);
            lint.forgeable(i, limiting, report);
            lint.outdone(i, limiting, report);
        }
    }
    if lint.effort.is_spent() {
        report.warn(
            list,
            "so many rules with so many patterns that not all were compared: more may be doubtful than is told",
        );
    }
}

struct Lint<'a> {
    /// Those that are not off, in their order.
    rules: Vec<&'a Placed>,
    effort: Effort,
}

impl Lint<'_> {
    fn covers(&self, wide: usize, narrow: usize) -> bool {
        let (wide, narrow) = (&self.rules[wide].rule, &self.rules[narrow].rule);
        wide.matches.covers(&narrow.matches, &self.effort)
    }

    /// Warns of rules below one that ends the reading for all their requests, and leaves them out of the rest.
    fn unreachable(&mut self, report: &mut Report) {
        let mut reached: Vec<&Placed> = Vec::new();
        for i in 0..self.rules.len() {
            let placed = self.rules[i];
            let ends = |above: usize| ends(&self.rules[above].rule) && self.covers(above, i);
            match (0..i).find(|above| ends(*above)) {
                Some(above) => {
                    let above = &self.rules[above].rule;
                    let (name, does) = match above.effect {
                        Effect::Deny => (above.name.as_str(), "refuses"),
                        _ => (above.name.as_str(), "exempts"),
                    };
                    report.warn(
                        placed.name,
                        format!(
                            "no request gets to this rule: `{name}` above {does} all that it is for"
                        ),
                    );
                }
                None => reached.push(placed),
            }
        }
        self.rules = reached;
    }

    fn exempt_from_nothing(&self, report: &mut Report) {
        if let Some(last) = self.rules.last()
            && last.rule.effect == Effect::Exempt
        {
            report.warn(
                last.name,
                "no rule stands below this one, so it exempts from nothing: rules above it still apply",
            );
        }
    }

    /// Warns where more rules surely apply to a request than one may have.
    fn too_many(&self, report: &mut Report) {
        let counts = |i: &usize| self.rules[*i].rule.limiting().is_some();
        for i in (0..self.rules.len()).filter(counts).skip(MAX_CHARGES) {
            let apply = (0..i)
                .filter(counts)
                .filter(|above| self.covers(*above, i))
                .count();
            if apply >= MAX_CHARGES {
                report.warn(
                    self.rules[i].name,
                    format!("more than {MAX_CHARGES} rules apply to the requests of this one, of which only the first {MAX_CHARGES} count"),
                );
                return;
            }
        }
    }

    /// Warns of a key that a client chooses anew with each request, where nothing else bounds it.
    fn forgeable(&self, i: usize, limiting: &Limiting, report: &mut Report) {
        let placed = self.rules[i];
        let names_address =
            |part: &&Part| matches!(part, Part::Header(name) if ADDRESS_HEADERS.contains(&&**name));
        if let Some(part) = limiting.key.iter().find(names_address) {
            report.warn(
                placed.key,
                format!("anybody can send any {part}: `ip` is the client's address, which a proxy in TRUSTED_PROXIES tells"),
            );
            return;
        }
        let mut parts = limiting.key.iter();
        let Some(part) = parts.find(|part| part.is_secret() && !is_pinned(part, &placed.rule))
        else {
            return;
        };
        let bounds = |other: usize| {
            let rule = &self.rules[other].rule;
            let is_firm = rule
                .limiting()
                .is_some_and(|limiting| limiting.key.iter().all(is_firm));
            is_firm && rule.mode == RuleMode::Enforce && self.covers(other, i)
        };
        if !(0..self.rules.len()).any(bounds) {
            report.warn(
                placed.key,
                format!("who sends another {part} with each request has a full bucket each time; a rule by `ip` for the same requests bounds that"),
            );
        }
    }

    /// Warns of a rule beside which another leaves nothing to deny, or whose overrides another takes back.
    fn outdone(&self, i: usize, limiting: &Limiting, report: &mut Report) {
        let placed = self.rules[i];
        for other in (0..self.rules.len()).filter(|other| *other != i) {
            let rule = &self.rules[other].rule;
            let Some(tight) = rule.limiting().filter(|_| rule.mode == RuleMode::Enforce) else {
                continue;
            };
            let name = rule.name.as_str();
            // Of two that are the same, the second is one too many.
            let outdone =
                outdoes_rule(tight, limiting) && (other < i || !outdoes_rule(limiting, tight));
            if outdone && self.covers(other, i) && !self.is_cut_off_between(i, other) {
                report.warn(
                    placed.limit,
                    format!("`{name}` counts the same requests and never allows more than this, so this limit denies nothing"),
                );
                return;
            }
            let twins = other < i
                && rule.mode == placed.rule.mode
                && rule.matches == placed.rule.matches
                && tight.key == limiting.key;
            if twins && !is_second_tier(tight, limiting) {
                report.warn(
                    placed.name,
                    format!("`{name}` has the same match and the same key, and both apply: what one grants to some, the other still denies"),
                );
                return;
            }
        }
    }

    /// Whether a rule between the two ends the reading, so that only the upper one applies to some requests.
    fn is_cut_off_between(&self, upper: usize, lower: usize) -> bool {
        let mut between = self.rules.get(upper..lower).unwrap_or_default().iter();
        between.any(|placed| ends(&placed.rule))
    }
}

/// Whether two rules with the same match and key are a limit in two tiers, such as 10 a second and 1,000 an hour.
fn is_second_tier(one: &Limiting, other: &Limiting) -> bool {
    limits(one).count() == 1 && limits(other).count() == 1 && one.cost == other.cost
}

fn ends(rule: &Rule) -> bool {
    rule.limiting().is_none() && rule.mode == RuleMode::Enforce
}

/// Whether a client cannot choose another value of this part and still be meant: its values stand in the file, or only
/// those are meant who know a secret.
fn is_pinned(part: &Part, rule: &Rule) -> bool {
    let is_secret = |value: &Value| matches!(value, Value::Hashed(_));
    let is_known = |value: &Value| match value {
        Value::Text(pattern) => pattern.literal().is_some(),
        Value::Hashed(_) => true,
    };
    let is_it = |header: &str| matches!(part, Part::Header(name) if **name == *header);
    let mut headers = rule.matches.when.headers.iter();
    headers.any(|(header, values)| {
        values.iter().all(is_secret) || (is_it(header) && values.iter().all(is_known))
    })
}

/// Whether a client cannot choose another value with each request.
fn is_firm(part: &Part) -> bool {
    matches!(part, Part::Ip | Part::Constant(_))
}

fn too_costly(placed: &Placed, limiting: &Limiting, report: &mut Report) {
    let most = limiting.cost.most().get();
    let least = limits(limiting)
        .map(|limit| limit.quota.capacity())
        .min()
        .unwrap_or(u64::MAX);
    if most <= least {
        return;
    }
    let own = limiting.limit.quota.capacity();
    let (what, whose) = if most > own {
        (own, "the burst")
    } else {
        (least, "the burst of an override")
    };
    report.warn(
        placed.cost,
        format!("a cost of {most} is above {whose}, {what}: such requests never pass and are answered 422"),
    );
}
