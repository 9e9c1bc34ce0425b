//! Checks what was decided against what should have been: every request of a run, by the law and by a model.
//!
//! Starts a Redis of its own and several instances (processes of this program, each with the stack that the factory
//! builds), lets many tasks in each ask for tokens of a few keys, records every request, and then checks, for each key:
//!
//! - **the law**, over all pairs of instants (`law.rs`);
//! - **the replay**: the whole history, in the order of the store's time, against the algorithm as a model: each decision and
//!   each of its numbers must be what the model says, to the microsecond (`replay.rs`);
//! - **real time**: a request is decided between its beginning and its end, and one that began after another had ended
//!   not at an earlier time;
//! - **expiry**: no key is left without one.
//!
//! With leases instances decide by themselves, at a time of the store that they only estimate, so there the law is checked for
//! what surely broke it, in a run in which everybody rests while leases are held until the buckets are full again; and of
//! each denial it is checked that leases can be why (`leases.rs`).
//!
//! `hash` must be found to race. With `--faults`, each planted fault must be caught by one of these checks.
//!
//! `cargo run --release --example tollgate_check -- --help`

mod history;
mod instance;
mod law;
mod leases;
mod replay;
mod run;
mod table;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tollgate::algorithm;
use tollgate::strategy::factory::Kind;

use run::{Findings, Run};
use table::Row;

fn command() -> Command {
    let number = |name: &'static str, default: &'static str, about: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(value_parser!(u64))
            .help(about)
    };
    let flag = |name: &'static str, about: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(about)
    };
    Command::new("tollgate_check")
        .about("Records what instances decide under load and checks it against the law and a model")
        .arg(number(
            "ops",
            "10000",
            "requests for each algorithm on each strategy",
        ))
        .arg(number(
            "instances",
            "3",
            "processes that share one Redis (memory has one)",
        ))
        .arg(number("tasks", "16", "requests under way in each instance"))
        .arg(number(
            "keys",
            "4",
            "keys that are asked for; the first gets half of all requests",
        ))
        .arg(number(
            "minutes",
            "0",
            "ask for so long in all, over the pairs, instead of --ops requests each",
        ))
        .arg(number("seed", "42", "where chance starts"))
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("ALGORITHM-STRATEGY")
                .action(ArgAction::Append)
                .help("only this pair; may be given more than once"),
        )
        .arg(flag(
            "faults",
            "plant every fault, one after the other (a build with planted-faults)",
        ))
        .arg(flag("markdown", "print the table as Markdown"))
        .subcommand(instance::command())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = command().get_matches();
    if let Some(("instance", arguments)) = arguments.subcommand() {
        instance::run(arguments).await;
        return ExitCode::SUCCESS;
    }
    check(&arguments).await
}

async fn check(arguments: &ArgMatches) -> ExitCode {
    let number = |name: &str| arguments.get_one::<u64>(name).copied().unwrap_or_default();
    let only: Vec<&String> = arguments.get_many("only").into_iter().flatten().collect();
    let pairs: Vec<_> = algorithm::ALL
        .iter()
        .flat_map(|algorithm| {
            Kind::ALL.map(|kind| {
                (
                    format!("{}-{}", algorithm.name(), kind.name()),
                    *algorithm,
                    kind,
                )
            })
        })
        .filter(|(_, algorithm, kind)| kind.serves(*algorithm))
        .filter(|(name, ..)| only.is_empty() || only.contains(&name))
        .collect();
    let seconds = number("minutes") * 60 / (pairs.len().max(1) as u64);
    let run = |algorithm, kind, fault: Option<String>| Run {
        algorithm,
        kind,
        ops: if number("minutes") > 0 {
            u64::MAX
        } else {
            number("ops")
        },
        seconds,
        instances: if kind == Kind::Memory {
            1
        } else {
            number("instances").max(1)
        },
        tasks: number("tasks").max(1),
        keys: number("keys").max(1),
        seed: number("seed"),
        fault,
    };
    let markdown = arguments.get_flag("markdown");
    let mut rows = Vec::new();
    if arguments.get_flag("faults") {
        for (name, about, algorithm, kind) in faults() {
            let found = caught(run(algorithm, kind, Some(name.to_owned()))).await;
            eprintln!("{name}: {found}");
            rows.push(Row {
                name: name.to_owned(),
                about,
                found,
                must_be_clean: false,
            });
        }
        print!("{}", table::faults(&rows, markdown));
    } else {
        for (name, algorithm, kind) in pairs {
            let found = run(algorithm, kind, None).check().await;
            eprintln!("{name}: {found}");
            rows.push(Row {
                name,
                about: "",
                found,
                must_be_clean: kind != Kind::Hash,
            });
        }
        print!("{}", table::pairs(&rows, markdown));
    }
    if rows.is_empty() {
        eprintln!("nothing was run: --only takes names such as tokenbucket-lua");
    }
    let all_well = !rows.is_empty() && rows.iter().all(Row::is_as_it_must_be);
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs in one of which a fault must be caught: what only shows where leases and rests happen to meet may hide in one.
const CHANCES: u64 = 5;

/// What the first run found that found anything.
async fn caught(run: Run) -> Findings {
    let mut found = run.check().await;
    for chance in 1..CHANCES {
        if !found.is_clean() {
            break;
        }
        let seed = run.seed + chance;
        found = Run {
            seed,
            ..run.clone()
        }
        .check()
        .await;
    }
    found
}

type Planted = (
    &'static str,
    &'static str,
    &'static dyn algorithm::Algorithm,
    Kind,
);

#[cfg(feature = "planted-faults")]
fn faults() -> Vec<Planted> {
    let faults = tollgate::strategy::planted::FAULTS.iter();
    faults
        .map(|fault| {
            let (algorithm, kind) = (algorithm::named(fault.pair.0), Kind::named(fault.pair.1));
            (
                fault.name,
                fault.about,
                algorithm.expect("it is listed"),
                kind.expect("it is listed"),
            )
        })
        .collect()
}

#[cfg(not(feature = "planted-faults"))]
fn faults() -> Vec<Planted> {
    eprintln!("this build has no planted faults: build with --features planted-faults");
    Vec::new()
}
