//! `tollgate env`: every setting, its value and where it came from.

use std::io::{self, Write};

use crate::config::{Environment, Origin, VARIABLES};

/// Prints a line for each variable: its name, its value, and `environment`, `.env` or `default`. Secrets are masked.
///
/// # Errors
///
/// When the output cannot be written.
pub fn print(environment: &Environment, mut to: impl Write) -> io::Result<()> {
    for variable in VARIABLES {
        let (value, origin) = match environment.value(variable.name) {
            Some((_, origin)) if variable.secret => ("••••••", name(origin)),
            Some((value, origin)) => (value, name(origin)),
            None if variable.default.is_empty() => ("", "unset"),
            None => (variable.default, "default"),
        };
        writeln!(to, "{:<23} {value:<28} {origin}", variable.name)?;
    }
    Ok(())
}

fn name(origin: Origin) -> &'static str {
    match origin {
        Origin::Process => "environment",
        Origin::File => ".env",
    }
}
