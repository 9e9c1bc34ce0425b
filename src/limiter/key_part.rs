//! By what requests are counted together.

use std::borrow::Cow;
use std::fmt;

use super::matching::Facts;
use crate::domain::Identity;

/// A part of a rule's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// The client's address; IPv6 by its network.
    Ip,
    /// A header's value, hashed: it may be a secret.
    Header(Box<str>),
    /// A cookie's value, hashed.
    Cookie(Box<str>),
    /// A query parameter's value, hashed.
    Query(Box<str>),
    /// The path, in the form in which paths are compared.
    Path,
    /// The method.
    Method,
    /// The host, in lower case, without a port.
    Host,
    /// The same for every request.
    Constant(Box<str>),
}

/// What a rule does about a request that lacks a part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absent {
    /// The client's address stands in for the part.
    Address,
    /// The rule does not apply.
    Skip,
    /// The request is refused with 403.
    Deny,
}

impl Absent {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Address, Self::Skip, Self::Deny];

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Skip => "skip",
            Self::Deny => "deny",
        }
    }
}

impl Part {
    /// Reads a part as it stands in a rules file: `ip`, `header:NAME`, `constant:TEXT`.
    pub fn named(text: &str) -> Option<Self> {
        let (kind, name) = text
            .split_once(':')
            .map_or((text, None), |(kind, name)| (kind, Some(name)));
        Some(match (kind, name.filter(|name| !name.is_empty())) {
            ("ip", None) if name.is_none() => Self::Ip,
            ("path", None) if name.is_none() => Self::Path,
            ("method", None) if name.is_none() => Self::Method,
            ("host", None) if name.is_none() => Self::Host,
            ("header", Some(name)) => Self::Header(name.to_ascii_lowercase().into()),
            ("cookie", Some(name)) => Self::Cookie(name.into()),
            ("query", Some(name)) => Self::Query(name.into()),
            ("constant", Some(text)) => Self::Constant(text.into()),
            _ => return None,
        })
    }

    /// Whether its values are hashed wherever they are kept or shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Cookie(_) | Self::Query(_))
    }

    /// The identity with this part of a request; `None` if the request has no such part.
    pub(super) fn add_to(
        &self,
        who: Identity,
        facts: &Facts<'_>,
        ipv6_prefix: u8,
    ) -> Result<Identity, Identity> {
        let call = &facts.call;
        let value = match self {
            Self::Ip => return Ok(who.with_ip(call.client, ipv6_prefix)),
            Self::Header(name) => call.fields.first(name).map(Cow::Borrowed),
            Self::Cookie(name) => call.cookie(name).map(Cow::Borrowed),
            Self::Query(name) => call.query_value(name),
            Self::Path => Some(Cow::Borrowed(facts.path.as_bytes())),
            Self::Method => Some(Cow::Borrowed(call.method.as_bytes())),
            Self::Host => facts.host().map(str::as_bytes).map(Cow::Borrowed),
            Self::Constant(text) => Some(Cow::Borrowed(text.as_bytes())),
        };
        match value {
            // An empty value tells nobody apart.
            Some(value) if !value.is_empty() => Ok(self.write(who, &value)),
            _ => Err(who),
        }
    }

    /// The identity with this part as a rules file gives it: as it is, or hashed; `None` if it is no address where one
    /// is needed.
    pub(super) fn read_into(&self, who: Identity, text: &str, ipv6_prefix: u8) -> Option<Identity> {
        match self {
            Self::Ip => Some(who.with_ip(text.parse().ok()?, ipv6_prefix)),
            _ if self.is_secret() && Identity::is_hashed(text) => who.with_hashed(text),
            _ => Some(self.write(who, text.as_bytes())),
        }
    }

    fn write(&self, who: Identity, value: &[u8]) -> Identity {
        if self.is_secret() {
            who.with_secret(value)
        } else {
            who.with_part(value)
        }
    }
}

impl fmt::Display for Part {
    /// As a person would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => write!(f, "client address"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
            Self::Path => write!(f, "path"),
            Self::Method => write!(f, "method"),
            Self::Host => write!(f, "host"),
            Self::Constant(text) => write!(f, "{text:?}"),
        }
    }
}
