//! How much: `100/min`, `10 per 250ms`.

use std::time::Duration;

use super::findings::Report;
use super::members::{nearest, number, text};
use super::tree::Node;
use crate::algorithm::Algorithm;
use crate::domain::{Limit, Quota};

/// Every unit and what it stands for.
pub(super) const UNITS: [(&str, Duration); 5] = [
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("min", Duration::from_secs(60)),
    ("hour", Duration::from_secs(3_600)),
    ("day", Duration::from_secs(86_400)),
];

/// The form of a limit, as a regular expression that JSON Schema understands.
pub(super) const PATTERN: &str =
    "^[1-9][0-9]{0,15}( ?/ ?| per )([1-9][0-9]{0,8} ?)?(ms|s|min|hour|day)$";

const ALLOWED: &str = "a limit, such as `100/min`, `5/s` or `10 per 250ms`";

/// Tokens in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) tokens: u64,
    pub(super) period: Duration,
}

/// The limit of these members, of that algorithm. `limit` is where a limit that cannot be counted is reported.
pub(super) fn read(
    limit: &Node,
    burst: Option<&Node>,
    algorithm: &'static dyn Algorithm,
    report: &mut Report,
) -> Option<Limit> {
    let rate = rate(limit, report);
    let capacity = burst.map(|burst| capacity(burst, algorithm, report));
    let rate = rate?;
    let capacity = capacity.unwrap_or(Some(rate.tokens))?;
    match Quota::new(capacity, rate.tokens, rate.period) {
        Ok(quota) => Some(Limit { algorithm, quota }),
        Err(error) => {
            report.error(burst.unwrap_or(limit).place, error.to_string());
            None
        }
    }
}

/// Whether an algorithm counts in windows, which have no burst of their own.
pub(super) fn is_windowed(algorithm: &dyn Algorithm) -> bool {
    matches!(algorithm.name(), "slidingwindow" | "fixedwindow")
}

fn capacity(burst: &Node, algorithm: &dyn Algorithm, report: &mut Report) -> Option<u64> {
    let capacity = number(burst, 1, Quota::LARGEST, report);
    if is_windowed(algorithm) {
        let name = algorithm.name();
        report.error(
            burst.place,
            format!("`burst` is not for `{name}`: a window holds the count of its limit"),
        );
        return None;
    }
    capacity
}

fn rate(limit: &Node, report: &mut Report) -> Option<Rate> {
    let text = text(limit, ALLOWED, report)?;
    match parse(text) {
        Ok(rate) => Some(rate),
        Err(hint) => {
            limit.is_not(&format!("{ALLOWED}{hint}"), report);
            None
        }
    }
}

/// Reads a limit; what may be wrong with it, if it is none.
pub(super) fn parse(text: &str) -> Result<Rate, String> {
    let (tokens, behind) = digits(text);
    let tokens = whole(tokens, 16).ok_or("; it begins with a whole number above 0")?;
    let separators = [" per ", " / ", " /", "/ ", "/"];
    let mut rests = separators.iter().map(|word| behind.strip_prefix(word));
    let rest = rests
        .find_map(|rest| rest)
        .ok_or("; behind the number stands `/` or ` per `")?;
    let (count, unit) = digits(rest);
    let count = match count {
        "" => 1,
        count => whole(count, 9).ok_or("; the number before the unit is 1 to 999999999")?,
    };
    let unit = unit
        .strip_prefix(' ')
        .filter(|_| rest != unit)
        .unwrap_or(unit);
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, one) = known.ok_or_else(|| {
        // The longer ones first: who wrote `mn` hardly meant `ms`.
        let near = nearest(unit, UNITS.iter().rev().map(|(name, _)| *name));
        let hint = near.map_or(String::new(), |near| format!(", perhaps `{near}`"));
        format!("; units are `ms`, `s`, `min`, `hour` and `day`{hint}")
    })?;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Rate {
        tokens,
        period: one.saturating_mul(count),
    })
}

/// The digits at the start, and the rest.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// A number above 0, of at most so many digits, written without zeros in front.
fn whole(digits: &str, most: usize) -> Option<u64> {
    let fits = digits.len() <= most && !digits.starts_with('0');
    digits.parse().ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_a_count_and_a_period() {
        let ms = Duration::from_millis;
        for (text, tokens, period) in [
            ("100/min", 100, ms(60_000)),
            ("5/s", 5, ms(1_000)),
            ("10 per 250ms", 10, ms(250)),
            ("10 / 250 ms", 10, ms(250)),
            ("1 per hour", 1, ms(3_600_000)),
            ("1/7day", 1, ms(7 * 86_400_000)),
            ("9999999999999999/ms", 9_999_999_999_999_999, ms(1)),
        ] {
            assert_eq!(parse(text), Ok(Rate { tokens, period }), "{text}");
        }
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in [
            "",
            "100",
            "0/s",
            "01/s",
            "-1/s",
            "1.5/s",
            "1e3/s",
            "/s",
            "100/",
            "100/m",
            "100/0s",
            "100/1.5s",
            "100perhour",
            "100 per",
            "100  / s",
            "100/s ",
            "10000000000000000/s",
            "1/1000000000s",
            "1/s/s",
            "1/ s s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_nearest_unit_is_named() {
        for (text, unit) in [
            ("1/mn", "min"),
            ("1/hours", "hour"),
            ("1/Min", "min"),
            ("1/days", "day"),
        ] {
            assert!(
                parse(text)
                    .unwrap_err()
                    .contains(&format!("perhaps `{unit}`")),
                "{text}"
            );
        }
    }
}
