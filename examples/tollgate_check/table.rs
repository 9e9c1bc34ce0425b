//! What was found, as a table for a terminal or as Markdown.

use crate::replay::Differences;
use crate::run::Findings;

/// One run and what it must come to.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) about: &'static str,
    pub(crate) found: Findings,
    /// Whether nothing may be found; else something must be.
    pub(crate) must_be_clean: bool,
}

impl Row {
    pub(crate) fn is_as_it_must_be(&self) -> bool {
        self.found.is_clean() == self.must_be_clean
    }
}

/// Every pair and what was found of it.
pub(crate) fn pairs(rows: &[Row], markdown: bool) -> String {
    let head = [
        "strategy",
        "operations",
        "granted",
        "wrong grants",
        "wrong denials",
        "wrong numbers",
        "above the law",
        "verdict",
    ];
    let cells = rows.iter().map(|row| {
        let Findings {
            operations,
            granted,
            above_the_law,
            replay,
            alone,
            denied_by_leases,
            ..
        } = row.found;
        let Differences {
            wrong_grants,
            wrong_denials,
            wrong_numbers,
        } = replay;
        let verdict = match (row.found.is_clean(), row.must_be_clean) {
            (true, true) if alone > 0 => {
                format!("never too much; {denied_by_leases} denied by leases")
            }
            (true, true) => "exact".to_owned(),
            (false, false) => "races, as documented".to_owned(),
            (true, false) => "no race was met".to_owned(),
            (false, true) => "WRONG".to_owned(),
        };
        let numbers = [
            operations,
            granted,
            wrong_grants,
            wrong_denials,
            wrong_numbers,
            above_the_law,
        ];
        let numbers = numbers.map(|number| number.to_string());
        [vec![row.name.clone()], numbers.to_vec(), vec![verdict]].concat()
    });
    table(&head, cells.collect(), markdown)
}

/// Every planted fault and the checks that caught it.
pub(crate) fn faults(rows: &[Row], markdown: bool) -> String {
    let cells = rows.iter().map(|row| {
        let caught = row
            .found
            .checks()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"));
        let caught = caught.collect::<Vec<_>>().join(", ");
        vec![
            row.name.clone(),
            row.about.to_owned(),
            if caught.is_empty() {
                "NOT CAUGHT".to_owned()
            } else {
                caught
            },
        ]
    });
    table(
        &["fault", "what it does", "caught by"],
        cells.collect(),
        markdown,
    )
}

fn table(head: &[&str], rows: Vec<Vec<String>>, markdown: bool) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let all: Vec<Vec<String>> = [vec![head], rows].concat();
    let width = |i: usize| all.iter().map(|row| row[i].len()).max().unwrap_or(0);
    let mut text = String::new();
    for (number, row) in all.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<w$}", w = width(i)))
            .collect();
        text += &if markdown {
            format!("| {} |\n", cells.join(" | "))
        } else {
            cells.join("  ") + "\n"
        };
        if markdown && number == 0 {
            text += &format!("|{}\n", " --- |".repeat(row.len()));
        }
    }
    text
}
