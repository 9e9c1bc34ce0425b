//! What is wrong with a rules file, or surely a mistake, told with the line itself.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most findings that are kept; more are only counted.
const MOST: usize = 50;
/// Longest part of a line that is shown, in characters.
const WIDEST: usize = 120;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// Legal, but surely a mistake.
    Warning,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, by the name under which it was read.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: u32,
    /// What is wrong, and what is allowed. Never a secret.
    pub message: String,
    /// The line, or the part of it around the place. Secrets in it are dots.
    shown: String,
    /// Characters of `shown` before the place.
    before: usize,
    /// Characters that are meant, 1 or more.
    width: usize,
}

impl fmt::Display for Finding {
    /// In one line, without the line of the file: for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: ", self.file)?;
        } else {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        write!(f, "{}: {}", self.severity.name(), self.message)
    }
}

impl Finding {
    /// The line of the file, or the part of it around the place; `None` where the file as a whole is meant.
    pub fn text(&self) -> Option<&str> {
        (self.line > 0).then_some(&*self.shown)
    }

    fn write_with_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self}")?;
        if self.line == 0 {
            return Ok(());
        }
        let number = self.line.to_string();
        let (margin, gap) = (number.len(), self.before);
        writeln!(f, "  {number} | {}", self.shown)?;
        let carets = "^".repeat(self.width);
        writeln!(f, "  {:margin$} | {:gap$}{carets}", "", "")
    }
}

/// All that was found in a rules file and the files it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Findings {
    all: Vec<Finding>,
    /// Errors and warnings beyond those that are kept.
    left_out: (usize, usize),
    sources: Vec<PathBuf>,
}

impl Findings {
    /// Those that are kept, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.all.iter()
    }

    /// How many problems there are and where the first is; quotes nothing of the file.
    pub fn summary(&self) -> String {
        let mut all = self.all.iter();
        let first = all.find(|finding| finding.severity == Severity::Error);
        let line = first.map_or(0, |finding| finding.line);
        match (self.errors(), line) {
            (1, 0) => "1 problem".to_owned(),
            (1, line) => format!("1 problem, in line {line}"),
            (count, 0) => format!("{count} problems"),
            (count, line) => format!("{count} problems, the first in line {line}"),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many errors there are, kept or not.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error) + self.left_out.0
    }

    /// How many warnings there are, kept or not.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning) + self.left_out.1
    }

    /// The files that were looked at, there or not: when one of them changes, it is worth reading again.
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    pub(super) fn of(self, sources: Vec<PathBuf>) -> Self {
        Self { sources, ..self }
    }

    fn count(&self, severity: Severity) -> usize {
        let all = self.all.iter();
        all.filter(|finding| finding.severity == severity).count()
    }
}

impl fmt::Display for Findings {
    /// Each with its line, and how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.all {
            finding.write_with_line(f)?;
            writeln!(f)?;
        }
        let left_out = self.left_out.0 + self.left_out.1;
        if left_out > 0 {
            writeln!(f, "and {left_out} more that are not shown\n")?;
        }
        let (errors, warnings) = (self.errors(), self.warnings());
        let s = |count: usize| if count == 1 { "" } else { "s" };
        write!(f, "{errors} error{}, ", s(errors))?;
        write!(f, "{warnings} warning{}", s(warnings))
    }
}

/// A place in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    file: usize,
    line: usize,
    column: usize,
    width: usize,
}

impl Place {
    /// A file as a whole.
    pub(super) fn whole(file: usize) -> Self {
        Self {
            file,
            line: 0,
            column: 0,
            width: 1,
        }
    }

    /// `width` characters from `column` on. Lines and columns count from 1.
    pub(super) fn new(file: usize, line: usize, column: usize, width: usize) -> Self {
        Self {
            file,
            line,
            column,
            width,
        }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// A place in the same line.
    pub(super) fn moved(self, column: usize, width: usize) -> Self {
        Self {
            column,
            width,
            ..self
        }
    }
}

/// Gathers findings while files are read.
#[derive(Debug, Default)]
pub(super) struct Report {
    files: Vec<(String, String)>,
    found: Vec<(Place, Severity, String)>,
    left_out: (usize, usize),
    /// What must not be shown, by file and line: column and width.
    secrets: HashMap<(usize, usize), Vec<(usize, usize)>>,
}

impl Report {
    /// Takes a file into which places will point.
    pub(super) fn add_file(&mut self, name: &str, text: &str) -> usize {
        self.files.push((name.to_owned(), text.to_owned()));
        self.files.len() - 1
    }

    /// Reports a character that no text has, and that some readers take for the end; whether there is none.
    pub(super) fn is_text(&mut self, file: usize) -> bool {
        let no_text = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        let found = lines(self.text(file)).zip(1..).find_map(|(line, number)| {
            let at = line.chars().position(no_text)?;
            Some(Place::new(file, number, at + 1, 1))
        });
        if let Some(place) = found {
            self.error(place, "a control character");
        }
        found.is_none()
    }

    /// The text of a file.
    pub(super) fn text(&self, file: usize) -> &str {
        &self.files[file].1
    }

    /// The line of that place, without a byte order mark, which takes no column; empty where there is none.
    pub(super) fn line_of(&self, place: Place) -> &str {
        let index = place.line.checked_sub(1);
        let line = index.and_then(|index| lines(self.text(place.file)).nth(index));
        line.unwrap_or_default().trim_start_matches('\u{feff}')
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push((place, Severity::Error, message.into()));
        } else {
            self.left_out.0 += 1;
        }
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push((place, Severity::Warning, message.into()));
        } else {
            self.left_out.1 += 1;
        }
    }

    /// Never shows what stands at that place.
    pub(super) fn hide(&mut self, place: Place) {
        let line = self.secrets.entry((place.file, place.line)).or_default();
        line.push((place.column, place.width));
    }

    pub(super) fn has_errors(&self) -> bool {
        let is_error = |(_, severity, _): &(Place, Severity, String)| *severity == Severity::Error;
        self.left_out.0 > 0 || self.found.iter().any(is_error)
    }

    /// Everything that was found, in the order of the files.
    pub(super) fn finish(mut self) -> Findings {
        let mut found = std::mem::take(&mut self.found);
        for (place, ..) in &mut found {
            *place = self.within(*place);
        }
        found.sort_by_key(|(place, ..)| *place);
        let all = found.into_iter().map(|(place, severity, message)| {
            let (shown, before, width) = self.line(place);
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Finding {
                severity,
                file: self.files[place.file].0.clone(),
                line: number(place.line),
                column: number(place.column),
                message,
                shown,
                before,
                width,
            }
        });
        Findings {
            all: all.collect(),
            left_out: self.left_out,
            sources: Vec::new(),
        }
    }

    /// The same place, or the end of the file where it is behind it: a parser may take the end of a text without a line
    /// break for a line of its own.
    fn within(&self, place: Place) -> Place {
        let text = self.text(place.file);
        let count = lines(text).count();
        if place.line <= count {
            return place;
        }
        let last = lines(text).last().unwrap_or_default();
        Place::new(place.file, count, last.chars().count() + 1, 1)
    }

    /// The part of a line to show, how much of it stands before the place, and how much is meant.
    fn line(&self, place: Place) -> (String, usize, usize) {
        if place.line == 0 {
            return (String::new(), 0, 1);
        }
        let mut line: Vec<char> = self.line_of(place).chars().collect();
        for (column, width) in self
            .secrets
            .get(&(place.file, place.line))
            .into_iter()
            .flatten()
        {
            let from = (column - 1).min(line.len());
            let until = (from + width).min(line.len());
            line[from..until].fill('•');
        }
        // What would move the caret or the terminal.
        let printable = |c: char| {
            if c.is_control() || is_format(c) {
                '\u{fffd}'
            } else {
                c
            }
        };
        let before = (place.column.max(1) - 1).min(line.len());
        let from = before.saturating_sub(WIDEST / 2);
        let until = (from + WIDEST).min(line.len());
        let mut shown: String = line[from..until].iter().copied().map(printable).collect();
        let mut gap = before - from;
        if from > 0 {
            shown.insert_str(0, "… ");
            gap += 2;
        }
        if until < line.len() {
            shown.push_str(" …");
        }
        let width = place.width.clamp(1, (until - before).max(1));
        (shown.trim_end().to_owned(), gap, width)
    }
}

/// The lines of a text as YAML counts them: a lone carriage return ends one too.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.split('\n');
    lines.flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Characters that turn the direction of a line or take no room: what is shown must be what is there.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What was given, short enough to be told and without what would move the terminal.
pub(super) fn shown(given: &str) -> String {
    const LONGEST: usize = 60;
    let safe = |c: char| {
        if c.is_control() || is_format(c) {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut text: String = given.chars().take(LONGEST).map(safe).collect();
    if given.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// The name of a path as findings show it.
pub(super) fn name_of(path: &Path) -> String {
    path.display().to_string()
}
