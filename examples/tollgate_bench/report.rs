//! A run as tables: for a terminal and for a page.

use crate::measure::{Cell, Measured};
use crate::results::{MEBIBYTE, Results};
use crate::targets::{Target, Verdict};

/// The scenario whose load memory is told of.
pub(crate) const MEMORY: &str = "clients";

/// Rows of cells, the first one the head.
pub(crate) type Table = Vec<Vec<String>>;

/// How the contenders of a scenario compare.
pub(crate) fn scenario(measured: &Measured) -> Table {
    let is_balanced = measured.cells.iter().any(|cell| cell.subject.balanced);
    let mut head = vec![
        "contender",
        "service µs",
        "Redis µs",
        "CPU against base",
        "spread",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
    ];
    if is_balanced {
        head.push("nginx µs");
    }
    head.push("remarks");
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    for cell in &measured.cells {
        let middle = |of: fn(&crate::measure::Sample) -> f64| cell.median(of).map(|it| it.middle);
        let ratio = measured.ratio(cell);
        let mut row = vec![
            cell.subject.name(),
            figure(middle(|sample| sample.service_us), 1),
            figure(middle(|sample| sample.redis_us), 1),
            ratio.map_or("-".to_owned(), |it| format!("{:.2}x", it.middle)),
            ratio.map_or("-".to_owned(), |it| {
                format!("{:.2} to {:.2}", it.lower, it.upper)
            }),
            figure(middle(crate::measure::Sample::per_second), 0),
            figure(middle(|sample| sample.p50_us / 1_000.0), 2),
            figure(middle(|sample| sample.p99_us / 1_000.0), 2),
            figure(cell.peak_mib(), 1),
        ];
        if is_balanced {
            row.push(figure(middle(|sample| sample.balancer_us), 1));
        }
        row.push(remarks(cell, measured.scenario.denies));
        rows.push(row);
    }
    rows
}

/// Resident memory of the contenders of a scenario, idle and under its load.
pub(crate) fn memory(measured: &Measured) -> Table {
    let head = ["contender", "idle MiB", "under load MiB"];
    let rows = measured.cells.iter().map(|cell| {
        let idle = cell.idle.map(|bytes| bytes as f64 / MEBIBYTE);
        vec![
            cell.subject.name(),
            figure(idle, 1),
            figure(cell.peak_mib(), 1),
        ]
    });
    let head = head.map(str::to_owned).to_vec();
    [head].into_iter().chain(rows).collect()
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn remarks(cell: &Cell, denies: bool) -> String {
    let mut remarks = Vec::new();
    let strays = if denies {
        (cell.sum(|sample| sample.admitted), "admitted")
    } else {
        (cell.sum(|sample| sample.denied), "denied")
    };
    let others = [
        strays,
        (cell.sum(|sample| sample.other), "failed"),
        (cell.sum(|sample| sample.local), "decided without Redis"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        remarks.push(format!("{count} {what}"));
    }
    if let Some(reason) = &cell.failed {
        remarks.push(format!("failed: {reason}"));
    }
    remarks.join(", ")
}

/// What was aimed at.
pub(crate) fn targets(targets: &[Target]) -> Table {
    let head = ["target", "measured", "verdict"]
        .map(str::to_owned)
        .to_vec();
    let rows = targets.iter().map(|target| {
        let verdict = target.verdict.word().to_owned();
        vec![target.promise.clone(), target.measured.clone(), verdict]
    });
    [head].into_iter().chain(rows).collect()
}

/// How many were reached, in a line.
pub(crate) fn summary(targets: &[Target]) -> String {
    let count = |verdict| targets.iter().filter(|it| it.verdict == verdict).count();
    format!(
        "{} of {} targets reached, {} missed, {} not measured",
        count(Verdict::Pass),
        targets.len() - count(Verdict::Beside),
        count(Verdict::Fail),
        count(Verdict::NotMeasured)
    )
}

/// All tables for a terminal.
pub(crate) fn terminal(results: &Results, judged: &[Target]) -> String {
    let mut text = String::new();
    for measured in &results.scenarios {
        text += &format!(
            "\n{}\n{}",
            measured.scenario.about,
            plain(&scenario(measured))
        );
    }
    if let Some(measured) = results.scenario(MEMORY) {
        text += &format!("\nresident memory\n{}", plain(&memory(measured)));
    }
    text += &format!("\n{}\n{}\n", plain(&targets(judged)), summary(judged));
    for missing in &results.missing {
        text += &format!("not measured: {missing}\n");
    }
    text
}

/// Columns padded to one width.
fn plain(table: &Table) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |i: usize| table.iter().map(|row| row[i].chars().count()).max();
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    table.iter().map(line).collect()
}

/// The same in Markdown.
pub(crate) fn markdown(table: &Table) -> String {
    let mut lines: Vec<String> = table
        .iter()
        .map(|row| format!("| {} |\n", row.join(" | ")))
        .collect();
    let columns = table.first().map_or(0, Vec::len);
    lines.insert(1, format!("|{}\n", " --- |".repeat(columns)));
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_the_targets_is_not_counted_as_one() {
        let targets = [Verdict::Pass, Verdict::Beside, Verdict::Fail].map(|verdict| Target {
            promise: String::new(),
            measured: String::new(),
            verdict,
        });
        assert_eq!(
            summary(&targets),
            "1 of 2 targets reached, 1 missed, 0 not measured"
        );
    }
}
