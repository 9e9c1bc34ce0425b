//! The smallest things that a request is made of: what `micro` times and what `instructions` counts.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hash::RandomState;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderValue, Request};
use axum::response::Response;
use tollgate::algorithm::{self, LeaseAsk, Remembered};
use tollgate::http::{ClientIp, HeaderStyle, RateLimitLayer, set_headers};
use tollgate::limiter::{Call, Limiter, PathPattern, Rule, RuleSet, Value, Version};
use tollgate::strategy::lease::{Lends, Lent};
use tollgate::strategy::{Deciding, DenialCache, Lease, Memory, Strategy};
use tollgate::{
    Charge, Cost, Identity, Key, Limit, ManualClock, Networks, Quota, RuleName, Source,
};
use tower::{Layer, Service, service_fn};

/// Keys in a table.
pub(crate) const KEYS: u32 = 10_000;
/// Most keys that a table may hold: as the service by default.
const MOST_KEYS: usize = 1_000_000;
/// A step through the keys that visits all of them in an order that no cache foresees.
const STRIDE: usize = 7_919;
const NOON_US: u64 = 1_762_668_474_000_000;
const PREFIX: &str = "ratelimit:";

/// Something to do again and again.
pub(crate) type Work = Box<dyn FnMut()>;

/// What is measured: its name, and what makes it.
pub(crate) type Case = (&'static str, fn() -> Work);

/// Everything that is measured.
pub(crate) const ALL: &[Case] = &[
    ("step-tokenbucket", || step("tokenbucket")),
    ("step-gcra", || step("gcra")),
    ("step-slidingwindow", || step("slidingwindow")),
    ("step-fixedwindow", || step("fixedwindow")),
    ("memory-decide", || memory(1)),
    ("memory-decide-4-charges", || memory(4)),
    ("memory-decide-denied", || denied(table())),
    ("denial-remembered", || denied(denial_cache())),
    ("lease-paid", lease_paid),
    ("client-peer", || client(None)),
    ("client-forwarded", || client(Some("203.0.113.7"))),
    ("client-forwarded-by-three", || {
        client(Some("203.0.113.7, 10.0.0.1, 127.0.0.1"))
    }),
    ("headers-admitted", || headers(100_000)),
    ("headers-denied", || headers(1)),
    ("rules-10", || rules(10)),
    ("rules-100", || rules(100)),
    ("rules-1000", || rules(1_000)),
    ("key-ipv4", || key_of([203, 0, 113, 7].into())),
    ("key-ipv6", || {
        key_of("2001:db8:1:2:3:4:5:6".parse().expect("an address"))
    }),
    ("key-hashed", key_hashed),
    ("layer-admitted", || layer(100_000)),
    ("layer-denied", || layer(1)),
];

/// A bucket that admits everything here.
pub(crate) fn ample() -> Limit {
    limit("tokenbucket", 100_000)
}

/// A bucket that admits one request here.
pub(crate) fn scarce() -> Limit {
    limit("tokenbucket", 1)
}

/// Charges of so many clients.
pub(crate) fn charges(limit: Limit) -> Vec<Charge> {
    let rule = RuleName::default_rule();
    let charge = |i: u32| Charge::new(key(i, limit, &rule), limit, Cost::MIN).expect("it fits");
    (0..KEYS).map(charge).collect()
}

/// A table on a clock that stands still.
pub(crate) fn table() -> Memory {
    Memory::new(MOST_KEYS, still(), &RandomState::new())
}

/// The next place after `i`.
pub(crate) fn next(i: usize) -> usize {
    (i + STRIDE) % KEYS as usize
}

/// What a future that never waits resolves to.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn still() -> Arc<ManualClock> {
    Arc::new(ManualClock::at_us(NOON_US))
}

fn limit(algorithm: &str, capacity: u64) -> Limit {
    Limit {
        algorithm: algorithm::named(algorithm).expect("an algorithm"),
        quota: Quota::new(capacity, 1, Duration::from_secs(10_000)).expect("it can be counted"),
    }
}

fn key(i: u32, limit: Limit, rule: &RuleName) -> Key {
    let [_, a, b, c] = i.to_be_bytes();
    let identity = Identity::new().with_ip([10, a, b, c].into(), 64);
    Key::new(PREFIX, limit.algorithm, rule, &identity)
}

fn step(name: &str) -> Work {
    let Limit { algorithm, quota } = limit(name, 100_000);
    let (mut state, mut now_us) = (Remembered::Nothing, NOON_US);
    Box::new(move || {
        now_us += 1;
        let step = black_box(algorithm).step(&quota, &state, now_us, Cost::MIN);
        if let Ok(taken) = step.outcome {
            state = Remembered::State(taken.kept.state);
        }
    })
}

fn memory(count: usize) -> Work {
    let (table, limit) = (table(), ample());
    let rules: Vec<RuleName> = (0..count)
        .map(|i| RuleName::new(&format!("rule-{i}")).expect("a name"))
        .collect();
    let charge =
        |i: u32, rule| Charge::new(key(i, limit, rule), limit, Cost::MIN).expect("it fits");
    let of_client = |i: u32| rules.iter().map(|rule| charge(i, rule)).collect::<Vec<_>>();
    let clients: Vec<Vec<Charge>> = (0..KEYS).map(of_client).collect();
    for charges in &clients {
        assert!(now(table.decide(charges)).is_ok_and(|verdict| verdict.admitted));
    }
    let mut i = 0;
    Box::new(move || {
        i = next(i);
        let _ = black_box(now(table.decide(&clients[i])));
    })
}

/// Every client took its last token before, and is denied.
fn denied(by: impl Strategy + 'static) -> Work {
    let charges = charges(scarce());
    for charge in charges.chunks(1) {
        assert!(now(by.decide(charge)).is_ok_and(|verdict| verdict.admitted));
    }
    let mut i = 0;
    Box::new(move || {
        i = next(i);
        let _ = black_box(now(by.decide(&charges[i..=i])));
    })
}

/// Denies without the store whom that would deny.
pub(crate) fn denial_cache() -> DenialCache {
    let (longest, hasher) = (Duration::from_secs(1), RandomState::new());
    DenialCache::new(Arc::new(table()), still(), longest, &hasher)
}

/// A store that lends a thousand tokens to whoever asks.
#[derive(Debug)]
struct Rich;

impl Lends for Rich {
    fn lend<'a>(&'a self, _: &'a Charge, _: LeaseAsk) -> Deciding<'a, Lent> {
        Deciding::ready(Ok(Lent {
            now_us: NOON_US,
            retry_after_us: 0,
            remaining: 100_000,
            reset_after_us: 0,
            next_after_us: 0,
            granted: 1_000,
            until_us: NOON_US + 1_000_000,
            lasts_us: 1_000_000,
        }))
    }
}

/// Pays for hot keys; one request in a thousand borrows anew.
pub(crate) fn leases() -> Lease {
    let (inner, share) = (Arc::new(table()), 10);
    Lease::new(inner, Arc::new(Rich), still(), share, &RandomState::new())
}

/// One client, paid for from a lease.
fn lease_paid() -> Work {
    let lease = leases();
    let charges = charges(ample());
    let ask = move || now(lease.decide(&charges[..1])).map(|verdict| verdict.decisions[0].source);
    assert!((0..KEYS).any(|_| ask() == Ok(Source::Lease)));
    Box::new(move || {
        let _ = black_box(ask());
    })
}

fn client(forwarded: Option<&'static str>) -> Work {
    let trusted: Networks = "loopback, private".parse().expect("networks");
    let clients = ClientIp::new(trusted);
    let peer = IpAddr::from(if forwarded.is_some() {
        [127, 0, 0, 1]
    } else {
        [203, 0, 113, 7]
    });
    let headers: HeaderMap = forwarded
        .map(|value| {
            (
                "x-forwarded-for".parse().expect("a name"),
                HeaderValue::from_static(value),
            )
        })
        .into_iter()
        .collect();
    Box::new(move || {
        black_box(clients.of(black_box(peer), &headers));
    })
}

fn headers(capacity: u64) -> Work {
    let rule = Rule::default_of(limit("tokenbucket", capacity));
    let limiter = Limiter::new(rule, Arc::new(table()));
    let call = Call::of([203, 0, 113, 7].into());
    now(limiter.check(&call));
    let answer = now(limiter.check(&call));
    Box::new(move || {
        let mut headers = HeaderMap::new();
        let style = HeaderStyle::default();
        set_headers(&mut headers, &answer, style, Duration::ZERO);
        black_box(headers);
    })
}

/// What so many rules, each for a path of its own but for one, say of a request that two are for.
fn rules(count: usize) -> Work {
    let rule = |i: usize| {
        let mut rule = Rule::default_of(ample());
        rule.name = RuleName::new(&format!("rule-{i}")).expect("a name");
        // One in ten is for a header, the others for paths under a few first segments.
        let path = format!("/v{}/resource-{i}/**", i % 7);
        rule.matches.when.paths = vec![PathPattern::new(&path).expect("a pattern")];
        if i.is_multiple_of(10) {
            let tier = ("x-tier".into(), vec![Value::new("gold*")]);
            rule.matches.when.headers.push(tier);
            rule.matches.when.paths.clear();
        }
        rule
    };
    let last = Rule::default_of(ample());
    let rules = (0..count - 1).map(rule).chain([last]).collect();
    let set = RuleSet::new(rules, Version::of(b"bench"));
    let limiter = Limiter::with_rules(set, Arc::new(table()));
    let headers: HeaderMap = [
        ("host", "example.com"),
        ("user-agent", "bench"),
        ("x-tier", "silver"),
    ]
    .into_iter()
    .map(|(name, value)| {
        (
            name.parse().expect("a name"),
            HeaderValue::from_static(value),
        )
    })
    .collect();
    Box::new(move || {
        let reading = limiter.read(&Call {
            path: "/v3/resource-3/items/7",
            host: Some("example.com"),
            fields: &headers,
            ..Call::of([203, 0, 113, 7].into())
        });
        black_box(reading);
    })
}

fn key_of(ip: IpAddr) -> Work {
    let (limit, rule) = (ample(), RuleName::default_rule());
    Box::new(move || {
        let identity = Identity::new().with_ip(black_box(ip), 64);
        black_box(Key::new(PREFIX, limit.algorithm, &rule, &identity));
    })
}

fn key_hashed() -> Work {
    let (limit, rule) = (ample(), RuleName::default_rule());
    Box::new(move || {
        let identity = Identity::new().with_part(black_box(b"an API key with spaces"));
        black_box(Key::new(PREFIX, limit.algorithm, &rule, &identity));
    })
}

/// A whole request through the layer, to a service that answers nothing.
fn layer(capacity: u64) -> Work {
    let limiter = Limiter::new(
        Rule::default_of(limit("tokenbucket", capacity)),
        Arc::new(table()),
    );
    let answer = |_: Request<Body>| -> Ready<Result<Response, Infallible>> {
        ready(Ok(Response::new(Body::empty())))
    };
    let trusted = "loopback".parse().expect("a network");
    let mut service = RateLimitLayer::new(limiter)
        .trusted_proxies(trusted)
        .layer(service_fn(answer));
    let peer = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4_711)));
    let mut i = 0;
    let mut work: Work = Box::new(move || {
        i = next(i);
        let text = format!("10.0.{}.{}", i / 256, i % 256);
        let request = Request::get("/api")
            .header("x-forwarded-for", text)
            .extension(peer)
            .body(Body::empty())
            .expect("a request");
        let _ = black_box(now(service.call(request)));
    });
    // Everybody is there before anything is measured, and has used up a bucket of one.
    (0..KEYS).for_each(|_| work());
    work
}
