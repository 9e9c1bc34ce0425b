//! Arguments, configuration, logging, server, exit code.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::net::TcpListener;
use tollgate::cli::{self, Action, Checked, ExplainOptions, Explanation};
use tollgate::config::{Config, Environment};
use tollgate::limiter::rules_file::{self, Findings};
use tollgate::server::{self, Reread, Shutdown};
use tollgate::strategy::factory::Kind;
use tollgate::telemetry;

/// A request allocates some dozen times, and this one takes some 7 % less of the service's time for it than the system's
/// (`tokenbucket-lua`, medians of six interleaved rounds). With huge pages it would be 12 %, for twice the memory at rest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h: something in the configuration is wrong.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let action = cli::action();
    let done = match action {
        // What needs no settings.
        Action::Schema => print_schema(),
        Action::HashKey => hash_key(),
        _ => return with_settings(action),
    };
    exit_code(done)
}

fn with_settings(action: Action) -> ExitCode {
    let environment = environment();
    let config = Config::read(&environment);
    if action == Action::Env
        && let Err(error) =
            cli::print_env(&environment, config.as_ref().ok(), std::io::stdout().lock())
    {
        return failed(&error.into());
    }
    if let Action::CheckConfig { file, json } = action {
        return check_config(&Checked::new(config, file.as_deref()), json);
    }
    let config = match config {
        Ok(config) => config,
        Err(invalid) => {
            complain(&format!(
                "{invalid}\n\n`tollgate --help` lists every setting."
            ));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    exit_code(match action {
        Action::Healthcheck { port } => healthcheck(&config, port),
        Action::Explain(options) => explain(config, options),
        Action::Serve => serve(config),
        Action::Env | Action::CheckConfig { .. } | Action::Schema | Action::HashKey => Ok(()),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn explain(mut config: Config, options: ExplainOptions) -> anyhow::Result<()> {
    config.limiter.rules_file = options.file.or(config.limiter.rules_file);
    let rules = config.limiter.rule_set()?;
    if options.offline {
        config.limiter.kind = Kind::Memory;
    }
    let limiter = server::limiter_to_look_with(&config, rules)?;
    let buckets = config.limiter.kind.needs_redis();
    let explanation = Explanation::of(&limiter, &options.question, buckets).await;
    let explanation = explanation.context("the store does not tell; --offline leaves it alone")?;
    explanation.print(options.json, std::io::stdout().lock())?;
    Ok(())
}

fn check_config(checked: &Checked, json: bool) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let printed = if json {
        writeln!(stdout, "{:#}", checked.to_json())
    } else {
        checked.print(stdout)
    };
    match printed {
        Err(error) => failed(&error.into()),
        Ok(()) if checked.is_sound() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(BAD_CONFIG),
    }
}

fn print_schema() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{:#}", rules_file::schema())?;
    Ok(())
}

fn hash_key() -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        complain("Type the secret and press Enter, then Ctrl-D:");
    }
    let hash = cli::hash_key(stdin.lock())?;
    writeln!(std::io::stdout(), "{hash}")?;
    Ok(())
}

fn exit_code(done: anyhow::Result<()>) -> ExitCode {
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn environment() -> Environment {
    Environment::new(std::env::vars_os(), Some(Path::new(".env")))
}

fn healthcheck(config: &Config, port: Option<u16>) -> anyhow::Result<()> {
    let mut address = config.server.address;
    address.set_port(port.unwrap_or(address.port()));
    let status =
        cli::check(address).with_context(|| format!("no healthy answer from {address}"))?;
    writeln!(std::io::stdout(), "{status}")?;
    Ok(())
}

#[tokio::main]
async fn serve(config: Config) -> anyhow::Result<()> {
    let rules = config.limiter.rule_set()?;
    let id = server::instance_id(&config);
    telemetry::start(&config.log.level, config.log.style, id.clone());
    let address = config.server.address;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (BIND_ADDRESS and PORT)"))?;
    if std::io::stderr().is_terminal() && telemetry::is_text(config.log.style) {
        complain(&banner(listener.local_addr()?.port()));
    }
    let reread = Reread::on_hangup(|| Config::read(&environment()))?;
    server::run(config, rules, id, listener, Shutdown::on_signals()?, reread).await?;
    Ok(())
}

fn banner(port: u16) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "tollgate {version}\n\n  curl -i http://localhost:{port}/api      limited\n  \
         curl -i http://localhost:{port}/health   never limited\n"
    )
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(findings) = error.downcast_ref::<Findings>() {
        complain(&findings.to_string());
        return ExitCode::from(BAD_CONFIG);
    }
    complain(&format!("tollgate: {error:#}"));
    ExitCode::FAILURE
}

/// Writes to standard error; if even that fails, nobody is there to be told.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
