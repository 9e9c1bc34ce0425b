//! Hides what may be a secret in a line that is shown, but that no reader understood.

use super::findings::{Place, Report};
use super::lists::REFERENCE;
use crate::domain::Identity;
use crate::limiter::Part;
use crate::limiter::matching::carries_secret;

/// Hides, in the line of that place, what stands behind `key:` and behind headers such as `Authorization:`.
///
/// Of the line nothing is known but its text, so more may be hidden than is secret.
pub(super) fn hide(place: Place, report: &mut Report) {
    let text = report.line_of(place).to_owned();
    for (at, _) in text.match_indices(':') {
        let (before, behind) = (&text[..at], &text[at + 1..]);
        let rest = behind.trim_start();
        let value = value(rest);
        if !value.is_empty() && names_secret(before, behind) && !is_public(value) {
            let column = text[..text.len() - rest.len()].chars().count() + 1;
            report.hide(place.moved(column, value.chars().count()));
        }
    }
}

/// Whether what ends here is the name of a member whose value may be a secret. `cookie:sid` is no such name.
fn names_secret(before: &str, behind: &str) -> bool {
    let before = before.trim_end_matches(['"', '\'']);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = before.rsplit(|c| !is_of_name(c)).next().unwrap_or(before);
    let is_member = behind.starts_with([' ', '\t', '"', '\'', '[', '{']);
    name.ends_with("key") || (is_member && carries_secret(name))
}

/// The value at the start of `rest`: a text in quotes, a list or a mapping, or a text up to where the next member begins.
fn value(rest: &str) -> &str {
    let end = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map(|at| at + 2),
        Some('[') => rest.find(']').map(|at| at + 1),
        Some('{') => rest.find('}').map(|at| at + 1),
        _ => rest.find([',', '}']),
    };
    rest[..end.unwrap_or(rest.len())].trim_end()
}

fn is_public(value: &str) -> bool {
    let list = value
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'));
    let mut entries = list.unwrap_or(value).split(',').map(|entry| {
        let entry = entry.trim();
        entry.trim_matches(['"', '\''])
    });
    entries.all(|entry| {
        entry == "*"
            || Part::named(entry).is_some()
            || entry.starts_with(REFERENCE)
            || Identity::is_hashed(entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let mut report = Report::default();
        let file = report.add_file("rules.yaml", line);
        let place = Place::new(file, 1, 1, 1);
        report.error(place, "not understood");
        hide(place, &mut report);
        report.finish().iter().filter_map(|f| f.text()).collect()
    }

    #[test]
    fn what_may_be_a_secret_is_dots_and_the_rest_is_as_it_stands() {
        for (line, expected) in [
            ("{ key: s3cret, limit: 5/s }", "{ key: ••••••, limit: 5/s }"),
            (
                "{ key: [s3cret, b], limit: 5 }",
                "{ key: •••••••••••, limit: 5 }",
            ),
            ("key: [s3cret, b}", "key: •••••••••••"),
            ("key:s3cret", "key:••••••"),
            ("{ key: \"a,b\", limit: 5/s }", "{ key: •••••, limit: 5/s }"),
            ("X-Api-Key: s3cret: x", "X-Api-Key: •••••••••"),
            (
                "\"Authorization\": \"Bearer x } }",
                "\"Authorization\": •••••••••••••",
            ),
            (
                "{ headers: { Cookie: sid=1 } }",
                "{ headers: { Cookie: ••••• } }",
            ),
            ("{ X-Token: { a: b } }", "{ X-Token: •••••••• }"),
            (
                "{ key: cookie:sid, limit: x }",
                "{ key: cookie:sid, limit: x }",
            ),
            (
                "{ key: [ip, header:X-Token] }",
                "{ key: [ip, header:X-Token] }",
            ),
            ("key: list:partners", "key: list:partners"),
            ("{ X-Plan: gold }", "{ X-Plan: gold }"),
            ("X-Api-Key: *", "X-Api-Key: *"),
            ("key:", "key:"),
            ("\u{e4}key: \u{e4}\u{e4} # \"", "\u{e4}key: ••••••"),
        ] {
            assert_eq!(shown(line), expected);
        }
    }
}
