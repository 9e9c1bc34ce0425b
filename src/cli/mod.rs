//! The command line.

mod env;
mod explain;
mod healthcheck;

use clap::{Arg, Command};

use crate::algorithm;
use crate::config::VARIABLES;
use crate::strategy::factory::Kind;

pub use env::print as print_env;
pub use explain::{ExplainOptions, Explanation, Question};
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
}

/// The command line's grammar.
pub fn command() -> Command {
    let port = Arg::new("port")
        .long("port")
        .value_name("PORT")
        .value_parser(clap::value_parser!(u16));
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
}

/// Reads the command line. Prints help, version and errors itself and then does not return.
pub fn action() -> Action {
    match command().get_matches().subcommand() {
        Some(("env", _)) => Action::Env,
        Some(("explain", arguments)) => Action::Explain(explain::options(arguments)),
        Some(("healthcheck", arguments)) => Action::Healthcheck {
            port: arguments.get_one("port").copied(),
        },
        _ => Action::Serve,
    }
}

fn variables() -> String {
    let algorithms: Vec<_> = algorithm::ALL
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    let mut text = format!(
        "LIMITER_STRATEGY is <algorithm>-<strategy>, any of each:\n  algorithms  {}\n  strategies  {}\n\n\
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
