//! `tollgate explain`: what it says is what the server does.

use serde_json::Value;

use crate::bench::instance::command;
use crate::bench::{Instance, RedisServer, RulesFile};

fn explain(rules: &RulesFile, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let path = rules.path();
    let file = ["explain", "--file", &path];
    let output = command()
        .args([&file, arguments].concat())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn explain_tells_what_the_server_does_and_charges_nothing() {
    let rules = RulesFile::new(
        "rules:
  - { name: bans, match: { client: 198.51.100.0/24 }, deny: true }
  - { name: office, match: { client: 203.0.113.0/24 }, exempt: true }
  - { name: login, match: { methods: POST, path: /login }, limit: 5/min }
  - { name: gone, mode: off, limit: 5/min }
  - { name: api, match: { path: /api/** }, key: 'header:X-Api-Key', absent: skip, limit: 2/day }
  - { name: all, key: [], limit: 100/day }
",
    );
    let offline = |arguments: &[&str]| {
        let (ok, text) = explain(&rules, &[arguments, &["--offline", "--json"]].concat(), &[]);
        assert!(ok, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let applies = |explanation: &Value| -> Vec<String> {
        let rules = explanation["rules"].as_array().unwrap().iter();
        rules
            .map(|rule| rule["applies"].as_str().unwrap().to_owned())
            .collect()
    };
    let told = offline(&["--path", "/api/x"]);
    assert_eq!(applies(&told), ["no", "no", "no", "off", "skipped", "yes"]);
    assert_eq!(told["verdict"], "depends on the buckets");
    assert_eq!(told["rules"][5]["key"], "ratelimit:all:");
    let told = offline(&["--ip", "203.0.113.9"]);
    assert_eq!(
        applies(&told)[1..],
        ["yes", "not read", "not read", "not read", "not read"]
    );
    assert_eq!(told["verdict"], "200, no limit applies");
    assert_eq!(
        offline(&["--ip", "198.51.100.1"])["verdict"],
        "403, refused by bans"
    );
    let told = offline(&["--method", "POST", "--path", "/login/", "--ip", "192.0.2.7"]);
    assert_eq!(told["rules"][2]["key"], "ratelimit:login:192.0.2.7");

    let redis = RedisServer::start();
    let address = redis.address();
    let variables = [("REDIS_ADDR", &*address), ("REDIS_TIMEOUT", "10s")];
    let path = rules.path();
    let serving = [&variables[..], &[("RULES_FILE", &path)]].concat();
    let instance = Instance::start(&serving).await;
    let key = ("x-api-key", "k");
    let asked = ["--path", "/api", "--header", "X-Api-Key: k"];
    for left in [2, 1, 0] {
        for _ in 0..2 {
            let (ok, text) = explain(&rules, &asked, &variables);
            assert!(ok && text.contains(&format!("{left} of 2 left")), "{text}");
            let verdict = if left == 0 {
                "429, denied by api"
            } else {
                "200, admitted"
            };
            assert!(text.contains(verdict), "{text}");
        }
        let expected = if left == 0 { 429 } else { 200 };
        assert_eq!(instance.get_with("/api", &[key]).await.status(), expected);
    }
    instance.stop().await;
    let (ok, text) = explain(&rules, &["--header", "no colon"], &[]);
    assert!(!ok && text.contains("NAME: VALUE"), "{text}");
    for path in ["", "api", "http://example.com/api"] {
        let (ok, text) = explain(&rules, &["--path", path], &[]);
        assert!(!ok && text.contains("begins with `/`"), "{path}: {text}");
    }
}

#[test]
fn explain_says_that_a_ban_in_shadow_refuses_nobody() {
    let rules = RulesFile::new(
        "rules:
  - { name: trial, mode: shadow, match: { client: 192.0.2.0/24 }, deny: true }
  - { name: all, key: [], limit: 1/day }
",
    );
    let (ok, text) = explain(&rules, &["--offline"], &[]);
    assert!(ok, "{text}");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "trial  shadow    deny: it would be refused");
    assert!(lines[1].starts_with("all    yes "), "{text}");
}
