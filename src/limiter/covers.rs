//! Whether every request that one rule is for is one that another is for too.
//!
//! A "yes" is true; a "no" may only mean that it was too hard to tell.

use std::cell::Cell;

use super::matching::{Conditions, Match, Value};
use super::path::PathPattern;
use super::pattern::TextPattern;
use crate::domain::Networks;

/// How much may be compared before everything is answered with "no".
#[derive(Debug)]
pub(super) struct Effort(Cell<u32>);

impl Effort {
    /// What a thousand rules of the usual kind take several times over, and a second at most.
    pub(super) fn usual() -> Self {
        Self(Cell::new(10_000_000))
    }

    /// Whether something was answered with "no" only because it was too much.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    /// Spends some of it; `false` when all is spent.
    fn spend(&self, units: usize) -> bool {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.0.set(self.0.get().saturating_sub(units));
        self.0.get() > 0
    }
}

impl Match {
    /// Whether this means every request that `other` means.
    pub(super) fn covers(&self, other: &Self, effort: &Effort) -> bool {
        // Preflights are only for those that name OPTIONS.
        let preflights = self.names_method("OPTIONS") || !other.names_method("OPTIONS");
        effort.spend(1)
            && preflights
            && self.when.are_implied_by(&other.when, effort)
            && self.not.are_excluded_by(other, effort)
    }
}

impl Conditions {
    /// Whether these hold wherever `other` hold. What differs most is asked first.
    fn are_implied_by(&self, other: &Self, effort: &Effort) -> bool {
        let path = |mine: &_, other: &_| PathPattern::covers(mine, other);
        let host = |mine: &_, other: &_| TextPattern::covers(mine, other);
        let method = |mine: &_, other: &_| mine == other;
        narrower(&other.paths, &self.paths, path, effort)
            && narrower(&other.hosts, &self.hosts, host, effort)
            && narrower(&other.methods, &self.methods, method, effort)
            && self.headers.iter().all(|(name, values)| {
                let same = other.headers.iter().find(|(other, _)| other == name);
                same.is_some_and(|(_, others)| all_in(others, values, value, effort))
            })
            && match (&self.clients, &other.clients) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(mine), Some(others)) => networks(mine, others, effort),
            }
    }

    /// Whether a request of which a member of these holds is none that `other` means.
    fn are_excluded_by(&self, other: &Match, effort: &Effort) -> bool {
        let Match { when, not } = other;
        let methods = all_in(
            &self.methods,
            &not.methods,
            |mine, other| mine == other,
            effort,
        ) || (!when.methods.is_empty()
            && !self
                .methods
                .iter()
                .any(|method| when.methods.contains(method)));
        let headers = self.headers.iter().all(|(name, values)| {
            let same = not.headers.iter().find(|(other, _)| other == name);
            same.is_some_and(|(_, others)| all_in(values, others, value, effort))
        });
        let clients = match (&self.clients, &not.clients) {
            (None, _) => true,
            (Some(mine), None) => mine.is_empty(),
            (Some(mine), Some(others)) => networks(others, mine, effort),
        };
        let path = |wider: &_, other: &_| PathPattern::covers(wider, other);
        let host = |wider: &_, other: &_| TextPattern::covers(wider, other);
        methods
            && headers
            && clients
            && all_in(&self.paths, &not.paths, path, effort)
            && all_in(&self.hosts, &not.hosts, host, effort)
    }
}

/// Whether a member with these entries asks for what one with `wider` asks for: without entries, for nothing.
fn narrower<T>(
    entries: &[T],
    wider: &[T],
    covers: impl Fn(&T, &T) -> bool,
    effort: &Effort,
) -> bool {
    wider.is_empty() || (!entries.is_empty() && all_in(entries, wider, covers, effort))
}

/// Whether each entry is covered by one of `wider`.
fn all_in<T>(entries: &[T], wider: &[T], covers: impl Fn(&T, &T) -> bool, effort: &Effort) -> bool {
    let covered = |entry: &T| {
        wider
            .iter()
            .any(|wide| effort.spend(1) && covers(wide, entry))
    };
    entries.iter().all(covered)
}

fn value(wider: &Value, other: &Value) -> bool {
    match (wider, other) {
        (Value::Text(wider), Value::Text(other)) => wider.covers(other),
        (Value::Text(wider), Value::Hashed(_)) => wider.as_str() == "*",
        (Value::Hashed(one), Value::Hashed(other)) => one == other,
        (Value::Hashed(_), Value::Text(_)) => false,
    }
}

fn networks(wider: &Networks, other: &Networks, effort: &Effort) -> bool {
    effort.spend(other.ranges() / 16) && wider.covers(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limiter::Call;
    use crate::limiter::matching::Facts;

    /// Conditions over so few words that two of them often cover each other.
    fn conditions() -> impl Strategy<Value = Conditions> {
        let few = |words: &'static [&'static str]| proptest::sample::subsequence(words, 0..=2);
        (
            few(&["GET", "POST"]),
            few(&["/a", "/*", "/a/**", "/**", "/a/b", "/*/b", "/**/b"]),
            few(&["a", "b*", "*", "*b"]),
            few(&["gold", "g*", "*"]),
            few(&["10.0.0.0/8", "10.0.0.0/9", "192.0.2.1"]),
        )
            .prop_map(|(methods, paths, hosts, values, clients)| Conditions {
                methods: methods.into_iter().map(Into::into).collect(),
                paths: paths
                    .into_iter()
                    .map(|path| PathPattern::new(path).unwrap())
                    .collect(),
                hosts: hosts.into_iter().map(TextPattern::new).collect(),
                headers: match values.as_slice() {
                    [] => Vec::new(),
                    values => vec![(
                        "x".into(),
                        values.iter().map(|value| Value::new(value)).collect(),
                    )],
                },
                clients: (!clients.is_empty()).then(|| Networks::of(clients).unwrap()),
            })
    }

    fn matches() -> impl Strategy<Value = Match> {
        let none = Just(Conditions::default());
        (conditions(), prop_oneof![2 => none, 1 => conditions()])
            .prop_map(|(when, not)| Match { when, not })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_covered_is_meant(
            wide in matches(),
            narrow in matches(),
            method in prop_oneof![Just("GET"), Just("POST"), Just("PUT")],
            path in "(/[ab]){0,3}",
            host in "[ab]{0,2}",
            value in proptest::option::of("g|gold|x"),
            client in prop_oneof![Just([10, 0, 0, 1]), Just([10, 200, 0, 1]), Just([192, 0, 2, 1])],
        ) {
            let fields: Vec<_> = value.into_iter().map(|value| ("x".to_owned(), value)).collect();
            let call = Call { method, path: &path, host: Some(&host), fields: &fields, ..Call::of(client.into()) };
            let facts = Facts::of(call);
            if wide.covers(&narrow, &Effort::usual()) && narrow.mismatch(&facts).is_none() {
                prop_assert_eq!(wide.mismatch(&facts), None);
            }
        }

        #[test]
        fn a_match_covers_itself(one in matches()) {
            prop_assert!(one.covers(&one, &Effort::usual()));
        }
    }

    #[test]
    fn wider_patterns_cover_narrower_ones() {
        for (wide, narrow, expected) in [
            ("/**", "/a/*/b", true),
            ("/a/**", "/a", true),
            ("/a/*", "/a/b*", true),
            ("/a/*", "/a/**", false),
            ("/*", "/**", false),
            ("/a/b", "/a/*", false),
            ("/**/x", "/a/**/x", true),
        ] {
            let pattern = |text| PathPattern::new(text).unwrap();
            assert_eq!(
                pattern(wide).covers(&pattern(narrow)),
                expected,
                "{wide} {narrow}"
            );
        }
    }

    #[test]
    fn where_too_much_would_have_to_be_compared_the_answer_is_no() {
        let all = Match::default();
        let effort = Effort(Cell::new(1));
        assert!(!all.covers(&all, &effort) && effort.is_spent());
    }
}
