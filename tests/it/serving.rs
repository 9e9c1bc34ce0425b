//! Connections and shutdown: what a badly behaved client and an orderly end look like.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Instance, Process, Proxy, RedisServer};

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

/// Reads one answer that ends with its JSON body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        assert_ne!(
            stream.read_buf(&mut text).await.unwrap(),
            0,
            "closed after {:?}",
            String::from_utf8_lossy(&text)
        );
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_client_that_dribbles_its_headers_is_dropped() {
    let instance = Instance::start(&[("HTTP_HEADER_TIMEOUT", "200ms")]).await;
    let (mut read, mut write) = TcpStream::connect(instance.address)
        .await
        .unwrap()
        .into_split();
    let dribble = async {
        // Never a whole head; ends when the server closes.
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async {
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
        rest
    };
    let (rest, ()) = tokio::join!(closed, dribble);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    assert_eq!(instance.get("/health").await.status(), 200);
}

#[tokio::test]
async fn a_connection_is_kept_between_requests() {
    let instance = Instance::start(&[]).await;
    let mut stream = TcpStream::connect(instance.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let instance = Instance::start(&[("HTTP_MAX_CONNECTIONS", "1")]).await;
    let mut first = TcpStream::connect(instance.address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    answer(&mut first).await;
    let mut second = TcpStream::connect(instance.address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), answer(&mut second)).await;
    assert!(early.is_err(), "the only place is taken");
    drop(first);
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_peer_with_too_many_connections_is_refused_more() {
    let own = [("HTTP_MAX_CONNECTIONS_PER_PEER", "1")];
    let trusted = [own[0], ("TRUSTED_PROXIES", "loopback")];
    for (variables, refused) in [(&own[..], true), (&trusted[..], false)] {
        let instance = Instance::start(variables).await;
        let mut first = TcpStream::connect(instance.address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        answer(&mut first).await;
        let mut second = TcpStream::connect(instance.address).await.unwrap();
        // The server may have closed it already.
        let _ = second.write_all(REQUEST).await;
        let read = second.read_u8().await;
        assert_eq!(read.is_err(), refused, "{variables:?}: {read:?}");
    }
}

/// No route reads a body: the answer does not wait for one, and what comes late or in masses ends with the connection.
#[tokio::test]
async fn a_body_that_is_slow_or_huge_holds_nothing_up() {
    let instance = Instance::start(&[]).await;
    for (method, status) in [("GET", "200"), ("POST", "405")] {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        let head =
            format!("{method} /api HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(
            answer(&mut stream)
                .await
                .starts_with(&format!("HTTP/1.1 {status}"))
        );
        // Never the whole body; ends when the server closes.
        let closed = async {
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), closed).await;
        assert!(in_time.is_ok(), "{method}: the server reads on");
    }
}

#[tokio::test]
async fn a_draining_server_is_live_but_not_ready() {
    let variables = [("SHUTDOWN_DELAY", "1h")];
    let mut process = Process::start(&variables);
    let url = |path: &str| format!("http://{}{path}", process.address);
    let client = reqwest::Client::new();
    let status = async |path: &str| client.get(url(path)).send().await.unwrap().status();
    assert_eq!(status("/readyz").await, 200);
    process.signal("TERM");
    while status("/readyz").await != 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for path in ["/livez", "/health", "/api"] {
        assert_eq!(status(path).await, 200, "{path}: it goes on serving");
    }
    process.signal("TERM");
    let (status, _) = tokio::task::spawn_blocking(move || process.wait())
        .await
        .unwrap();
    assert!(status.success(), "a second signal ends the delay");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_503() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let variables = [
        ("REDIS_ADDR", proxy.address()),
        ("REDIS_TIMEOUT", "30s"),
        ("HTTP_REQUEST_TIMEOUT", "100ms"),
    ];
    let instance = Instance::start(&variables).await;
    while instance.get("/health").await.status() != 200 {}
    proxy.hold_replies();
    let response = instance.get("/api").await;
    assert_eq!(response.status(), 503);
    assert!(
        String::from_utf8(response.bytes().await.unwrap().into())
            .unwrap()
            .contains("Request timeout")
    );
}

#[tokio::test]
async fn an_open_request_ends_before_a_drained_server() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let instance =
        Instance::start(&[("REDIS_ADDR", proxy.address()), ("REDIS_TIMEOUT", "30s")]).await;
    assert_eq!(instance.get("/api").await.status(), 200);
    proxy.hold_replies();
    let drained = async {
        proxy.until_asked("EVALSHA").await;
        instance.drain();
        // Nobody is accepted any more; the open request still is answered.
        while TcpStream::connect(instance.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.release_replies();
    };
    let (open, ()) = tokio::join!(instance.get("/api"), drained);
    assert_eq!(open.status(), 200);
    instance.stop().await;
}

#[test]
fn one_signal_drains_and_exits_0() {
    for name in ["TERM", "INT"] {
        let mut process = Process::start(&[]);
        // A connection that only waits for its next request does not hold the end up.
        let _idle = std::net::TcpStream::connect(process.address).unwrap();
        process.signal(name);
        let (status, lines) = process.wait();
        assert!(status.success(), "{name}: {status}");
        assert!(lines.last().unwrap().contains("\"stopped\""), "{lines:?}");
    }
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_at_the_drains_deadline() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let variables = [
        ("REDIS_ADDR", proxy.address()),
        ("REDIS_TIMEOUT", "1h"),
        ("HTTP_REQUEST_TIMEOUT", "1h"),
        ("SHUTDOWN_TIMEOUT", "100ms"),
    ];
    let mut process = Process::start(&variables);
    let api = b"GET /api HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    stream.write_all(api).await.unwrap();
    answer(&mut stream).await;
    proxy.hold_replies();
    stream.write_all(api).await.unwrap();
    proxy.until_asked("EVALSHA").await;
    process.signal("TERM");
    let (status, lines) = tokio::task::spawn_blocking(move || process.wait())
        .await
        .unwrap();
    assert!(status.success());
    assert!(
        lines.iter().any(|line| line.contains("cut off")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis.address()).await;
    let variables = [
        ("REDIS_ADDR", proxy.address()),
        ("REDIS_TIMEOUT", "1h"),
        ("HTTP_REQUEST_TIMEOUT", "1h"),
        ("SHUTDOWN_TIMEOUT", "1h"),
    ];
    let mut process = Process::start(&variables);
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    let api = b"GET /api HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(api).await.unwrap();
    answer(&mut stream).await;
    proxy.hold_replies();
    stream.write_all(api).await.unwrap();
    proxy.until_asked("EVALSHA").await;
    process.signal("TERM");
    while TcpStream::connect(process.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        process.child.try_wait().unwrap().is_none(),
        "it waits for the open request"
    );
    process.signal("TERM");
    let (status, _) = tokio::task::spawn_blocking(move || process.wait())
        .await
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_in_lines_by_change_not_by_request() {
    let mut redis = RedisServer::start();
    let address = redis.address();
    let mut process = Process::start(&[
        ("REDIS_ADDR", &address),
        ("REDIS_TIMEOUT", "30s"),
        ("LIMITER_ON_STORE_ERROR", "deny"),
    ]);
    let api = format!("http://{}/api", process.address);
    let client = reqwest::Client::new();
    let status = || async { client.get(&api).send().await.unwrap().status().as_u16() };
    assert_eq!(status().await, 200);
    tokio::task::block_in_place(|| redis.stop());
    for _ in 0..100 {
        assert_eq!(status().await, 503);
    }
    tokio::task::block_in_place(|| redis.restart());
    while status().await != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.signal("TERM");
    let (_, lines) = process.wait();
    let count = |message: &str| lines.iter().filter(|line| line.contains(message)).count();
    assert_eq!(
        (
            count("the store could not decide"),
            count("Redis cannot be reached"),
            count("the store is given a rest"),
            count("the store answers probes"),
        ),
        (1, 1, 1, 1),
        "{lines:#?}"
    );
    assert!(lines.len() < 10, "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains(&format!("\"instanceId\":\"{}-", process.child.id()))),
        "{lines:#?}"
    );
}
