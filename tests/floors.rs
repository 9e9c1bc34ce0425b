//! A floor names only itself and the floors below it, and the lowest names no framework.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders (and single files) of each floor, the lowest first.
const FLOORS: [&[&str]; 5] = [
    &["domain", "algorithm"],
    &["strategy"],
    &["limiter"],
    &["http"],
    &["config", "server", "cli", "main"],
];
/// May be named by floors 1 to 4 and names none of them.
const SIDE: &str = "telemetry";
/// External crates that a floor must not name.
const FORBIDDEN: [&[&str]; 5] = [
    &[
        "tokio",
        "redis",
        "deadpool",
        "deadpool_redis",
        "axum",
        "tower",
        "hyper",
        "hyper_util",
        "serde",
        "serde_json",
        "tracing",
        "fastrand",
    ],
    &[
        "axum",
        "tower",
        "hyper",
        "hyper_util",
        "serde",
        "serde_json",
    ],
    &[
        "axum",
        "tower",
        "hyper",
        "hyper_util",
        "redis",
        "deadpool",
        "deadpool_redis",
        "tokio",
    ],
    &["redis", "deadpool", "deadpool_redis", "hyper", "hyper_util"],
    &[],
];

#[test]
fn no_floor_names_one_above_it() {
    let breaches = breaches(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn a_breach_is_found() {
    assert_eq!(
        named_in("use crate::http::X;", 2),
        ["http is above floor 2"]
    );
    assert_eq!(
        named_in("    let x = crate::limiter::Rule;", 1),
        ["limiter is above floor 1"]
    );
    assert_eq!(
        named_in("use tokio::time;", 0),
        ["tokio is forbidden on floor 0"]
    );
    assert_eq!(
        named_in("    tracing::warn!();", 0),
        ["tracing is forbidden on floor 0"]
    );
    assert_eq!(
        named_in("use crate::{http::X, domain::Y};", 2),
        ["http is above floor 2"]
    );
    assert!(named_in("use crate::domain::X; use crate::telemetry::Y;", 2).is_empty());
}

fn breaches(src: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = 0;
    for file in rust_files(src) {
        let inside = file.strip_prefix(src).unwrap();
        let room = inside
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let text = fs::read_to_string(&file).unwrap();
        let floor = FLOORS.iter().position(|rooms| rooms.contains(&room));
        seen += 1;
        match (room, floor) {
            (_, Some(floor)) => {
                found.extend(
                    named_in(&text, floor)
                        .into_iter()
                        .map(|breach| format!("{}: {breach}", inside.display())),
                );
            }
            (SIDE, _)
                if FLOORS
                    .concat()
                    .iter()
                    .any(|room| text.contains(&format!("crate::{room}"))) =>
            {
                found.push(format!("{}: telemetry calls no floor", inside.display()));
            }
            (SIDE | "lib", _) => {}
            _ => found.push(format!(
                "{}: this room stands on no floor",
                inside.display()
            )),
        }
    }
    assert!(seen > 30, "only {seen} files were read");
    found
}

fn named_in(text: &str, floor: usize) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .collect();
    let code = code.join("\n");
    let above = FLOORS[floor + 1..].concat();
    let grouped: String = code
        .split("use crate::{")
        .skip(1)
        .filter_map(|rest| rest.split(';').next())
        .collect();
    let names = |room: &str| code.contains(&format!("crate::{room}")) || has_path(&grouped, room);
    let uses = |external: &&&str| has_path(&code, external);
    let above = above
        .iter()
        .filter(|room| names(room))
        .map(|room| format!("{room} is above floor {floor}"));
    let forbidden = FORBIDDEN[floor]
        .iter()
        .filter(uses)
        .map(|name| format!("{name} is forbidden on floor {floor}"));
    above.chain(forbidden).collect()
}

/// Whether a path in `code` starts with `name`.
fn has_path(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
