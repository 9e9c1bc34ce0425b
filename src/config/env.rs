//! Reads variables: the process's own, then `.env` for those that it does not set.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::error::{Invalid, Problem};
use super::variables::{VARIABLES, Variable, named, nearest};

/// Longest value that is read, in bytes.
const LONGEST_VALUE: usize = 4_096;
/// What only names of settings start with: another name that does is a mistake.
const OURS: &str = "LIMITER_";
/// Most names that are told of, and most characters of each.
const MOST_TOLD: usize = 8;
const LONGEST_TOLD: usize = 40;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The process's environment.
    Process,
    /// The file `.env`.
    File,
}

/// The variables that were set, each with where it came from. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    values: HashMap<&'static str, (String, Origin)>,
    /// Names that start as ours do and are none, in their order.
    strangers: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Environment {
    /// The variables of [`VARIABLES`] among `process`, and those of the file at `dotenv` that `process` does not set.
    ///
    /// A file that is not there is no problem; one that does not parse is.
    pub fn new(
        process: impl IntoIterator<Item = (OsString, OsString)>,
        dotenv: Option<&Path>,
    ) -> Self {
        let mut environment = Self::default();
        for (name, value) in process {
            let Some(variable) = environment.known(&name.to_string_lossy()) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => environment.set(variable.name, value, Origin::Process),
                Err(_) => {
                    environment.problem(variable.name, "bytes that are not UTF-8", "text in UTF-8");
                }
            }
        }
        if let Some(path) = dotenv {
            environment.read_file(path);
        }
        environment
    }

    /// The value that was set and where it came from; `None` if unset or blank.
    pub fn value(&self, name: &str) -> Option<(&str, Origin)> {
        self.values
            .get(name)
            .map(|(value, origin)| (value.as_str(), *origin))
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let lines = match dotenvy::from_path_iter(path) {
            Ok(lines) => lines,
            Err(error) if error.not_found() => return,
            Err(error) => {
                return self.problem(&shown, &error.to_string(), "a file that can be read");
            }
        };
        for line in lines {
            match line {
                Ok((name, value)) => {
                    if let Some(variable) = self.known(&name)
                        && !self.values.contains_key(variable.name)
                    {
                        self.set(variable.name, value, Origin::File);
                    }
                }
                // The text of the error repeats the line, which may hold a secret.
                Err(_) => self.problem(
                    &shown,
                    "a line that does not parse",
                    "lines of the form NAME=value",
                ),
            }
        }
    }

    /// The variable of that name; one that there should be, but is not, is remembered.
    fn known(&mut self, name: &str) -> Option<&'static Variable> {
        let variable = named(name);
        if variable.is_none() && name.starts_with(OURS) {
            self.strangers
                .insert(name.escape_debug().take(LONGEST_TOLD).collect());
        }
        variable
    }

    /// What to tell of names that are probably misspelt: of each only the name, for its value may be a secret.
    fn misspelt(&self) -> Option<String> {
        let names: Vec<String> = self
            .strangers
            .iter()
            .take(MOST_TOLD)
            .map(|name| match nearest(name) {
                Some(near) => format!("{name} (did you mean {near}?)"),
                None => name.clone(),
            })
            .collect();
        let more = match self.strangers.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let told = || format!("no settings, and ignored: {}{more}", names.join(", "));
        (!names.is_empty()).then(told)
    }

    fn set(&mut self, name: &'static str, value: String, origin: Origin) {
        if value.trim().is_empty() {
            return;
        }
        if value.len() > LONGEST_VALUE {
            let given = format!("{} bytes", value.len());
            return self.problem(
                name,
                &given,
                &format!("a value of at most {LONGEST_VALUE} bytes"),
            );
        }
        self.values.insert(name, (value, origin));
    }

    fn problem(&mut self, variable: &str, given: &str, allowed: &str) {
        self.problems.push(Problem {
            variable: variable.to_owned(),
            given: given.to_owned(),
            allowed: allowed.to_owned(),
        });
    }
}

/// Turns texts into values and gathers what is wrong.
pub(super) struct Reader {
    /// By name in lower case, as `envy` hands them over; only what is set.
    texts: HashMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reader {
    pub(super) fn new(environment: &Environment) -> Result<Self, Invalid> {
        let pairs = VARIABLES.iter().filter_map(|variable| {
            environment
                .value(variable.name)
                .map(|(value, _)| (variable.name.to_owned(), value.to_owned()))
        });
        let texts = envy::from_iter(pairs).map_err(|error| {
            let (variable, given) = ("environment".to_owned(), error.to_string());
            Invalid(vec![Problem {
                variable,
                given,
                allowed: "readable".to_owned(),
            }])
        })?;
        Ok(Self {
            texts,
            problems: environment.problems.clone(),
            warnings: environment.misspelt().into_iter().collect(),
        })
    }

    /// The text of a variable as it was given; `None` if unset.
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(named(name).is_some(), "{name} is not in the table");
        self.texts
            .get(&name.to_ascii_lowercase())
            .map(String::as_str)
    }

    /// The value of a variable, trimmed and parsed; its default if unset; and a problem if it does not parse.
    ///
    /// # Panics
    ///
    /// If the table's default does not parse.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let default = named(name).map_or("", |variable| variable.default);
        self.optional(name, allowed, &parse)
            .unwrap_or_else(|| parse(default).expect("the default in the table parses"))
    }

    /// The value of a variable, trimmed and parsed; `None` if unset; and a problem if it does not parse.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?.trim();
        let value = parse(text);
        if value.is_none() {
            let text = text.to_owned();
            self.problem(name, &text, allowed);
        }
        value
    }

    /// Which of two names for one thing counts: the first, if both are set; told when they differ.
    pub(super) fn either(&mut self, first: &'static str, second: &'static str) -> &'static str {
        match (
            self.text(first).map(str::trim),
            self.text(second).map(str::trim),
        ) {
            (Some(a), Some(b)) => {
                if a != b {
                    self.warn(format!(
                        "{first} and {second} are both set and differ: {first} counts"
                    ));
                }
                first
            }
            (None, Some(_)) => second,
            _ => first,
        }
    }

    pub(super) fn problem(&mut self, name: &str, given: &str, allowed: &str) {
        let secret = named(name).is_some_and(|variable| variable.secret);
        let given = if secret { "••••••" } else { given };
        let given: String = given.chars().take(100).collect();
        self.problems.push(Problem {
            variable: name.to_owned(),
            given,
            allowed: allowed.to_owned(),
        });
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The warnings, if nothing is wrong.
    pub(super) fn finish(self) -> Result<Vec<String>, Invalid> {
        if self.problems.is_empty() {
            Ok(self.warnings)
        } else {
            Err(Invalid(self.problems))
        }
    }
}

/// A duration with its unit, above zero and at most a day: `50ms`, `5s`, `1m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    const DAY: Duration = Duration::from_secs(86_400);
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let duration = match &text[digits..] {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        _ => return None,
    };
    (!duration.is_zero() && duration <= DAY).then_some(duration)
}

/// What [`duration`] allows.
pub(super) const A_DURATION: &str = "a duration with its unit, such as 50ms, 5s or 1m, up to 24h";

/// A duration with its unit, or `off` for none.
pub(super) fn or_off(text: &str) -> Option<Duration> {
    match text {
        "off" => Some(Duration::ZERO),
        _ => duration(text),
    }
}

/// What [`or_off`] allows.
pub(super) const A_DURATION_OR_OFF: &str =
    "a duration with its unit, such as 50ms, 5s or 1m, up to 24h, or `off`";
