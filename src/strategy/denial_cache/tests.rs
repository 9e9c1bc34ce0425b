//! What is denied without the store, and for how long.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;
use tokio::sync::Semaphore;

use super::*;
use crate::algorithm::{ALL, Algorithm};
use crate::domain::{Identity, ManualClock, Quota, RuleName};
use crate::strategy::Memory;

const NOON: u64 = 1_762_668_474_000_000;
const LONGEST: Duration = Duration::from_secs(1);

/// A store that is some time away in each direction, and counts what it is asked.
#[derive(Debug)]
struct Distant {
    memory: Memory,
    clock: Arc<ManualClock>,
    away: Duration,
    asked: AtomicU64,
}

impl Strategy for Distant {
    fn name(&self) -> &'static str {
        "distant"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.clock.advance(self.away);
        let answer = self.memory.ask_now(charges, intent);
        self.clock.advance(self.away);
        Deciding::ready(answer)
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.memory.give_back(receipts)
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.memory.reset(key)
    }
}

/// A store that answers when it is told to.
#[derive(Debug)]
struct Slow {
    memory: Memory,
    asked: AtomicU64,
    answers: Semaphore,
}

impl Slow {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Strategy for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Deciding::waiting(async move {
            self.answers.acquire().await.unwrap().forget();
            self.memory.ask_now(charges, intent)
        })
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.memory.give_back(receipts)
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.memory.reset(key)
    }
}

fn cached(away_us: u64) -> (DenialCache, Arc<Distant>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_us(NOON));
    let distant = Arc::new(Distant {
        memory: Memory::new(100, clock.clone(), &RandomState::new()),
        clock: clock.clone(),
        away: Duration::from_micros(away_us),
        asked: 0.into(),
    });
    let cache = DenialCache::new(distant.clone(), clock.clone(), LONGEST, &RandomState::new());
    (cache, distant, clock)
}

fn charge(algorithm: &'static dyn Algorithm, quota: Quota, cost: u64) -> [Charge; 1] {
    let identity = Identity::new().with_part(b"a");
    let key = Key::new("t:", algorithm, &RuleName::default_rule(), &identity);
    let cost = Cost::new(cost.min(quota.capacity())).unwrap();
    [Charge::new(key, Limit { algorithm, quota }, cost).unwrap()]
}

fn now<T: Unpin>(deciding: Deciding<'_, T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(deciding).unwrap()
}

fn quotas() -> impl proptest::strategy::Strategy<Value = Quota> {
    (1_u64..20, 1_u64..50, 1_000_u64..5_000_000)
        .prop_map(|(c, t, p)| Quota::new(c, t, Duration::from_micros(p)).unwrap())
}

proptest! {
    /// With a store at no distance nobody could tell whether denials are remembered.
    #[test]
    fn says_what_the_store_would_say(
        which in 0..ALL.len(),
        quota in quotas(),
        requests in proptest::collection::vec((0_u64..300_000, 1_u64..5), 1..80),
    ) {
        let (cache, distant, clock) = cached(0);
        for (later_us, cost) in requests {
            clock.advance(Duration::from_micros(later_us));
            let charges = charge(ALL[which], quota, cost);
            let mut expected = now(distant.memory.peek(&charges));
            let told = now(cache.decide(&charges));
            prop_assert_eq!(told.admitted, expected.admitted);
            if !told.admitted {
                expected.decisions[0].source = told.decisions[0].source;
                prop_assert_eq!(told, expected);
            }
        }
    }

    /// Others take tokens too and the store is away: who is denied here would be denied there, and who waits as long as
    /// he is told is admitted if nobody else comes.
    #[test]
    fn denies_nobody_whom_the_store_would_admit(
        which in 0..ALL.len(),
        quota in quotas(),
        away_us in 0_u64..50_000,
        requests in proptest::collection::vec((0_u64..300_000, 1_u64..5, any::<bool>()), 1..60),
    ) {
        let (cache, distant, clock) = cached(away_us);
        for (later_us, cost, of_another) in requests {
            clock.advance(Duration::from_micros(later_us));
            let charges = charge(ALL[which], quota, cost);
            if of_another {
                now(distant.memory.decide(&charges));
                continue;
            }
            let there = now(distant.memory.peek(&charges));
            let told = now(cache.decide(&charges));
            if told.decisions[0].source == Source::Cache {
                prop_assert!(!there.admitted);
            }
        }
        let charges = charge(ALL[which], quota, 1);
        if let Some(wait) = now(cache.decide(&charges)).decisions[0].retry_after() {
            clock.advance(wait);
            prop_assert!(now(cache.decide(&charges)).admitted);
        }
    }
}

#[test]
fn a_flood_costs_the_store_one_command_a_token() {
    let quota = Quota::new(5, 10, Duration::from_secs(1)).unwrap();
    for algorithm in &ALL[..2] {
        let (cache, distant, clock) = cached(0);
        let charges = charge(*algorithm, quota, 1);
        for _ in 0..100_000 {
            now(cache.decide(&charges));
            clock.advance(Duration::from_micros(100));
        }
        let asked = distant.asked.load(Ordering::Relaxed);
        assert!(
            asked <= 5 + 100 + 1,
            "{asked} in 10 s at 10 tokens a second"
        );
    }
}

#[test]
fn a_reset_a_give_back_and_another_quota_are_noticed_at_once() {
    let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
    for algorithm in ALL {
        let (cache, _, _) = cached(0);
        let charges = charge(*algorithm, quota, 1);
        let drained = || {
            let verdict = now(cache.decide(&charges));
            assert!(verdict.admitted);
            assert_eq!(
                now(cache.decide(&charges)).decisions[0].source,
                Source::Cache
            );
            verdict
        };
        drained();
        now(cache.reset(charges[0].key()));
        let receipts = drained().into_receipts(&charges);
        now(cache.give_back(receipts));
        drained();
        let other = Quota::new(2, 1, Duration::from_secs(100)).unwrap();
        let told = now(cache.decide(&charge(*algorithm, other, 1)));
        assert_eq!(told.decisions[0].source, Source::Store, "{algorithm:?}");
    }
}

#[test]
fn nothing_is_remembered_for_longer_than_it_may() {
    let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
    let (cache, _, clock) = cached(0);
    let charges = charge(ALL[0], quota, 1);
    now(cache.decide(&charges));
    let source = || now(cache.decide(&charges)).decisions[0].source;
    clock.advance(LONGEST - Duration::from_micros(1));
    assert_eq!(source(), Source::Cache);
    clock.advance(Duration::from_micros(1));
    assert_eq!(source(), Source::Store);
}

#[test]
fn the_table_is_bounded() {
    let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
    let (cache, _, _) = cached(0);
    for i in 0..2 * MOST_KEYS {
        let identity = Identity::new().with_part(i.to_string().as_bytes());
        let key = Key::new("t:", ALL[0], &RuleName::default_rule(), &identity);
        let limit = Limit {
            algorithm: ALL[0],
            quota,
        };
        now(cache.decide(&[Charge::new(key, limit, Cost::MIN).unwrap()]));
    }
    let kept: usize = cache
        .shards
        .iter()
        .map(|shard| lock(shard).gates.len())
        .sum();
    assert!(kept <= MOST_KEYS, "{kept}");
}

fn poll<T: Unpin>(deciding: &mut Deciding<'_, T>) -> Poll<Result<T, Fault>> {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(deciding).poll(&mut cx)
}

/// A key of one token whose denial is over, and the store that is asked for it.
fn slow() -> (DenialCache, Arc<Slow>, [Charge; 1]) {
    let clock = Arc::new(ManualClock::at_us(NOON));
    let slow = Arc::new(Slow {
        memory: Memory::new(100, clock.clone(), &RandomState::new()),
        asked: 0.into(),
        answers: Semaphore::new(1),
    });
    let cache = DenialCache::new(slow.clone(), clock.clone(), LONGEST, &RandomState::new());
    let charges = charge(ALL[0], Quota::new(1, 1, LONGEST).unwrap(), 1);
    assert!(now(cache.decide(&charges)).admitted);
    clock.advance(LONGEST);
    (cache, slow, charges)
}

#[test]
fn one_at_a_time_asks_and_the_others_hear_what_it_heard() {
    let (cache, slow, charges) = slow();
    let (mut first, mut second) = (cache.decide(&charges), cache.decide(&charges));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(slow.asked(), 2, "the one before, and the first of these");
    slow.answers.add_permits(1);
    assert!(matches!(poll(&mut first), Poll::Ready(Ok(verdict)) if verdict.admitted));
    let Poll::Ready(Ok(verdict)) = poll(&mut second) else {
        panic!("it waits")
    };
    assert!(verdict.is_from(Source::Cache) && slow.asked() == 2);
}

#[test]
fn nobody_waits_for_a_turn_at_what_was_reset() {
    let (cache, slow, charges) = slow();
    let mut all = [(); 3].map(|()| cache.decide(&charges));
    assert!(all.iter_mut().all(|one| poll(one).is_pending()));
    assert_eq!(slow.asked(), 2);
    now(cache.reset(charges[0].key()));
    slow.answers.add_permits(1);
    assert!(poll(&mut all[0]).is_ready());
    assert!(all[1..].iter_mut().all(|one| poll(one).is_pending()));
    assert_eq!(slow.asked(), 4, "both at once");
}

#[test]
fn each_of_many_keys_is_remembered_by_itself() {
    let (cache, ..) = cached(0);
    let quota = Quota::new(1, 1, LONGEST).unwrap();
    let of = |i: u32| {
        let identity = Identity::new().with_part(i.to_string().as_bytes());
        let key = Key::new("t:", ALL[0], &RuleName::default_rule(), &identity);
        let algorithm = ALL[0];
        [Charge::new(key, Limit { algorithm, quota }, Cost::MIN).unwrap()]
    };
    for i in 0..90 {
        assert!(now(cache.decide(&of(i))).admitted);
    }
    for i in 0..90 {
        assert!(now(cache.decide(&of(i))).is_from(Source::Cache));
    }
}
