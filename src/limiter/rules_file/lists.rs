//! Named lists of networks or of keys, from the file or from files beside it.

use std::collections::HashMap;
use std::io;

use super::findings::{Place, Report, lines, shown};
use super::members::{Members, list, nearest, parsed, text};
use super::tree::{Node, Value};
use crate::domain::{Networks, RuleName};

/// Largest file, in bytes.
pub(super) const LARGEST_FILE: usize = 1 << 20;
/// Most entries of a list.
const MOST_ENTRIES: usize = 100_000;
/// Most entries in all, counted wherever a list is used: what a file may make of the memory.
const MOST_USES: usize = 500_000;
/// Most lists.
const MOST_LISTS: usize = 100;
/// Longest name of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// How a list is named where it is used.
pub(super) const REFERENCE: &str = "list:";

/// Every list of a file.
#[derive(Debug, Default)]
pub(super) struct Lists {
    by_name: HashMap<String, List>,
    /// How many entries were copied to where lists are used.
    copied: usize,
}

/// One list; what its entries are is for whoever uses it to say.
#[derive(Debug)]
pub(super) struct List {
    name: Place,
    entries: Vec<(Place, String)>,
    /// What was made of it, and reported, when it was first used for networks.
    networks: Option<Option<Networks>>,
    used: bool,
}

/// Reads a file that stands beside the rules file, by its name.
pub(super) type Beside<'a> = &'a mut dyn FnMut(&str) -> io::Result<String>;

impl Lists {
    /// Reads the member `lists`. What was read beside the file is added to `contents`, in order.
    pub(super) fn read(
        node: &Node,
        beside: Beside<'_>,
        contents: &mut Vec<String>,
        report: &mut Report,
    ) -> Self {
        let mut lists = Self::default();
        let Value::Members(members) = &node.value else {
            node.is_not("lists: a mapping of names to lists", report);
            return lists;
        };
        if members.len() > MOST_LISTS {
            let count = members.len();
            report.error(
                node.place,
                format!("{count} lists: at most {MOST_LISTS} may stand here"),
            );
            return lists;
        }
        for (name, node) in members {
            if RuleName::new(&name.text).is_err() {
                let given = shown(&name.text);
                report.error(
                    name.place,
                    format!("{given} cannot name a list: 1 to 64 of a-z, 0-9, _ and -, the first one a letter"),
                );
                continue;
            }
            if let Some(first) = lists.by_name.get(&name.text) {
                let line = first.name.line();
                report.error(
                    name.place,
                    format!(
                        "{} stands here twice, first in line {line}",
                        shown(&name.text)
                    ),
                );
                continue;
            }
            let entries = entries(node, beside, contents, report).unwrap_or_default();
            let list = List {
                name: name.place,
                entries,
                networks: None,
                used: false,
            };
            lists.by_name.insert(name.text.clone(), list);
        }
        lists
    }

    /// The entries of a list that is named where it is used.
    pub(super) fn entries(
        &mut self,
        name: &str,
        used: Place,
        report: &mut Report,
    ) -> Option<&[(Place, String)]> {
        let count = self.find(name, used, report)?.entries.len();
        if !self.may_copy(count, used, report) {
            return None;
        }
        self.by_name.get(name).map(|list| &*list.entries)
    }

    /// Counts entries that are copied; an error when they are too many.
    pub(super) fn may_copy(&mut self, count: usize, used: Place, report: &mut Report) -> bool {
        self.copied = self.copied.saturating_add(count);
        let may = self.copied <= MOST_USES;
        if !may {
            report.error(
                used,
                format!("the lists that rules use up to here have {} entries, each counted wherever it is used: at most {MOST_USES}", self.copied),
            );
        }
        may
    }

    /// The networks in a list that is named where it is used.
    pub(super) fn networks(
        &mut self,
        name: &str,
        used: Place,
        report: &mut Report,
    ) -> Option<Networks> {
        let list = self.find(name, used, report)?;
        if list.networks.is_none() {
            let entries = list.entries.iter();
            let bad: Vec<_> = entries
                .filter(|(_, entry)| Networks::of([entry.as_str()]).is_err())
                .collect();
            for (place, entry) in &bad {
                report.error(*place, format!("{} is not {A_NETWORK}", shown(entry)));
            }
            let all = list.entries.iter().map(|(_, entry)| entry.as_str());
            list.networks = Some(Networks::of(all).ok());
        }
        list.networks.clone().flatten()
    }

    fn find(&mut self, name: &str, used: Place, report: &mut Report) -> Option<&mut List> {
        if !self.by_name.contains_key(name) {
            let near = nearest(name, self.by_name.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("; did you mean `{REFERENCE}{near}`?"),
                None => ": `lists` has none of that name".to_owned(),
            };
            report.error(used, format!("there is no list {}{hint}", shown(name)));
        }
        let list = self.by_name.get_mut(name)?;
        list.used = true;
        Some(list)
    }

    /// Warns of every list that nothing uses.
    pub(super) fn warn_of_unused(&self, report: &mut Report) {
        for (name, list) in &self.by_name {
            if !list.used {
                report.warn(list.name, format!("no rule uses the list `{name}`"));
            }
        }
    }
}

/// What stands in lists of networks.
pub(super) const A_NETWORK: &str =
    "a network such as `203.0.113.0/24`, an address, `loopback` or `private`";

fn entries(
    node: &Node,
    beside: Beside<'_>,
    contents: &mut Vec<String>,
    report: &mut Report,
) -> Option<Vec<(Place, String)>> {
    if let Value::Members(_) = &node.value {
        let members = Members::of(node, "a list", &["file"], report)?;
        let Some(file) = members.get("file") else {
            report.error(node.place, "a list is a list, or `{file: NAME}`");
            return None;
        };
        return from_file(file, beside, contents, report);
    }
    let nodes = list(node, "entries, or `{file: NAME}`", MOST_ENTRIES, report)?;
    let entry =
        |node| text(node, "an entry of a list", report).map(|text| (node.place, text.to_owned()));
    let entries: Vec<_> = nodes.iter().map(entry).collect();
    entries.into_iter().collect()
}

fn from_file(
    node: &Node,
    beside: Beside<'_>,
    contents: &mut Vec<String>,
    report: &mut Report,
) -> Option<Vec<(Place, String)>> {
    let allowed = "the name of a file beside this one, without a path";
    let name = parsed(node, allowed, report, |name| {
        is_file_name(name).then_some(name)
    })?;
    let text = match beside(name) {
        Ok(text) if text.len() > LARGEST_FILE => {
            report.error(node.place, format!("{} is larger than 1 MiB", shown(name)));
            return None;
        }
        Ok(text) => text,
        Err(error) => {
            report.error(
                node.place,
                format!("{} cannot be read: {error}", shown(name)),
            );
            return None;
        }
    };
    let file = report.add_file(name, &text);
    let entries: Vec<_> = entries_of(file, &text).collect();
    contents.push(text);
    if !report.is_text(file) {
        return None;
    }
    if entries.len() > MOST_ENTRIES {
        let count = entries.len();
        report.error(
            Place::whole(file),
            format!("{count} entries: at most {MOST_ENTRIES} may stand here"),
        );
        return None;
    }
    Some(entries)
}

fn is_file_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.contains(['/', '\\', '\0'])
        && !matches!(name, "." | "..")
}

/// The entries of a file: one a line; a `#` at the start or behind a blank begins a comment.
fn entries_of(file: usize, text: &str) -> impl Iterator<Item = (Place, String)> {
    let text = text.trim_start_matches('\u{feff}');
    lines(text).enumerate().filter_map(move |(i, line)| {
        let comment = line.char_indices().find(|(at, c)| {
            *c == '#'
                && line[..*at]
                    .chars()
                    .next_back()
                    .is_none_or(char::is_whitespace)
        });
        let line = &line[..comment.map_or(line.len(), |(at, _)| at)];
        let entry = line.trim();
        let blanks = line.chars().take_while(|c| c.is_whitespace()).count();
        let place = Place::new(file, i + 1, blanks + 1, entry.chars().count());
        (!entry.is_empty()).then(|| (place, entry.to_owned()))
    })
}
