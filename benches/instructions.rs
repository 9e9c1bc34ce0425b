//! Does one of the smallest things a number of times: what `scripts/instructions` counts the instructions of.
//!
//! ```text
//! instructions                what there is, one name a line
//! instructions NAME COUNT     does it
//! ```

mod cases;

use std::process::ExitCode;

fn main() -> ExitCode {
    // What Cargo itself passes on begins with a hyphen.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let names = || cases::ALL.iter().map(|(name, _)| *name);
    let Some(name) = words.first() else {
        names().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let found = cases::ALL.iter().find(|(of, _)| of == name);
    let count: Option<u32> = words.get(1).and_then(|count| count.parse().ok());
    let (Some((_, make)), Some(count)) = (found, count) else {
        eprintln!(
            "instructions NAME COUNT, where NAME is one of: {}",
            names().collect::<Vec<_>>().join(", ")
        );
        return ExitCode::from(64);
    };
    let mut work = make();
    for _ in 0..count {
        work();
    }
    ExitCode::SUCCESS
}
