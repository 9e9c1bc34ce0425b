//! The command line.

mod env;
mod explain;
mod healthcheck;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::algorithm;
use crate::config::VARIABLES;
use crate::strategy::factory::Kind;

pub use env::print as print_env;
pub use explain::{Explanation, Question};
pub use healthcheck::check;

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Serve,
    /// Print every setting and where it came from.
    Env,
    /// Print what the rules make of a request.
    Explain {
        /// The request.
        question: Question,
        /// The rules file; `None` takes `RULES_FILE`.
        file: Option<PathBuf>,
        /// Whether the store is left alone.
        offline: bool,
        /// Whether to print JSON.
        json: bool,
    },
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
        .subcommand(explain_command())
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
        Some(("explain", arguments)) => explain_action(arguments),
        Some(("healthcheck", arguments)) => Action::Healthcheck {
            port: arguments.get_one("port").copied(),
        },
        _ => Action::Serve,
    }
}

fn explain_command() -> Command {
    let option =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("explain")
        .about(
            "Print which rules apply to a request, its buckets and the verdict; nothing is charged",
        )
        .arg(
            option("file", "FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The rules file [default: RULES_FILE]"),
        )
        .arg(
            option("ip", "ADDRESS")
                .default_value("192.0.2.1")
                .value_parser(clap::value_parser!(IpAddr))
                .help("The client's address"),
        )
        .arg(
            option("method", "METHOD")
                .default_value("GET")
                .help("The method"),
        )
        .arg(
            option("path", "PATH")
                .default_value("/")
                .help("The path, perhaps with a query"),
        )
        .arg(option("host", "HOST").help("The host"))
        .arg(
            option("header", "NAME: VALUE")
                .action(ArgAction::Append)
                .value_parser(field)
                .help("A header field; may be given several times"),
        )
        .arg(
            flag("from-proxy")
                .help("As if a trusted proxy sent it, so that its word about a plan counts"),
        )
        .arg(flag("offline").help("Leave the store alone: no buckets"))
        .arg(flag("json").help("Print JSON"))
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        return Err(format!("{name:?} is no name of a header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn explain_action(arguments: &ArgMatches) -> Action {
    let text = |name| arguments.get_one::<String>(name).cloned();
    let headers = arguments.get_many("header").unwrap_or_default();
    Action::Explain {
        question: Question {
            ip: *arguments.get_one("ip").expect("it has a default"),
            method: text("method").unwrap_or_default(),
            target: text("path").unwrap_or_default(),
            host: text("host"),
            headers: headers.cloned().collect(),
            from_proxy: arguments.get_flag("from-proxy"),
        },
        file: arguments.get_one("file").cloned(),
        offline: arguments.get_flag("offline"),
        json: arguments.get_flag("json"),
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
