//! The recipes of docs/rules.md, each against three instances on one Redis whose clock moves only when the recipe says so.

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tollgate::Clock;
use tollgate::server::WallClock;

use crate::bench::{FakeClock, Process, RedisServer, RulesFile};

const COOKBOOK: &str = include_str!("../../docs/rules.md");
/// So much, in microseconds, a server's clock may be ahead of one that is stopped: Valkey 9.1 looks at that once a
/// millisecond and counts on from there.
const FORERUN_US: i64 = 2_000;
const INSTANCES: usize = 3;

struct Recipe<'a> {
    name: &'a str,
    file: &'a str,
    rows: Vec<Row<'a>>,
}

/// `12 s later, `POST /login` from 192.0.2.1 with `X-Api-Key: k`, 5 times`, and what each is answered.
#[derive(Debug, Clone)]
struct Row<'a> {
    later_s: i64,
    method: &'a str,
    path: &'a str,
    client: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    times: usize,
    answer: &'a str,
}

fn recipes() -> Vec<Recipe<'static>> {
    let (_, cookbook) = COOKBOOK.split_once("\n## Cookbook\n").unwrap();
    let recipes = cookbook.split("\n### ").skip(1);
    let recipes = recipes.map(|text| {
        let (name, rest) = text.split_once('\n').unwrap();
        let (_, rest) = rest.split_once("```yaml\n").unwrap();
        let (file, rest) = rest.split_once("```").unwrap();
        let rows = rest.lines().filter(|line| line.contains('`'));
        let rows = rows.map(row).collect();
        Recipe { name, file, rows }
    });
    recipes.collect()
}

fn row(line: &str) -> Row<'_> {
    let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
    let (request, answer) = (cells.next().unwrap(), cells.next().unwrap());
    let (later, request) = request.split_once(" s later, ").unwrap_or(("0", request));
    let (request, times) = match request.rsplit_once(", ") {
        Some((request, times)) => (request, times.trim_end_matches(" times").parse().unwrap()),
        None => (request, 1),
    };
    let quoted: Vec<&str> = request.split('`').collect();
    let (method, path) = quoted[1].split_once(' ').unwrap();
    let client = quoted[2].trim().strip_prefix("from ").unwrap();
    let headers = quoted.iter().skip(3).step_by(2);
    Row {
        later_s: later.parse().unwrap(),
        method,
        path,
        client: client.trim_end_matches("with").trim(),
        headers: headers
            .map(|field| field.split_once(": ").unwrap())
            .collect(),
        times,
        answer,
    }
}

/// The answer in the words of the tables.
async fn told(response: Response) -> String {
    let status = response.status().as_u16();
    let shadow = response.headers().get("x-ratelimit-shadow").cloned();
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let rules = match status {
        429 | 422 => {
            let names = body["violated-policies"].as_array().unwrap().iter();
            let names: Vec<_> = names.map(|name| name.as_str().unwrap()).collect();
            names.join(", ")
        }
        403 => body["detail"]
            .as_str()
            .unwrap()
            .split('"')
            .nth(1)
            .unwrap()
            .to_owned(),
        // `/api` is the only route: what passes is answered by it, or by nothing at that path.
        200 | 404 | 405 => {
            let denies = shadow.map(|shadow| shadow.to_str().unwrap().to_owned());
            let name = |denies: String| denies.split('"').nth(1).unwrap().to_owned();
            let denies = denies.map(|denies| format!(", {} would deny", name(denies)));
            return format!("passes{}", denies.unwrap_or_default());
        }
        _ => String::new(),
    };
    format!("{status} {rules}").trim().to_owned()
}

async fn cook(recipe: &Recipe<'_>) {
    let clock = FakeClock::new();
    let mut now_us = i64::try_from(WallClock.now_us()).unwrap();
    clock.stop_at_us(now_us);
    let redis = RedisServer::start_in(&[], clock.variables().into());
    let file = RulesFile::new(recipe.file);
    let (address, path) = (redis.address(), file.path());
    let variables = [
        ("REDIS_ADDR", &*address),
        ("RULES_FILE", &*path),
        ("TRUSTED_PROXIES", "loopback"),
        ("RATELIMIT_SHADOW_HEADER", "on"),
        ("REDIS_TIMEOUT", "10s"),
        // It remembers by the machine's clock, which goes on.
        ("LIMITER_DENIAL_CACHE", "off"),
    ];
    let instances: Vec<_> = (0..INSTANCES).map(|_| Process::start(&variables)).collect();
    let client = Client::new();
    let mut asked = 0;
    for row in &recipe.rows {
        now_us += row.later_s * 1_000_000 + FORERUN_US;
        clock.stop_at_us(now_us);
        redis.reaches_us(now_us.try_into().unwrap());
        for time in 1..=row.times {
            let address = instances[asked % INSTANCES].address;
            asked += 1;
            let method = Method::from_bytes(row.method.as_bytes()).unwrap();
            let request = client.request(method, format!("http://{address}{}", row.path));
            let request = request.header("x-forwarded-for", row.client);
            let headers = row.headers.iter();
            let request = headers.fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            let told = told(request.send().await.unwrap()).await;
            assert_eq!(told, row.answer, "{}: {row:?}, time {time}", recipe.name);
        }
    }
}

#[tokio::test]
async fn every_recipe_answers_as_its_table_says() {
    let recipes = recipes();
    assert!(recipes.len() >= 8 && recipes.iter().all(|recipe| recipe.rows.len() >= 3));
    for recipe in recipes {
        cook(&recipe).await;
    }
}
