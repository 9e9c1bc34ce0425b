//! What came of all experiments, as a table for a terminal, as Markdown, and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::judge::Judgement;

const HEAD: [&str; 13] = [
    "experiment",
    "requests",
    "200",
    "429",
    "local",
    "p50 ms",
    "p99 ms",
    "slowest ms",
    "p99 open ms",
    "back ms",
    "above law",
    "charges/request",
    "verdict",
];

/// Every experiment on a line.
pub(crate) fn table(judgements: &[Judgement], markdown: bool) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(judgements.iter().map(row));
    let width = |i: usize| rows.iter().map(|row| row[i].len()).max().unwrap_or(0);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<w$}", w = width(i)))
            .collect();
        text += &if markdown {
            format!("| {} |\n", cells.join(" | "))
        } else {
            cells.join("  ").trim_end().to_owned() + "\n"
        };
        if markdown && number == 0 {
            text += &format!("|{}\n", " --- |".repeat(row.len()));
        }
    }
    text
}

fn row(judgement: &Judgement) -> [String; HEAD.len()] {
    let measures = &judgement.measures;
    let or_dash = |time: Option<Duration>| time.map_or("-".to_owned(), ms);
    let verdict = match judgement.broken.len() {
        0 => "kept".to_owned(),
        count => format!("BROKEN ({count})"),
    };
    let per_request = if measures.requests == 0 || measures.charges == 0 {
        "-".to_owned()
    } else {
        let effective = measures.charges.saturating_sub(measures.refused);
        format!("{:.2}", effective as f64 / measures.requests as f64)
    };
    [
        judgement.experiment.name.to_owned(),
        measures.requests.to_string(),
        measures.admitted.to_string(),
        measures.denied.to_string(),
        measures.local.to_string(),
        ms(measures.p50),
        ms(measures.p99),
        ms(measures.slowest),
        or_dash(measures.p99_open),
        or_dash(measures.back_after),
        measures.above_the_law.to_string(),
        per_request,
        verdict,
    ]
}

/// Notes and broken promises, a line each.
pub(crate) fn remarks(judgements: &[Judgement]) -> String {
    let mut text = String::new();
    let lines = judgements.iter().map(|it| it.measures.log_lines);
    if let Some(most) = lines.clone().max() {
        let total: u64 = lines.sum();
        text +=
            &format!("logs: {total} lines of all instances, at most {most} in one experiment\n");
    }
    for judgement in judgements {
        let name = judgement.experiment.name;
        for note in &judgement.notes {
            text += &format!("{name}: {note}\n");
        }
        for promise in &judgement.broken {
            text += &format!("{name}: BROKEN: {promise}\n");
        }
    }
    text
}

/// One experiment, while others are still to come.
pub(crate) fn progress(judgement: &Judgement) -> String {
    let measures = &judgement.measures;
    let mut text = format!(
        "{}: {} requests, {} local, {} lost, p99 {} ms, slowest {} ms",
        judgement.experiment.name,
        measures.requests,
        measures.local,
        measures.lost,
        ms(measures.p99),
        ms(measures.slowest),
    );
    for promise in &judgement.broken {
        text += &format!("\n  BROKEN: {promise}");
    }
    text
}

/// Everything that was measured.
pub(crate) fn json(judgements: &[Judgement], skipped: &[(String, String)]) -> Value {
    let experiments = judgements.iter().map(|judgement| {
        let m = &judgement.measures;
        let or_null = |time: Option<Duration>| time.map(micros);
        json!({
            "name": judgement.experiment.name,
            "about": judgement.experiment.about,
            "kept": judgement.broken.is_empty(),
            "broken": judgement.broken,
            "notes": judgement.notes,
            "requests": m.requests,
            "answered": m.answered,
            "admitted": m.admitted,
            "denied": m.denied,
            "local": m.local,
            "shed": m.shed,
            "aborted": m.aborted,
            "lost": m.lost,
            "in_time": m.in_time,
            "p50_us": micros(m.p50),
            "p99_us": micros(m.p99),
            "p999_us": micros(m.p999),
            "slowest_us": micros(m.slowest),
            "p99_shed_us": or_null(m.p99_shed),
            "slowest_shed_us": or_null(m.slowest_shed),
            "p99_open_us": or_null(m.p99_open),
            "back_after_us": or_null(m.back_after),
            "above_the_law": m.above_the_law,
            "charges": m.charges,
            "refused": m.refused,
            "write_backs": m.write_backs,
            "lent": m.lent,
            "most_charges_for_one_request": m.most_for_one,
            "log_lines": m.log_lines,
            "log": judgement.log,
        })
    });
    let skipped = skipped
        .iter()
        .map(|(name, reason)| json!({ "name": name, "reason": reason }));
    json!({
        "experiments": experiments.collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
    })
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1_000.0)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
