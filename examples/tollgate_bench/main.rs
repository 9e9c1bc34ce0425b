//! Measures what limiting costs, beside what people would use instead.
//!
//! Every contender answers the same requests on this machine, in turn, round by round (`measure.rs`): 64 connections that
//! are kept alive, one request under way on each (`generator.rs`). What counts is the CPU time of the service and of Redis
//! for each request, against the same server without a limit (`serve`) in the same round; throughput and latency stand
//! beside it. Figures of different runs are never compared.
//!
//! `scripts/bench --help`

mod answer;
mod folder;
mod footprint;
mod generator;
mod in_process;
mod json;
mod measure;
mod nginx;
mod page;
mod peers;
mod plan;
mod plots;
mod process;
mod redis_server;
mod report;
mod results;
mod scenario;
mod serve;
mod service;
mod statistics;
mod subject;
mod targets;
mod traefik;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use peers::Peers;
use plan::Plan;
use results::Results;
use service::Programs;

/// Names of what can be measured alone.
const NAMES: [&str; 10] = [
    "in-process",
    "idle",
    "clients",
    "hot",
    "denied",
    "balanced",
    "balanced-hot",
    "charges",
    "instances",
    "keys",
];

fn command() -> Command {
    let flag = |name: &'static str, about: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(about)
    };
    let serve = Command::new("serve")
        .about("Serves what others are compared with")
        .arg(Arg::new("name").required(true));
    Command::new("tollgate_bench")
        .about("Measures what limiting costs, beside what people would use instead")
        .subcommand(serve)
        .arg(flag(
            "quick",
            "in a minute or two: shorter, fewer rounds, no million keys",
        ))
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(NAMES)
                .help("only this; may be given more than once"),
        )
        .arg(
            Arg::new("write")
                .long("write")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("write benchmarks.md there, with plots and raw figures beside it"),
        )
        .arg(
            Arg::new("service")
                .long("service")
                .value_name("FILE")
                .default_value("target/release/tollgate")
                .value_parser(value_parser!(PathBuf))
                .help("the service"),
        )
}

/// The service's, so that what it is compared with is not served with another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments = command().get_matches();
    if let Some(arguments) = arguments.subcommand_matches("serve") {
        let name: &String = arguments.get_one("name").context("no name")?;
        // Worker threads as the service has them.
        return tokio::runtime::Runtime::new()?.block_on(serve::run(name));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends it, what it started is dropped, and so ended.
        tokio::select! {
            done = run(&arguments) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    });
    // Without waiting for a measurement in this process.
    runtime.shutdown_background();
    done
}

async fn run(arguments: &ArgMatches) -> Result<()> {
    let service: &PathBuf = arguments.get_one("service").context("no service")?;
    let programs = Programs {
        service: service
            .canonicalize()
            .context("the service is not built: cargo build --release")?,
        myself: std::env::current_exe()?,
        peers: Peers::find(),
    };
    let plan = Plan::new(arguments.get_flag("quick"));
    let only: Vec<String> = arguments
        .get_many("only")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let about = page::about();
    let results = Results::gather(&plan, &programs, &only).await?;
    let judged = targets::judge(&results);
    println!("{}", report::terminal(&results, &judged));
    if let Some(folder) = arguments.get_one::<PathBuf>("write") {
        page::write(folder, &results, &judged, &plan, &about)?;
    }
    Ok(())
}
