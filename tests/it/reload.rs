//! Rules that change under load, on real server processes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::bench::{Folder, Process, RedisServer, RulesFile};

/// How long rules are swapped; `SWAP_SECONDS=60` for the long run.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the service"
)]
fn swap_for() -> Duration {
    let seconds = std::env::var("SWAP_SECONDS").ok();
    Duration::from_secs(seconds.map_or(3, |seconds| seconds.parse().unwrap()))
}

const EVERY: Duration = Duration::from_millis(100);
const CALLERS: usize = 8;

/// Two rules whose capacities tell which version they are of.
fn version(number: u64) -> String {
    let capacity = 1_000_000 + number;
    format!(
        "rules:\n  - {{ name: a, key: ip, limit: {capacity}/s }}\n  - {{ name: b, key: [], limit: {capacity}/s }}\n"
    )
}

fn policy(response: &Response) -> String {
    let policy = response.headers()["ratelimit-policy"].to_str().unwrap();
    policy.to_owned()
}

/// The capacities that an answer names.
fn capacities(policy: &str) -> Vec<u64> {
    let numbers = policy.split(";q=").skip(1);
    let numbers = numbers.map(|rest| rest.split(';').next().unwrap().parse().unwrap());
    numbers.collect()
}

/// Callers that ask instances in turn until they are told to stop, and what they were answered.
fn load<T: Send + 'static>(
    instances: &[Process],
    over: &Arc<AtomicBool>,
    seen: impl Fn(&Response) -> T + Send + Clone + 'static,
) -> Vec<JoinHandle<Vec<T>>> {
    let urls: Vec<String> = instances
        .iter()
        .map(|instance| format!("http://{}/api", instance.address))
        .collect();
    let callers = (0..CALLERS).map(|caller| {
        let (client, urls, over, seen) = (Client::new(), urls.clone(), over.clone(), seen.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for i in caller.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let answer = client.get(&urls[i % urls.len()]).send().await.unwrap();
                answers.push(seen(&answer));
            }
            answers
        })
    });
    callers.collect()
}

async fn health(instance: &Process) -> Value {
    let url = format!("http://{}/health", instance.address);
    let body = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_swapped_under_load_are_never_mixed_and_a_broken_file_changes_nothing() {
    let redis = RedisServer::start();
    let file = RulesFile::new(&version(0));
    let instances = [Process::start(&[
        ("REDIS_ADDR", &redis.address()),
        ("RULES_FILE", &file.path()),
        ("REDIS_TIMEOUT", "10s"),
    ])];
    let over = Arc::new(AtomicBool::new(false));
    let callers = load(&instances, &over, |answer| {
        (answer.status().as_u16(), policy(answer))
    });

    let started = Instant::now();
    let mut last_good = 0;
    for number in 1.. {
        if started.elapsed() >= swap_for() {
            break;
        }
        if number % 10 == 0 {
            file.replace("rules:\n  - { name: a, limit: broken }\n");
        } else {
            file.replace(&version(number));
            last_good = number;
        }
        // Half of them are found by looking at the file alone.
        if number % 2 == 0 {
            instances[0].signal("HUP");
        }
        sleep(EVERY).await;
    }
    file.replace("rules: []\nbroken: true\n");
    instances[0].signal("HUP");
    // Other broken files were refused before this one.
    instances[0].until_logged("`broken`");
    over.store(true, Ordering::SeqCst);

    let mut versions = Vec::new();
    for caller in callers {
        for (status, policy) in caller.await.unwrap() {
            let capacities = capacities(&policy);
            assert_eq!(status, 200);
            assert_eq!(capacities.len(), 2, "{policy}");
            assert_eq!(
                capacities[0], capacities[1],
                "one version decides: {policy}"
            );
            versions.push(capacities[0]);
        }
    }
    versions.sort_unstable();
    versions.dedup();
    assert!(versions.len() > 2, "the rules did change: {versions:?}");

    let answer = reqwest::get(format!("http://{}/api", instances[0].address))
        .await
        .unwrap();
    let in_force = capacities(&policy(&answer))[0] - 1_000_000;
    assert!(
        in_force <= last_good && in_force > 0,
        "a good one is in force"
    );
    let health = health(&instances[0]).await;
    let refused = health["rules"]["refused"].as_str().unwrap();
    assert!(refused.contains("problem"), "{refused}");

    file.replace(&version(7_777));
    instances[0].signal("HUP");
    instances[0].until_logged("other rules are in force");
}

/// What is doubtful in rules is told whenever they are put in force, and every line says of which version it is.
#[test]
fn the_log_tells_what_is_doubtful_and_what_is_wrong_in_a_file_that_is_read_again() {
    let file = RulesFile::new(&version(0));
    let mut process = Process::start(&[("RULES_FILE", &file.path())]);
    file.replace("lists: { spare: [192.0.2.1] }\nrules: [{ name: a, limit: 1/s }]\n");
    process.signal("HUP");
    let lines = process.until_logged("other rules are in force");
    let is_told = |line: &String| line.contains("no rule uses the list");
    assert!(lines.iter().any(is_told), "{lines:?}");
    let version = |line: &str| -> Value {
        let line: Value = serde_json::from_str(line).unwrap();
        line["version"].clone()
    };
    let in_force = version(lines.last().unwrap());
    file.replace("rules: [{ name: a, limit: broken }]\n");
    process.signal("HUP");
    process.until_logged("stay in force");
    process.signal("TERM");
    let (_, lines) = process.wait();
    let problem = lines.iter().find(|line| line.contains("`broken`")).unwrap();
    assert!(in_force.is_string());
    assert_eq!(version(problem), in_force, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_raised_and_lowered_under_load_admits_no_more_than_the_larger() {
    const SMALL: (u64, u64) = (10, 20);
    const LARGE: (u64, u64) = (40, 80);
    let of = |(capacity, rate): (u64, u64)| {
        format!("rules:\n  - {{ name: a, key: [], limit: {rate}/s, burst: {capacity} }}\n")
    };
    for algorithm in ["tokenbucket-lua", "gcra-lua", "tokenbucket-transaction"] {
        let redis = RedisServer::start();
        let file = RulesFile::new(&of(SMALL));
        let (address, path) = (redis.address(), file.path());
        let variables = [
            ("REDIS_ADDR", &*address),
            ("RULES_FILE", &*path),
            ("LIMITER_STRATEGY", algorithm),
            ("LIMITER_ON_STORE_ERROR", "deny"),
            ("REDIS_TIMEOUT", "10s"),
        ];
        let instances = [0; 3].map(|_| Process::start(&variables));
        let over = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let callers = load(&instances, &over, |answer| answer.status().as_u16());
        for turn in 0.. {
            if started.elapsed() >= swap_for() {
                break;
            }
            file.replace(&of(if turn % 2 == 0 { LARGE } else { SMALL }));
            instances.iter().for_each(|instance| instance.signal("HUP"));
            sleep(EVERY).await;
        }
        over.store(true, Ordering::SeqCst);
        let mut admitted = 0.0;
        for caller in callers {
            for status in caller.await.unwrap() {
                assert!(status == 200 || status == 429, "{status}");
                admitted += f64::from(u8::from(status == 200));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let most = 40.0 + 80.0 * seconds;
        assert!(admitted <= most, "{algorithm}: {admitted} of {most}");
        assert!(admitted >= 10.0, "{algorithm}: it does admit: {admitted}");
    }
}

/// SIGHUP reads `.env` again: what can change does, what cannot is told.
#[tokio::test]
async fn a_hangup_takes_over_what_can_change() {
    let folder = Folder::new();
    let dotenv = format!("{}/.env", folder.path());
    fs::write(&dotenv, "LIMITER_CAPACITY=1\nLIMITER_REFILL_RATE=0.001\n").unwrap();
    let process = Process::start_in(folder.path(), &[]);
    let url = format!("http://{}/api", process.address);
    let limit = async || {
        let response = reqwest::get(&url).await.unwrap();
        let limit = response.headers().get("x-ratelimit-limit");
        let limit = limit.map_or("", |limit| limit.to_str().unwrap());
        (response.status().as_u16(), limit.to_owned())
    };
    assert_eq!(limit().await, (200, "1".to_owned()));
    assert_eq!(limit().await, (429, "1".to_owned()));
    fs::write(
        &dotenv,
        "LIMITER_CAPACITY=5\nLIMITER_REFILL_RATE=0.001\nLIMITER_MAX_KEYS=7\n",
    )
    .unwrap();
    process.signal("HUP");
    process.until_logged("another limit is in force");
    assert_eq!(
        limit().await,
        (429, "5".to_owned()),
        "a larger capacity mints nothing"
    );
    fs::write(&dotenv, "LIMITER_MODE=off\nLIMITER_MAX_KEYS=8\n").unwrap();
    process.signal("HUP");
    process.until_logged("counts only after a restart");
    process.until_logged("another limit is in force");
    assert_eq!(limit().await, (200, String::new()));
    fs::write(&dotenv, "LIMITER_MODE=on\n").unwrap();
    process.signal("HUP");
    process.until_logged("the settings were refused");
    assert_eq!(limit().await, (200, String::new()));
}
