//! Breaks what Tollgate stands on, under load, and judges what its clients see of it.
//!
//! Three instances (processes of the release build) share one Redis, each behind a gate of a proxy that counts what it
//! passes on (`proxy.rs`, `ledger.rs`). A generator asks on a fixed schedule (`generator.rs`); half of its requests are
//! of a few clients that come again and again, half of clients that come once, whose keys show whether any request was
//! charged twice. In the middle of each experiment something goes wrong (`faults.rs`). Then is judged (`judge.rs`):
//!
//! - every request has exactly one well-formed answer, 200 or 429, or 503 where there are too many at once;
//! - answers are in time, and as quick as on a quiet store once the breaker is open;
//! - when the store is back, decisions are by the store in time;
//! - no key is admitted more than the law and what docs/resilience.md allows, no request charged more than once, and where
//!   tokens are to be taken ahead some were before anything went wrong;
//! - where there are too many requests at once some are turned away, soon and with `Retry-After`;
//! - after clients went away each pool is whole, and no transaction that was alone was undone;
//! - no secret and no client's address is in a log, which tells of changes and not of requests.
//!
//! `scripts/chaos.sh --help`

mod bench;
mod calls;
mod crowds;
mod experiments;
mod faults;
mod fleet;
mod generator;
mod http;
mod judge;
mod law;
mod ledger;
mod measures;
mod namespace;
mod proxy;
mod redis_server;
mod report;
mod resp;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use bench::{Plan, observe};
use experiments::{ALL, BASELINE, Experiment};
use faults::Fault;
use judge::{Baseline, Judgement, judge};
use namespace::Namespace;

fn command() -> Command {
    let number = |name: &'static str, about: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(u32).range(1..))
            .help(about)
    };
    let flag = |name: &'static str, about: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(about)
    };
    Command::new("tollgate_chaos")
        .about("Breaks what Tollgate stands on, under load, and judges what its clients see of it")
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(ALL.iter().map(|it| it.name).collect::<Vec<_>>())
                .help("only this experiment (and the baseline); may be given more than once"),
        )
        .arg(number(
            "seconds",
            "seconds for each experiment [default: 20, short: 4]",
        ))
        .arg(number(
            "rate",
            "requests a second [default: 500, short: 100]",
        ))
        .arg(number("seed", "where chance starts [default: 42]"))
        .arg(flag(
            "short",
            "few experiments and no judgement of times, for a machine that stalls",
        ))
        .arg(flag("markdown", "print the table as Markdown"))
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("write everything that was measured there"),
        )
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_name("FILE")
                .default_value("target/release/tollgate")
                .value_parser(value_parser!(PathBuf))
                .help("the service"),
        )
        .arg(
            Arg::new("namespace")
                .long("namespace")
                .value_name("NAME")
                .default_value("tollgate-chaos")
                .help("name of the network namespace that is made and removed"),
        )
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = command().get_matches();
    let mut terminate = signal(SignalKind::terminate())?;
    // Whatever ends it, what it started is dropped, and so ended.
    tokio::select! {
        done = run(&arguments) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn run(arguments: &ArgMatches) -> Result<ExitCode> {
    let is_short = arguments.get_flag("short");
    let number = |name: &str, usual: u32| arguments.get_one::<u32>(name).copied().unwrap_or(usual);
    let path = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let namespace: &String = arguments.get_one("namespace").context("no namespace")?;
    let plan = Plan {
        binary: path("binary")
            .context("no binary")?
            .canonicalize()
            .context("the service is not built: cargo build --release")?,
        namespace: namespace.clone(),
        during: Duration::from_secs(number("seconds", if is_short { 4 } else { 20 }).into()),
        rate: number("rate", if is_short { 100 } else { 500 }),
        seed: number("seed", 42).into(),
    };
    let only: Vec<&String> = arguments.get_many("only").into_iter().flatten().collect();
    let is_chosen = |it: &&Experiment| match only.is_empty() {
        true => it.is_short || !is_short,
        false => only.iter().any(|name| *name == it.name),
    };

    let (mut judgements, mut skipped): (Vec<Judgement>, Vec<(String, String)>) = Default::default();
    let (mut baseline, mut failed) = (None, Vec::new());
    for experiment in [&BASELINE].into_iter().chain(ALL.iter().filter(is_chosen)) {
        if let Some(reason) = why_not(experiment, &plan) {
            eprintln!("{}: SKIPPED: {reason}", experiment.name);
            skipped.push((experiment.name.to_owned(), reason));
            continue;
        }
        let observed = match observe(experiment, &plan).await {
            Ok(observed) => observed,
            Err(error) => {
                let reason = format!("it failed: {error:#}");
                eprintln!("{}: {reason}", experiment.name);
                failed.push((experiment.name.to_owned(), reason));
                continue;
            }
        };
        let judgement = judge(*experiment, &observed, baseline);
        eprintln!("{}", report::progress(&judgement));
        if experiment.name == BASELINE.name && !is_short {
            let (p99, p999) = (judgement.measures.p99, judgement.measures.p999);
            baseline = Some(Baseline { p99, p999 });
        }
        judgements.push(judgement);
    }

    print!(
        "{}",
        report::table(&judgements, arguments.get_flag("markdown"))
    );
    let remarks = report::remarks(&judgements);
    if !remarks.is_empty() {
        print!("\n{remarks}");
    }
    for (name, reason) in &skipped {
        println!("{name}: SKIPPED: {reason}");
    }
    for (name, reason) in &failed {
        println!("{name}: {reason}");
    }
    if let Some(file) = path("json") {
        let json = report::json(&judgements, &skipped);
        std::fs::write(&file, format!("{json:#}\n")).with_context(|| file.display().to_string())?;
    }
    let all_kept = failed.is_empty()
        && judgements
            .iter()
            .all(|judgement| judgement.broken.is_empty());
    Ok(if all_kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why an experiment cannot be made here.
fn why_not(experiment: &Experiment, plan: &Plan) -> Option<String> {
    match experiment.fault {
        Fault::BlackHole => Namespace::make(&plan.namespace)
            .err()
            .map(|error| format!("{error:#}")),
        _ => None,
    }
}
