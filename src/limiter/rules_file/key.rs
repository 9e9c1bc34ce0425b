//! By what requests are counted together: `key`.

use super::conditions::{LONGEST_NAME, is_token, unfit};
use super::findings::Report;
use super::members::{nearest, one_or_more, text};
use super::tree::{Node, Value};
use crate::limiter::Part;

/// Most parts of a key.
pub(super) const MOST_PARTS: usize = 8;

const ALLOWED: &str = "a part of a key: `ip`, `path`, `method`, `host`, `header:NAME`, `cookie:NAME`, `query:NAME` or \
     `constant:TEXT`";
const KINDS: [&str; 8] = [
    "ip", "path", "method", "host", "header", "cookie", "query", "constant",
];

/// Reads a key: one part or a list of them. An empty list is a key without parts.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Vec<Part>> {
    if matches!(&node.value, Value::List(nodes) if nodes.is_empty()) {
        return Some(Vec::new());
    }
    let mut seen: Vec<Part> = Vec::new();
    one_or_more(node, MOST_PARTS, report, |node, report| {
        let part = part(node, report)?;
        if seen.contains(&part) {
            report.error(
                node.place,
                format!("{} stands in the key twice", node.what()),
            );
        }
        seen.push(part.clone());
        Some(part)
    })
}

fn part(node: &Node, report: &mut Report) -> Option<Part> {
    let given = text(node, ALLOWED, report)?;
    if let Some(problem) = unfit(given) {
        report.error(node.place, problem);
        return None;
    }
    let part = Part::named(given).filter(|part| match part {
        Part::Header(name) | Part::Cookie(name) => is_token(name),
        Part::Query(name) | Part::Constant(name) => name.len() <= LONGEST_NAME,
        Part::Ip | Part::Path | Part::Method | Part::Host => true,
    });
    if part.is_none() {
        let kind = given.split(':').next().unwrap_or(given);
        let hint = nearest(kind, KINDS.into_iter())
            .filter(|near| *near != kind)
            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        node.is_not(&format!("{ALLOWED}{hint}"), report);
    }
    part
}
