//! Reads a rules file: docs/rules.md is the contract of its format.
//!
//! A file is read in three steps: YAML becomes a tree of texts with their places (`tree.rs`), readers make rules of it
//! and report every problem that they find (one file a member, `findings.rs`), and what is legal but surely a mistake is
//! looked for in the whole (`lint.rs`).

mod conditions;
mod cost;
mod findings;
mod key;
mod likely_secrets;
mod limit;
mod lint;
mod lists;
mod members;
mod outdone;
mod overrides;
mod rule;
mod schema;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::rule::{Rule, RuleMode};
use super::rule_set::{RuleSet, Version};
use crate::algorithm::{Algorithm, TokenBucket};
use crate::domain::OnStoreError;
use crate::limiter::DEFAULT_IPV6_PREFIX;

pub use findings::{Finding, Findings, Severity};
pub use schema::schema;

use findings::{Place, Report, name_of};
use lists::{Beside, LARGEST_FILE, Lists};
use members::{Members, list};
use rule::{Defaults, Placed};

/// Most rules of a file.
const MOST_RULES: usize = 1_000;

/// What rules have that neither they nor the file's `defaults` say.
#[derive(Debug, Clone, Copy)]
pub struct Basis {
    /// How they count.
    pub algorithm: &'static dyn Algorithm,
    /// Whether they are followed.
    pub mode: RuleMode,
    /// What a request is answered when the store cannot decide.
    pub on_store_error: OnStoreError,
    /// Bits of an IPv6 address that make one client, 1 to 128.
    pub ipv6_prefix: u8,
}

impl Default for Basis {
    /// What holds where no variable is set.
    fn default() -> Self {
        Self {
            algorithm: &TokenBucket,
            mode: RuleMode::Enforce,
            on_store_error: OnStoreError::Local,
            ipv6_prefix: DEFAULT_IPV6_PREFIX,
        }
    }
}

/// Rules that were read.
#[derive(Debug)]
pub struct RulesFile {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// What they were read from: the SHA-256 of the file, and of each list file behind it after a byte 0.
    pub version: Version,
    /// What is legal but surely a mistake.
    pub warnings: Findings,
    /// The files that were read: when one of them changes, the rules may have.
    pub sources: Vec<PathBuf>,
}

impl RulesFile {
    /// Rules that come from no file.
    pub fn of(rules: Vec<Rule>) -> Self {
        Self {
            version: Version::of(format!("{rules:?}").as_bytes()),
            rules,
            warnings: Findings::default(),
            sources: Vec::new(),
        }
    }

    /// The rules, ready to be asked.
    pub fn into_set(self) -> RuleSet {
        RuleSet::new(self.rules, self.version)
    }
}

/// Reads the rules file at `path`, and the list files beside it.
///
/// # Errors
///
/// Every problem that there is, and warnings besides.
pub fn read(path: &Path, basis: &Basis) -> Result<RulesFile, Findings> {
    let mut sources = vec![path.to_owned()];
    let name = name_of(path);
    let rules = match read_text(path) {
        Ok(text) => parse(&text, &name, basis, &mut |name| {
            let beside = path.with_file_name(name);
            sources.push(beside.clone());
            read_text(&beside)
        }),
        Err(error) => {
            let mut report = Report::default();
            let file = report.add_file(&name, "");
            report.error(Place::whole(file), format!("cannot be read: {error}"));
            Err(report.finish())
        }
    };
    match rules {
        Ok(rules) => Ok(RulesFile { sources, ..rules }),
        Err(findings) => Err(findings.of(sources)),
    }
}

/// The text of a file, and no more of it than is needed to see that it is too large.
fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for whoever writes to it.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(LARGEST_FILE).unwrap_or(u64::MAX) + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    // Cut within a character it would not be UTF-8, which is not what is wrong with it.
    if bytes.len() > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .split(|byte| *byte == b'\n')
            .count();
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}

/// Reads rules from a text. `name` stands for it in findings, `beside` reads a file beside it.
///
/// # Errors
///
/// Every problem that there is, and warnings besides.
pub fn parse(
    text: &str,
    name: &str,
    basis: &Basis,
    beside: &mut dyn FnMut(&str) -> io::Result<String>,
) -> Result<RulesFile, Findings> {
    let mut report = Report::default();
    let file = report.add_file(name, if text.len() > LARGEST_FILE { "" } else { text });
    if text.len() > LARGEST_FILE {
        report.error(Place::whole(file), "larger than 1 MiB");
        return Err(report.finish());
    }
    let mut contents = vec![text.to_owned()];
    let rules = rules(file, basis, beside, &mut contents, &mut report);
    let failed = report.has_errors();
    let warnings = report.finish();
    match rules {
        Some(rules) if !failed => Ok(RulesFile {
            rules: rules.into_iter().map(|placed| placed.rule).collect(),
            version: Version::of(contents.join("\0").as_bytes()),
            warnings,
            sources: Vec::new(),
        }),
        _ => Err(warnings),
    }
}

fn rules(
    file: usize,
    basis: &Basis,
    beside: Beside<'_>,
    contents: &mut Vec<String>,
    report: &mut Report,
) -> Option<Vec<Placed>> {
    let root = tree::read(file, report)?;
    let members = Members::of(
        &root,
        "a rules file",
        &["rules", "defaults", "lists"],
        report,
    )?;
    let mut lists = members.get("lists").map_or_else(Lists::default, |node| {
        Lists::read(node, beside, contents, report)
    });
    let defaults = Defaults::of(basis);
    let defaults = match members.get("defaults") {
        Some(node) => defaults.read(node, report),
        None => defaults,
    };
    let Some(node) = members.get("rules") else {
        report.error(members.place, "a rules file without `rules`");
        return None;
    };
    let nodes = list(node, "rules", MOST_RULES, report)?;
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut rules = Vec::new();
    for node in nodes {
        let Some(members) = rule::members(node, report) else {
            continue;
        };
        let name = rule::name(&members, report);
        if let Some((place, name)) = &name
            && let Some(line) = names.insert(name.as_str().to_owned(), place.line())
        {
            let message = format!("a second rule named `{}`, as in line {line}", name.as_str());
            report.error(*place, message);
        }
        rules.extend(rule::read(&members, name, &defaults, &mut lists, report));
    }
    if !report.has_errors() {
        lists.warn_of_unused(report);
        lint::check(node.place, &rules, report);
    }
    Some(rules)
}
