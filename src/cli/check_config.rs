//! `tollgate check-config`: what is wrong with the settings and the rules file, and what the rules mean.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Config, Invalid, Problem};
use crate::limiter::rules_file::{self, Basis, Finding, Findings, RulesFile};

/// The settings and the rules, as far as they can be read.
#[derive(Debug)]
pub struct Checked {
    settings: Result<Vec<String>, Invalid>,
    rules: Result<RulesFile, Findings>,
}

impl Checked {
    /// Reads the rules file at `file`, else the one that the settings name, else takes the rule that they make.
    ///
    /// Where the settings are wrong, the file is read as if they were not set.
    pub fn new(config: Result<Config, Invalid>, file: Option<&Path>) -> Self {
        let basis = config
            .as_ref()
            .map_or_else(|_| Basis::default(), |config| config.limiter.basis());
        let rules = match (file, &config) {
            (Some(path), _) => rules_file::read(path, &basis),
            (None, Ok(config)) => config.limiter.rule_set(),
            (None, Err(_)) => Err(Findings::default()),
        };
        let settings = config.map(|config| config.warnings);
        Self { settings, rules }
    }

    /// Whether a server would start with them.
    pub fn is_sound(&self) -> bool {
        self.settings.is_ok() && self.rules.is_ok()
    }

    /// Prints what was found, and every rule in words.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn print(&self, mut to: impl Write) -> io::Result<()> {
        match &self.settings {
            Err(invalid) => writeln!(to, "{invalid}\n")?,
            Ok(warnings) => {
                for warning in warnings {
                    writeln!(to, "warning: {warning}\n")?;
                }
            }
        }
        let findings = self.findings();
        if !findings.is_empty() {
            writeln!(to, "{findings}\n")?;
        }
        let Ok(rules) = &self.rules else {
            return Ok(());
        };
        writeln!(to, "version {}, read from top to bottom:", rules.version)?;
        for rule in &rules.rules {
            writeln!(to, "  {}", rule.in_words())?;
        }
        Ok(())
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let rules = self.rules.as_ref().ok();
        json!({
            "ok": self.is_sound(),
            "version": rules.map(|rules| rules.version.to_string()),
            "rules": rules.map_or(&[][..], |rules| &rules.rules).iter().map(|rule| json!({
                "name": rule.name.as_str(),
                "mode": rule.mode.name(),
                "words": rule.in_words(),
            })).collect::<Vec<_>>(),
            "findings": self.findings().iter().map(finding).collect::<Vec<_>>(),
            "errors": self.findings().errors(),
            "warnings": self.findings().warnings(),
            "settings": {
                "problems": self.settings.as_ref().err().map_or(&[][..], |invalid| &invalid.0)
                    .iter().map(problem).collect::<Vec<_>>(),
                "warnings": self.settings.as_ref().ok(),
            },
        })
    }

    fn findings(&self) -> &Findings {
        match &self.rules {
            Ok(rules) => &rules.warnings,
            Err(findings) => findings,
        }
    }
}

fn finding(finding: &Finding) -> Value {
    let known = |number: u32| (number > 0).then_some(number);
    json!({
        "severity": finding.severity.name(),
        "file": finding.file,
        "line": known(finding.line),
        "column": known(finding.column),
        "message": finding.message,
        "text": finding.text(),
    })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "variable": problem.variable,
        "given": problem.given,
        "allowed": problem.allowed,
    })
}
