//! Which requests a rule is for.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use super::call::Call;
use super::path::PathPattern;
use super::pattern::TextPattern;
use crate::domain::{Identity, Networks};

/// What is worked out of a request once, however many rules look at it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) call: Call<'a>,
    pub(super) path: Cow<'a, str>,
    host: OnceCell<Option<Cow<'a, str>>>,
    pub(super) is_preflight: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn of(call: Call<'a>) -> Self {
        Self {
            path: call.normal_path(),
            host: OnceCell::new(),
            is_preflight: call.is_preflight(),
            call,
        }
    }

    /// The host; few rules ask for it.
    pub(super) fn host(&self) -> Option<&str> {
        let host = self.host.get_or_init(|| self.call.normal_host());
        host.as_deref()
    }
}

/// What a header's value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, with `*` for any characters.
    Text(TextPattern),
    /// A secret, of which only the hash is known.
    Hashed(Box<str>),
}

impl Value {
    /// Reads a pattern, or a hash as `tollgate hash-key` prints it.
    pub fn new(text: &str) -> Self {
        if Identity::is_hashed(text) {
            Self::Hashed(text.into())
        } else {
            Self::Text(TextPattern::new(text))
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(value),
            Self::Hashed(hash) => Identity::hashed(value) == **hash,
        }
    }
}

/// What must be so of a request. A member that is empty asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The method is one of these.
    pub methods: Vec<Box<str>>,
    /// The path matches one of these.
    pub paths: Vec<PathPattern>,
    /// The host matches one of these, in lower case.
    pub hosts: Vec<TextPattern>,
    /// Each of these headers is there and has one of these values.
    pub headers: Vec<(Box<str>, Vec<Value>)>,
    /// The client is in one of these networks.
    pub clients: Option<Networks>,
}

/// Which requests a rule is for: those for which all conditions hold, and of the exceptions none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// What must be so.
    pub when: Conditions,
    /// What must not be so, no member of it.
    pub not: Conditions,
}

/// A member of a rule's `match` because of which a request is not meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The method is none of those named.
    Methods,
    /// The path matches none of the patterns.
    Path,
    /// The host matches none of the patterns, or there is none.
    Host,
    /// This header is absent or has another value.
    Header(&'a str),
    /// The client is in none of the networks.
    Client,
    /// It is one of the exceptions, by this member of `not`.
    Not(&'static str),
    /// It is a preflight of a browser, and the rule does not name `OPTIONS`.
    Preflight,
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Methods => write!(f, "its method is not among `methods`"),
            Self::Path => write!(f, "its path does not match `path`"),
            Self::Host => write!(f, "its host does not match `host`"),
            Self::Header(name) => write!(f, "its header {name} is absent or does not match"),
            Self::Client => write!(f, "the client is not in `client`"),
            Self::Not(member) => write!(f, "it is excepted by `not.{member}`"),
            Self::Preflight => write!(f, "it is a CORS preflight, and OPTIONS is not named"),
        }
    }
}

impl Match {
    /// Why a request is not meant; `None` if it is.
    pub(super) fn mismatch(&self, facts: &Facts<'_>) -> Option<Mismatch<'_>> {
        let unmet = self.when.unmet(facts);
        unmet.or_else(|| self.not.met(facts).map(Mismatch::Not))
    }

    /// Whether a method is named on purpose.
    pub(super) fn names_method(&self, method: &str) -> bool {
        self.when.methods.iter().any(|named| **named == *method)
    }
}

impl Conditions {
    /// Whether all hold.
    pub(super) fn hold(&self, facts: &Facts<'_>) -> bool {
        self.unmet(facts).is_none()
    }

    /// The first member that asks for something that is not so, the cheapest to ask first.
    fn unmet(&self, facts: &Facts<'_>) -> Option<Mismatch<'_>> {
        if !self.methods.is_empty() && !self.has_method(facts) {
            return Some(Mismatch::Methods);
        }
        if !self.paths.is_empty() && !self.has_path(facts) {
            return Some(Mismatch::Path);
        }
        if !self.hosts.is_empty() && !self.has_host(facts) {
            return Some(Mismatch::Host);
        }
        let headers = self.headers.iter();
        if let Some((name, _)) = headers
            .into_iter()
            .find(|header| !has_header(header, facts))
        {
            return Some(Mismatch::Header(name));
        }
        let clients = self.clients.as_ref()?;
        (!clients.contains(facts.call.client)).then_some(Mismatch::Client)
    }

    /// The first member of which something is so.
    fn met(&self, facts: &Facts<'_>) -> Option<&'static str> {
        if self.has_method(facts) {
            return Some("methods");
        }
        if self.has_path(facts) {
            return Some("path");
        }
        if self.has_host(facts) {
            return Some("host");
        }
        if self.headers.iter().any(|header| has_header(header, facts)) {
            return Some("headers");
        }
        let clients = self.clients.as_ref()?;
        clients.contains(facts.call.client).then_some("client")
    }

    fn has_method(&self, facts: &Facts<'_>) -> bool {
        let mut methods = self.methods.iter();
        methods.any(|method| **method == *facts.call.method)
    }

    fn has_path(&self, facts: &Facts<'_>) -> bool {
        self.paths.iter().any(|path| path.matches(&facts.path))
    }

    fn has_host(&self, facts: &Facts<'_>) -> bool {
        let is_its = |pattern: &TextPattern| {
            let host = facts.host().map(str::as_bytes);
            host.is_some_and(|host| pattern.matches(host))
        };
        self.hosts.iter().any(is_its)
    }
}

fn has_header((name, values): &(Box<str>, Vec<Value>), facts: &Facts<'_>) -> bool {
    let given = facts.call.fields.first(name);
    given.is_some_and(|given| values.iter().any(|value| value.matches(given)))
}

/// Whether a header of that name usually carries a secret, whose value is then not shown.
pub(super) fn carries_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "api-key",
        "apikey",
    ];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Vec<(String, String)> {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![field("X-Tier", "gold"), field("X-Api-Key", "s3cret")]
    }

    fn mismatch(rule: &Match) -> Option<Mismatch<'_>> {
        let fields = fields();
        let call = Call {
            method: "POST",
            path: "/api/%78/",
            host: Some("shop.example.com:443"),
            fields: &fields,
            ..Call::of([192, 0, 2, 1].into())
        };
        rule.mismatch(&Facts::of(call))
    }

    fn header(name: &str, value: &str) -> Vec<(Box<str>, Vec<Value>)> {
        vec![(name.into(), vec![Value::new("nothing"), Value::new(value)])]
    }

    fn every_condition() -> Conditions {
        Conditions {
            methods: vec!["GET".into(), "POST".into()],
            paths: vec![PathPattern::new("/api/x").unwrap()],
            hosts: vec![TextPattern::new("*.example.com")],
            headers: header("x-tier", "gold"),
            clients: Some("192.0.2.0/24".parse().unwrap()),
        }
    }

    #[test]
    fn every_member_must_hold() {
        let when = every_condition;
        let not = Conditions::default;
        let whole = Match {
            when: when(),
            not: not(),
        };
        assert_eq!(mismatch(&whole), None);
        let other_header = header("x-tier", "silver");
        let absent_header = header("x-absent", "*");
        for (when, expected) in [
            (
                Conditions {
                    methods: vec!["post".into()],
                    ..when()
                },
                Mismatch::Methods,
            ),
            (
                Conditions {
                    paths: vec![PathPattern::new("/api").unwrap()],
                    ..when()
                },
                Mismatch::Path,
            ),
            (
                Conditions {
                    hosts: vec![TextPattern::new("example.com")],
                    ..when()
                },
                Mismatch::Host,
            ),
            (
                Conditions {
                    headers: other_header,
                    ..when()
                },
                Mismatch::Header("x-tier"),
            ),
            (
                Conditions {
                    headers: absent_header,
                    ..when()
                },
                Mismatch::Header("x-absent"),
            ),
            (
                Conditions {
                    clients: Some(Networks::default()),
                    ..when()
                },
                Mismatch::Client,
            ),
        ] {
            assert_eq!(mismatch(&Match { when, not: not() }), Some(expected));
        }
    }

    #[test]
    fn one_member_of_the_exceptions_is_enough() {
        let all = every_condition();
        for (not, member) in [
            (
                Conditions {
                    methods: all.methods,
                    ..Conditions::default()
                },
                "methods",
            ),
            (
                Conditions {
                    paths: all.paths,
                    ..Conditions::default()
                },
                "path",
            ),
            (
                Conditions {
                    hosts: all.hosts,
                    ..Conditions::default()
                },
                "host",
            ),
            (
                Conditions {
                    headers: all.headers,
                    ..Conditions::default()
                },
                "headers",
            ),
            (
                Conditions {
                    clients: all.clients,
                    ..Conditions::default()
                },
                "client",
            ),
        ] {
            let rule = Match {
                when: every_condition(),
                not,
            };
            assert_eq!(mismatch(&rule), Some(Mismatch::Not(member)));
        }
    }

    #[test]
    fn a_secret_is_compared_by_its_hash() {
        let with = |value: &str| Match {
            when: Conditions {
                headers: header("x-api-key", value),
                ..Conditions::default()
            },
            not: Conditions::default(),
        };
        assert_eq!(mismatch(&with(&Identity::hashed(b"s3cret"))), None);
        assert!(mismatch(&with(&Identity::hashed(b"other"))).is_some());
    }
}
