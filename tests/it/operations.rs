//! What docs/operations.md advises works as it stands there.

use std::fs;
use std::time::Duration;

use tollgate::algorithm::ALL;
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};

use crate::bench::strategies::plan;
use crate::bench::{Process, RedisServer, charge, quota};

/// Longest wait for what must come: these machines stall.
const PATIENCE: Duration = Duration::from_secs(30);
const IN_REDIS: [Kind; 3] = [Kind::Lua, Kind::Transaction, Kind::Hash];
/// Rights that are only needed where this test does not go: another database than 0.
const FOR_OTHERS: [&str; 1] = ["select"];

/// The configuration that the page shows, as options of redis-server.
fn advised() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```\n").unwrap();
    let (configuration, _) = rest.split_once("```").unwrap();
    configuration
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.replace("~ratelimit:*", "~t:*"))
        .collect()
}

fn server() -> RedisServer {
    let folder = std::env::temp_dir().join(format!("tollgate-aof-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut options = vec!["--dir".to_owned(), folder.to_str().unwrap().to_owned()];
    for line in advised() {
        let mut words = line
            .split(' ')
            .map(|word| word.trim_matches('"').to_owned());
        options.push(format!("--{}", words.next().unwrap()));
        options.extend(words);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    RedisServer::start_with(&options)
}

fn stack(kind: Kind, redis: &RedisServer) -> Stack {
    let care = Care {
        instance: "test".to_owned(),
        key_prefix: "t:".to_owned(),
        instances: 1,
    };
    let address = format!("tollgate:change-me@{}", redis.address());
    build(&Plan {
        care: Some(care),
        ..plan(kind, &address)
    })
    .unwrap()
}

/// Everything that a service asks of its store; what is refused is in the server's ACL LOG.
async fn use_everything(redis: &RedisServer) {
    redis.run::<()>(&["SCRIPT", "FLUSH"]);
    for kind in IN_REDIS {
        let stack = stack(kind, redis);
        for algorithm in ALL {
            let asked = [charge(*algorithm, kind.name(), quota(5), 1)];
            // Twice, for a connection of the pool is checked when it is used again.
            for _ in 0..2 {
                if let Ok(verdict) = stack.strategy.decide(&asked).await {
                    let _ = stack
                        .strategy
                        .give_back(verdict.into_receipts(&asked))
                        .await;
                }
            }
            let _ = stack.strategy.peek(&asked).await;
            let _ = stack.strategy.reset(asked[0].key()).await;
        }
        let link = stack.link.as_ref().unwrap();
        link.ping(PATIENCE).await;
        let beat = async {
            while !has_beaten(redis) && refused(redis).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, beat).await;
        assert!(in_time.is_ok(), "neither a heartbeat nor a refusal");
        stack.leave(PATIENCE).await;
    }
}

fn has_beaten(redis: &RedisServer) -> bool {
    redis.run::<u64>(&["EXISTS", "t:!instances"]) == 1
}

fn refused(redis: &RedisServer) -> Vec<redis::Value> {
    redis.run(&["ACL", "LOG"])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_works_under_the_advised_configuration_and_needs_all_of_its_rights() {
    let redis = server();
    use_everything(&redis).await;
    assert_eq!(refused(&redis), [], "no right is missing");
    let user = advised().pop().unwrap();
    let mut unneeded = Vec::new();
    for right in user.split(" +").skip(1) {
        redis.run::<()>(&["ACL", "SETUSER", "tollgate", &format!("-{right}")]);
        use_everything(&redis).await;
        if refused(&redis).is_empty() {
            unneeded.push(right.to_owned());
        }
        redis.run::<()>(&["ACL", "SETUSER", "tollgate", &format!("+{right}")]);
        redis.run::<()>(&["ACL", "LOG", "RESET"]);
        redis.run::<()>(&["DEL", "t:!instances"]);
    }
    assert_eq!(unneeded, FOR_OTHERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dangerous_server_is_warned_of_at_the_start() {
    let redis =
        RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let address = redis.address();
    let variables = [("REDIS_ADDR", &*address), ("REDIS_TIMEOUT", "30s")];
    let process = Process::start(&variables);
    process.until_logged("Redis evicts by allkeys-lru");
}
