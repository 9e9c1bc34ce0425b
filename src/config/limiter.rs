//! What is limited and how.

use std::path::PathBuf;
use std::time::Duration;

use super::env::{Reader, duration};
use crate::algorithm::{self, named};
use crate::domain::{Limit, OnStoreError, Quota};
use crate::limiter::rules_file::{self, Basis, Findings, RulesFile};
use crate::limiter::{PathPattern, Rule, RuleMode};
use crate::strategy::factory::Kind;

/// What `LIMITER_DENIAL_CACHE` allows: so long can a reset by another instance go unnoticed.
const DENIAL_CACHE: &str = "a duration with its unit, such as 500ms, up to 1m, or `off`";
const MOST_DENIAL_CACHE: Duration = Duration::from_secs(60);

/// What `LIMITER_LEASE_MAX` allows: above a half, little would be left for those who hold no lease.
const LEASE_MAX: &str = "a share from 1% to 50%, such as 10%";

/// What is limited and how.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Reads `LIMITER_STRATEGY`, the part behind the hyphen. Default `lua` with a Redis, else `memory`.
    pub kind: Kind,
    /// Reads `LIMITER_STRATEGY`, the part before the hyphen, `LIMITER_CAPACITY` or `BUCKET_CAPACITY` (default 100), and
    /// `LIMITER_REFILL_RATE` or `REFILL_RATE` (default 10 a second).
    pub limit: Limit,
    /// Reads `RULES_FILE`. Default none: then there is one rule, made of the other variables.
    pub rules_file: Option<PathBuf>,
    /// Reads `LIMITER_MODE`. Default `enforce`.
    pub mode: RuleMode,
    /// Reads `LIMITER_ON_STORE_ERROR`. Default `local`.
    pub on_store_error: OnStoreError,
    /// Reads `LIMITER_INSTANCES`. Default 1.
    pub instances: u64,
    /// Reads `LIMITER_DENIAL_CACHE`. Default 1 s; `None` for `off`.
    pub denial_cache: Option<Duration>,
    /// Reads `LIMITER_LEASE_MAX`. Default 10 %; used by `lease` alone.
    pub lease_max: u64,
    /// Reads `LIMITER_MAX_KEYS`. Default 1,000,000.
    pub max_keys: usize,
    /// Reads `LIMITER_IPV6_PREFIX`. Default 64.
    pub ipv6_prefix: u8,
}

impl Limiter {
    /// The algorithm and the strategy as `LIMITER_STRATEGY` names them.
    pub fn strategy(&self) -> String {
        pair_name(self.limit.algorithm, self.kind)
    }

    /// The rule that the variables make, which is in force without a rules file: it limits `/api` alone.
    pub fn default_rule(&self) -> Rule {
        let mut rule = Rule::default_of(self.limit).on_store_error(self.on_store_error);
        let api = PathPattern::new("/api").expect("a path without stars is a pattern");
        rule.matches.when.paths = vec![api];
        rule.mode = self.mode;
        rule
    }

    /// What rules of a file have that neither they nor the file's `defaults` say.
    pub fn basis(&self) -> Basis {
        Basis {
            algorithm: self.limit.algorithm,
            mode: self.mode,
            on_store_error: self.on_store_error,
            ipv6_prefix: self.ipv6_prefix,
        }
    }

    /// The rules of `RULES_FILE`, which is read now; without one, the rule that the variables make.
    ///
    /// # Errors
    ///
    /// Every problem of the file.
    pub fn rule_set(&self) -> Result<RulesFile, Findings> {
        match &self.rules_file {
            Some(path) => rules_file::read(path, &self.basis()),
            None => Ok(RulesFile::of(vec![self.default_rule()])),
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        let (algorithm, kind) = strategy(reader);
        let quota = quota(reader);
        let rules_file = reader.optional("RULES_FILE", "a path", |path| Some(path.into()));
        if rules_file.is_some() {
            warn_of_replaced(reader);
        }
        Self {
            kind,
            limit: Limit { algorithm, quota },
            rules_file,
            mode: reader.value("LIMITER_MODE", "`enforce`, `shadow` or `off`", |text| {
                RuleMode::ALL.into_iter().find(|mode| mode.name() == text)
            }),
            on_store_error: on_store_error(reader),
            instances: reader.value("LIMITER_INSTANCES", "a number from 1 to 10000", |text| {
                text.parse()
                    .ok()
                    .filter(|number| (1..=10_000).contains(number))
            }),
            denial_cache: reader.value("LIMITER_DENIAL_CACHE", DENIAL_CACHE, |text| match text {
                "off" => Some(None),
                _ => duration(text)
                    .filter(|longest| *longest <= MOST_DENIAL_CACHE)
                    .map(Some),
            }),
            lease_max: reader.value("LIMITER_LEASE_MAX", LEASE_MAX, |text| {
                let share = text.strip_suffix('%')?.trim_end().parse().ok()?;
                (1..=50).contains(&share).then_some(share)
            }),
            max_keys: reader.value("LIMITER_MAX_KEYS", "a number from 1 to 100000000", |text| {
                text.parse()
                    .ok()
                    .filter(|number| (1..=100_000_000).contains(number))
            }),
            ipv6_prefix: reader.value(
                "LIMITER_IPV6_PREFIX",
                "a number of bits from 1 to 128",
                |text| text.parse().ok().filter(|bits| (1..=128).contains(bits)),
            ),
        }
    }
}

fn pair_name(algorithm: &dyn algorithm::Algorithm, kind: Kind) -> String {
    format!("{}-{}", algorithm.name(), kind.name())
}

type Pair = (&'static dyn algorithm::Algorithm, Kind);

fn strategy(reader: &mut Reader) -> Pair {
    let pairs = || {
        algorithm::ALL
            .iter()
            .flat_map(|algorithm| Kind::ALL.map(|kind| (*algorithm, kind)))
            .filter(|(algorithm, kind)| kind.serves(*algorithm))
    };
    let name = |(algorithm, kind): Pair| pair_name(algorithm, kind);
    let given = reader
        .text("LIMITER_STRATEGY")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let allowed = without_leases(&given).unwrap_or_else(|| nearest(&given, pairs().map(name)));
    let chosen = reader.optional("LIMITER_STRATEGY", &allowed, |text| {
        pairs().find(|pair| name(*pair) == text)
    });
    let has_redis = super::redis::NAMES
        .iter()
        .any(|name| reader.text(name).is_some());
    chosen.unwrap_or_else(|| {
        let default = named("tokenbucket").expect("the default algorithm exists");
        (default, if has_redis { Kind::Lua } else { Kind::Memory })
    })
}

/// What is allowed instead of an algorithm that cannot lend.
fn without_leases(given: &str) -> Option<String> {
    let (algorithm, kind) = given.split_once('-')?;
    let (algorithm, kind) = (named(algorithm)?, Kind::named(kind)?);
    let exact = pair_name(algorithm, Kind::Lua);
    (!kind.serves(algorithm)).then(|| {
        format!("a strategy: only a token bucket can lend; take tokenbucket-lease or {exact}")
    })
}

/// What is allowed, with the names that are most like the one given.
fn nearest(given: &str, names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort_by_key(|name| strsim::damerau_levenshtein(given, name));
    format!(
        "an algorithm ({}), a hyphen and a strategy ({}); nearest: {}",
        algorithm::ALL
            .iter()
            .map(|algorithm| algorithm.name())
            .collect::<Vec<_>>()
            .join(", "),
        Kind::ALL.map(Kind::name).join(", "),
        names[..3].join(", ")
    )
}

/// Warns of variables that a rules file replaces.
fn warn_of_replaced(reader: &mut Reader) {
    let names = [
        "LIMITER_CAPACITY",
        "BUCKET_CAPACITY",
        "LIMITER_REFILL_RATE",
        "REFILL_RATE",
    ];
    let set: Vec<&str> = names
        .into_iter()
        .filter(|name| reader.text(name).is_some())
        .collect();
    if !set.is_empty() {
        let set = set.join(", ");
        reader.warn(format!("RULES_FILE is set and counts: {set} ignored"));
    }
}

fn quota(reader: &mut Reader) -> Quota {
    let capacity_name = reader.either("LIMITER_CAPACITY", "BUCKET_CAPACITY");
    let rate_name = reader.either("LIMITER_REFILL_RATE", "REFILL_RATE");
    let default = Quota::new(100, 10, Duration::from_secs(1)).expect("the default quota is exact");
    let whole = |text: &str| text.parse::<u64>().ok().filter(|capacity| *capacity > 0);
    let capacity = reader.optional(capacity_name, "a whole number of tokens, 1 or more", whole);
    let rate = reader.optional(
        rate_name,
        "tokens per second above 0, such as 10 or 0.5, with up to 9 decimals",
        rate,
    );
    let unreadable = |given: bool, read: bool| given && !read;
    if unreadable(reader.text(capacity_name).is_some(), capacity.is_some())
        || unreadable(reader.text(rate_name).is_some(), rate.is_some())
    {
        return default;
    }
    let capacity = capacity.unwrap_or(100);
    let (tokens, period) = rate.unwrap_or((10, Duration::from_secs(1)));
    Quota::new(capacity, tokens, period).unwrap_or_else(|error| {
        let names = format!("{capacity_name} and {rate_name}");
        let given = format!("{capacity}, {tokens} per {period:?}");
        reader.problem(
            &names,
            &given,
            &format!("a limit that can be counted: {error}"),
        );
        default
    })
}

/// Tokens per period, exactly: `0.5` is 5 per 10 s.
fn rate(text: &str) -> Option<(u64, Duration)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || fraction.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let tokens = digits.parse().ok().filter(|tokens| *tokens > 0)?;
    let decimals = u32::try_from(fraction.len()).ok()?;
    Some((tokens, Duration::from_secs(10_u64.pow(decimals))))
}

fn on_store_error(reader: &mut Reader) -> OnStoreError {
    let allowed = "`local`, `allow` or `deny`";
    reader.value("LIMITER_ON_STORE_ERROR", allowed, |text| {
        OnStoreError::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_exactly() {
        let seconds = Duration::from_secs;
        for (text, expected) in [
            ("10", Some((10, seconds(1)))),
            ("0.5", Some((5, seconds(10)))),
            (".25", Some((25, seconds(100)))),
            ("1.", Some((1, seconds(1)))),
            ("1.000000001", Some((1_000_000_001, seconds(1_000_000_000)))),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".", None),
            ("", None),
            ("NaN", None),
            ("1.0000000001", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(rate(text), expected, "{text}");
        }
    }
}
