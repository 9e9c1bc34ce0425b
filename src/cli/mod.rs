//! The command line.

mod check_config;
mod env;
mod explain;
mod hash_key;
mod healthcheck;

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::algorithm;
use crate::config::VARIABLES;
use crate::strategy::factory::Kind;

pub use check_config::Checked;
pub use env::print as print_env;
pub use explain::{ExplainOptions, Explanation, Question};
pub use hash_key::{HashKeyError, hash_key};
pub use healthcheck::check;

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Serve,
    /// Print every setting and where it came from.
    Env,
    /// Print what the rules make of a request.
    Explain(ExplainOptions),
    /// Ask the server on this machine whether it answers; `None` takes `PORT`.
    Healthcheck {
        /// The port to ask.
        port: Option<u16>,
    },
    /// Say what is wrong with the settings and a rules file, and what the rules mean.
    CheckConfig {
        /// The rules file; `None` takes `RULES_FILE`.
        file: Option<PathBuf>,
        /// Whether to say it in JSON.
        json: bool,
    },
    /// Print the JSON Schema of rules files.
    Schema,
    /// Print what stands for a secret in a rules file.
    HashKey,
}

/// The command line's grammar.
pub fn command() -> Command {
    let port = Arg::new("port")
        .long("port")
        .value_name("PORT")
        .value_parser(clap::value_parser!(u16));
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf));
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    Command::new("tollgate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A distributed rate limiter: many instances of a service share one set of limits, exactly.")
        .after_help(variables())
        .subcommand(Command::new("serve").about("Serve (what happens without a command)"))
        .subcommand(Command::new("env").about("Print every setting, its value and where it came from; secrets masked"))
        .subcommand(explain::command())
        .subcommand(
            Command::new("healthcheck")
                .about("Exit 0 if the server on this machine answers, else 1")
                .arg(port.help("The port to ask [default: PORT]")),
        )
        .subcommand(
            Command::new("check-config")
                .about("Say what is wrong with the settings and a rules file, and every rule in words; exit 0 or 78")
                .arg(file.help("The rules file [default: RULES_FILE]"))
                .arg(json.help("Say it in JSON")),
        )
        .subcommand(Command::new("schema").about("Print the JSON Schema of rules files, for editors"))
        .subcommand(
            Command::new("hash-key")
                .about("Read a secret from standard input and print what stands for it in a rules file"),
        )
}

/// Reads the command line. Prints help, version and errors itself and then does not return.
pub fn action() -> Action {
    match command().get_matches().subcommand() {
        Some(("env", _)) => Action::Env,
        Some(("explain", arguments)) => Action::Explain(explain::options(arguments)),
        Some(("healthcheck", arguments)) => Action::Healthcheck {
            port: arguments.get_one("port").copied(),
        },
        Some(("check-config", arguments)) => Action::CheckConfig {
            file: arguments.get_one("file").cloned(),
            json: arguments.get_flag("json"),
        },
        Some(("schema", _)) => Action::Schema,
        Some(("hash-key", _)) => Action::HashKey,
        _ => Action::Serve,
    }
}

fn variables() -> String {
    let algorithms: Vec<_> = algorithm::ALL
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    let mut text = format!(
        "LIMITER_STRATEGY is <algorithm>-<strategy>, any of each, but lease with tokenbucket alone:\n  algorithms  {}\n  strategies  {}\n\n\
         Settings are environment variables, or lines of a file .env:\n",
        algorithms.join(", "),
        Kind::ALL.map(Kind::name).join(", ")
    );
    for variable in VARIABLES {
        text += &format!("  {:<23} {}", variable.name, variable.about);
        if !variable.default.is_empty() {
            text += &format!(" [default: {}]", variable.default);
        }
        text.push('\n');
    }
    text
}
