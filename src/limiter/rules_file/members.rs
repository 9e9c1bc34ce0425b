//! What every reader does: members of a mapping, texts, numbers, words, one or a list of something.

use super::findings::{Place, Report, shown};
use super::likely_secrets;
use super::tree::{Name, Node, Value};

/// The members of a mapping, each known and there once.
#[derive(Debug)]
pub(super) struct Members<'a> {
    /// Where the mapping begins.
    pub(super) place: Place,
    known: Vec<(&'a Name, &'a Node)>,
}

impl<'a> Members<'a> {
    /// Those of `node`, which `what` names. Unknown and doubled members are reported, and left out.
    pub(super) fn of(
        node: &'a Node,
        what: &str,
        known: &[&'static str],
        report: &mut Report,
    ) -> Option<Self> {
        let Value::Members(members) = &node.value else {
            let allowed = format!("{what}: a mapping with {}", listed(known.iter().copied()));
            node.is_not(&allowed, report);
            return None;
        };
        let mut of = Self {
            place: node.place,
            known: Vec::new(),
        };
        for (name, value) in members {
            if !known.contains(&&*name.text) {
                let near = nearest(&name.text, known.iter().copied());
                let known = || format!("; known are {}", listed(known.iter().copied()));
                let hint = near.map_or_else(known, |near| format!("; did you mean `{near}`?"));
                let given = shown(&name.text);
                report.error(name.place, format!("{what} has no member {given}{hint}"));
                likely_secrets::hide(name.place, report);
            } else if let Some((first, _)) = of.find(&name.text) {
                let line = first.place.line();
                let message = format!("`{}` stands here twice, first in line {line}", name.text);
                report.error(name.place, message);
                likely_secrets::hide(name.place, report);
            } else {
                of.known.push((name, value));
            }
        }
        Some(of)
    }

    fn find(&self, name: &str) -> Option<(&'a Name, &'a Node)> {
        let mut known = self.known.iter();
        known.find(|(known, _)| known.text == name).copied()
    }

    /// The value of that member.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.find(name).map(|(_, node)| node)
    }

    /// Where that member's name stands.
    pub(super) fn place_of(&self, name: &str) -> Option<Place> {
        self.find(name).map(|(name, _)| name.place)
    }

    /// All of them, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a Name, &'a Node)> {
        self.known.iter().copied()
    }
}

/// Names in the words of a message: "`a`, `b` and `c`".
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Words in the words of a message: "`a`, `b` or `c`".
pub(super) fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    listed(words).replacen(" and ", " or ", 1)
}

/// The name that is most like the one given, if it is like it at all.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given: String = given.chars().take(64).collect();
    let distance = |name: &&str| strsim::damerau_levenshtein(&given.to_lowercase(), name);
    let nearest = names.min_by_key(distance)?;
    let length = nearest.chars().count();
    // Of a name of one letter every letter is one change away.
    let near = distance(&nearest) < length && distance(&nearest) <= (length / 3).max(1);
    near.then_some(nearest)
}

/// The text of a scalar.
pub(super) fn text<'a>(node: &'a Node, allowed: &str, report: &mut Report) -> Option<&'a str> {
    match &node.value {
        Value::Text { text, .. } => Some(text),
        _ => {
            node.is_not(allowed, report);
            None
        }
    }
}

/// What `parse` makes of the text of a scalar.
pub(super) fn parsed<'a, T>(
    node: &'a Node,
    allowed: &str,
    report: &mut Report,
    parse: impl FnOnce(&'a str) -> Option<T>,
) -> Option<T> {
    let value = text(node, allowed, report).map(parse)?;
    if value.is_none() {
        node.is_not(allowed, report);
    }
    value
}

/// One of some words.
pub(super) fn word<T: Copy>(
    node: &Node,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    report: &mut Report,
) -> Option<T> {
    let names = || all.iter().map(|word| name(*word));
    let allowed = either(names());
    let given = text(node, &allowed, report)?;
    let found = all.iter().find(|word| name(**word) == given);
    if found.is_none() {
        let near = nearest(given, names());
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        node.is_not(&format!("{allowed}{hint}"), report);
    }
    found.copied()
}

/// A whole number of that range, without quotes.
pub(super) fn number(node: &Node, least: u64, most: u64, report: &mut Report) -> Option<u64> {
    let allowed = format!("a whole number from {least} to {most}");
    match &node.value {
        Value::Text { plain: false, .. } => {
            node.is_not(&format!("{allowed}, without quotes"), report);
            None
        }
        _ => parsed(node, &allowed, report, |text| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text
                .parse()
                .ok()
                .filter(|_| digits && !text.starts_with('0'));
            number.filter(|number| (least..=most).contains(number))
        }),
    }
}

/// `true`, which is all that such a member can be.
pub(super) fn only_true(node: &Node, report: &mut Report) -> Option<()> {
    let allowed = "`true`; leave it out otherwise";
    match &node.value {
        Value::Text { text, plain: true } if text == "true" => Some(()),
        Value::Text { text, .. } if text == "true" => {
            node.is_not("`true` without quotes", report);
            None
        }
        _ => {
            node.is_not(allowed, report);
            None
        }
    }
}

/// What `read` makes of one thing, or of each in a list of up to `most`.
pub(super) fn one_or_more<'a, T>(
    node: &'a Node,
    most: usize,
    report: &mut Report,
    mut read: impl FnMut(&'a Node, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() {
        report.error(
            node.place,
            "an empty list: name at least one, or leave the member out",
        );
        return None;
    }
    if !bounded(node, nodes.len(), most, report) {
        return None;
    }
    // Each is read, so that every problem is told.
    let read: Vec<Option<T>> = nodes.iter().map(|node| read(node, report)).collect();
    read.into_iter().collect()
}

/// The nodes of a list of up to `most`.
pub(super) fn list<'a>(
    node: &'a Node,
    what: &str,
    most: usize,
    report: &mut Report,
) -> Option<&'a [Node]> {
    let Value::List(nodes) = &node.value else {
        node.is_not(&format!("a list of {what}"), report);
        return None;
    };
    bounded(node, nodes.len(), most, report).then_some(nodes)
}

fn bounded(node: &Node, count: usize, most: usize, report: &mut Report) -> bool {
    if count > most {
        report.error(
            node.place,
            format!("{count} entries: at most {most} may stand here"),
        );
    }
    count <= most
}
