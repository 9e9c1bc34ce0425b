//! What clients see: the real router on a real socket.

use reqwest::Response;
use serde_json::Value;

use crate::bench::{Instance, Proxy, RedisServer};

const SMALL: [(&str, &str); 3] = [
    ("LIMITER_CAPACITY", "2"),
    ("LIMITER_REFILL_RATE", "0.001"),
    ("TRUSTED_PROXIES", "loopback"),
];

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// The JSON object of a body, its members in their order.
async fn members(response: Response) -> Vec<(String, Value)> {
    let Value::Object(body) = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    else {
        panic!("an object")
    };
    body.into_iter().collect()
}

fn is_local_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.parse::<jiff::Timestamp>().is_ok() && text.len() == "2025-11-09T11:37:54+05:30".len()
}

#[tokio::test]
async fn an_admitted_request() {
    let instance = Instance::start(&SMALL).await;
    let response = instance.get("/api").await;
    assert_eq!(response.status(), 200);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-ratelimit-limit", "2"),
        ("x-ratelimit-remaining", "1"),
        ("x-ratelimit-reset", "1000"),
        ("ratelimit-policy", "\"default\";q=2;w=2000"),
        ("ratelimit", "\"default\";r=1;t=1000"),
        ("retry-after", ""),
        ("x-ratelimit-source", ""),
    ] {
        assert_eq!(header(&response, name), value, "{name}");
    }
    let body = members(response).await;
    let names: Vec<_> = body.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["msg", "time", "instanceId"]);
    assert_eq!(
        (&body[0].1, &body[2].1),
        (&"Successfully Hit".into(), &"test".into())
    );
    assert!(is_local_time(&body[1].1));
    instance.stop().await;
}

#[tokio::test]
async fn a_denied_request() {
    let instance = Instance::start(&SMALL).await;
    instance.get("/api").await;
    instance.get("/api").await;
    let response = instance.get("/api").await;
    assert_eq!(response.status(), 429);
    for (name, value) in [
        ("content-type", "application/problem+json"),
        ("x-ratelimit-limit", "2"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "2000"),
        ("ratelimit-policy", "\"default\";q=2;w=2000"),
        ("ratelimit", "\"default\";r=0;t=1000"),
        ("retry-after", "1000"),
    ] {
        assert_eq!(header(&response, name), value, "{name}");
    }
    let body = members(response).await;
    assert!(
        body.contains(&("error".to_owned(), "Rate limit exceeded".into())),
        "{body:?}"
    );
    assert!(body.contains(&("status".to_owned(), 429.into())));
    assert_eq!(
        instance.get("/health").await.status(),
        200,
        "health is never limited"
    );
}

#[tokio::test]
async fn health_without_a_redis_configured() {
    let instance = Instance::start(&SMALL).await;
    let response = instance.get("/health").await;
    assert_eq!(
        (
            response.status().as_u16(),
            header(&response, "content-type")
        ),
        (200, "application/json")
    );
    let body = members(response).await;
    let names: Vec<_> = body.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["status", "timestamp", "uptime", "instanceId", "services"]
    );
    assert_eq!(body[0].1, "healthy");
    assert!(is_local_time(&body[1].1));
    assert!(body[2].1.as_str().unwrap().ends_with('s'));
    assert_eq!(
        body[4].1,
        serde_json::json!({"redis": {"status": "not configured", "latency": ""}})
    );
}

#[tokio::test]
async fn health_with_and_without_its_redis() {
    let mut redis = RedisServer::start();
    let address = redis.address();
    let instance = Instance::start(&[("REDIS_ADDR", &address), ("REDIS_TIMEOUT", "30s")]).await;
    let response = instance.get("/health").await;
    assert_eq!(response.status(), 200);
    let body = members(response).await;
    let service = &body[4].1["redis"];
    assert_eq!(
        (&body[0].1, &service["status"]),
        (&"healthy".into(), &"connected".into())
    );
    assert!(
        service["latency"].as_str().unwrap().ends_with('s'),
        "{service}"
    );

    redis.stop();
    let response = instance.get("/health").await;
    assert_eq!(response.status(), 503);
    let body = members(response).await;
    assert_eq!(body[0].1, "unhealthy");
    assert_eq!(
        body[4].1,
        serde_json::json!({"redis": {"status": "disconnected", "latency": "", "breaker": "closed"}})
    );
}

#[tokio::test]
async fn health_does_not_wait_for_a_redis_that_is_frozen() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let instance =
        Instance::start(&[("REDIS_ADDR", proxy.address()), ("REDIS_TIMEOUT", "1h")]).await;
    while instance.get("/health").await.status() != 200 {}
    proxy.hold_replies();
    assert_eq!(instance.get("/health").await.status(), 503);
    proxy.release_replies();
    assert_eq!(instance.get("/health").await.status(), 200);
}

#[tokio::test]
async fn without_its_redis_requests_are_answered_by_the_policy() {
    let redis = RedisServer::absent();
    for (policy, status) in [("deny", 503), ("allow", 200)] {
        for strategy in [
            "tokenbucket-lua",
            "tokenbucket-transaction",
            "tokenbucket-hash",
        ] {
            let address = redis.address();
            let variables = [
                ("REDIS_ADDR", &*address),
                ("LIMITER_ON_STORE_ERROR", policy),
                ("LIMITER_STRATEGY", strategy),
            ];
            let instance = Instance::start(&variables).await;
            let response = instance.get("/api").await;
            assert_eq!(response.status(), status, "{policy} {strategy}");
            for name in [
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "ratelimit",
                "ratelimit-policy",
            ] {
                assert_eq!(
                    header(&response, name),
                    "",
                    "without a decision there is no {name}"
                );
            }
            assert_eq!(header(&response, "x-ratelimit-source"), "");
            if policy == "deny" {
                assert_eq!(
                    header(&response, "content-type"),
                    "application/problem+json"
                );
                assert_eq!(header(&response, "retry-after"), "1");
                let body = members(response).await;
                assert!(
                    body.contains(&("error".to_owned(), "Rate limiter unavailable".into())),
                    "{body:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn ready_means_able_to_answer_by_the_policy() {
    let mut redis = RedisServer::absent();
    let address = redis.address();
    for (policy, without) in [("deny", 503), ("allow", 200), ("local", 200)] {
        let variables = [
            ("REDIS_ADDR", &*address),
            ("LIMITER_ON_STORE_ERROR", policy),
        ];
        let instance = Instance::start(&variables).await;
        assert_eq!(instance.get("/readyz").await.status(), without, "{policy}");
        assert_eq!(instance.get("/livez").await.status(), 200, "{policy}");
        redis.restart();
        while instance.get("/readyz").await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        redis.stop();
    }
}

#[tokio::test]
async fn those_who_are_denied_together_are_not_called_back_together() {
    let redis = RedisServer::absent();
    let address = redis.address();
    let variables = [
        ("REDIS_ADDR", &*address),
        ("LIMITER_ON_STORE_ERROR", "deny"),
    ];
    let instance = Instance::start(&variables).await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        let response = instance.get("/api").await;
        assert_eq!(response.status(), 503);
        waits.push(header(&response, "retry-after").to_owned());
    }
    assert_eq!(waits, ["1", "2", "3", "1", "2", "3"]);
}

#[tokio::test]
async fn without_its_redis_an_instance_limits_by_itself() {
    let redis = RedisServer::absent();
    for strategy in [
        "tokenbucket-lua",
        "gcra-transaction",
        "slidingwindow-lua",
        "fixedwindow-hash",
    ] {
        let address = redis.address();
        let variables = [
            ("REDIS_ADDR", &*address),
            ("LIMITER_STRATEGY", strategy),
            ("LIMITER_CAPACITY", "7"),
            ("LIMITER_REFILL_RATE", "0.001"),
            ("LIMITER_INSTANCES", "3"),
        ];
        let instance = Instance::start(&variables).await;
        for (status, remaining) in [(200, "1"), (200, "0"), (429, "0")] {
            let response = instance.get("/api").await;
            assert_eq!(response.status(), status, "{strategy}");
            for (name, value) in [
                ("x-ratelimit-source", "local"),
                ("x-ratelimit-limit", "7"),
                ("x-ratelimit-remaining", remaining),
            ] {
                assert_eq!(header(&response, name), value, "{strategy} {name}");
            }
        }
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_later_is_used() {
    let mut redis = RedisServer::absent();
    for strategy in ["tokenbucket-lua", "tokenbucket-transaction"] {
        redis.stop();
        let address = redis.address();
        let variables = [
            ("REDIS_ADDR", &*address),
            ("LIMITER_STRATEGY", strategy),
            ("REDIS_TIMEOUT", "30s"),
            ("LIMITER_ON_STORE_ERROR", "deny"),
        ];
        let instance = Instance::start(&variables).await;
        assert_eq!(instance.get("/api").await.status(), 503);
        tokio::task::block_in_place(|| redis.restart());
        while instance.get("/api").await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_bad_record_is_never_a_500() {
    let redis = RedisServer::start();
    redis.run::<()>(&["SET", "ratelimit:127.0.0.1", "a string"]);
    let address = redis.address();
    for strategy in [
        "tokenbucket-lua",
        "tokenbucket-transaction",
        "tokenbucket-hash",
    ] {
        let variables = [
            ("REDIS_ADDR", &*address),
            ("LIMITER_STRATEGY", strategy),
            ("REDIS_TIMEOUT", "30s"),
            ("LIMITER_ON_STORE_ERROR", "deny"),
        ];
        let instance = Instance::start(&variables).await;
        assert_eq!(instance.get("/api").await.status(), 503, "{strategy}");
    }
}

#[tokio::test]
async fn the_bucket_of_a_client_is_named_after_its_address() {
    let redis = RedisServer::start();
    let address = redis.address();
    let variables = [
        ("REDIS_ADDR", &*address),
        ("REDIS_TIMEOUT", "30s"),
        ("TRUSTED_PROXIES", "loopback"),
    ];
    let instance = Instance::start(&variables).await;
    instance.get("/api").await;
    instance
        .get_with("/api", &[("x-forwarded-for", "192.168.1.100")])
        .await;
    instance
        .get_with("/api", &[("x-forwarded-for", "2001:db8::7")])
        .await;
    let mut keys: Vec<String> = redis.run(&["KEYS", "ratelimit:[^!]*"]);
    keys.sort();
    assert_eq!(
        keys,
        [
            "ratelimit:127.0.0.1",
            "ratelimit:192.168.1.100",
            "ratelimit:[2001:db8::/64]"
        ]
    );
}

#[tokio::test]
async fn a_forged_address_from_an_untrusted_peer_is_ignored() {
    let instance = Instance::start(&SMALL[..2]).await;
    for (forged, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.3", 429)] {
        assert_eq!(
            instance
                .get_with("/api", &[("x-forwarded-for", forged)])
                .await
                .status(),
            status
        );
    }
}

#[tokio::test]
async fn a_trusted_proxys_clients_have_buckets_of_their_own() {
    let instance = Instance::start(&SMALL).await;
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("garbage", 200),
        ("unknown", 200),
        ("nonsense, 127.0.0.1", 429),
    ] {
        let response = instance
            .get_with("/api", &[("x-forwarded-for", client)])
            .await;
        assert_eq!(response.status(), status, "{client}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_answered_in_json() {
    let instance = Instance::start(&[]).await;
    let unknown = instance.get("/nothing").await;
    assert_eq!(
        (unknown.status().as_u16(), header(&unknown, "content-type")),
        (404, "application/problem+json")
    );
    assert!(
        members(unknown)
            .await
            .contains(&("error".to_owned(), "Not found".into()))
    );
    let wrong = instance.post("/api").await;
    assert_eq!(
        (wrong.status().as_u16(), header(&wrong, "allow")),
        (405, "GET,HEAD")
    );
    assert!(
        members(wrong)
            .await
            .contains(&("error".to_owned(), "Method not allowed".into()))
    );
}

#[tokio::test]
async fn oversized_headers_are_431() {
    let instance = Instance::start(&[]).await;
    let long = "a".repeat(17 * 1024);
    assert_eq!(
        instance
            .get_with("/api", &[("x-long", &long)])
            .await
            .status(),
        431
    );
    let names: Vec<String> = (0..110).map(|i| format!("x-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(instance.get_with("/api", &many).await.status(), 431);
    assert_eq!(instance.get("/api").await.status(), 200);
}
