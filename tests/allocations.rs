//! How often a request allocates memory: a number that must not grow.
//!
//! Counted on one thread, for requests like those before them, of which whatever is kept was kept.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hash::RandomState;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use tollgate::algorithm::{LeaseAsk, TokenBucket};
use tollgate::http::RateLimitLayer;
use tollgate::limiter::{Call, Limiter, Rule};
use tollgate::strategy::lease::{Lends, Lent};
use tollgate::strategy::{Deciding, DenialCache, Lease, Memory, Strategy};
use tollgate::{Charge, Cost, Identity, Key, Limit, ManualClock, Quota, RuleName, Source};
use tower::{Layer, Service, service_fn};

const REQUESTS: u64 = 100;

fn limit(capacity: u64) -> Limit {
    Limit {
        algorithm: &TokenBucket,
        quota: Quota::new(capacity, 1, Duration::from_secs(1_000)).unwrap(),
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at_us(1_762_668_474_000_000))
}

fn memory() -> Memory {
    Memory::new(1_000, clock(), &RandomState::new())
}

fn charge(capacity: u64) -> Charge {
    let identity = Identity::new().with_ip([192, 0, 2, 1].into(), 64);
    let key = Key::new("t:", &TokenBucket, &RuleName::default_rule(), &identity);
    Charge::new(key, limit(capacity), Cost::MIN).unwrap()
}

/// What a future that never waits resolves to.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Allocations of one request, once the first was answered. What was allocated before may be freed.
fn each(mut ask: impl FnMut()) -> u64 {
    ask();
    let counted = measure(|| (0..REQUESTS).for_each(|_| ask()));
    assert_eq!(
        counted.count_total % REQUESTS,
        0,
        "each request allocates alike"
    );
    assert!(counted.count_current <= 0, "and keeps nothing");
    counted.count_total / REQUESTS
}

fn request() -> Request<Body> {
    let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4_711)));
    let request = Request::get("/api").header("host", "localhost");
    request.extension(peer).body(Body::empty()).unwrap()
}

fn through_the_layer(capacity: u64) -> u64 {
    let limiter = Limiter::new(Rule::default_of(limit(capacity)), Arc::new(memory()));
    let answer = |_: Request<Body>| -> Ready<Result<Response, Infallible>> {
        ready(Ok(Response::new(Body::empty())))
    };
    let mut service = RateLimitLayer::new(limiter).layer(service_fn(answer));
    let mut requests: Vec<_> = (0..=REQUESTS).map(|_| request()).collect();
    each(|| drop(now(service.call(requests.pop().unwrap()))))
}

#[test]
fn a_decision_in_memory_allocates_nothing() {
    let (memory, charges) = (memory(), [charge(1_000)]);
    assert_eq!(
        each(|| assert!(now(memory.decide(&charges)).unwrap().admitted)),
        0
    );
}

#[test]
fn a_remembered_denial_allocates_nothing() {
    let cache = DenialCache::new(
        Arc::new(memory()),
        clock(),
        Duration::from_secs(1),
        RandomState::new(),
    );
    let charges = [charge(1)];
    assert!(now(cache.decide(&charges)).unwrap().admitted);
    assert_eq!(
        each(|| assert!(!now(cache.decide(&charges)).unwrap().admitted)),
        0
    );
}

/// A store that lends whatever is wanted.
#[derive(Debug)]
struct Rich;

impl Lends for Rich {
    fn lend<'a>(&'a self, _: &'a Charge, _: LeaseAsk) -> Deciding<'a, Lent> {
        Deciding::ready(Ok(Lent {
            now_us: 0,
            retry_after_us: 0,
            remaining: 10_000,
            reset_after_us: 0,
            next_after_us: 0,
            granted: 1_000,
            until_us: 1_000_000,
            lasts_us: 1_000_000,
        }))
    }
}

#[test]
fn a_request_that_a_lease_pays_for_allocates_nothing() {
    let (inner, lender) = (Arc::new(memory()), Arc::new(Rich));
    let lease = Lease::new(inner, lender, clock(), 10, RandomState::new());
    let charges = [charge(10_000)];
    let ask = || now(lease.decide(&charges)).unwrap().decisions[0].source;
    while ask() != Source::Lease {}
    assert_eq!(each(|| assert_eq!(ask(), Source::Lease)), 0);
}

/// The identity, the key and the key as the strategies share it.
#[test]
fn reading_the_rules_allocates_three_times() {
    let limiter = Limiter::new(Rule::default_of(limit(1_000)), Arc::new(memory()));
    let call = Call::of([192, 0, 2, 1].into());
    assert_eq!(each(|| drop(limiter.read(&call))), 3);
}

/// These three, the future, the values of the headers and what shares them, the map of the headers.
#[test]
fn an_admitted_request_allocates_eight_times() {
    assert_eq!(through_the_layer(1_000), 8);
}

/// And the sentence in the body, which grows once, the body, and what holds it.
#[test]
fn a_denied_request_allocates_twelve_times() {
    assert_eq!(through_the_layer(1), 12);
}
