//! A rule in words: "login: up to 5 at once, then one every 12 s, per client address; for POST /login".

use std::fmt::Write;
use std::time::Duration;

use super::key_part::{Absent, Part};
use super::matching::{Conditions, Match, Value, carries_secret};
use super::path::PathPattern;
use super::pattern::TextPattern;
use super::rule::{Costs, Effect, Limiting, Overrides, Rule, RuleMode};
use crate::domain::{Cost, Limit, Networks, OnStoreError};

/// Most entries of a list that are written out.
const MOST: usize = 4;

impl Rule {
    /// What the rule does, for a person to read.
    pub fn in_words(&self) -> String {
        let mut text = format!("{}: ", self.name.as_str());
        match self.mode {
            RuleMode::Enforce => {}
            RuleMode::Shadow => text.push_str("in shadow, "),
            RuleMode::Off => text.push_str("off, "),
        }
        match &self.effect {
            Effect::Exempt => text.push_str("no rule below applies"),
            Effect::Deny => text.push_str("refused with 403"),
            Effect::Limit(limiting) => text.push_str(&limiting.in_words()),
        }
        let requests = self.matches.in_words();
        if !requests.is_empty() {
            let _ = write!(text, "; for {requests}");
        }
        text
    }
}

impl Limiting {
    fn in_words(&self) -> String {
        let mut text = format!("{}, {}", in_words(&self.limit), self.whose());
        text.push_str(&self.cost.in_words());
        text.push_str(&self.overrides.in_words());
        match self.on_store_error {
            OnStoreError::Local => {}
            OnStoreError::Allow => text.push_str("; passes while the store cannot decide"),
            OnStoreError::Deny => text.push_str("; refused while the store cannot decide"),
        }
        text
    }

    fn whose(&self) -> String {
        // A constant tells nobody apart.
        let telling = self
            .key
            .iter()
            .filter(|part| !matches!(part, Part::Constant(_)));
        let parts: Vec<String> = telling.map(ToString::to_string).collect();
        if parts.is_empty() {
            return "all requests together".to_owned();
        }
        let may_lack = |part: &Part| part.is_secret() || *part == Part::Host;
        let otherwise = match self.absent {
            _ if !self.key.iter().any(may_lack) => "",
            Absent::Address => " (without it by client address)",
            Absent::Skip => " (without it not at all)",
            Absent::Deny => " (without it refused with 403)",
        };
        format!("per {}{otherwise}", parts.join(" and "))
    }
}

/// "up to 5 at once, then one every 12 s".
fn in_words(limit: &Limit) -> String {
    let quota = &limit.quota;
    let (capacity, window) = (quota.capacity(), duration(quota.fill_time()));
    match limit.algorithm.name() {
        "slidingwindow" => {
            format!("up to {capacity} in any {window}, as a sliding window estimates it")
        }
        "fixedwindow" => format!("up to {capacity} in each {window} of the clock"),
        _ => {
            let (gain, unit) = (quota.gain(), quota.unit());
            let (tokens, every) = if unit.is_multiple_of(gain) {
                ("one".to_owned(), unit / gain)
            } else if gain.is_multiple_of(unit) {
                ((gain / unit).to_string(), 1)
            } else {
                (gain.to_string(), unit)
            };
            let every = duration(Duration::from_micros(every));
            format!("up to {capacity} at once, then {tokens} every {every}")
        }
    }
}

/// In the largest unit in which it has at most three decimals: "12 s", "1.5 h", "250 ms".
fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("days", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ];
    let us = duration.as_micros();
    let fits = |unit: &&(&str, u128)| us >= unit.1 && (us * 1_000).is_multiple_of(unit.1);
    let (name, size) = UNITS.iter().find(fits).unwrap_or(&("us", 1));
    let thousandths = us * 1_000 / size;
    let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
    let decimals = format!(".{rest:03}");
    let decimals = decimals.trim_end_matches('0').trim_end_matches('.');
    match (*name, thousandths) {
        ("days", 1_000) => "day".to_owned(),
        ("h", 1_000) => "hour".to_owned(),
        ("min", 1_000) => "minute".to_owned(),
        ("s", 1_000) => "second".to_owned(),
        _ => format!("{whole}{decimals} {name}"),
    }
}

impl Costs {
    fn in_words(&self) -> String {
        let mut text = String::new();
        for (conditions, cost) in self.cases.iter().take(MOST) {
            let requests = conditions.in_words();
            let requests = if requests.is_empty() {
                "every other request"
            } else {
                &requests
            };
            let _ = write!(text, "; {cost} tokens for {requests}");
        }
        let more = self.cases.len().saturating_sub(MOST);
        if more > 0 {
            let _ = write!(text, "; {more} more costs");
        }
        if self.otherwise > Cost::MIN {
            let _ = write!(text, "; {} tokens each", self.otherwise);
        }
        text
    }
}

impl Overrides {
    fn in_words(&self) -> String {
        let mut text = String::new();
        match self.by_key.len() {
            0 => {}
            1 => text.push_str("; another limit for one key"),
            keys => {
                let _ = write!(text, "; other limits for {keys} keys");
            }
        }
        let mut plans: Vec<_> = self.by_plan.iter().collect();
        plans.sort_unstable_by_key(|(plan, _)| *plan);
        for (plan, limit) in plans.iter().take(MOST) {
            let _ = write!(text, "; plan {plan}: {}", in_words(limit));
        }
        let more = plans.len().saturating_sub(MOST);
        if more > 0 {
            let _ = write!(text, "; {more} more plans");
        }
        text
    }
}

impl Match {
    fn in_words(&self) -> String {
        let (when, not) = (self.when.in_words(), self.not.exceptions());
        match (when.is_empty(), not.is_empty()) {
            (_, true) => when,
            (true, false) => format!("all but {not}"),
            (false, false) => format!("{when}, but not {not}"),
        }
    }
}

impl Conditions {
    /// "POST /login at example.com with x-tier gold from 192.0.2.0/24".
    fn in_words(&self) -> String {
        let mut words = self.members(false);
        if self.paths.is_empty() && !self.methods.is_empty() {
            words.insert(1, "requests".to_owned());
        }
        let has_object = !self.paths.is_empty() || !self.methods.is_empty();
        if !has_object && !words.is_empty() {
            words.insert(0, "requests".to_owned());
        }
        words.join(" ")
    }

    fn members(&self, exceptions: bool) -> Vec<String> {
        let mut words = Vec::new();
        if !self.methods.is_empty() {
            words.push(any(self.methods.iter().map(|method| &**method)));
        }
        if !self.paths.is_empty() {
            words.push(any(self.paths.iter().map(PathPattern::as_str)));
        }
        if !self.hosts.is_empty() {
            words.push(format!(
                "at {}",
                any(self.hosts.iter().map(TextPattern::as_str))
            ));
        }
        for (i, (name, values)) in self.headers.iter().enumerate() {
            let known = values.iter().map(|value| self::value(name, value));
            let with = if i == 0 || exceptions { "with" } else { "and" };
            words.push(format!("{with} {name} {}", any(known)));
        }
        if let Some(clients) = &self.clients {
            words.push(format!("from {}", addresses(clients)));
        }
        words
    }

    /// The same of what must not be so: any of it is enough.
    fn exceptions(&self) -> String {
        self.members(true).join(", or ")
    }
}

fn value<'a>(name: &str, value: &'a Value) -> &'a str {
    match value {
        Value::Text(pattern) if pattern.as_str() == "*" => "of any value",
        Value::Text(pattern) if carries_secret(name) && pattern.literal().is_some() => "•••",
        Value::Text(pattern) => pattern.as_str(),
        Value::Hashed(hash) => hash,
    }
}

fn addresses(networks: &Networks) -> String {
    let mut texts = networks.networks();
    let some: Vec<String> = texts.by_ref().take(MOST).collect();
    let more = texts.count();
    match (some.is_empty(), more) {
        (true, _) => "nowhere".to_owned(),
        (false, 0) => any(some.iter().map(String::as_str)),
        (false, more) => format!("{} or {more} more networks", some.join(", ")),
    }
}

/// "a, b or c"; of many only the first.
fn any<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] if words.len() <= MOST => format!("{} or {last}", most.join(", ")),
        many => {
            let (some, rest) = many.split_at(MOST);
            format!("{} or {} more", some.join(", "), rest.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_the_unit_that_suits() {
        for (us, said) in [
            (1, "1 us"),
            (600_000, "600 ms"),
            (1_000_000, "second"),
            (1_500_000, "1.5 s"),
            (12_000_000, "12 s"),
            (60_000_000, "minute"),
            (90_000_000, "1.5 min"),
            (3_600_000_000, "hour"),
            (86_400_000_000, "day"),
            (30 * 86_400_000_000, "30 days"),
            (333_333, "333.333 ms"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), said);
        }
    }
}
