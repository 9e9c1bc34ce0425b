//! What clients and operators see of several rules, on real servers.

use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Instance, Process, RedisServer, RulesFile};

const SEVERAL: &str = "rules:
  - { name: wide, key: [], limit: 1000/day }
  - { name: mine, key: ip, limit: 3/day }
  - { name: trial, mode: shadow, key: ip, limit: 1/day }
  - { name: tight, match: { path: /tight }, key: [], limit: 1 per 2 day }
";

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn start(rules: &RulesFile, more: &[(&str, &str)]) -> Instance {
    let path = rules.path();
    let variables = [("RULES_FILE", &*path), ("TRUSTED_PROXIES", "loopback")];
    Instance::start(&[&variables, more].concat()).await
}

#[tokio::test]
async fn every_enforced_limit_is_told_the_one_that_binds_first() {
    let rules = RulesFile::new(SEVERAL);
    let instance = start(&rules, &[]).await;
    let response = instance.get("/api").await;
    let policies = "\"mine\";q=3;w=86400, \"wide\";q=1000;w=86400";
    assert_eq!(header(&response, "ratelimit-policy"), policies);
    let state = header(&response, "ratelimit");
    assert!(state.starts_with("\"mine\";r=2;t=28"), "{state}");
    assert!(state.contains(", \"wide\";r=999;t="), "{state}");
    assert_eq!(header(&response, "x-ratelimit-limit"), "3");
    assert_eq!(header(&response, "x-ratelimit-remaining"), "2");
    assert_eq!(
        header(&response, "x-ratelimit-shadow"),
        "",
        "only on request"
    );

    for _ in 0..2 {
        instance.get("/api").await;
    }
    let response = instance.get("/api").await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "x-ratelimit-remaining"), "0");
    let state = header(&response, "ratelimit");
    assert!(state.starts_with("\"mine\";r=0;t=28"), "{state}");
    assert!(
        state.contains("\"wide\";r=997;"),
        "a denied request takes nothing: {state}"
    );
    instance.stop().await;
}

#[tokio::test]
async fn several_denials_are_all_named_and_the_longest_wait_counts() {
    let rules = RulesFile::new(SEVERAL);
    let instance = start(&rules, &[]).await;
    for path in ["/tight", "/api", "/api"] {
        assert_ne!(instance.get(path).await.status(), 429);
    }
    let response = instance.get("/tight").await;
    assert_eq!(response.status(), 429);
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json"
    );
    assert_eq!(
        header(&response, "x-ratelimit-limit"),
        "1",
        "tight has the longest wait"
    );
    let retry_after: u64 = header(&response, "retry-after").parse().unwrap();
    assert!(
        header(&response, "ratelimit")
            .starts_with(&format!("\"tight\";r=0;t={retry_after}, \"mine\""))
    );
    let body = body(response).await;
    assert_eq!(body["error"], "Rate limit exceeded");
    assert_eq!(body["violated-policies"], json!(["mine", "tight"]));
    assert_eq!(
        body["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("\"tight\"") && detail.contains(&format!("{retry_after} s")),
        "{detail}"
    );
    let millis = body["retry_after_ms"].as_u64().unwrap();
    assert!(
        millis.div_ceil(1_000) == retry_after && millis > 86_400_000,
        "{millis}"
    );
    instance.stop().await;
}

#[tokio::test]
async fn the_operator_chooses_the_headers() {
    let rules = RulesFile::new("rules: [{ name: one, key: [], limit: 1/day }]\n");
    let draft = ["ratelimit", "ratelimit-policy"];
    let legacy = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    for (style, has_draft, has_legacy) in [
        ("draft,legacy", true, true),
        ("draft", true, false),
        ("legacy", false, true),
        ("none", false, false),
    ] {
        let instance = start(&rules, &[("RATELIMIT_HEADERS", style)]).await;
        for status in [200, 429] {
            let response = instance.get("/api").await;
            assert_eq!(response.status(), status);
            let has = |name: &&str| response.headers().contains_key(*name);
            assert!(draft.iter().all(|name| has(name) == has_draft), "{style}");
            assert!(legacy.iter().all(|name| has(name) == has_legacy), "{style}");
            assert_eq!(has(&"retry-after"), status == 429, "{style}");
        }
        instance.stop().await;
    }
}

/// A structured field has no larger integer (RFC 9651, section 3.3.1).
#[tokio::test]
async fn no_number_has_more_than_fifteen_digits() {
    let rules = RulesFile::new(
        "rules: [{ name: huge, key: [], limit: 1000000000/s, burst: 1125899906842624 }]\n",
    );
    let instance = start(&rules, &[]).await;
    let response = instance.get("/api").await;
    assert_eq!(
        header(&response, "ratelimit"),
        "\"huge\";r=999999999999999;t=1"
    );
    assert!(header(&response, "ratelimit-policy").starts_with("\"huge\";q=999999999999999;w="));
    assert_eq!(header(&response, "x-ratelimit-limit"), "999999999999999");
    instance.stop().await;
}

#[tokio::test]
async fn jitter_only_makes_clients_wait_for_longer() {
    let rules = RulesFile::new("rules: [{ name: one, key: [], limit: 1/hour }]\n");
    let instance = start(&rules, &[("RETRY_AFTER_JITTER", "1h")]).await;
    instance.get("/api").await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let response = instance.get("/api").await;
        let state = header(&response, "ratelimit");
        let wait: u64 = state.rsplit_once("t=").unwrap().1.parse().unwrap();
        let later: u64 = header(&response, "retry-after").parse().unwrap();
        assert!(
            (wait..=wait + 3_600).contains(&later),
            "{later} after {wait}"
        );
        let millis = body(response).await["retry_after_ms"].as_u64().unwrap();
        assert_eq!(millis.div_ceil(1_000), later, "the body says the same");
        waits.push(later);
    }
    waits.dedup();
    assert!(waits.len() > 10, "it is spread: {waits:?}");
    instance.stop().await;
}

#[tokio::test]
async fn a_rule_in_shadow_is_told_to_the_operator_alone() {
    let rules = RulesFile::new(SEVERAL);
    let instance = start(&rules, &[("RATELIMIT_SHADOW_HEADER", "on")]).await;
    assert_eq!(
        header(&instance.get("/api").await, "x-ratelimit-shadow"),
        ""
    );
    let response = instance.get("/api").await;
    assert_eq!(response.status(), 200);
    let told = header(&response, "x-ratelimit-shadow");
    assert!(told.starts_with("\"trial\";r=0;t="), "{told}");
    assert!(!header(&response, "ratelimit").contains("trial"));
    let health = body(instance.get("/health").await).await;
    assert_eq!(
        health["rules"]["shadow"],
        json!({ "trial": { "allowed": 1, "denied": 1 } })
    );
    assert_eq!(health["rules"]["count"], 4);
    assert_eq!(health["rules"]["version"].as_str().unwrap().len(), 12);
    assert_eq!(health["rules"]["refused"], Value::Null);
    instance.stop().await;
}

#[tokio::test]
async fn four_limits_of_a_request_are_one_call_of_the_script() {
    let redis = RedisServer::start();
    let rules = RulesFile::new(
        "rules:
  - { name: user, key: 'header:X-Api-Key', absent: skip, limit: 100/day }
  - { name: address, key: ip, limit: 100/day }
  - { name: endpoint, key: [path, method], limit: 100/day }
  - { name: all, key: [], limit: 100/day }
",
    );
    let address = redis.address();
    let instance = start(
        &rules,
        &[("REDIS_ADDR", &address), ("REDIS_TIMEOUT", "10s")],
    )
    .await;
    // The first call tells the server the script.
    instance.get("/warm").await;
    let calls = |redis: &RedisServer| -> u64 {
        let stats: String = redis.run(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    let before = calls(&redis);
    for _ in 0..5 {
        let response = instance.get_with("/api", &[("x-api-key", "k")]).await;
        assert_eq!(response.status(), 200);
        let policies = header(&response, "ratelimit-policy");
        assert_eq!(policies.split(", ").count(), 4, "{policies}");
    }
    assert_eq!(calls(&redis) - before, 5);
    let keys: Vec<String> = redis.run(&["KEYS", "ratelimit:user:*"]);
    assert_eq!(keys.len(), 1);
    instance.stop().await;
}

/// In an outage `deny` beats a local denial, which beats `allow`.
#[tokio::test]
async fn each_rule_has_its_own_answer_for_an_outage() {
    let rules = RulesFile::new(
        "rules:
  - { name: open, on_store_error: allow, limit: 1/day }
  - { name: here, match: { path: /here/** }, on_store_error: local, limit: 1/day }
  - { name: shut, match: { path: '/**/shut' }, on_store_error: deny, limit: 9/day }
  - { name: watched, mode: shadow, on_store_error: deny, limit: 9/day }
",
    );
    let redis = RedisServer::absent();
    let address = redis.address();
    let instance = start(&rules, &[("REDIS_ADDR", &address)]).await;
    for _ in 0..3 {
        let response = instance.get("/api").await;
        assert_eq!(response.status(), 200, "open counts nothing");
        assert_eq!(header(&response, "ratelimit"), "");
    }
    let response = instance.get("/here/a").await;
    assert_eq!(response.status(), 404);
    assert_eq!(header(&response, "x-ratelimit-source"), "local");
    assert!(header(&response, "ratelimit").starts_with("\"here\";r=0;"));
    assert!(!header(&response, "ratelimit").contains("open"));
    assert_eq!(instance.get("/here/a").await.status(), 429);
    let response = instance.get("/here/shut").await;
    assert_eq!(response.status(), 503, "deny beats a local denial");
    assert_ne!(header(&response, "retry-after"), "");
    assert_eq!(body(response).await["error"], "Rate limiter unavailable");
    assert_eq!(
        instance.get("/readyz").await.status(),
        503,
        "some requests need the store"
    );
    instance.stop().await;
}

/// Whoever is no trusted proxy could claim any plan.
#[tokio::test]
async fn a_plan_counts_only_from_a_trusted_proxy() {
    let rules = RulesFile::new(
        "rules:
  - name: api
    limit: 5/day
    plan_header: X-Plan
    overrides: [{ plan: gold, limit: 50/day }]
",
    );
    for (trusted, limit) in [("loopback", "50"), ("192.0.2.1", "5")] {
        let instance = start(&rules, &[("TRUSTED_PROXIES", trusted)]).await;
        let response = instance.get_with("/api", &[("x-plan", "gold")]).await;
        assert_eq!(header(&response, "x-ratelimit-limit"), limit, "{trusted}");
        instance.stop().await;
    }
}

/// However a request names the host and the path, the same rule is for it.
#[tokio::test]
async fn no_spelling_of_the_target_gets_around_a_rule() {
    let rules = RulesFile::new(
        "rules: [{ name: shop, match: { host: shop.example.com, path: /login }, limit: 100/day }]\n",
    );
    let instance = start(&rules, &[]).await;
    for (target, host) in [
        ("/login", "shop.example.com"),
        ("//%6Cogin/.", "Shop.Example.com.:8080"),
        ("/a/../login?x", "user@shop.example.com"),
        ("http://shop.example.com/login", "other.example.com"),
        (
            "http://user:pass@SHOP.example.com:80/login",
            "other.example.com",
        ),
    ] {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let is_counted = answer.contains("ratelimit: \"shop\";");
        assert!(is_counted, "{target} {host}: {answer}");
    }
    instance.stop().await;
}

#[tokio::test]
async fn secrets_reach_neither_redis_nor_the_log() {
    const CANARY: &str = "canary-of-a-secret";
    let redis = RedisServer::start();
    let rules = RulesFile::new(
        "rules:
  - { name: header, key: 'header:X-Api-Key', limit: 1/day }
  - { name: cookie, key: 'cookie:sid', limit: 9/day }
  - { name: query, key: 'query:token', limit: 9/day }
",
    );
    let path = rules.path();
    let address = redis.address();
    let mut process = Process::start(&[
        ("RULES_FILE", &path),
        ("REDIS_ADDR", &address),
        ("REDIS_TIMEOUT", "10s"),
        ("LOG_LEVEL", "trace"),
    ]);
    let url = format!("http://{}/api?token={CANARY}", process.address);
    let client = reqwest::Client::new();
    for status in [200, 429] {
        let request = client.get(&url).header("x-api-key", CANARY);
        let response = request
            .header("cookie", format!("sid={CANARY}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        let headers = format!("{:?}", response.headers());
        let body = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
        assert!(!headers.contains(CANARY) && !body.contains(CANARY));
    }
    let keys: Vec<String> = redis.run(&["KEYS", "*"]);
    let of_rules = |key: &&String| !key.starts_with("ratelimit:!");
    assert_eq!(keys.iter().filter(of_rules).count(), 3, "{keys:?}");
    assert!(keys.iter().all(|key| !key.contains(CANARY)), "{keys:?}");
    process.signal("TERM");
    let (_, lines) = process.wait();
    assert!(!lines.is_empty());
    // What the HTTP library itself traces of a request is not ours to keep.
    let ours = lines.iter().filter(|line| line.contains("\"tollgate"));
    assert!(ours.clone().count() > 0, "{}", lines[0]);
    assert!(ours.clone().all(|line| !line.contains(CANARY)));
}
