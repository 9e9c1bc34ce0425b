//! Three real server processes on one Redis, hammered by concurrent clients on one key.

use std::collections::HashSet;

use reqwest::Client;

use crate::bench::{Process, RedisServer};

const REQUESTS: usize = 200;
const AT_ONCE: usize = 50;

/// Sends the requests to the instances in turn, so many at once, and counts the answers by status.
async fn hammer(instances: &[Process]) -> (usize, usize, usize) {
    let client = Client::builder().build().unwrap();
    let urls: Vec<String> = instances
        .iter()
        .map(|instance| format!("http://{}/api", instance.address))
        .collect();
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|caller| {
            let (client, urls) = (client.clone(), urls.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for i in (caller..REQUESTS).step_by(AT_ONCE) {
                    statuses.push(
                        client
                            .get(&urls[i % urls.len()])
                            .send()
                            .await
                            .unwrap()
                            .status()
                            .as_u16(),
                    );
                }
                statuses
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for caller in callers {
        statuses.extend(caller.await.unwrap());
    }
    let count = |status| statuses.iter().filter(|seen| **seen == status).count();
    (
        count(200),
        count(429),
        statuses.len() - count(200) - count(429),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn three_instances_grant_exactly_what_one_would() {
    for strategy in ["tokenbucket-lua", "tokenbucket-transaction"] {
        let redis = RedisServer::start();
        let address = redis.address();
        let variables = [
            ("REDIS_ADDR", &*address),
            ("LIMITER_STRATEGY", strategy),
            ("LIMITER_CAPACITY", "50"),
            ("LIMITER_REFILL_RATE", "0.0001"),
            ("REDIS_TIMEOUT", "60s"),
            ("HTTP_REQUEST_TIMEOUT", "60s"),
        ];
        let instances = [(); 3].map(|()| Process::start(&variables));
        assert_eq!(
            hammer(&instances).await,
            (50, 150, 0),
            "{strategy}: granted, denied, other"
        );
        let (keys, expires) = redis.keys_and_expires();
        assert_eq!(keys, expires, "{strategy}: every key expires");
        let buckets: Vec<String> = redis.run(&["KEYS", "ratelimit:[^!]*"]);
        assert_eq!(buckets, ["ratelimit:127.0.0.1"], "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_in_memory_grants_exactly_its_limit() {
    let instance = [Process::start(&[
        ("LIMITER_CAPACITY", "50"),
        ("LIMITER_REFILL_RATE", "0.0001"),
    ])];
    assert_eq!(hammer(&instance).await, (50, 150, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_tell_their_ids_apart() {
    let instances = [(); 3].map(|()| Process::start(&[]));
    let client = Client::builder().build().unwrap();
    let mut ids = HashSet::new();
    for instance in &instances {
        let body = client
            .get(format!("http://{}/api", instance.address))
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let id = body["instanceId"].as_str().unwrap().to_owned();
        let (pid, hex) = id.split_once('-').unwrap();
        assert_eq!(pid, instance.child.id().to_string());
        assert!(
            hex.len() == 6 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        ids.insert(id);
    }
    assert_eq!(ids.len(), 3);
}
