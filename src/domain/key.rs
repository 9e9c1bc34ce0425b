//! Whose bucket: an injective, bounded encoding of a rule and the parts of an identity.
//!
//! ```text
//! key      = prefix identity                            the default rule on tokenbucket
//!          | prefix rule ":" identity                   a named rule on tokenbucket
//!          | prefix algorithm "!" rule ":" identity     any other algorithm
//! identity = part *( "|" part )
//! part     = 1*64( ALPHA / DIGIT / "." / "_" / "-" )    as it stands
//!          | "[" IPv6 network "]"
//!          | "~" 22 base64url characters                128 bits of SHA-256 of anything else
//! rule     = [a-z][a-z0-9_-]{0,63}
//! ```
//!
//! No byte that a client sends reaches the separators, a hash tag of Redis Cluster or a log line, and no two
//! identities share a key (short of a collision of SHA-256 cut to 128 bits).

use std::fmt::{self, Write};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::Ipv6Net;
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, SmolStrBuilder};

use crate::algorithm::Algorithm;

/// Longest key that takes no memory of its own, in bytes.
const LONGEST_SHORT: usize = 23;

/// Longest part that is written as it stands, in bytes.
const LONGEST_PLAIN: usize = 64;

/// The algorithm whose keys carry no algorithm name: the only one that the replaced services had.
const UNNAMED_ALGORITHM: &str = "tokenbucket";

/// The name of a rule: `[a-z][a-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleName(Box<str>);

/// A name that a rule cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a rule: 1 to 64 of a-z, 0-9, _ and -, the first one a letter")]
pub struct RuleNameError(pub String);

impl RuleName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it does not match `[a-z][a-z0-9_-]{0,63}`.
    pub fn new(name: &str) -> Result<Self, RuleNameError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let valid = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(word);
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(RuleNameError(name.chars().take(80).collect()))
        }
    }

    /// The rule that a service without a rules file has.
    pub fn default_rule() -> Self {
        Self("default".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_default(&self) -> bool {
        &*self.0 == "default"
    }
}

/// Who is counted: one or more parts, encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity(String);

impl Identity {
    /// An identity without parts: everybody shares one bucket until a part is added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address: IPv4 as it stands, IPv6 as the network of `ipv6_prefix` bits around it.
    ///
    /// A prefix above 128 counts as 128. An IPv4-mapped IPv6 address is the IPv4 address.
    #[must_use]
    pub fn with_ip(mut self, ip: IpAddr, ipv6_prefix: u8) -> Self {
        self.separate();
        match ip.to_canonical() {
            IpAddr::V4(v4) => self.push_octets(v4.octets()),
            IpAddr::V6(v6) => {
                let network = Ipv6Net::new_assert(v6, ipv6_prefix.min(128)).trunc();
                self.push(format_args!("[{network}]"));
            }
        }
        self
    }

    /// Adds anything else, such as an API key: as it stands when it is short and plain, else hashed.
    #[must_use]
    pub fn with_part(mut self, part: &[u8]) -> Self {
        self.separate();
        match std::str::from_utf8(part) {
            Ok(plain) if is_plain(part) => self.0.push_str(plain),
            _ => self.push_hash(part),
        }
        self
    }

    /// Adds something that nobody may read in the store or in a log, such as an API key: hashed, however it looks.
    #[must_use]
    pub fn with_secret(mut self, part: &[u8]) -> Self {
        self.separate();
        self.push_hash(part);
        self
    }

    /// Adds a part in the form in which [`hashed`](Self::hashed) shows it; `None` if `text` has another form.
    #[must_use]
    pub fn with_hashed(mut self, text: &str) -> Option<Self> {
        if !Self::is_hashed(text) {
            return None;
        }
        self.separate();
        self.0.push_str(text);
        Some(self)
    }

    /// `part` as it stands in keys when it is hashed: `~` and 22 base64url characters, 128 bits of SHA-256.
    pub fn hashed(part: &[u8]) -> String {
        Self::new().with_secret(part).0
    }

    /// Whether `text` has the form of a hashed part.
    pub fn is_hashed(text: &str) -> bool {
        text.strip_prefix('~')
            .and_then(|hash| URL_SAFE_NO_PAD.decode(hash).ok())
            .is_some_and(|hash| hash.len() == 16)
    }

    /// The encoded parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn push_hash(&mut self, part: &[u8]) {
        let digest = Sha256::digest(part);
        self.0.push('~');
        URL_SAFE_NO_PAD.encode_string(&digest[..16], &mut self.0);
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.push('|');
        }
    }

    /// As `Display` writes an IPv4 address, at a tenth of the instructions.
    fn push_octets(&mut self, octets: [u8; 4]) {
        self.0.reserve("255.255.255.255".len());
        let mut digits = itoa::Buffer::new();
        for (i, octet) in octets.into_iter().enumerate() {
            if i > 0 {
                self.0.push('.');
            }
            self.0.push_str(digits.format(octet));
        }
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

fn is_plain(part: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=LONGEST_PLAIN).contains(&part.len()) && part.iter().all(plain)
}

/// The name of one bucket in the store. A short one, as that of an IPv4 address mostly is, takes no memory of its own; clones
/// share a longer one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(SmolStr);

impl Key {
    /// The key of `identity` under `rule`, in the grammar of this module.
    pub fn new(
        prefix: &str,
        algorithm: &dyn Algorithm,
        rule: &RuleName,
        identity: &Identity,
    ) -> Self {
        let (rule_name, who) = (rule.as_str(), identity.as_str());
        Self(match algorithm.name() {
            UNNAMED_ALGORITHM if rule.is_default() => joined(&[prefix, who]),
            UNNAMED_ALGORITHM => joined(&[prefix, rule_name, ":", who]),
            other => joined(&[prefix, other, "!", rule_name, ":", who]),
        })
    }

    /// The key as the store sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn joined(parts: &[&str]) -> SmolStr {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > LONGEST_SHORT {
        // So that memory is taken for it once, and not again as it grows.
        return parts.concat().into();
    }
    let mut text = SmolStrBuilder::new();
    parts.iter().for_each(|part| text.push_str(part));
    text.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::algorithm::named;

    fn key(rule: &str, identity: &Identity) -> String {
        let algorithm = named("tokenbucket").unwrap();
        let rule = RuleName::new(rule).unwrap();
        Key::new("ratelimit:", algorithm, &rule, identity)
            .as_str()
            .to_owned()
    }

    fn ip(text: &str) -> Identity {
        Identity::new().with_ip(text.parse().unwrap(), 64)
    }

    #[test]
    fn a_default_key_is_the_prefix_and_the_address() {
        assert_eq!(
            key("default", &ip("192.168.1.100")),
            "ratelimit:192.168.1.100"
        );
        assert_eq!(
            key("default", &ip("::ffff:192.168.1.100")),
            "ratelimit:192.168.1.100"
        );
    }

    /// On both sides of what takes no memory of its own.
    #[test]
    fn a_key_is_what_it_is_made_of_however_long() {
        let (algorithm, rule) = (named("tokenbucket").unwrap(), RuleName::default_rule());
        for length in 0..60 {
            let prefix = "p".repeat(length);
            let key = Key::new(&prefix, algorithm, &rule, &ip("192.0.2.1"));
            assert_eq!(key.as_str(), format!("{prefix}192.0.2.1"));
        }
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(
            key("default", &ip("2001:db8::1")),
            "ratelimit:[2001:db8::/64]"
        );
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8:0:1::1"), ip("2001:db8::1"));
    }

    #[test]
    fn a_named_rule_stands_before_the_identity() {
        let who = Identity::new().with_part(b"alice").with_part(b"GET");
        assert_eq!(key("login", &who), "ratelimit:login:alice|GET");
    }

    #[test]
    fn what_is_not_plain_is_hashed() {
        for part in [
            &b""[..],
            b"a b",
            b"a|b",
            b"{tag}",
            b"~x",
            b"a:b",
            b"\xff",
            &[b'a'; 65],
        ] {
            let who = Identity::new().with_part(part);
            assert!(
                who.as_str().starts_with('~') && who.as_str().len() == 23,
                "{who:?}"
            );
        }
        assert_eq!(
            Identity::new().with_part(&[b'a'; 64]).as_str(),
            "a".repeat(64)
        );
    }

    #[test]
    fn rule_names_are_checked() {
        for good in ["a", "login", "a-b_9", &"a".repeat(64)] {
            assert!(RuleName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "9a", "a:b", "a!b", "-a", &"a".repeat(65), "ä"] {
            assert!(RuleName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_written_as_everywhere(octets in any::<[u8; 4]>()) {
            let address = IpAddr::from(octets);
            let identity = Identity::new().with_ip(address, 64);
            prop_assert_eq!(identity.as_str(), address.to_string());
        }

        #[test]
        fn different_parts_never_share_a_key(
            all in proptest::collection::vec(proptest::collection::vec("[a-z~|:!.\\[\\]]{0,4}", 1..4), 2..40)
        ) {
            let mut seen: HashMap<String, Vec<String>> = HashMap::new();
            for parts in all {
                let who = parts.iter().fold(Identity::new(), |who, part| who.with_part(part.as_bytes()));
                let first = seen.entry(who.as_str().to_owned()).or_insert_with(|| parts.clone());
                prop_assert_eq!(&*first, &parts);
            }
        }
    }
}
