//! `tollgate env`: every setting, its value and where it came from.

use std::io::{self, Write};

use crate::config::{Config, Environment, Origin, VARIABLES};

/// Prints a line for each variable: its name, its value, and `environment`, `.env` or `default`. Secrets are masked.
///
/// `config` is what the variables amount to, if they are valid: it tells a default that depends on other variables.
///
/// # Errors
///
/// When the output cannot be written.
pub fn print(
    environment: &Environment,
    config: Option<&Config>,
    mut to: impl Write,
) -> io::Result<()> {
    let chosen = config
        .map(|config| config.limiter.strategy())
        .unwrap_or_default();
    for variable in VARIABLES {
        let default = if variable.name == "LIMITER_STRATEGY" {
            &chosen
        } else {
            variable.default
        };
        let (value, origin) = match environment.value(variable.name) {
            Some((_, origin)) if variable.secret => ("••••••", name(origin)),
            Some((value, origin)) => (value, name(origin)),
            None if default.is_empty() => ("", "unset"),
            None => (default, "default"),
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
