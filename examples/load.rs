//! The load generator behind `scripts/load-test.sh`.
//!
//! It plays one scenario against a load balancer with Tollgate instances behind it, and prints one
//! JSON object: what was asked and granted, what the law allows, and how long answers took.
//! It judges from outside, by its own arithmetic: nothing of the library is used here.
//!
//! ```text
//! cargo run --release --example load -- http://127.0.0.1:8080 burst --capacity 50 --rate 10
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// No request waits longer; one that does is counted among the other answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// No scenario takes longer.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(120);

/// Phases played one after the other; request `i` of a phase comes from client `i % clients`.
struct Scenario {
    name: &'static str,
    clients: u32,
    phases: &'static [Phase],
}

/// After a pause, `requests` requests, at most `concurrency` of them under way at any moment, and
/// request `i` not before `i * every`: a burst where that is zero.
struct Phase {
    pause: Duration,
    requests: u32,
    concurrency: u32,
    every: Duration,
}

static SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "burst",
        clients: 1,
        phases: &[Phase::burst(200, 50)],
    },
    Scenario {
        name: "several-clients",
        clients: 5,
        phases: &[Phase::burst(5 * 30, 25)],
    },
    Scenario {
        name: "burst-then-steady",
        clients: 1,
        phases: &[
            Phase::burst(120, 30),
            Phase {
                pause: Duration::from_secs(1),
                requests: 15,
                concurrency: 5,
                every: Duration::from_millis(200),
            },
        ],
    },
];

impl Phase {
    const fn burst(requests: u32, concurrency: u32) -> Self {
        Self {
            pause: Duration::ZERO,
            requests,
            concurrency,
            every: Duration::ZERO,
        }
    }
}

/// The quota that the instances were started with.
struct Quota {
    capacity: u64,
    per_second: u32,
}

impl Quota {
    /// The law: the most that may be granted to one client within `elapsed`.
    fn most_within(&self, elapsed: Duration) -> u64 {
        let refilled = elapsed.as_micros() * u128::from(self.per_second) / 1_000_000;
        self.capacity
            .saturating_add(u64::try_from(refilled).unwrap_or(u64::MAX))
    }

    /// The fewest that a correct limiter grants to one client that sends `requests` in `phase`:
    /// of a burst what a full bucket holds, of a steady phase all that is refilled in time.
    fn fewest(&self, phase: &Phase, requests: u64) -> u64 {
        let refilled_in_time = |gap: Duration| gap * self.per_second >= Duration::from_secs(1);
        match phase.every {
            Duration::ZERO => requests.min(self.capacity),
            every if refilled_in_time(every) && refilled_in_time(phase.pause) => requests,
            _ => 0,
        }
    }
}

enum Outcome {
    Granted,
    Denied,
    /// Neither, and why: an unexpected status, missing headers, no answer at all.
    Other(String),
}

struct Answer {
    client: usize,
    phase: usize,
    sent: Instant,
    answered: Instant,
    outcome: Outcome,
    /// Which instance answered, as the load balancer says.
    instance: Option<String>,
}

/// The clients, each with its own address and its own pool of keep-alive connections.
struct Load {
    target: String,
    quota: Quota,
    clients: Vec<reqwest::Client>,
}

impl Load {
    /// Opens connections before anything is measured: `/health` is never limited.
    async fn warm_up(self: &Arc<Self>, connections: u32) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for i in 0..connections {
            let load = Arc::clone(self);
            tasks.spawn(async move {
                let url = format!("{}/health", load.target);
                let answer = load.clients[load.turn(i)].get(url).send().await?;
                answer.error_for_status()?.bytes().await
            });
        }
        for answer in tasks.join_all().await {
            answer.context("GET /health through the load balancer")?;
        }
        Ok(())
    }

    async fn play(self: &Arc<Self>, number: usize, phase: &'static Phase) -> Vec<Answer> {
        sleep(phase.pause).await;
        let begin = Instant::now();
        let next = Arc::new(AtomicU32::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..phase.concurrency {
            let (load, next) = (Arc::clone(self), Arc::clone(&next));
            workers.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= phase.requests {
                        return answers;
                    }
                    sleep((phase.every * i).saturating_sub(begin.elapsed())).await;
                    answers.push(load.hit(number, i).await);
                }
            });
        }
        workers.join_all().await.into_iter().flatten().collect()
    }

    async fn hit(&self, phase: usize, i: u32) -> Answer {
        let url = format!("{}/api", self.target);
        let sent = Instant::now();
        let read = async {
            let answer = self.clients[self.turn(i)].get(url).send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            answer.bytes().await.map(|_| (status, headers))
        };
        let read: Result<_, reqwest::Error> = read.await;
        let answered = Instant::now();
        let (outcome, instance) = match read {
            Ok((status, headers)) => (
                self.outcome(status, &headers),
                text(&headers, "x-upstream").map(str::to_owned),
            ),
            Err(error) => (Outcome::Other(format!("{error:?}")), None),
        };
        Answer {
            client: self.turn(i),
            phase,
            sent,
            answered,
            outcome,
            instance,
        }
    }

    /// A decision carries the quota's capacity, and no mark that it was made without the store.
    fn outcome(&self, status: u16, headers: &HeaderMap) -> Outcome {
        let limit = text(headers, "x-ratelimit-limit").and_then(|value| value.parse().ok());
        let decided = limit == Some(self.quota.capacity)
            && headers.contains_key("x-ratelimit-remaining")
            && headers.contains_key("x-ratelimit-reset")
            && !headers.contains_key("x-ratelimit-source");
        match (status, decided) {
            (200, true) => Outcome::Granted,
            (429, true) => Outcome::Denied,
            _ => Outcome::Other(format!("status {status} with headers {headers:?}")),
        }
    }

    /// Which client sends request `i` of a phase.
    fn turn(&self, i: u32) -> usize {
        i as usize % self.clients.len()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Client `i` has the address 127.0.0.(11 + i). Where that cannot be bound (macOS has 127.0.0.1
/// alone), it says so in the header `X-Client`, which the script's own nginx believes.
fn client(i: u32) -> anyhow::Result<reqwest::Client> {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(i)?));
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .timeout(REQUEST_TIMEOUT);
    if TcpListener::bind((address, 0)).is_ok() {
        builder = builder.local_address(address);
    } else {
        let name = HeaderName::from_static("x-client");
        let value = HeaderValue::from_str(&address.to_string())?;
        builder = builder.default_headers(HeaderMap::from_iter([(name, value)]));
    }
    Ok(builder.build()?)
}

/// What one client was granted, and what it had to be.
struct Account {
    granted: u64,
    allowed: u64,
    fewest: u64,
}

/// Judges one client. The law holds between any two moments: it is applied to the whole run and to
/// every run of phases, with all requests outside granted, and the smallest is what is allowed.
/// (Over the whole run alone, a refill that nobody used later would excuse too large a burst.)
fn account(scenario: &Scenario, quota: &Quota, answers: &[&Answer]) -> Account {
    let phases = scenario.phases.len();
    let runs = (0..phases).flat_map(|first| (first..phases).map(move |last| first..=last));
    let allowed = runs.filter_map(|run| {
        let inside = || answers.iter().filter(|answer| run.contains(&answer.phase));
        let begin = inside().map(|answer| answer.sent).min()?;
        let end = inside().map(|answer| answer.answered).max()?;
        let outside = answers.len() - inside().count();
        Some(quota.most_within(end - begin) + outside as u64)
    });
    let requests = |number| {
        answers
            .iter()
            .filter(|answer| answer.phase == number)
            .count() as u64
    };
    let numbered = scenario.phases.iter().enumerate();
    Account {
        granted: count(answers, |outcome| matches!(outcome, Outcome::Granted)),
        allowed: allowed.min().unwrap_or(0),
        fewest: numbered
            .map(|(number, phase)| quota.fewest(phase, requests(number)))
            .sum(),
    }
}

fn count(answers: &[&Answer], is: impl Fn(&Outcome) -> bool) -> u64 {
    answers.iter().filter(|answer| is(&answer.outcome)).count() as u64
}

/// The object that is printed. Sums are over clients, so that one client's excess cannot hide
/// behind another's allowance; times are of all answers, granted or not.
fn report(scenario: &Scenario, quota: &Quota, answers: &[Answer]) -> Option<Value> {
    let all: Vec<&Answer> = answers.iter().collect();
    let account_of = |client| {
        let answers = all.iter().copied().filter(|answer| answer.client == client);
        account(scenario, quota, &answers.collect::<Vec<_>>())
    };
    let accounts: Vec<Account> = (0..scenario.clients as usize).map(account_of).collect();
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();

    let begin = answers.iter().map(|answer| answer.sent).min()?;
    let end = answers.iter().map(|answer| answer.answered).max()?;
    let elapsed = (end - begin).as_secs_f64();
    let mut waits: Vec<Duration> = all.iter().map(|a| a.answered - a.sent).collect();
    waits.sort_unstable();
    let percentile = |p: usize| {
        let rank = (waits.len() * p).div_ceil(100);
        format!("{:.1}", waits[rank - 1].as_secs_f64() * 1000.0)
    };
    let instances: BTreeSet<_> = all.iter().filter_map(|a| a.instance.as_ref()).collect();

    Some(json!({
        "scenario": scenario.name,
        "clients": scenario.clients,
        "instances": instances.len(),
        "requests": all.len(),
        "granted": sum(|account| account.granted),
        "denied": count(&all, |outcome| matches!(outcome, Outcome::Denied)),
        "other": count(&all, |outcome| matches!(outcome, Outcome::Other(_))),
        "allowed": sum(|account| account.allowed),
        "over": sum(|account| account.granted.saturating_sub(account.allowed)),
        "fewest": sum(|account| account.fewest),
        "under": sum(|account| account.fewest.saturating_sub(account.granted)),
        "elapsed_s": format!("{elapsed:.3}"),
        "rps": format!("{:.0}", answers.len() as f64 / elapsed),
        "p50_ms": percentile(50),
        "p95_ms": percentile(95),
        "p99_ms": percentile(99),
    }))
}

async fn run(arguments: &ArgMatches, scenario: &'static Scenario) -> anyhow::Result<Value> {
    let quota = Quota {
        capacity: *arguments.get_one("capacity").context("no capacity")?,
        per_second: *arguments.get_one("rate").context("no rate")?,
    };
    let target: &String = arguments.get_one("target").context("no target")?;
    let load = Arc::new(Load {
        target: target.trim_end_matches('/').to_owned(),
        quota,
        clients: (0..scenario.clients)
            .map(client)
            .collect::<Result<_, _>>()?,
    });
    load.warm_up(scenario.phases[0].concurrency).await?;
    let mut answers = Vec::new();
    for (number, phase) in scenario.phases.iter().enumerate() {
        answers.extend(load.play(number, phase).await);
    }
    let reasons = answers.iter().filter_map(|answer| match &answer.outcome {
        Outcome::Other(reason) => Some(reason),
        _ => None,
    });
    reasons
        .take(3)
        .for_each(|reason| eprintln!("not a decision: {reason}"));
    report(scenario, &load.quota, &answers).context("no answers")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Command::new("load")
        .about("Plays one load scenario and prints what came of it as one JSON object")
        .arg(Arg::new("target").required(true).help("http://host:port"))
        .arg(
            Arg::new("scenario")
                .required(true)
                .value_parser(SCENARIOS.each_ref().map(|scenario| scenario.name)),
        )
        .arg(
            Arg::new("capacity")
                .long("capacity")
                .default_value("50")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .help("Tokens per second")
                .default_value("10")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .get_matches();
    let name: &String = arguments.get_one("scenario").context("no scenario")?;
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.context("no such scenario")?;
    let report = timeout(SCENARIO_TIMEOUT, run(&arguments, scenario)).await;
    println!("{}", report.context("the scenario took too long")??);
    Ok(())
}
