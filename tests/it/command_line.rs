//! The binary and its settings, as a person meets them.

use std::ffi::OsString;
use std::fs;
use std::hash::RandomState;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::TokenBucket;
use tollgate::config::{Config, Environment, VARIABLES, Variable};
use tollgate::strategy::factory::{Kind, Plan, build};
use tollgate::strategy::redis::Settings;
use tollgate::{Identity, Key, ManualClock, RuleName};

use crate::bench::instance::command;
use crate::bench::{Process, RedisServer};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command()
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_names_every_variable_with_its_default() {
    let output = run(&["--help"], &[]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for Variable { name, default, .. } in VARIABLES {
        let line = help
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{name} ")))
            .unwrap_or_default();
        assert!(line.contains(default), "{name}: {line:?}");
    }
}

#[test]
fn version_is_printed() {
    let output = run(&["--version"], &[]);
    assert_eq!(
        text(&output.stdout),
        format!("tollgate {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_problem_is_listed_at_once_and_the_exit_code_is_78() {
    let bad = [
        ("PORT", "99999"),
        ("LIMITER_CAPACITY", "0"),
        ("LIMITER_REFILL_RATE", "fast"),
        ("LIMITER_STRATEGY", "tokenbucket-redis"),
        ("LIMITER_ON_STORE_ERROR", "sometimes"),
        ("LIMITER_DENIAL_CACHE", "2m"),
        ("LIMITER_INSTANCES", "many"),
        ("REDIS_ADDR", "host:port"),
        ("REDIS_TIMEOUT", "50"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("LOG_FORMAT", "xml"),
        ("INSTANCE_ID", "a b"),
        ("LIMITER_MAX_KEYS", "-1"),
        ("REDIS_KEY_PREFIX", "{tag}"),
        ("BIND_ADDRESS", "everywhere"),
    ];
    let output = run(&[], &bad);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.starts_with("15 problems"), "{said}");
    for (name, value) in bad {
        let line = said
            .lines()
            .find(|line| line.trim().starts_with(&format!("{name}: ")))
            .unwrap_or_default();
        assert!(
            line.contains(value) && line.contains("is not "),
            "{name}: {said}"
        );
    }
    let (_, nearest) = said
        .lines()
        .find_map(|line| line.split_once("nearest: "))
        .unwrap();
    assert!(
        nearest.contains("tokenbucket-lua") && nearest.contains("tokenbucket-hash"),
        "{said}"
    );
    assert!(
        said.contains("tokenbucket, gcra, slidingwindow, fixedwindow"),
        "{said}"
    );
}

#[test]
fn leases_of_what_cannot_lend_are_refused() {
    for algorithm in ["gcra", "slidingwindow", "fixedwindow"] {
        let given = format!("{algorithm}-lease");
        let output = run(&[], &[("LIMITER_STRATEGY", &given)]);
        assert_eq!(output.status.code(), Some(78), "{given}");
        let said = text(&output.stderr);
        let instead =
            format!("only a token bucket can lend; take tokenbucket-lease or {algorithm}-lua");
        assert!(said.contains(&instead), "{said}");
    }
}

#[test]
fn values_past_their_bounds_are_refused() {
    let long = "1".repeat(5_000);
    for (name, value) in [
        ("LIMITER_CAPACITY", "99999999999999999999"),
        ("LIMITER_CAPACITY", "9007199254740992"),
        ("LIMITER_REFILL_RATE", "0.0000000001"),
        ("REDIS_POOL_SIZE", "0"),
        ("REDIS_POOL_SIZE", "1001"),
        ("REDIS_DB", "65536"),
        ("REDIS_TIMEOUT", "0ms"),
        ("REDIS_TIMEOUT", "25h"),
        ("REDIS_TIMEOUT", "99999999999999999999s"),
        ("LIMITER_IPV6_PREFIX", "129"),
        ("LIMITER_INSTANCES", "0"),
        ("LIMITER_INSTANCES", "10001"),
        ("LIMITER_DENIAL_CACHE", "0ms"),
        ("LIMITER_DENIAL_CACHE", "61s"),
        ("LIMITER_LEASE_MAX", "0%"),
        ("LIMITER_LEASE_MAX", "51%"),
        ("LIMITER_LEASE_MAX", "10"),
        ("HTTP_MAX_CONNECTIONS", "0"),
        ("HTTP_MAX_CONNECTIONS_PER_PEER", "0"),
        ("HTTP_MAX_REQUESTS", "1000001"),
        ("SHUTDOWN_DELAY", "25h"),
        ("TRUSTED_PROXIES", &long),
    ] {
        let output = run(&[], &[(name, value)]);
        assert_eq!(output.status.code(), Some(78), "{name}={value}");
        assert!(text(&output.stderr).contains(name), "{name}={value}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let output = command()
        .env("PORT", std::ffi::OsStr::from_bytes(b"\xff"))
        .env("OTHER", std::ffi::OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("PORT: \"bytes that are not UTF-8\""));
}

#[test]
fn secrets_are_never_shown() {
    let canary = "hunter2-canary";
    let url = format!("http://user:{canary}@host");
    let wrong_url = run(&[], &[("REDIS_URL", &url)]);
    assert_eq!(wrong_url.status.code(), Some(78));
    let listed = run(
        &["env"],
        &[
            ("REDIS_PASSWORD", canary),
            ("REDIS_URL", &format!("redis://:{canary}@host")),
        ],
    );
    assert!(listed.status.success());
    for output in [wrong_url, listed] {
        assert!(!text(&output.stdout).contains(canary) && !text(&output.stderr).contains(canary));
    }
    let redis = RedisServer::start();
    let (address, level) = (redis.address(), "trace");
    let mut process = Process::start(&[
        ("REDIS_ADDR", &address),
        ("REDIS_PASSWORD", canary),
        ("LOG_LEVEL", level),
    ]);
    process.signal("TERM");
    let (_, lines) = process.wait();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| !line.contains(canary)),
        "{lines:?}"
    );
}

#[test]
fn env_says_where_each_value_came_from() {
    let folder = std::env::temp_dir().join(format!("tollgate-dotenv-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join(".env"),
        "PORT=1111\nLIMITER_CAPACITY=7\nINSTANCE_ID=\nUNRELATED=1\n",
    )
    .unwrap();
    let output = command()
        .arg("env")
        .env("PORT", "2222")
        .current_dir(&folder)
        .output()
        .unwrap();
    let listed = text(&output.stdout);
    let row = |name: &str| {
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_default();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        row("PORT"),
        "2222 environment",
        "what is set wins over .env"
    );
    assert_eq!(row("LIMITER_CAPACITY"), "7 .env");
    assert_eq!(row("REDIS_TIMEOUT"), "50ms default");
    assert_eq!(
        row("LIMITER_STRATEGY"),
        "tokenbucket-memory default",
        "what holds, not what would with a Redis"
    );
    assert_eq!(row("INSTANCE_ID"), "unset", "blank means unset");
    assert_eq!(listed.lines().count(), VARIABLES.len());

    fs::write(folder.join(".env"), "REDIS_PASSWORD='open\n").unwrap();
    let output = command().current_dir(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains(".env") && !text(&output.stderr).contains("open"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&[], &[("PORT", &port)]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&port) && said.contains("PORT") && said.contains("in use"),
        "{said}"
    );
}

#[test]
fn healthcheck_tells_whether_the_server_answers() {
    let redis = RedisServer::absent();
    let address = redis.address();
    let process = Process::start(&[("REDIS_ADDR", &address)]);
    let port = process.address.port().to_string();
    let output = run(
        &["healthcheck"],
        &[("PORT", &port), ("BIND_ADDRESS", "0.0.0.0")],
    );
    assert!(
        output.status.success(),
        "a server without its Redis still answers"
    );
    assert!(text(&output.stdout).starts_with("HTTP/1.1 503"));
    drop(process);
    let output = run(&["healthcheck", "--port", &port], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&port));
}

#[test]
fn both_replaced_services_settings_are_understood() {
    let redis = RedisServer::start();
    let address = redis.address();
    let first = [
        ("REDIS_ADDR", &*address),
        ("REDIS_PASSWORD", " "),
        ("REDIS_DB", "0"),
        ("REDIS_POOL_SIZE", "10"),
        ("LIMITER_STRATEGY", "tokenbucket-transaction"),
        ("LIMITER_CAPACITY", "50"),
        ("LIMITER_REFILL_RATE", "10"),
    ];
    let second = [
        ("REDIS_ADDRESS", &*address),
        ("REDIS_USERNAME", ""),
        ("BUCKET_CAPACITY", "10"),
        ("REFILL_RATE", "1"),
    ];
    for (variables, limit) in [(&first[..], "50"), (&second[..], "10")] {
        let process = Process::start(variables);
        let mut stream = std::net::TcpStream::connect(process.address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"GET /api HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        // A machine that stalls may need more than the default 50 ms; then there is no decision to look at.
        if !answer.starts_with("HTTP/1.1 503") {
            assert!(
                answer.contains(&format!("x-ratelimit-limit: {limit}\r\n")),
                "{answer}"
            );
        }
    }
}

#[test]
fn the_example_file_and_the_documentation_name_every_variable() {
    let root = env!("CARGO_MANIFEST_DIR");
    let example = fs::read_to_string(format!("{root}/.env.example")).unwrap();
    let settings: Vec<(&str, &str)> = example
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .filter(|(name, _)| !name.contains(' '))
        .collect();
    let documentation = fs::read_to_string(format!("{root}/docs/configuration.md")).unwrap();
    for Variable { name, default, .. } in VARIABLES {
        let given: Vec<&str> = settings
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(given, [*default], "{name} in .env.example");
        assert!(
            documentation.contains(&format!("| `{name}` |")),
            "{name} in docs/configuration.md"
        );
    }
    assert_eq!(
        settings.len(),
        VARIABLES.len(),
        "nothing that is not read stands in .env.example"
    );
    for line in example.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            !line.contains('#'),
            "`docker run --env-file` keeps trailing comments: {line}"
        );
    }
}

#[test]
fn what_is_legal_but_doubtful_is_warned_of_once() {
    let read = |variables: &[(&str, &str)]| {
        let pairs = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let config = Config::read(&Environment::new(pairs, None)).unwrap();
        (
            config.limiter.strategy(),
            config.redis.settings.map(|settings| settings.address()),
            config.warnings,
        )
    };
    let (strategy, redis, warnings) = read(&[]);
    assert_eq!(
        (strategy.as_str(), redis, warnings.len()),
        ("tokenbucket-memory", None, 0)
    );
    let (strategy, redis, warnings) = read(&[("LIMITER_STRATEGY", "gcra-lua")]);
    assert_eq!(
        (strategy.as_str(), redis.as_deref(), warnings.len()),
        ("gcra-lua", Some("localhost:6379"), 0)
    );
    let (strategy, redis, warnings) = read(&[("REDIS_ADDR", "a:1"), ("REDIS_ADDRESS", "b:2")]);
    assert_eq!(
        (strategy.as_str(), redis.as_deref()),
        ("tokenbucket-lua", Some("a:1"))
    );
    assert_eq!(
        warnings,
        ["REDIS_ADDR and REDIS_ADDRESS are both set and differ: REDIS_ADDR counts"]
    );
    let (_, _, warnings) = read(&[("REDIS_ADDR", "a:1"), ("REDIS_ADDRESS", "a:1")]);
    assert!(warnings.is_empty());
    let (_, _, warnings) = read(&[
        ("LIMITER_REFIL_RATE", "a secret"),
        ("LIMITER_FILL_SECONDS", "5"),
        ("LIMITER", "of no concern"),
        ("REDIS_PORT", "tcp://192.0.2.1:6379"),
    ]);
    assert_eq!(
        warnings,
        [
            "no settings, and ignored: LIMITER_FILL_SECONDS, LIMITER_REFIL_RATE (did you mean LIMITER_REFILL_RATE?)"
        ]
    );
    let many: Vec<String> = (0..100)
        .map(|i| format!("LIMITER_{i:02}{}", "X".repeat(10_000)))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let (_, _, warnings) = read(&many);
    assert!(
        warnings.len() == 1 && warnings[0].len() < 500 && warnings[0].ends_with(" and 92 more"),
        "{warnings:?}"
    );
    let (_, redis, warnings) = read(&[
        ("REDIS_URL", "redis://c:3"),
        ("REDIS_ADDR", "a:1"),
        ("REDIS_DB", "7"),
    ]);
    assert_eq!(redis.as_deref(), Some("c:3"));
    assert_eq!(
        warnings,
        ["REDIS_URL is set and counts: REDIS_ADDR, REDIS_DB ignored"]
    );
    let (_, redis, warnings) = read(&[
        ("REDIS_ADDR", "a:1"),
        ("LIMITER_STRATEGY", "tokenbucket-memory"),
    ]);
    assert_eq!((redis, warnings.len()), (None, 1));
    let (_, _, warnings) = read(&[("RULES_FILE", "rules.yaml"), ("REFILL_RATE", "5")]);
    assert_eq!(
        warnings,
        ["RULES_FILE is set and counts: REFILL_RATE ignored"]
    );
    let (_, _, warnings) = read(&[("LIMITER_CAPACITY", "5"), ("BUCKET_CAPACITY", "6")]);
    assert_eq!(warnings.len(), 1);
}

/// Whatever is printed for debugging, a whole stack too.
#[tokio::test]
async fn debug_shows_no_secret() {
    let canary = "hunter2-canary";
    for kind in Kind::ALL {
        let plan = Plan {
            kind,
            redis: Some(Settings::new(format!("redis://user:{canary}@127.0.0.1:1")).unwrap()),
            pool_size: 1,
            timeout: Duration::from_secs(1),
            max_keys: 1,
            clock: Arc::new(ManualClock::default()),
            hasher: RandomState::new(),
            seed: 0,
            denial_cache: None,
            lease_max: 10,
            care: None,
        };
        let stack = build(&plan).unwrap();
        let fault = stack
            .strategy
            .reset(&Key::new(
                "t:",
                &TokenBucket,
                &RuleName::default_rule(),
                &Identity::new(),
            ))
            .await;
        let shown = format!("{plan:?} {stack:?} {fault:?}");
        assert!(shown.contains("Plan") && !shown.contains(canary), "{shown}");
    }
    let pairs = [
        ("REDIS_PASSWORD", canary),
        ("REDIS_URL", "redis://:hunter2-canary@host"),
    ];
    let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let environment = Environment::new(pairs, None);
    let shown = format!("{environment:?} {:?}", Config::read(&environment));
    assert!(!shown.contains(canary), "{shown}");
}

/// The binary with something on its standard input.
fn piped(arguments: &[&str], input: &[u8]) -> Output {
    use std::process::Stdio;
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused the input before it read all of it.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    child.wait_with_output().unwrap()
}

#[test]
fn hash_key_prints_what_stands_for_a_secret() {
    let output = piped(&["hash-key"], b"s3cret\n");
    assert!(output.status.success());
    // printf s3cret | sha256sum | xxd -r -p | head -c 16 | base64 | tr +/ -_
    assert_eq!(text(&output.stdout), "~HsHCa1DV08WNlYMYGvgHZg\n");
    for (input, said) in [(&b""[..], "empty"), (&[b'a'; 8193], "8192")] {
        let output = piped(&["hash-key"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty() && text(&output.stderr).contains(said));
    }
}

#[test]
fn schema_is_printed_even_if_settings_are_wrong() {
    let output = run(&["schema"], &[("PORT", "none")]);
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

#[test]
fn check_config_says_what_is_wrong_and_what_the_rules_mean() {
    let folder = crate::bench::Folder::new();
    let file = |name: &str, text: &str| {
        let path = format!("{}/{name}", folder.path());
        fs::write(&path, text).unwrap();
        path
    };
    let good = file(
        "good.yaml",
        "rules:\n- {name: login, match: {methods: POST, path: /login}, limit: 5/min}\n\
         - {name: office, match: {client: private}, exempt: true}\n",
    );
    let bad = file(
        "bad.yaml",
        "rules:\n- {name: login, limit: 5/mn}\n- {name: login, limit: 5/s}\n",
    );

    let in_words =
        "login: up to 5 at once, then one every 12 s, per client address; for POST /login";
    for output in [
        run(&["check-config", &good], &[]),
        run(&["check-config"], &[("RULES_FILE", &good)]),
    ] {
        let said = text(&output.stdout);
        assert!(output.status.success(), "warnings are no error: {said}");
        assert!(
            said.contains(in_words) && said.contains("good.yaml:3:10: warning: "),
            "{said}"
        );
    }
    let output = run(&["check-config", &bad], &[]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stdout);
    assert!(
        said.contains("bad.yaml:2:24: error: ") && said.contains("bad.yaml:3:10: error: "),
        "{said}"
    );

    let output = run(&["check-config", "--json", &bad], &[("PORT", "none")]);
    assert_eq!(output.status.code(), Some(78));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["ok"], &said["errors"], &said["version"]),
        (&false.into(), &2.into(), &().into())
    );
    let first = &said["findings"][0];
    assert_eq!(
        (&first["line"], &first["column"], &first["severity"]),
        (&2.into(), &24.into(), &"error".into())
    );
    assert_eq!(said["settings"]["problems"][0]["variable"], "PORT");

    let output = run(&["check-config", "--json"], &[]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["ok"], &said["rules"][0]["name"]),
        (&true.into(), &"default".into())
    );
    let output = run(&["check-config", &good], &[("PORT", "none")]);
    assert_eq!(output.status.code(), Some(78), "the settings count too");
    assert!(text(&output.stdout).contains("PORT") && text(&output.stdout).contains(in_words));
    let output = run(&["check-config", "/nowhere/rules.yaml"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stdout).contains("/nowhere/rules.yaml: error: cannot be read"));
}

#[test]
fn a_server_does_not_start_with_a_bad_rules_file() {
    let folder = crate::bench::Folder::new();
    let path = format!("{}/rules.yaml", folder.path());
    fs::write(&path, "rules:\n- {name: login, limit: 5/mn}\n").unwrap();
    let output = run(&[], &[("RULES_FILE", &path), ("PORT", "0")]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(
        said.contains("rules.yaml:2:24: error: ") && said.contains("limit: 5/mn}"),
        "{said}"
    );
}

#[test]
fn the_line_that_it_listens_names_the_version_and_the_number_of_rules() {
    let folder = crate::bench::Folder::new();
    let path = format!("{}/rules.yaml", folder.path());
    // printf 'rules: [{name: a, limit: 5/s}]\n' | sha256sum
    fs::write(&path, "rules: [{name: a, limit: 5/s}]\n").unwrap();
    let process = Process::start(&[("RULES_FILE", &path)]);
    assert_eq!(process.listening["rules"], 1);
    assert_eq!(process.listening["rules_version"], "e0a50b434b21");
    assert!(process.listening["capacity"].is_null());
    drop(process);
    let process = Process::start(&[]);
    assert_eq!(process.listening["capacity"], 100);
    assert!(process.listening["rules"].is_null());
}
