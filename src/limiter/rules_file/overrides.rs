//! Other limits for some: `overrides`.

use std::collections::HashMap;

use super::conditions::{LONGEST, NO_HASH, is_host, is_method, is_token, unfit};
use super::findings::{Place, Report};
use super::limit;
use super::lists::{Lists, REFERENCE};
use super::members::{Members, list, parsed, text};
use super::tree::{Node, Value};
use crate::algorithm::Algorithm;
use crate::domain::{Identity, Limit};
use crate::limiter::path::normal;
use crate::limiter::{Overrides, Part};

/// Most entries of a rule.
const MOST_ENTRIES: usize = 10_000;
/// Most keys of a rule, those in lists included.
const MOST_KEYS: usize = 200_000;
/// Longest name of a plan, in bytes.
const LONGEST_PLAN: usize = 128;

/// What the rule says of itself that its overrides need.
#[derive(Debug)]
pub(super) struct Owner<'a> {
    /// `None` if the rule's own key is wrong.
    pub(super) key: Option<&'a [Part]>,
    pub(super) algorithm: &'static dyn Algorithm,
    pub(super) ipv6_prefix: u8,
}

/// Reads `plan_header` and `overrides`.
pub(super) fn read(
    members: &Members<'_>,
    owner: &Owner<'_>,
    lists: &mut Lists,
    report: &mut Report,
) -> Option<Overrides> {
    let header = members.get("plan_header");
    let plan_header = header.map(|node| {
        parsed(node, "the name of a header", report, |name| {
            is_token(name).then(|| name.to_ascii_lowercase().into())
        })
    });
    let mut reading = Reading {
        owner,
        lists,
        by_key: HashMap::new(),
        by_plan: HashMap::new(),
        lines: HashMap::new(),
        has_header: header.is_some(),
        sound: true,
    };
    if let Some(node) = members.get("overrides") {
        let entries = list(node, "overrides", MOST_ENTRIES, report);
        reading.sound &= entries.is_some();
        if let Value::Members(members) = &node.value {
            // Somebody's idea of `key: limit`.
            members.iter().for_each(|(name, _)| report.hide(name.place));
        }
        for node in entries.unwrap_or_default() {
            reading.sound &= reading.entry(node, report).is_some();
        }
    }
    if let Some(header) = header
        && reading.sound
        && reading.by_plan.is_empty()
    {
        report.warn(
            header.place,
            "no override is for a plan, so `plan_header` means nothing",
        );
    }
    let (by_key, by_plan, sound) = (reading.by_key, reading.by_plan, reading.sound);
    Some(Overrides {
        by_key,
        plan_header: plan_header.map_or(Some(None), |header| header.map(Some))?,
        by_plan,
    })
    .filter(|_| sound)
}

struct Reading<'a> {
    owner: &'a Owner<'a>,
    lists: &'a mut Lists,
    by_key: HashMap<Identity, Limit>,
    by_plan: HashMap<Box<str>, Limit>,
    /// In which line each key stands.
    lines: HashMap<Identity, usize>,
    has_header: bool,
    sound: bool,
}

impl Reading<'_> {
    fn entry(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        // Before anything else is said of these lines.
        match &node.value {
            Value::Members(members) => {
                let keys = members.iter().filter(|(name, _)| name.text != "plan");
                keys.for_each(|(name, node)| self.hide(&name.text, node, report));
            }
            Value::Text { .. } => {
                self.hide_value(0, node, report);
                report.error(node.place, AN_OVERRIDE);
                return None;
            }
            _ => self.hide("", node, report),
        }
        let known = ["key", "plan", "limit", "burst"];
        let members = Members::of(node, "an override", &known, report)?;
        let limit = match members.get("limit") {
            Some(limit) => {
                let (burst, algorithm) = (members.get("burst"), self.owner.algorithm);
                limit::read(limit, burst, algorithm, report)
            }
            None => {
                report.error(members.place, "an override without `limit`");
                None
            }
        };
        match (members.get("key"), members.get("plan")) {
            (Some(key), None) => self.keys(key, limit, report),
            (None, Some(plan)) => self.plan(plan, limit, report),
            (Some(_), Some(plan)) => {
                report.error(
                    plan.place,
                    "an override is for a `key` or for a `plan`, not for both",
                );
                None
            }
            (None, None) => {
                report.error(members.place, "an override without `key` or `plan`");
                None
            }
        }
    }

    /// Hides what may be a secret.
    fn hide(&self, member: &str, node: &Node, report: &mut Report) {
        match (member, &node.value) {
            ("limit" | "burst", _) => {}
            (_, Value::List(nodes)) => {
                for (i, node) in nodes.iter().enumerate() {
                    self.hide_value(i, node, report);
                }
            }
            _ => self.hide_value(0, node, report),
        }
    }

    fn hide_value(&self, place: usize, node: &Node, report: &mut Report) {
        let part = self.owner.key.and_then(|key| key.get(place));
        let Value::Text { text, .. } = &node.value else {
            return;
        };
        let public = Identity::is_hashed(text) || text.starts_with(REFERENCE);
        if !public && part.is_none_or(Part::is_secret) {
            report.hide(node.place);
        }
    }

    fn plan(&mut self, node: &Node, limit: Option<Limit>, report: &mut Report) -> Option<()> {
        let allowed = format!("the name of a plan, at most {LONGEST_PLAN} bytes");
        let plan = parsed(node, &allowed, report, |plan| {
            let fits = unfit(plan).is_none() && plan.len() <= LONGEST_PLAN;
            fits.then_some(plan)
        });
        if !self.has_header {
            report.error(
                node.place,
                "a plan, but the rule has no `plan_header` in which a proxy could name it",
            );
            return None;
        }
        let (plan, limit) = (plan?, limit?);
        if self.by_plan.insert(plan.into(), limit).is_some() {
            report.error(
                node.place,
                format!("a second override for the plan {}", node.what()),
            );
            return None;
        }
        Some(())
    }

    fn keys(&mut self, node: &Node, limit: Option<Limit>, report: &mut Report) -> Option<()> {
        let key = self.owner.key?;
        match (key, &node.value) {
            ([], _) => {
                report.error(
                    node.place,
                    "the rule's key is empty: all requests share one bucket",
                );
                None
            }
            ([part], Value::Text { text, .. }) if text.starts_with(REFERENCE) => {
                self.listed(part, &text[REFERENCE.len()..], node.place, limit, report)
            }
            (key, Value::List(nodes)) if nodes.len() == key.len() => {
                let mut who = Some(Identity::new());
                for (part, node) in key.iter().zip(nodes) {
                    let given = text(node, &allowed(part), report);
                    let entry = given.and_then(|given| Entry::new(part, given, node.place, report));
                    if entry.as_ref().is_some_and(|entry| entry.is_plain_secret) {
                        report.warn(node.place, PLAIN);
                    }
                    who = who.and_then(|who| entry?.add_to(who, part, self.owner.ipv6_prefix));
                }
                self.add(who?, node.place, limit, report)
            }
            ([part], _) => {
                let given = text(node, &allowed(part), report)?;
                let entry = Entry::new(part, given, node.place, report)?;
                if entry.is_plain_secret {
                    report.warn(node.place, PLAIN);
                }
                let who = entry.add_to(Identity::new(), part, self.owner.ipv6_prefix)?;
                self.add(who, node.place, limit, report)
            }
            (key, _) => {
                let count = key.len();
                let allowed =
                    format!("a list of {count} values, one for each part of the rule's key");
                match &node.value {
                    Value::List(_) | Value::Nothing | Value::Refused => {
                        node.is_not(&allowed, report);
                    }
                    _ => report.error(node.place, format!("this is not {allowed}")),
                }
                None
            }
        }
    }

    fn listed(
        &mut self,
        part: &Part,
        name: &str,
        used: Place,
        limit: Option<Limit>,
        report: &mut Report,
    ) -> Option<()> {
        let entries = self.lists.entries(name, used, report)?.to_vec();
        let (mut sound, mut plain) = (true, 0_usize);
        for (place, text) in &entries {
            if part.is_secret() && !Identity::is_hashed(text) {
                report.hide(*place);
            }
            let entry = Entry::new(part, text, *place, report);
            plain += usize::from(entry.as_ref().is_some_and(|entry| entry.is_plain_secret));
            let prefix = self.owner.ipv6_prefix;
            let who = entry.and_then(|entry| entry.add_to(Identity::new(), part, prefix));
            sound &= who.is_some_and(|who| self.add(who, *place, limit, report).is_some());
        }
        if plain > 0 {
            let of = entries.len();
            report.warn(used, format!("{plain} of {of} secrets in the list `{name}` are plain: put what `tollgate hash-key` prints for them there instead"));
        }
        sound.then_some(())
    }

    fn add(
        &mut self,
        who: Identity,
        place: Place,
        limit: Option<Limit>,
        report: &mut Report,
    ) -> Option<()> {
        if let Some(line) = self.lines.insert(who.clone(), place.line()) {
            report.error(
                place,
                format!("a second override for the key of line {line}"),
            );
            return None;
        }
        if self.lines.len() > MOST_KEYS {
            report.error(
                place,
                format!("a rule has overrides for at most {MOST_KEYS} keys"),
            );
            return None;
        }
        self.by_key.insert(who, limit?);
        Some(())
    }
}

const AN_OVERRIDE: &str = "this is not an override: a mapping with `limit`, and `key` or `plan`";

const PLAIN: &str = "a secret in plain: put what `tollgate hash-key` prints for it here instead";

/// What stands for a part of a key, in the form in which it is counted.
struct Entry {
    text: String,
    is_plain_secret: bool,
}

impl Entry {
    fn new(part: &Part, given: &str, place: Place, report: &mut Report) -> Option<Self> {
        if let Some(problem) = unfit(given) {
            report.error(place, problem);
            return None;
        }
        let is_hashed = Identity::is_hashed(given);
        let text = match part {
            Part::Header(_) | Part::Cookie(_) | Part::Query(_) => {
                if given.starts_with('~') && !is_hashed {
                    report.error(place, NO_HASH);
                    return None;
                }
                Some(given.to_owned())
            }
            Part::Path => given.starts_with('/').then(|| normal(given).into_owned()),
            Part::Method => is_method(given).then(|| given.to_owned()),
            Part::Host => {
                (is_host(given) && !given.contains('*')).then(|| given.to_ascii_lowercase())
            }
            Part::Constant(constant) => (**constant == *given).then(|| given.to_owned()),
            Part::Ip => given
                .parse::<std::net::IpAddr>()
                .is_ok()
                .then(|| given.to_owned()),
        };
        let Some(text) = text else {
            let given = super::findings::shown(given);
            report.error(place, format!("{given} is not {}", allowed(part)));
            return None;
        };
        Some(Self {
            text,
            is_plain_secret: part.is_secret() && !is_hashed,
        })
    }

    fn add_to(&self, who: Identity, part: &Part, ipv6_prefix: u8) -> Option<Identity> {
        part.read_into(who, &self.text, ipv6_prefix)
    }
}

/// What may stand for a part of a key.
fn allowed(part: &Part) -> String {
    match part {
        Part::Ip => "an address, such as `192.0.2.1`".to_owned(),
        Part::Header(_) | Part::Cookie(_) | Part::Query(_) => {
            format!(
                "a value of the {part}, hashed by `tollgate hash-key`, of at most {LONGEST} bytes"
            )
        }
        Part::Path => "a path that begins with `/`".to_owned(),
        Part::Method => "a method in upper case".to_owned(),
        Part::Host => "a host without a port".to_owned(),
        Part::Constant(text) => format!("`{text}`, which the rule's key always has here"),
    }
}
