//! Does one of the smallest things a number of times: what `scripts/instructions` counts the instructions of.
//!
//! ```text
//! instructions                what there is, one name a line
//! instructions NAME COUNT     does it
//! ```

mod cases;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Under `cargo test` the words are names of tests: then it only says what there is.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count: Option<u32> = words.get(1).and_then(|count| count.parse().ok());
    let (Some(name), Some(count)) = (words.first(), count) else {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, make)) = cases::ALL.iter().find(|(of, _)| of == name) else {
        eprintln!("nothing is called {name}");
        return ExitCode::from(64);
    };
    let mut work = make();
    for _ in 0..count {
        work();
    }
    ExitCode::SUCCESS
}
