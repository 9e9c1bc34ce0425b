//! Tokens that a request takes: `cost`.

use super::conditions;
use super::findings::Report;
use super::lists::Lists;
use super::members::{Members, list, number};
use super::tree::{Node, Value};
use crate::domain::{Cost, Quota};
use crate::limiter::{Conditions, Costs};

/// Most cases.
const MOST_CASES: usize = 100;

/// Reads `cost`: a number, or a list of cases.
pub(super) fn read(node: &Node, lists: &mut Lists, report: &mut Report) -> Option<Costs> {
    if !matches!(node.value, Value::List(_)) {
        return cost(node, report).map(Costs::fixed);
    }
    let nodes = list(node, "cases", MOST_CASES, report)?;
    let cases: Vec<_> = nodes.iter().map(|node| case(node, lists, report)).collect();
    let cases: Option<Vec<_>> = cases.into_iter().collect();
    Some(Costs {
        cases: cases?,
        otherwise: Cost::MIN,
    })
}

fn case(node: &Node, lists: &mut Lists, report: &mut Report) -> Option<(Conditions, Cost)> {
    let known = ["methods", "path", "host", "headers", "client", "cost"];
    let members = Members::of(node, "a case of `cost`", &known, report)?;
    let conditions = conditions::read(&members, lists, report);
    let Some(given) = members.get("cost") else {
        report.error(node.place, "a case without `cost`");
        return None;
    };
    Some((conditions?, cost(given, report)?))
}

fn cost(node: &Node, report: &mut Report) -> Option<Cost> {
    number(node, 1, Quota::LARGEST, report).and_then(Cost::new)
}
