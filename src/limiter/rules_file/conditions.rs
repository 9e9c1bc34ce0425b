//! Which requests: `match`, its `not`, and the cases of `cost`.

use super::findings::Report;
use super::lists::{A_NETWORK, Lists, REFERENCE};
use super::members::{Members, one_or_more, parsed, text};
use super::tree::{Name, Node, Value as Yaml};
use crate::domain::{Identity, Networks};
use crate::limiter::matching::carries_secret;
use crate::limiter::{Conditions, Match, PathPattern, TextPattern, Value};

/// Most entries of a list.
pub(super) const MOST: usize = 100;
/// Longest path, host and header value, in bytes.
pub(super) const LONGEST: usize = 1_024;
/// Longest name of a header, a cookie or a query parameter, in bytes.
pub(super) const LONGEST_NAME: usize = 128;

const MEMBERS: [&str; 5] = ["methods", "path", "host", "headers", "client"];

/// Reads `match`.
pub(super) fn read_match(node: &Node, lists: &mut Lists, report: &mut Report) -> Option<Match> {
    let known = ["methods", "path", "host", "headers", "client", "not"];
    let members = Members::of(node, "`match`", &known, report)?;
    let when = read(&members, lists, report);
    let not = match members.get("not") {
        None => Some(Conditions::default()),
        Some(not) => Members::of(not, "`not`", &MEMBERS, report)
            .and_then(|members| read(&members, lists, report)),
    };
    Some(Match {
        when: when?,
        not: not?,
    })
}

/// Reads the conditions among these members.
pub(super) fn read(
    members: &Members<'_>,
    lists: &mut Lists,
    report: &mut Report,
) -> Option<Conditions> {
    let methods = members
        .get("methods")
        .map(|node| one_or_more(node, MOST, report, method));
    let paths = members
        .get("path")
        .map(|node| one_or_more(node, MOST, report, path));
    let hosts = members
        .get("host")
        .map(|node| one_or_more(node, MOST, report, host));
    let headers = members.get("headers").map(|node| headers(node, report));
    let clients = members
        .get("client")
        .map(|node| clients(node, lists, report));
    Some(Conditions {
        methods: methods.unwrap_or(Some(Vec::new()))?,
        paths: paths.unwrap_or(Some(Vec::new()))?,
        hosts: hosts.unwrap_or(Some(Vec::new()))?,
        headers: headers.unwrap_or(Some(Vec::new()))?,
        clients: clients.map_or(Some(None), |clients| clients.map(Some))?,
    })
}

fn method(node: &Node, report: &mut Report) -> Option<Box<str>> {
    let given = text(node, A_METHOD, report)?;
    if is_method(given) {
        return Some(given.into());
    }
    let upper = given.to_ascii_uppercase();
    let hint = if is_method(&upper) {
        format!("; did you mean `{upper}`?")
    } else {
        String::new()
    };
    node.is_not(&format!("{A_METHOD}{hint}"), report);
    None
}

const A_METHOD: &str = "a method in upper case, such as `POST`";

/// Whether requests that anybody limits have such a method.
pub(super) fn is_method(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    (1..=32).contains(&text.len()) && text.bytes().all(letter)
}

fn path(node: &Node, report: &mut Report) -> Option<PathPattern> {
    let allowed = "a path that begins with `/`, such as `/api/**`";
    let given = text(node, allowed, report)?;
    if let Some(problem) = unfit(given) {
        report.error(node.place, problem);
        return None;
    }
    if given.contains(['?', '#']) {
        report.error(
            node.place,
            "a path has neither `?` nor `#`: what stands behind `?` is no part of it, and `#` is never sent",
        );
        return None;
    }
    match PathPattern::new(given) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            report.error(node.place, format!("{} is no path: {error}", node.what()));
            None
        }
    }
}

fn host(node: &Node, report: &mut Report) -> Option<TextPattern> {
    let allowed = "a host without a port, such as `*.example.com` or `[2001:db8::1]`";
    parsed(node, allowed, report, |text| {
        is_host(text).then(|| TextPattern::new(&text.to_ascii_lowercase()))
    })
}

/// Whether a host in the form in which hosts are compared could be this, stars apart.
pub(super) fn is_host(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
    let name = |text: &str| text.bytes().all(byte) && !text.ends_with('.');
    let address = |text: &str| text.bytes().all(|b| byte(b) || b == b':');
    (1..=LONGEST).contains(&text.len()) && inner.map_or_else(|| name(text), address)
}

type Header = (Box<str>, Vec<Value>);

fn headers(node: &Node, report: &mut Report) -> Option<Vec<Header>> {
    let Yaml::Members(members) = &node.value else {
        node.is_not("headers: a mapping of names to values", report);
        return None;
    };
    if members.is_empty() || members.len() > MOST {
        let count = members.len();
        report.error(
            node.place,
            format!("{count} headers: 1 to {MOST} may stand here"),
        );
        return None;
    }
    let mut seen: Vec<&Name> = Vec::new();
    let mut headers = Vec::new();
    for (name, node) in members {
        let is_same = |other: &&Name| other.text.eq_ignore_ascii_case(&name.text);
        if let Some(first) = seen.iter().copied().find(is_same) {
            let line = first.place.line();
            report.error(
                name.place,
                format!("`{}` stands here twice, first in line {line}", name.text),
            );
        } else if !is_token(&name.text) {
            let given = super::findings::shown(&name.text);
            report.error(name.place, format!("{given} is not the name of a header"));
        }
        seen.push(name);
        let secret = carries_secret(&name.text);
        let values = one_or_more(node, MOST, report, |node, report| {
            value(node, secret, report)
        });
        headers.push(values.map(|values| (name.text.to_ascii_lowercase().into(), values)));
    }
    headers.into_iter().collect()
}

fn value(node: &Node, secret: bool, report: &mut Report) -> Option<Value> {
    let allowed = "a value, in quotes where it begins with `*`; `\"*\"` is any value";
    let given = text(node, allowed, report)?;
    if let Some(problem) = unfit(given) {
        report.error(node.place, problem);
        return None;
    }
    if given.starts_with('~') && !Identity::is_hashed(given) {
        report.hide(node.place);
        report.error(node.place, NO_HASH);
        return None;
    }
    let value = Value::new(given);
    if secret && matches!(&value, Value::Text(pattern) if pattern.literal().is_some()) {
        report.hide(node.place);
        report.warn(
            node.place,
            "a secret in plain: put what `tollgate hash-key` prints for it here instead",
        );
    }
    Some(value)
}

/// What a text that begins like a hash must be.
pub(super) const NO_HASH: &str =
    "what begins with `~` is a hash as `tollgate hash-key` prints it: `~` and 22 characters";

fn clients(node: &Node, lists: &mut Lists, report: &mut Report) -> Option<Networks> {
    let all = one_or_more(node, MOST, report, |node, report| {
        let allowed = format!("{A_NETWORK}, or `{REFERENCE}NAME`");
        let given = text(node, &allowed, report)?;
        if let Some(name) = given.strip_prefix(REFERENCE) {
            return lists.networks(name, node.place, report);
        }
        let networks = Networks::of([given]).ok();
        if networks.is_none() {
            node.is_not(&allowed, report);
        }
        networks
    })?;
    match all.as_slice() {
        // A list that many rules use is shared by them.
        [one] => Some(one.clone()),
        many => {
            let ranges = many.iter().map(Networks::ranges).sum();
            lists
                .may_copy(ranges, node.place, report)
                .then(|| Networks::union(many))
        }
    }
}

/// Whether this may name a header or a cookie: a token of RFC 9110.
pub(super) fn is_token(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(byte)
}

/// Why a text can stand nowhere.
pub(super) fn unfit(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("an empty text".to_owned())
    } else if text.len() > LONGEST {
        Some(format!(
            "{} bytes: at most {LONGEST} may stand here",
            text.len()
        ))
    } else if text.contains(char::is_control) {
        Some("a text with a line break or another control character in it".to_owned())
    } else {
        None
    }
}
