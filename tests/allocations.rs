//! How often a request allocates memory: a number that must not grow.
//!
//! Counted on one thread, for requests like those before them, of which whatever is kept was kept.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::hash::RandomState;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
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
use tollgate::strategy::factory::{Care, Kind, Plan, Stack, build};
use tollgate::strategy::lease::{Lends, Lent};
use tollgate::strategy::{Deciding, DenialCache, Lease, Memory, Strategy};
use tollgate::{Charge, Cost, Identity, Key, Limit, ManualClock, Quota, RuleName, Source};
use tower::{Layer, Service, service_fn};

#[path = "it/bench/mod.rs"]
#[expect(dead_code, unused_imports, reason = "most of it is for other tests")]
mod bench;

use bench::RedisServer;

const REQUESTS: u64 = 100;
/// Requests that are under way at the same time.
const SHARING: u64 = 25;

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

/// Of one client, under four rules.
fn four_charges() -> [Charge; 4] {
    let identity = Identity::new().with_ip([192, 0, 2, 1].into(), 64);
    ["a", "b", "c", "d"].map(|name| {
        let rule = RuleName::new(name).unwrap();
        let key = Key::new("t:", &TokenBucket, &rule, &identity);
        Charge::new(key, limit(1_000_000), Cost::MIN).unwrap()
    })
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

/// Where the decisions stand.
#[test]
fn a_decision_of_four_charges_in_memory_allocates_once() {
    let (memory, charges) = (memory(), four_charges());
    assert_eq!(
        each(|| assert!(now(memory.decide(&charges)).unwrap().admitted)),
        1
    );
}

#[test]
fn a_remembered_denial_allocates_nothing() {
    let cache = DenialCache::new(
        Arc::new(memory()),
        clock(),
        Duration::from_secs(1),
        &RandomState::new(),
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
    let lease = Lease::new(inner, lender, clock(), 10, &RandomState::new());
    let charges = [charge(10_000)];
    let ask = || now(lease.decide(&charges)).unwrap().decisions[0].source;
    assert!((0..REQUESTS).any(|_| ask() == Source::Lease));
    assert_eq!(each(|| assert_eq!(ask(), Source::Lease)), 0);
}

/// The identity.
#[test]
fn reading_the_rules_allocates_once() {
    let limiter = Limiter::new(Rule::default_of(limit(1_000)), Arc::new(memory()));
    let call = Call::of([192, 0, 2, 1].into());
    assert_eq!(each(|| drop(limiter.read(&call))), 1);
}

/// And a key of more than 23 bytes, which is written first and then shared.
#[test]
fn reading_the_rules_for_a_long_key_allocates_three_times() {
    let limiter = Limiter::new(Rule::default_of(limit(1_000)), Arc::new(memory()));
    let limiter = limiter.with_prefix("a-prefix-of-24-bytes-or-so:");
    let call = Call::of([192, 0, 2, 1].into());
    assert_eq!(each(|| drop(limiter.read(&call))), 3);
}

/// The identity, the values of the headers and what shares them, and both halves of the map of the headers.
#[test]
fn an_admitted_request_allocates_five_times() {
    assert_eq!(through_the_layer(1_000), 5);
}

/// And the sentence in the body, which grows once, the body, and what holds it.
#[test]
fn a_denied_request_allocates_nine_times() {
    assert_eq!(through_the_layer(1), 9);
}

/// `lua` on Redis with all that the factory puts around it, but without heartbeats, which allocate as well; and what is to
/// run it, on this thread, where allocations are counted.
struct OnRedis {
    runtime: tokio::runtime::Runtime,
    stack: Stack,
    _redis: RedisServer,
}

impl OnRedis {
    fn start() -> Self {
        let redis = RedisServer::start();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let plan = Plan {
            denial_cache: Some(Duration::from_secs(3_600)),
            care: Some(Care {
                instance: "one".to_owned(),
                key_prefix: "t:".to_owned(),
                instances: 1,
            }),
            ..bench::strategies::plan(Kind::Lua, &redis.address())
        };
        let stack = runtime.block_on(async {
            let stack = build(&plan).unwrap();
            stack.leave(Duration::from_secs(30)).await;
            stack
        });
        Self {
            runtime,
            stack,
            _redis: redis,
        }
    }

    fn admits(&self, charges: &[Charge]) -> bool {
        let decided = self.stack.strategy.decide(charges);
        self.runtime.block_on(decided).unwrap().admitted
    }

    /// Allocations of a decision: the fewest, and the most of nine in ten. Now and then a connection takes a new buffer.
    fn allocations(&self, charges: &[Charge], admitted: bool) -> [u64; 2] {
        let ask = || assert_eq!(self.admits(charges), admitted);
        (0..REQUESTS).for_each(|_| ask());
        let mut counts: Vec<_> = (0..REQUESTS).map(|_| measure(ask).count_total).collect();
        counts.sort_unstable();
        [counts[0], counts[counts.len() * 9 / 10]]
    }
}

/// What is boxed of the strategies that wait for each other, the task that carries the call, the command and the reply.
#[test]
fn a_decision_of_lua_alone_in_its_call_allocates_eighteen_times() {
    let charges = [charge(1_000_000)];
    assert_eq!(OnRedis::start().allocations(&charges, true), [18, 18]);
}

/// All that is made once for a call is shared.
#[test]
fn twenty_five_decisions_of_lua_in_a_call_allocate_less_than_seven_times_each() {
    let (lua, charges) = (OnRedis::start(), [charge(1_000_000)]);
    let ask = || {
        let mut asked: Vec<_> = (0..SHARING)
            .map(|_| lua.stack.strategy.decide(&charges))
            .collect();
        lua.runtime.block_on(poll_fn(|cx| {
            asked.retain_mut(|one| match Pin::new(one).poll(cx) {
                Poll::Ready(verdict) => !verdict.unwrap().admitted,
                Poll::Pending => true,
            });
            match asked.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
    };
    (0..REQUESTS).for_each(|_| ask());
    let least = (0..REQUESTS).map(|_| measure(ask).count_total).min();
    assert_eq!(least.unwrap(), 164);
}

/// And where the four charges, what is told of them, and the decisions stand.
#[test]
fn a_decision_of_lua_for_four_charges_allocates_twenty_one_times() {
    let charges = four_charges();
    assert_eq!(OnRedis::start().allocations(&charges, true), [21, 21]);
}

#[test]
fn a_denial_of_lua_that_is_remembered_allocates_nothing_in_the_whole_stack() {
    let (lua, charges) = (OnRedis::start(), [charge(1)]);
    while lua.admits(&charges) {}
    assert_eq!(lua.allocations(&charges, false), [0, 0]);
}
