//! Writes `benchmarks.md`, with pictures and raw figures in a folder beside it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::json;
use crate::plan::Plan;
use crate::plots::{self, Picture};
use crate::report::{MEMORY, markdown, memory, scenario, summary, targets};
use crate::results::Results;
use crate::targets::{Target, Verdict};

/// The folder beside the page.
const BESIDE: &str = "benchmarks";
/// What there is to say of targets that are missed: paragraphs whose first line, `### ...`, is how the promise of one begins.
const MISSED: &str = include_str!("missed.md");

/// Writes the page into `folder`.
pub(crate) fn write(
    folder: &Path,
    results: &Results,
    judged: &[Target],
    plan: &Plan,
    about: &Map<String, Value>,
) -> Result<()> {
    let beside = folder.join(BESIDE);
    std::fs::create_dir_all(&beside)?;
    let raw = json::raw(results, judged, plan, &Value::Object(about.clone()));
    std::fs::write(beside.join("raw.json"), format!("{raw:#}\n"))?;
    let pictures = plots::draw(&beside, results)?;
    let page = page(results, judged, plan, about, &pictures);
    let path = folder.join("benchmarks.md");
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    eprintln!("written to {}", path.display());
    for promise in unexplained(MISSED, judged) {
        eprintln!("missed, and missed.md does not say why: {promise}");
    }
    Ok(())
}

fn page(
    results: &Results,
    judged: &[Target],
    plan: &Plan,
    about: &Map<String, Value>,
    pictures: &[Picture],
) -> String {
    let mut text = include_str!("page.md").to_owned();
    text += "\n## This run\n\n| | |\n| --- | --- |\n";
    for (name, value) in about {
        text += &format!("| {name} | {} |\n", value.as_str().unwrap_or("-"));
    }
    let rounds = format!("{} of {} s", plan.rounds, plan.window.as_secs_f64());
    text += &format!(
        "| rounds | {rounds}; {} where it is shown how the cost grows |\n",
        plan.sweep_rounds
    );
    if let Some(times) = results.slowed() {
        text += &format!(
            "| host | the same work took {times:.2} times as long in the median turn as in the fastest |\n"
        );
    }
    text += &format!(
        "\n## Targets\n\n{}.\n\n{}",
        summary(judged),
        markdown(&targets(judged))
    );
    text += &missed(MISSED, judged);
    for picture in pictures {
        text += &format!("\n![{}]({BESIDE}/{})\n", picture.about, picture.file);
    }
    if let Some(measured) = results.scenario(MEMORY) {
        text += &format!(
            "\n## Resident memory\n\nIdle, and under the load of {}.\n\n{}",
            measured.scenario.about,
            markdown(&memory(measured))
        );
    }
    for measured in &results.scenarios {
        text += &format!(
            "\n## {}\n\n{}",
            measured.scenario.about,
            markdown(&scenario(measured))
        );
    }
    if !results.missing.is_empty() {
        text += "\n## Not measured\n\n";
    }
    for missing in &results.missing {
        text += &format!("- {missing}\n");
    }
    text
}

/// What `prose` says of the targets that this run missed.
fn missed(prose: &str, judged: &[Target]) -> String {
    let told: String = paragraphs(prose)
        .filter(|(promise, _)| failed(judged).any(|it| it.starts_with(promise)))
        .map(|(promise, text)| format!("**{promise}.** {}\n\n", text.trim()))
        .collect();
    match told.trim_end() {
        "" => String::new(),
        told => format!("\n## Where the targets are missed\n\n{told}\n"),
    }
}

/// Promises that this run missed and of which `prose` says nothing.
fn unexplained<'a>(prose: &str, judged: &'a [Target]) -> impl Iterator<Item = &'a str> {
    failed(judged).filter(|it| !paragraphs(prose).any(|(promise, _)| it.starts_with(promise)))
}

fn paragraphs(prose: &str) -> impl Iterator<Item = (&str, &str)> {
    prose.split("### ").filter_map(|part| part.split_once('\n'))
}

fn failed(judged: &[Target]) -> impl Iterator<Item = &str> {
    let missed = judged.iter().filter(|it| it.verdict == Verdict::Fail);
    missed.map(|target| target.promise.as_str())
}

/// When and where is measured, and of what; asked before anything is.
pub(crate) fn about() -> Map<String, Value> {
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M UTC")
        .to_string();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let changed = said("git", &["status", "--porcelain", "--", ".", ":!docs"]);
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let commit = match changed.is_empty() {
        true => commit,
        false => format!("{commit} with uncommitted changes"),
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let redis = said("redis-server", &["--version"]);
    let redis = redis
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    [
        ("date", now),
        ("commit", commit),
        ("CPU", format!("{processor}, {cores} cores")),
        ("kernel", said("uname", &["-sr"])),
        ("Rust", said("rustc", &["--version"])),
        ("Redis", redis.unwrap_or("unknown").to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Value::String(value)))
    .collect()
}

/// What a program says; nothing where it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_missed_is_explained() {
        let judged = [
            ("a: 1x or less", Verdict::Pass),
            ("b: 2x or less", Verdict::Fail),
            ("d: 4x or less", Verdict::Fail),
        ];
        let judged = judged.map(|(promise, verdict)| Target {
            promise: promise.to_owned(),
            measured: String::new(),
            verdict,
        });
        let prose = "### a\nOne.\n\n### b\nTwo,\nlong.\n\n### c\nThree.\n";
        let section = "\n## Where the targets are missed\n\n**b.** Two,\nlong.\n";
        assert_eq!(missed(prose, &judged), section);
        assert!(unexplained(prose, &judged).eq(["d: 4x or less"]));
        assert_eq!(
            missed(prose, &judged[..1]),
            "",
            "and without any there is no title"
        );
    }
}
